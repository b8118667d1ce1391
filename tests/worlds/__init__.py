"""Tests of worldplay/worlds."""
