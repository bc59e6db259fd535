"""Backbones: one file per family behind one protocol."""

from typing import Any

from .weights import backbone_file, file_sha256  # isort: skip  (first: it keeps quiet what clip says when imported)

from .openai import OpenAIBackbone, load_openai
from .protocol import Backbone, Vocabulary

__all__ = ["Backbone", "Vocabulary", "as_backbone", "backbone_file", "file_sha256", "load_backbone"]


def load_backbone(name: str) -> Backbone:
    """A CLIP by name, downloaded if need be, or by path: on the CPU, in float32, in evaluation mode, frozen.

    Raises ValueError for a name that is neither, and for a file that is no CLIP; OSError where it cannot be fetched.
    """
    return load_openai(backbone_file(name))


def as_backbone(model: Any) -> Backbone:
    """`model` itself if it is a backbone, or a plain model of OpenAI's clip wrapped. Raises TypeError, naming its class."""
    return model if isinstance(model, Backbone) else OpenAIBackbone(model)
