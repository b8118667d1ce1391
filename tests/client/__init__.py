"""Tests of worldplay/client."""
