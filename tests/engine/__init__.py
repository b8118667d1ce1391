"""Tests of worldplay/engine."""
