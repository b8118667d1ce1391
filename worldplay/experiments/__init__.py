"""Comparisons of training runs, and an agent that learns in a dream."""
