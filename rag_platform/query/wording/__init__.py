"""What the words of a question say about the answer that it wants. No model, no I/O; English."""
