"""Coders that have learned less, measured beside a trained one: what its numbers are worth."""
