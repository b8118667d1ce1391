"""Tests of worldplay/data."""
