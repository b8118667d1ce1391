"""Tests of worldplay/models."""
