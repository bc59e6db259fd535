"""What was trained, to be used: load_run, pictures to classes, folders that need nothing of this project."""

from .model import Prediction, TrainedModel, checked_names, load_run, open_model

__all__ = ["Prediction", "TrainedModel", "checked_names", "load_run", "open_model"]
