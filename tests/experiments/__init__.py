"""Tests of worldplay/experiments."""
