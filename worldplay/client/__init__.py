"""The window a person plays in: devices, screens, recorder and loop; no torch is imported from here."""
import os

# Read when pygame is imported.
os.environ.setdefault("SDL_VIDEO_X11_WMCLASS", "worldplay")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # stdout belongs to --json
