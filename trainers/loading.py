"""Pictures for training and testing: decoded once where memory allows, and named when they cannot be read."""

import atexit
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dassl.data import DataManager
from dassl.data.data_manager import DatasetWrapper
from PIL import Image
from yacs.config import CfgNode

# What Pillow raises for pictures that are truncated, damaged, no pictures, or far too large.
UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class ImageError(OSError):
    """A picture is missing or cannot be decoded; the message names it and its class."""


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pictures(DatasetWrapper):
    """Dassl's DatasetWrapper; what is trained on is kept decoded in memory, up to DATALOADER.CACHE_MB.

    Keeping pictures changes no number: what is kept is what would be decoded again, before any augmentation.
    """

    def __init__(self, cfg: CfgNode, data_source: list, transform: Any = None, is_train: bool = False) -> None:
        super().__init__(cfg, data_source, transform=transform, is_train=is_train)
        self._kept: list[Image.Image] = []
        self._budget = cfg.DATALOADER.CACHE_MB * 2**20

    def keep(self) -> None:
        """Decodes all pictures if they fit; before the workers start, which then share them."""
        if self._fits(self._budget):
            with ThreadPoolExecutor(available_cores()) as pool:  # decoding releases Python's lock
                self._kept = list(pool.map(self._decode, range(len(self.data_source))))

    def _fits(self, budget: int) -> bool:
        if budget <= 0:
            return False
        sample = range(0, len(self.data_source), max(1, len(self.data_source) // 16))
        sizes = [3 * p.width * p.height for p in map(self._decode, sample)]
        return sum(sizes) / len(sizes) * len(self.data_source) <= budget

    def _decode(self, idx: int) -> Image.Image:
        item = self.data_source[idx]
        try:
            with Image.open(item.impath) as file:
                return file.convert("RGB")
        except UNDECODABLE as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else "cannot be decoded"
            raise ImageError(
                f'image {item.impath} (class "{item.classname}") {what}: restore it, then start again'
            ) from None

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        picture = self._kept[idx] if self._kept else self._decode(idx)
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        output["img"] = picture if self.transform is None else self._transform_image(self.transform, picture)
        if self.return_img0:
            output["img0"] = self.to_tensor(picture)
        return output


def _leave_signals_to_the_main_process(worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Python ends what is left of them with the SIGTERM that they ignore, and would wait for ever."""
    left = multiprocessing.active_children()
    if left:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch takes a killed worker for an accident
    for worker in left:
        worker.kill()


def build_data_manager(cfg: CfgNode) -> DataManager:
    """Dassl's DataManager over `Pictures`, with no more workers than there are cores.

    A SIGTERM that reaches the whole process group, as clusters send it, must not take the workers from a run that is
    about to save itself; they end with the main process.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, available_cores())
    manager = DataManager(cfg, dataset_wrapper=Pictures)
    for loader in (manager.train_loader_x, manager.val_loader, manager.test_loader):
        if loader is not None:
            loader.worker_init_fn = _leave_signals_to_the_main_process
    return manager
