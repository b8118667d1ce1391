"""Tests of native code for passes on a processor."""
