"""Attention between frames, its KV cache and its positions."""
