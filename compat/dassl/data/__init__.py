"""Datasets, transforms and loaders."""

from .data_manager import DataManager, DatasetWrapper
from .datasets import DatasetBase, Datum, build_dataset

__all__ = ["DataManager", "DatasetBase", "DatasetWrapper", "Datum", "build_dataset"]
