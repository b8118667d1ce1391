"""Tests of worldplay.serve."""
