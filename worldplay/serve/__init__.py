"""Play where the player is: the world runs here, and a page in a browser shows it and steers it.

The game loop is the client's; `front` is its Front, `server` the thread that speaks with the pages.
"""
