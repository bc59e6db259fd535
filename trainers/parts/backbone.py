"""CLIP's weights: by name, as `clip` itself downloads them, or from a file."""

import hashlib
import os
import warnings
import zipfile
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    # clip asks setuptools for pkg_resources, which announces its own end; nobody who reads that here could act on it
    warnings.filterwarnings("ignore", message=".*pkg_resources is deprecated", category=UserWarning)
    import clip
    from clip.model import CLIP, ResidualAttentionBlock, Transformer, build_model
    from clip.simple_tokenizer import SimpleTokenizer

from ..files import held

__all__ = ["CLIP", "ResidualAttentionBlock", "Transformer", "backbone_file", "build_model", "check_input_size",
           "file_sha256", "load_clip", "tokenizer", "visual_layer_norms"]  # fmt: skip


@lru_cache(maxsize=1)
def tokenizer() -> SimpleTokenizer:
    """CLIP's byte-pair encoder, built on first use."""
    return SimpleTokenizer()


def backbone_file(name: str) -> Path:
    """The file behind a model name or a path.

    A name of clip.available_models() is downloaded by clip, which checks its SHA-256, unless it is there already.
    Raises ValueError when `name` is neither.
    """
    if os.path.isfile(name):
        return Path(name)
    # clip has two layouts: a package with a module `clip`, or that module's names alone
    module = getattr(clip, "clip", clip)
    if name in clip.available_models():
        cache = Path("~/.cache/clip").expanduser()
        try:
            # clip writes under the final name: runs that start together would read each other's half-written file
            alone = held(cache, wait=True) if os.access(cache, os.W_OK) or not cache.exists() else nullcontext()
            with alone:
                return Path(module._download(module._MODELS[name], str(cache)))
        except (OSError, RuntimeError) as error:  # clip's word for a wrong checksum is RuntimeError
            raise OSError(
                f"CLIP {name} could not be downloaded ({error}): fetch it on a connected machine and set "
                "MODEL.BACKBONE.NAME to the file's path"
            ) from error
    known = ", ".join(clip.available_models())
    raise ValueError(
        f'MODEL.BACKBONE.NAME is "{name}", which is neither a file nor one of CLIP\'s models: give a path or one of {known}'
    )


def file_sha256(path: Path) -> str:
    """Hex digest of a file; what identifies a backbone in checkpoints and results."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no CLIP: expected a state dict written by torch.save, or a JIT archive")
    with zipfile.ZipFile(path) as archive:
        scripted = any(name.endswith("constants.pkl") for name in archive.namelist())
    try:
        if scripted:
            return torch.jit.load(str(path), map_location="cpu").state_dict()
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no CLIP, or damaged: {str(error).splitlines()[0]}") from error
    except Exception as error:  # pickle reports forbidden content under several names; its text may ask to run it
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ValueError(f"{path} is no CLIP: it holds more than tensors, and is not opened for that reason") from error
    return state.get("state_dict", state) if isinstance(state, dict) else {}


def load_clip(name: str) -> nn.Module:
    """CLIP by name or path, on the CPU, in float32, in evaluation mode, every parameter frozen.

    The weights pass through clip's own build_model, so most of them have been rounded to half precision, as in every
    CoOp-family project. Raises ValueError for a name that is neither, and for a file that is no CLIP.
    """
    path = backbone_file(name)
    state = _read_state_dict(path)
    for key in ("text_projection", "positional_embedding", "token_embedding.weight"):
        if key not in state:
            raise ValueError(f'{path} is no CLIP in OpenAI\'s layout: it has no tensor "{key}"')
    try:
        model = build_model(dict(state))
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is no CLIP in OpenAI's layout: {str(error).splitlines()[0]}") from error
    return model.float().eval().requires_grad_(False)


def check_input_size(clip_model: Any, size: tuple[int, int]) -> None:
    """Raises ValueError unless pictures of `size` (height, width) pixels are what the image encoder takes."""
    expected = int(clip_model.visual.input_resolution)
    if tuple(size) != (expected, expected):
        raise ValueError(
            f"INPUT.SIZE is {tuple(size)}, but this CLIP takes {expected} x {expected} pixels: "
            f'set INPUT.SIZE "({expected}, {expected})"'
        )


def visual_layer_norms(visual: nn.Module) -> dict[str, nn.Parameter]:
    """ln_1 and ln_2 of every block of a visual transformer, by name below `visual`; empty for a ResNet."""
    return {name: p for name, p in visual.named_parameters() if ".ln_1." in name or ".ln_2." in name}
