"""Pictures for training and testing: decoded once where memory allows, and named when they cannot be read."""

import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from dassl.data import DataManager
from dassl.data.data_manager import DatasetWrapper
from dassl.data.transforms import build_transform
from PIL import Image
from torch.utils.data import DataLoader, WeightedRandomSampler
from yacs.config import CfgNode

from ..clip.backbones import Preprocessing, source_of
from ..ranks.collectives import RanksParted, this_rank
from ..ranks.processes import cores, leave_signals_to_the_main_process
from ..settings.configure import BALANCED, FOLLOWING
from .picture_cache import Photographs, ResizedPictures
from .pixels import Numbers, as_bytes, in_two
from .read import UNDECODABLE, ImageError, read_picture

AT_A_TIME, AT_MOST = 256, 2**28  # pictures decoded before they are put away, or bytes


class Pictures(DatasetWrapper):
    """Dassl's DatasetWrapper. Decoded training pictures are cached, on disk for all runs or in memory.

    Caching changes no number, since pictures are cached before any augmentation. "img" is bytes, H x W x 3, which
    `numbers` converts to the transform's result. If the transform cannot be split in two, there is no `numbers`, and
    "img" is the transform's result. resized: cached test pictures, if caching is possible. features: N x D, a frozen
    encoder's features, which replace the pictures. draws_alone: the augmentation of each picture is seeded only by
    (seed, epoch, index).
    """

    resized: ResizedPictures | None = None
    features: torch.Tensor | None = None

    def __init__(self, cfg: CfgNode, data_source: list, transform: Any = None, is_train: bool = False) -> None:
        super().__init__(cfg, data_source, transform=transform, is_train=is_train)
        self._kept: dict[int, Image.Image] = {}
        self._photographs: Photographs | None = None
        self._budget = cfg.DATALOADER.CACHE_MB * 2**20
        parts = in_two(transform)
        self._in_workers = as_bytes(parts[0]) if parts else transform
        self.numbers: Numbers | None = parts[1] if parts else None
        # benchmarks are read as Dassl reads them, as for all published numbers; users' own pictures are rotated by EXIF
        self.upright = cfg.DATASET.NAME == "FolderDataset"
        # a rank's own draws must differ from the draws that all ranks share
        self.draws_alone = is_train and (cfg.INPUT.SEED_PER_PICTURE or this_rank().several)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # with workers that outlive an epoch

    def as_numbers(self, images: torch.Tensor) -> torch.Tensor:
        """What a batch holds of pictures as the transform gives it, B x 3 x H x W; features in their place as they are."""
        return self.numbers(images) if self.numbers is not None and images.dtype == torch.uint8 else images

    @property
    def epoch(self) -> int:
        """What pictures are drawn for now, also for workers that were started before."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch.fill_(number)

    def keep(self) -> None:
        """Decodes what no run has decoded before, and keeps it on disk, or all in memory if it fits; before the workers
        start, which then share it."""
        self._photographs = photographs = Photographs(self.cfg, [x.impath for x in self.data_source], self.upright)
        with ThreadPoolExecutor(cores()) as pool:  # decoding releases Python's lock
            for some in self._decoded([] if photographs.cache.trouble else photographs.missing(), pool):
                photographs.put(some)
                if photographs.cache.trouble:
                    break
            left = photographs.missing()
            if self._fits(left):
                self._kept = dict(zip(left, pool.map(self._decode, left), strict=True))
        told = photographs.cache.told()
        if told:
            print(told)

    def _decoded(self, left: list[int], pool: ThreadPoolExecutor) -> Iterator[list[tuple[int, Image.Image]]]:
        """Pictures with their numbers, until they take AT_MOST bytes; one for each core is decoded at a time, and a phone's
        may take 100 MB."""
        some: list[tuple[int, Image.Image]] = []
        for start in range(0, len(left), cores()):
            few = left[start : start + cores()]
            some += zip(few, pool.map(self._decode, few), strict=True)
            if len(some) >= AT_A_TIME or sum(3 * p.width * p.height for _, p in some) >= AT_MOST:
                yield some
                some = []
        if some:
            yield some

    def _fits(self, left: list[int]) -> bool:
        if self._budget <= 0 or not left:
            return False
        sample = left[:: max(1, len(left) // 16)]
        sizes = [3 * p.width * p.height for p in map(self._decode, sample)]
        return sum(sizes) / len(sizes) * len(left) <= self._budget

    def _photograph(self, idx: int) -> Image.Image:
        """The decoded picture, from where it is kept."""
        kept = self._kept.get(idx) or (self._photographs and self._photographs.get(idx))
        return kept or self._decode(idx)

    def _decode(self, idx: int) -> Image.Image:
        item = self.data_source[idx]
        try:
            return read_picture(item.impath, self.upright)
        except UNDECODABLE as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else str(error)
            raise ImageError(
                f'image {item.impath} (class "{item.classname}") {what}: restore it, then start again'
            ) from None

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        if self.features is not None:
            return output | {"img": self.features[idx]}
        if self.resized is not None:
            return output | self.resized.get(item.impath, lambda: self._decode(idx))
        picture = self._photograph(idx)
        with drawn_from(self.cfg.SEED, self.epoch, idx) if self.draws_alone else contextlib.nullcontext():
            output["img"] = picture if self.transform is None else self._transform_image(self._in_workers, picture)
        if self.return_img0:
            output["img0"] = self.to_tensor(picture)
        return output


@contextlib.contextmanager
def drawn_from(*numbers: int) -> Iterator[None]:
    """Python's, numpy's and torch's random numbers are those of `numbers` while inside, and afterwards what they were."""
    seed: list[int] = np.random.SeedSequence(numbers).generate_state(6).tolist()
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed[0] << 32 | seed[1])
    np.random.seed(seed[2:4])
    torch.default_generator.manual_seed(seed[4] << 32 | seed[5])
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class Slices:
    """This rank's slice of every batch. If a batch has fewer pictures than ranks, a rank may get the batch's first
    picture instead, with weight zero (`share` is 0)."""

    def __init__(self, batches: Any, count: int) -> None:
        """batches: the sampler of all ranks' batches, `count` pictures each."""
        self.batches, self.count = batches, count
        self.own = this_rank().slice_of(count)
        self.share = (self.own.stop - self.own.start) / count

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            if len(batch) != self.count:
                raise RanksParted(
                    f"a batch has {len(batch)} pictures in the place of {self.count}: start with one process"
                )
            yield batch[self.own] or batch[:1]


