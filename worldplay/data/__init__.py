"""Recordings on disk: clips, LeRobot data sets, the frame cache."""
