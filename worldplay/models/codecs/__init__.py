"""Codecs between frames and latents."""
