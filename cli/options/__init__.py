"""Options that are made while a command is parsed: a flag for each field of each chosen component."""
