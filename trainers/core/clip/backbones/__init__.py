"""Backbones: one file per family behind one protocol."""

from collections.abc import Mapping
from typing import Any

from .weights import file_sha256  # isort: skip  (first: it keeps quiet what clip says when imported)

from .openai import OpenAIBackbone, OpenAISource
from .protocol import Backbone, Preprocessing, Source, Vocabulary

__all__ = [
    "Backbone", "Preprocessing", "Source", "Vocabulary", "as_backbone", "file_sha256", "load_backbone", "source_of",
    "trained_backbone",
]  # fmt: skip


def source_of(name: str) -> Source:
    """What a name means: a file or model of OpenAI's, "open_clip:ARCHITECTURE/TAG", "hf-hub:ORG/NAME". Opens nothing.

    Raises ValueError where the package of the family is not installed.
    """
    if name.startswith(("open_clip:", "hf-hub:", "local-dir:")):
        from .open_clip import OpenClipSource  # not everybody has the package

        return OpenClipSource(name)
    return OpenAISource(name)


def load_backbone(name: str, weights: bool = True) -> Backbone:
    """A CLIP by name, downloaded if need be, or by path: on the CPU, in float32, in evaluation mode, frozen.

    weights: False for random weights, for tests. Raises ValueError for an unknown name and for a file that is not a
    CLIP; OSError if the download fails.
    """
    return source_of(name).load(weights)


def trained_backbone(name: str, identity: Mapping[str, Any], named_by_user: bool = False) -> Backbone:
    """The backbone of a trained model, whose identity names its hash.

    Raises ValueError if the file's hash differs. A model file may name any backbone, so the name is not trusted. The
    hash is compared before the download where the publisher states it. Otherwise nothing is downloaded unless the user
    names the backbone.
    """
    source = source_of(name)
    expected = identity.get("backbone_sha256")
    if not isinstance(name, str) or not isinstance(expected, str) or not expected:
        raise ValueError("it does not say which backbone it was trained on")
    found = source.promised_digest()
    if not found:
        if source.missing() and not named_by_user:
            raise ValueError(f"{name} is not on this machine, and is fetched only if you name it yourself")
        found = source.digest()
    if expected != found:
        raise ValueError(f"{name} is another backbone than the model's ({found[:12]}, not {expected[:12]}, by SHA-256)")
    return source.load()


def as_backbone(model: Any) -> Backbone:
    """`model` itself if it is a backbone, or a plain model of OpenAI's clip wrapped. Raises TypeError, naming its class."""
    return model if isinstance(model, Backbone) else OpenAIBackbone(model)
