"""The caches that one run reads and fills: resized pictures, features of pictures and of texts."""

import torch
from yacs.config import CfgNode

from .array_cache import ArrayCache
from .feature_cache import features_cache


class RunCaches:
    """Of a run of `cfg` on `device`; shared with other runs on disk."""

    def __init__(self, cfg: CfgNode, device: torch.device) -> None:
        self._cfg, self._device = cfg, device
        self._open: dict[tuple[str, str], ArrayCache] = {}

    def add(self, holds: str, cache: ArrayCache) -> None:
        """One that was opened elsewhere, to be told of."""
        self._open[holds, ""] = cache

    def of_backbone(self, holds: str, sha256: str, precision: str) -> ArrayCache:
        """Of what the backbone with this hash makes in a precision."""
        if (holds, precision) not in self._open:
            self._open[holds, precision] = features_cache(self._cfg, holds, sha256, precision, self._device)
        return self._open[holds, precision]

    def tell(self) -> None:
        """Prints what was added since it was asked last, and what went wrong."""
        added: dict[str, int] = {}
        for (holds, _), cache in self._open.items():
            added[holds] = added.get(holds, 0) + cache.added
            cache.added = 0
            if told := cache.told():
                print(told)
        if any(added.values()):
            sizes = ", ".join(f"{size / 2**20:.1f} MB of {holds}" for holds, size in added.items() if size)
            print(f"Kept for other runs: {sizes} (python scripts/caches.py)")
