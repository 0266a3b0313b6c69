"""The parts of the LanceDB adapter (``lancedb.py``): SQL encoding, rows, locking, maintenance."""
