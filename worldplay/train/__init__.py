"""The training stages, one file each, and the one trainer that runs them."""