def in_slices(loader: Any) -> DataLoader:
    """The training pictures of this rank: the same batches on all ranks, and a slice of each."""
    sampler: Any = loader.sampler
    count = (loader.batch_size or 1) if loader.drop_last else len(sampler)
    return with_batches(loader, Slices(loader.batch_sampler, count))


def with_batches(loader: DataLoader, batches: Any, **more: Any) -> DataLoader:
    """`loader` with other batches: lists of the numbers of pictures."""
    return DataLoader(
        loader.dataset, batch_sampler=batches, num_workers=loader.num_workers, collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory, worker_init_fn=loader.worker_init_fn, **more,
    )  # fmt: skip


def with_classes_alike(loader: DataLoader) -> DataLoader:
    """`loader` with as many pictures an epoch, drawn with replacement, each class with the same probability."""
    pictures: Any = loader.dataset
    counts = Counter(item.label for item in pictures.data_source)
    weights = [1 / counts[item.label] for item in pictures.data_source]
    return DataLoader(
        pictures, loader.batch_size, sampler=WeightedRandomSampler(weights, len(weights)), num_workers=loader.num_workers,
        drop_last=loader.drop_last, pin_memory=loader.pin_memory, worker_init_fn=loader.worker_init_fn,
    )  # fmt: skip


