"""What runs a method, knowing no method: settings, trainer, steps, checkpoints, the run's identity and folder, data."""
