"""Configuration: defaults, files and flags become one frozen RunConfig. Imports no torch."""