def with_lasting_workers(loader: DataLoader) -> DataLoader:
    """`loader` with workers that go on from epoch to epoch, where each picture draws alone.

    It draws nothing from torch's generator, from which others draw one number an epoch.
    """
    return with_batches(loader, loader.batch_sampler, persistent_workers=True, generator=torch.Generator())


def in_turns(loader: DataLoader) -> DataLoader:
    """With W ranks, every W-th test batch, so that each batch is the same as with one process."""
    if not this_rank().several:
        return loader
    batches: Any = loader.batch_sampler
    return with_batches(loader, this_rank().turns(list(batches)))


def follow_backbone(cfg: CfgNode) -> None:
    """Fills in, in place, the settings that follow the backbone unless configured: size, means, deviations, resizing.

    Raises what naming a backbone raises, ValueError and OSError.
    """
    open_settings = [name for name in FOLLOWING if cfg.INPUT.get(name) is None]
    if not open_settings:
        return
    asked = source_of(cfg.MODEL.BACKBONE.NAME).preprocessing()
    said = dict(zip(FOLLOWING, (asked.size, asked.interpolation, asked.resize_mode, list(asked.mean), list(asked.std)),
                    strict=True))  # fmt: skip
    frozen = cfg.is_frozen()
    cfg.defrost()
    for name in open_settings:
        cfg.INPUT[name] = said[name]
    if frozen:
        cfg.freeze()


def test_transform(cfg: CfgNode) -> Any:
    """What happens to test pictures: Dassl's transform, or theirs squashed to size, which Dassl cannot build."""
    c = cfg.INPUT
    if c.NO_TRANSFORM or c.RESIZE_MODE != "squash":
        return build_transform(cfg, is_train=False)
    mean, std = (c.PIXEL_MEAN, c.PIXEL_STD) if "normalize" in c.TRANSFORMS else ((0.0,) * 3, (1.0,) * 3)
    print(f"Building transform_test\n+ squash to {c.SIZE[0]}x{c.SIZE[1]}\n+ normalization (mean={mean}, std={std})")
    return Preprocessing(tuple(c.SIZE), tuple(mean), tuple(std), c.INTERPOLATION, "squash").transform()


def build_data_manager(cfg: CfgNode) -> DataManager:
    """Dassl's DataManager over `Pictures`, with no more workers than there are cores.

    A SIGTERM that reaches the whole process group, as clusters send it, must not take the workers from a run that is
    about to save itself; they end with the main process.
    """
    if cores() < cfg.DATALOADER.NUM_WORKERS:
        alone = cfg.INPUT.SEED_PER_PICTURE or this_rank().several
        print(
            f"Note: {cores()} data-loading workers for {cfg.DATALOADER.NUM_WORKERS}, one per core"
            + ("" if alone else "; each draws augmentations of its own, so another number of workers draws others")
        )
        cfg = cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = cores()
    balanced = cfg.DATALOADER.TRAIN_X.SAMPLER == BALANCED
    if balanced:  # which Dassl does not know
        cfg = cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.TRAIN_X.SAMPLER = "RandomSampler"
    manager = DataManager(
        cfg,
        custom_tfm_test=test_transform(cfg) if cfg.INPUT.RESIZE_MODE == "squash" else None,
        dataset_wrapper=Pictures,
    )
    if balanced:
        unbalanced: Any = manager.train_loader_x
        manager.train_loader_x = with_classes_alike(unbalanced)
    if this_rank().several:
        manager.train_loader_x = in_slices(manager.train_loader_x)
    trained: Any = manager.train_loader_x
    if trained.dataset.draws_alone and trained.num_workers:
        manager.train_loader_x = with_lasting_workers(trained)
    loaders: dict[str, Any] = {"train": manager.train_loader_x, "val": manager.val_loader, "test": manager.test_loader}
    tested = loaders["test"].dataset
    resized = ResizedPictures.of(cfg, tested.transform, tested.upright)
    for part, loader in loaders.items():
        if loader is not None and part != "train":
            loader.dataset.resized = resized
        if loader is not None:
            loader.worker_init_fn = leave_signals_to_the_main_process
    return manager
