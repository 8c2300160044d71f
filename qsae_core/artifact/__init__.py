"""A coder on disk: what is written, how it is described and checked, and how it is read back."""
