"""Pictures from disk to batches, and what is kept of them."""
