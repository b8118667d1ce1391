"""How good and how fast a world is, measured against the real environment and on this machine."""
