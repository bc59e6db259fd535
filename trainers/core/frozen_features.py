"""Features of an image encoder that nothing trains: computed once for all methods, seeds and shots that ask for them.

A feature is the same for the same picture in the same batch. Whether it is also the same in another batch depends on the
kernels that a device chooses by a batch's size: on CPUs it often is, to the last bit. The first run that computes features
tries it and notes the answer; where it is yes, a picture's feature serves in any batch of as many pictures, otherwise only
in the batch, picture for picture, that it was computed in. So no number changes in either case.

Shapes: B pictures, N pictures of a set, D features.
"""

import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, SequentialSampler
from torchvision import transforms as T
from yacs.config import CfgNode

from .cache import ArrayCache, key_of
from .kept_pictures import open_cache, picture_key

Encode = Callable[[torch.Tensor], torch.Tensor]
Parse = Callable[[Any], tuple[torch.Tensor, torch.Tensor]]
ALONE = key_of("features do not depend on the batch")
FEWEST = 8  # pictures in a batch from which that can be told


def features_cache(cfg: CfgNode, holds: str, backbone_sha256: str, precision: str, device: torch.device) -> ArrayCache:
    """Of what a frozen encoder makes; everything that can change its last bit is part of what it is."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    about = {"backbone": backbone_sha256, "precision": precision, "torch": torch.__version__, "device": where,
             "threads": torch.get_num_threads() if device.type == "cpu" else 0,
             "deterministic": torch.are_deterministic_algorithms_enabled(),
             "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]}  # fmt: skip
    return open_cache(cfg, holds, **about)


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
        """The batches of `loader` with features in the place of pictures; the loader itself where its order is random, or
        nothing may be kept."""
        in_order = isinstance(loader.sampler, SequentialSampler)
        return Batches(self, loader) if in_order and self.cache.is_of_use else loader

    def of_set(self, loader: DataLoader) -> torch.Tensor:
        """Features of all pictures of a loader in their order; N x D, on the CPU. Draws no random numbers."""
        return torch.cat([batch["img"].cpu() for batch in Batches(self, loader).batches()])

    def alone(self) -> bool | None:
        """Whether a picture's feature is the same in every batch; None while nobody has tried."""
        answer = self.cache.get(ALONE)
        return None if answer is None else bool(answer[0])

    def try_alone(self, images: torch.Tensor, features_BD: torch.Tensor) -> None:
        """Encodes a batch in another order and in parts, and notes whether the features stay the same."""
        if len(images) < FEWEST or self.alone() is not None:
            return
        half = len(images) // 2 + 1
        others = [self._encode(images.flip(0)).flip(0),
                  torch.cat([self._encode(images[:half]), self._encode(images[half:])]),
                  torch.cat([self._encode(images[:1]), self._encode(images[1:])])]  # fmt: skip
        answer = all(torch.equal(features_BD, other) for other in others)
        self.cache.put([(ALONE, np.array([answer], np.uint8))])

    def encoded(self, batch: Any) -> torch.Tensor:
        images, _ = self._parse(batch)
        features_BD = self._encode(images)
        self.try_alone(images, features_BD)
        return features_BD


def as_array(features: torch.Tensor) -> np.ndarray:
    """Of the kinds that numpy has; bfloat16's bits as whole numbers, which no feature is otherwise."""
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
    """Batches of {"img": B x D features, "label", "impath"}, those that are kept without touching their pictures."""

    def __init__(self, features: FrozenFeatures, loader: DataLoader) -> None:
        self.features, self.loader = features, loader
        self.items = loader.dataset.data_source  # type: ignore[attr-defined]
        self.rows = list(torch.arange(len(self.items)).split(loader.batch_size or 1))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        torch.empty((), dtype=torch.int64).random_()  # what a loader draws from torch's generator when it begins
        return self.batches()

    def batches(self) -> Iterator[dict[str, Any]]:
        upright = self.loader.dataset.upright  # type: ignore[attr-defined]
        pictures = [picture_key(item.impath, upright) for item in self.items]
        kept = [self._kept([pictures[i] for i in rows]) for rows in self.rows]
        left = [rows.tolist() for rows, found in zip(self.rows, kept, strict=True) if found is None]
        computed = iter(self._loader_of(left))
        for rows, found in zip(self.rows, kept, strict=True):
            if found is None:
                batch = next(computed)
                found = self.features.encoded(batch)
                self._keep([pictures[i] for i in rows], found)
            own = [self.items[i] for i in rows]
            yield {"img": found, "label": torch.tensor([x.label for x in own]), "impath": [x.impath for x in own]}

    def _loader_of(self, batches: list[list[int]]) -> DataLoader:
        loader = self.loader
        return DataLoader(
            loader.dataset, batch_sampler=batches, num_workers=loader.num_workers if batches else 0,
            collate_fn=loader.collate_fn, pin_memory=loader.pin_memory, worker_init_fn=loader.worker_init_fn,
            generator=torch.Generator(),  # leaves torch's own alone
        )  # fmt: skip

    def _keys(self, pictures: list[bytes]) -> list[bytes]:
        """What the features of a batch are kept under: picture and number of pictures, or picture for picture."""
        if not all(pictures):
            return []
        if self.features.alone():
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
