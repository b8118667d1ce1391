"""A game of another program as it is played here: its window, keys and mouse, into a data set."""
