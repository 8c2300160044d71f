"""Sweeps, and many runs as one table."""
