"""Tests of worldplay/models/codecs."""
