"""Folders that the lerobot library wrote, what it read in them, and what its interpreter runs for that."""
