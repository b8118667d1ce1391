"""The command lines: play, and the commands of python -m worldplay."""
