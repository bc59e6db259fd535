"""Features of a frozen image encoder, computed once for all methods, seeds and shots.

A picture in the same batch always gives the same feature. At another position or among other pictures, the last bit may
depend on the device's kernels, which change with the batch size. The first run that computes a batch of some size tests
this and stores the answer. If the features do not change, a picture's feature is reused in any batch of that size.
Otherwise it is reused only in an identical batch. So no number changes in either case.

Shapes: B pictures, N pictures of a set, D features.
"""

import contextlib
import functools
import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, SequentialSampler
from torchvision import transforms as T
from yacs.config import CfgNode

from ..clip import backbones, doors, hard_features, prompts, text_tower, visual_tower
from ..clip import precision as precision_
from ..ranks.collectives import this_rank
from ..training.device import described
from . import pixels, read
from .array_cache import ArrayCache, key_of
from .contents import contents_for
from .loaders import in_turns, with_batches
from .picture_cache import code_of, open_cache

Encode = Callable[[torch.Tensor], torch.Tensor]
Parse = Callable[[Any], tuple[torch.Tensor, torch.Tensor]]
ALONE = "a picture's feature does not depend on the others in a batch of this size"


def features_cache(cfg: CfgNode, holds: str, backbone_sha256: str, precision: str, device: torch.device) -> ArrayCache:
    """The cache of a frozen encoder's features. Its `about` includes everything that can change their last bit."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    code = code_of(read, pixels, backbones, doors, hard_features, precision_, prompts, text_tower, visual_tower)
    about = {"backbone": backbone_sha256, "precision": precision, "code": code, "packages": _versions(), "device": where,
             "threads": torch.get_num_threads() if device.type == "cpu" else 0}  # fmt: skip
    return open_cache(cfg, holds, **about, **described())


@functools.cache
def _versions() -> dict[str, str]:
    """Of the packages whose code encodes."""
    found = {}
    for name in ("torch", "clip-anytorch", "clip", "open_clip_torch", "timm", "transformers"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _processor() -> str:
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    name = next(
        (line.split(":", 1)[1].strip() for line in names if line.startswith("model name")), platform.processor()
    )
    return f"{platform.machine()}, {name}, {torch.backends.cpu.get_cpu_capability()}"


def is_fixed(transform: Any) -> bool:
    """Whether a transform gives the same for the same picture every time, as far as can be told from its steps."""
    steps = getattr(transform, "transforms", None)
    return steps is not None and all(type(s) in (T.Resize, T.CenterCrop, T.ToTensor, T.Normalize) for s in steps)


class FrozenFeatures:
    """Features of the pictures of a run, from the cache or computed and kept.

    encode: pictures (B x 3 x H x W) -> features (B x D, not normalised), as the run would; parse: batch -> its pictures.
    """

    def __init__(self, cache: ArrayCache, encode: Encode, parse: Parse) -> None:
        self.cache, self._encode, self._parse = cache, encode, parse

    def batches(self, loader: DataLoader) -> "Batches | DataLoader":
        """This rank's batches of `loader`, with features instead of pictures. The loader's own batches if its order is
        random or nothing may be cached."""
        if isinstance(loader.sampler, SequentialSampler) and self.cache.is_of_use:
            return Batches(self, loader)
        return in_turns(loader)

    def of_set(self, loader: DataLoader) -> torch.Tensor:
        """Features of all pictures of a loader in their order, all of batches of the same size if there is more than one;
        N x D, on the CPU. Draws no random numbers."""
        batches = Batches(self, loader, whole=True)
        found = [batch["img"].cpu() for batch in batches.batches()]
        features_ND = torch.empty(len(batches.items), *found[0].shape[1:], dtype=found[0].dtype)
        for rows, features_BD in zip(batches.rows, found, strict=True):
            features_ND[rows] = features_BD
        return features_ND

    def alone(self, size: int) -> bool | None:
        """Whether a picture's feature is the same in every batch of `size`; None while nobody has tried."""
        answer = self.cache.get(key_of(ALONE, size))
        return None if answer is None else bool(answer[0])

    def try_alone(self, images: torch.Tensor, features_BD: torch.Tensor) -> None:
        """Encodes a batch in other orders and with other neighbours, and notes whether the features stay the same."""
        size = len(images)
        if self.cache.trouble or self.alone(size) is not None:
            return
        places = torch.arange(size, device=images.device)
        others = [places.flip(0), places.roll(1), places // 2]
        answer = all(torch.equal(self._encode(images[order]), features_BD[order]) for order in others)
        self.cache.put([(key_of(ALONE, size), np.array([answer], np.uint8))])

    def encoded(self, batch: Any) -> torch.Tensor:
        images, _ = self._parse(batch)
        features_BD = self._encode(images)
        self.try_alone(images, features_BD)
        return features_BD


def as_array(features: torch.Tensor) -> np.ndarray:
    """Converts to a dtype that numpy has. bfloat16 is stored as integers, a type that no feature has otherwise."""
    features = features.detach().cpu()
    return (features.view(torch.int16) if features.dtype == torch.bfloat16 else features).numpy()


def from_array(array: np.ndarray) -> torch.Tensor:
    features = torch.from_numpy(array.copy())
    return features.view(torch.bfloat16) if features.dtype == torch.int16 else features


def remembering(cache: ArrayCache, device: torch.device) -> Callable[[tuple, Callable[[], torch.Tensor]], torch.Tensor]:
    """What Backbone.remember does where things are kept."""

    def remember(what: tuple, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        key = key_of(what)
        found = cache.get(key)
        if found is not None:
            return from_array(found).to(device)
        made = compute()
        cache.put([(key, as_array(made))])
        return made

    return remember


class Batches:
    """Batches of {"img": B x D features, "label", "impath"}. Pictures with cached features are not read."""

    def __init__(self, features: FrozenFeatures, loader: DataLoader, whole: bool = False) -> None:
        """whole: the last batch is filled up with pictures of the one before."""
        self.features, self.loader = features, loader
        self.items = loader.dataset.data_source  # type: ignore[attr-defined]
        count, size = len(self.items), loader.batch_size or 1
        self.rows = list(torch.arange(count).split(size))
        if not whole:
            self.rows = list(this_rank().turns(self.rows))
        elif count > size:
            self.rows[-1] = torch.arange(count - size, count)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        torch.empty((), dtype=torch.int64).random_()  # what a loader draws from torch's generator when it begins
        return self.batches()

    def batches(self) -> Iterator[dict[str, Any]]:
        dataset: Any = self.loader.dataset
        contents = contents_for(dataset.cfg)

        def keys(rows: Iterable[int]) -> list[bytes]:
            return [contents.key(self.items[i].impath, dataset.upright) for i in rows]

        pictures = keys(range(len(self.items)))
        kept = [self._kept([pictures[i] for i in rows]) for rows in self.rows]
        left = [rows.tolist() for rows, found in zip(self.rows, kept, strict=True) if found is None]
        # a generator of its own leaves torch's alone
        computed: Iterator[Any] = (
            iter(with_batches(self.loader, left, generator=torch.Generator())) if left else iter(())
        )
        for rows, found in zip(self.rows, kept, strict=True):
            if found is None:
                batch = next(computed)
                found = self.features.encoded(batch)
                if keys(rows) == [pictures[i] for i in rows]:  # unchanged
                    self._keep([pictures[i] for i in rows], found)
            own = [self.items[i] for i in rows]
            yield {"img": found, "label": torch.tensor([x.label for x in own]), "impath": [x.impath for x in own]}

    def _keys(self, pictures: list[bytes]) -> list[bytes]:
        """Cache keys of a batch's features: picture and batch size, or all pictures of the batch in order."""
        if not all(pictures):
            return []
        if self.features.alone(len(pictures)):
            return [key_of(key.hex(), len(pictures)) for key in pictures]
        batch = key_of([key.hex() for key in pictures]).hex()
        return [key_of(batch, i) for i in range(len(pictures))]

    def _kept(self, pictures: list[bytes]) -> torch.Tensor | None:
        cache = self.features.cache
        keys = self._keys(pictures)
        if not keys or not all(key in cache for key in keys):
            return None
        found = [cache.get(key) for key in keys]
        if any(array is None for array in found):
            return None
        return from_array(np.stack([array for array in found if array is not None]))

    def _keep(self, pictures: list[bytes], features_BD: torch.Tensor) -> None:
        self.features.cache.put(zip(self._keys(pictures), as_array(features_BD), strict=False))
