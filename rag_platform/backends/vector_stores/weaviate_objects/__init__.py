"""The parts of the Weaviate adapter (``weaviate.py``): connection, names and properties, filters, rows."""
