"""Tests of worldplay/envs."""
