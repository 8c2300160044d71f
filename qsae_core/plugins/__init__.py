"""From entry points to a filled registry: discovery, hooks, the record of each plugin. Imports no torch."""
