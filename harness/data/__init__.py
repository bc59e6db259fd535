"""The parts of prepare_data.py: sources, downloads, archives, checks."""
