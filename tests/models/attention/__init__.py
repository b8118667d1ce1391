"""Tests of worldplay/models/attention."""
