"""What a run is on disk: its folder, identity, results."""
