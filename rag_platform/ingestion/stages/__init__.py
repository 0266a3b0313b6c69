"""The stages as differences: what should be (ledger) minus what is, done and committed.

Every stage may be killed at any point and run again, in any order and beside another run: it holds
the (stage, bucket) lock while it works and decides from the ledger alone what is left to do.
"""
