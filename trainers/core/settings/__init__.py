"""Configurations: what may be set, what is checked, and what stands in for Dassl."""
