"""The training stages, one file each, and the losses on top of them."""
