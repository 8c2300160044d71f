"""Components that each break one rule; ``WRONG`` of a module lists them with the rule that they break."""
