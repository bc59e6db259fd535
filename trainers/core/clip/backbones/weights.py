"""CLIP's files: by name, as `clip` downloads them, or by path; hashed, and opened without running what is in them."""

import functools
import hashlib
import os
import warnings
import zipfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

with warnings.catch_warnings():
    # On import, clip uses pkg_resources, which warns of its deprecation, and warns about packages without __init__.py
    # that are already imported. Users here could not act on these warnings.
    warnings.filterwarnings(
        "ignore", message=".*pkg_resources is deprecated|Module .* was already", category=UserWarning
    )
    import clip

# clip has two layouts: a package with a module `clip`, or that module's names alone
_CLIP: Any = getattr(clip, "clip", clip)


@dataclass(frozen=True)
class Published:
    """A model that OpenAI published: where its file is fetched from, and where clip keeps it."""

    name: str
    url: str

    @property
    def pixels(self) -> int:
        """Height and width of the pictures that it takes."""
        return {"RN50x4": 288, "RN50x16": 384, "RN50x64": 448, "ViT-L/14@336px": 336}.get(self.name, 224)

    @property
    def parameters(self) -> float:
        """Of both towers, in millions."""
        return {"RN50": 102.0, "RN101": 119.7, "RN50x4": 178.3, "RN50x16": 291.0, "RN50x64": 623.3, "ViT-B/32": 151.3,
                "ViT-B/16": 149.6, "ViT-L/14": 427.6, "ViT-L/14@336px": 427.9}[self.name]  # fmt: skip

    @property
    def sha256(self) -> str:
        return self.url.split("/")[-2]

    @property
    def cached(self) -> Path:
        return Path("~/.cache/clip").expanduser() / self.url.split("/")[-1]

    def missing(self) -> str:
        """What to do about it, in one line, or nothing where the file is there."""
        if self.cached.is_file():
            return ""
        return (
            f"CLIP {self.name} is not at {self.cached}: python scripts/prepare_data.py clip:{self.name} on a connected "
            f"machine, or fetch {self.url} (SHA-256 {self.sha256}) there, or set MODEL.BACKBONE.NAME to a file; "
            "the small CLIP in assets/ needs none (CFG=small)"
        )

    def fetched(self) -> Path:
        """The file, downloaded by clip, which compares its SHA-256, unless it is there. Raises OSError."""
        if self.cached.is_file() and file_sha256(self.cached) == self.sha256:
            return self.cached
        folder = self.cached.parent
        # clip writes under the final name: runs that start together would read each other's half-written file
        alone: AbstractContextManager = nullcontext()
        if os.access(folder, os.W_OK) or not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            alone = FileLock(folder / ".lock")
        try:
            with alone:
                return Path(_CLIP._download(self.url, str(folder)))
        except (OSError, RuntimeError) as error:  # clip's word for a wrong checksum is RuntimeError
            raise OSError(f"CLIP {self.name} could not be downloaded ({error}). {self.missing()}") from error


def published() -> dict[str, Published]:
    """OpenAI's models, by name."""
    return {name: Published(name, url) for name, url in _CLIP._MODELS.items()}


def backbone_file(name: str) -> Path:
    """The file behind a model's name, downloaded if it is not there yet, or behind a path.

    Raises ValueError when `name` is neither, OSError when it cannot be downloaded.
    """
    if os.path.isfile(name):
        return Path(name)
    if name in published():
        return published()[name].fetched()
    raise ValueError(
        f'MODEL.BACKBONE.NAME is "{name}", which is neither a file nor one of CLIP\'s models: give a path or one of '
        f"{', '.join(published())}"
    )


def file_sha256(path: Path) -> str:
    """Hex digest of a file; what identifies a backbone in checkpoints and results. Computed once per state of the file."""
    status = os.stat(path)
    return _sha256(str(path), status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=64)
def _sha256(path: str, *state: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that torch.save wrote, or of OpenAI's own TorchScript archives.

    TorchScript can run code when it is loaded, so only files whose SHA-256 clip itself publishes are opened that way.
    Raises ValueError for anything else.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no CLIP: expected a state dict written by torch.save, or a JIT archive of OpenAI's"
        )
    with zipfile.ZipFile(path) as archive:
        scripted = any(name.endswith("constants.pkl") for name in archive.namelist())
    if scripted and file_sha256(path) not in {model.sha256 for model in published().values()}:
        raise ValueError(
            f"{path} is a TorchScript file that OpenAI did not publish, and could run code when opened: where you trust "
            "it, convert it with torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), NEW_FILE)"
        )
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
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f'{path} holds numbers that are not finite, first in "{name}": it is damaged')
    return state
