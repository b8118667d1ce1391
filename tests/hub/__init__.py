"""Tests of worldplay/hub."""
