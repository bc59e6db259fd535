"""Heads on frozen image features, fitted at once, and how their settings are chosen."""
