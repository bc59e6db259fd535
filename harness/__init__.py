"""Protocols over many runs: what they consist of, their checks, starting them here or on a cluster, tables."""
