"""Tests of worldplay/train."""
