"""Tests of worldplay/eval."""
