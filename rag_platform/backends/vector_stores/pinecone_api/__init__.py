"""The parts of the Pinecone adapter (``pinecone.py``): HTTP, records, filters."""
