"""Backbones: one file per family behind one protocol."""

from collections.abc import Mapping
from typing import Any

from .weights import backbone_file, file_sha256  # isort: skip  (first: it keeps quiet what clip says when imported)

from .openai import OpenAIBackbone, load_openai
from .protocol import Backbone, Vocabulary

__all__ = ["Backbone", "Vocabulary", "as_backbone", "backbone_file", "file_sha256", "load_backbone", "trained_backbone"]


def load_backbone(name: str) -> Backbone:
    """A CLIP by name, downloaded if need be, or by path: on the CPU, in float32, in evaluation mode, frozen.

    Raises ValueError for a name that is neither, and for a file that is no CLIP; OSError where it cannot be fetched.
    """
    return load_openai(backbone_file(name))


def trained_backbone(name: str, identity: Mapping[str, Any]) -> Backbone:
    """The backbone of a trained model, whose identity names its hash. Raises ValueError when the file is another one."""
    expected, found = identity.get("backbone_sha256", ""), file_sha256(backbone_file(name))
    if expected and expected != found:
        raise ValueError(f"{name} is another backbone than the model's ({found[:12]}, not {expected[:12]}, by SHA-256)")
    return load_backbone(name)


def as_backbone(model: Any) -> Backbone:
    """`model` itself if it is a backbone, or a plain model of OpenAI's clip wrapped. Raises TypeError, naming its class."""
    return model if isinstance(model, Backbone) else OpenAIBackbone(model)
