"""Comparisons of training runs."""
