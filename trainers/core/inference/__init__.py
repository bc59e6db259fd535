"""Using trained models: load_run, classifying pictures, and exported folders that do not need this project."""

import os
from collections.abc import Sequence
from pathlib import Path

from .model import Prediction, TrainedModel, checked_names, load_run

__all__ = ["Prediction", "TrainedModel", "checked_names", "load_run", "open_model"]


def open_model(
    folder: str | os.PathLike,
    epoch: int | None = None,
    backbone: str | os.PathLike = "",
    classnames: Sequence[str] | None = None,
) -> TrainedModel:
    """load_run, for the folder of an export too."""
    if (Path(folder) / "model.safetensors").is_file():
        from .export import read_export  # not everybody exports

        if epoch is not None:
            raise ValueError(f"{folder} is an export, which holds one model: leave out --epoch {epoch}")

        model = read_export(folder, backbone)
        return model if classnames is None else model.with_classes(classnames)
    return load_run(folder, epoch, backbone, classnames)
