"""What is asked of a trained coder, live or as it was stored."""
