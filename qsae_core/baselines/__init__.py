"""Coders that have learned less, or anew, measured beside a trained one: what its numbers are worth."""
