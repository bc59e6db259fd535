"""The loop: trainer, epochs, evaluation, checkpoints, resuming, stopping."""
