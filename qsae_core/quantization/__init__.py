"""Quantizing a coder after it was trained."""
