"""What a run leaves on disk: its folder, its records, what they say. Imports no torch."""
