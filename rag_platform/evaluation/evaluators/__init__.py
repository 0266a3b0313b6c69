"""What scores answers beside the platform's own metrics: RAGAS, without a model and with one that judges."""
