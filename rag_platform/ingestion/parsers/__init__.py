"""Parsers, one file a family of formats. They run inside the jailed worker processes."""
