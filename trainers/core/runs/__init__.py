"""A run on disk: its folder, identity and results."""
