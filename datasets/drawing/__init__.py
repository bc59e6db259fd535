"""A world drawn by code: what the small CLIP was trained on and what the drawn benchmarks show."""
