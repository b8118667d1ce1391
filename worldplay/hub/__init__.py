"""Worlds others have published: download, conversion, export."""
