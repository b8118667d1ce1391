"""A world on disk: configuration, weights, scenes, and finding it by name."""
