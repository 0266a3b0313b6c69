"""The parts of the Qdrant adapter (``qdrant.py``): clients and errors, points, filters, words."""
