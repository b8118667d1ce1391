"""Tests of worldplay/train/stages."""
