"""What prepare_data.py is made of: sources, downloads, archives, checks."""
