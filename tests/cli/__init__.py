"""Tests of worldplay/cli."""
