"""A whole run of training: the loop, its optimiser, reading ahead, resume states, how it ends."""
