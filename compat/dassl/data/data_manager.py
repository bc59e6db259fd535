"""From cfg to loaders."""

from collections.abc import Callable
from typing import Any

import torch
from dassl.utils import read_image
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T
from yacs.config import CfgNode

from .datasets import build_dataset
from .samplers import build_sampler
from .transforms import INTERPOLATION_MODES, build_transform


class DatasetWrapper(Dataset):
    """A list of Datum as a torch dataset of {"img", "label", "domain", "impath", "index"}.

    DATALOADER.K_TRANSFORMS > 1 augments a training picture several times ("img" is then a list); a list of transforms
    gives "img", "img2", ...; DATALOADER.RETURN_IMG0 adds "img0", the picture resized but not augmented.
    """

    def __init__(self, cfg: CfgNode, data_source: list, transform: Any = None, is_train: bool = False) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(f"DATALOADER.K_TRANSFORMS is {self.k_tfm}, but there is no transform to repeat")
        steps = [T.Resize(tuple(cfg.INPUT.SIZE), INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]), T.ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            steps.append(T.Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
        self.to_tensor = T.Compose(steps)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        picture = read_image(item.impath)
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        if self.transform is None:
            output["img"] = picture
        else:
            several = self.transform if isinstance(self.transform, list | tuple) else [self.transform]
            for i, transform in enumerate(several):
                output["img" if i == 0 else f"img{i + 1}"] = self._transform_image(transform, picture)
        if self.return_img0:
            output["img0"] = self.to_tensor(picture)
        return output

    def _transform_image(self, tfm: Callable, img0: Any) -> Any:
        views = [tfm(img0) for _ in range(self.k_tfm)]
        return views[0] if len(views) == 1 else views


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Any = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Any = None,
    is_train: bool = True,
    dataset_wrapper: Any = None,
) -> DataLoader:
    """A loader over `data_source`; the last incomplete training batch is dropped when there is a full one.

    Raises ValueError for an empty list.
    """
    if not data_source:
        raise ValueError(f"there are no {'training' if is_train else 'test'} pictures in {cfg.DATASET.NAME}")
    return DataLoader(
        (dataset_wrapper or DatasetWrapper)(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=build_sampler(sampler_type, data_source=data_source),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )


class DataManager:
    """Builds the dataset, the transforms and the loaders train_loader_x, train_loader_u, val_loader, test_loader."""

    def __init__(
        self, cfg: CfgNode, custom_tfm_train: Any = None, custom_tfm_test: Any = None, dataset_wrapper: Any = None
    ) -> None:
        self.dataset = dataset = build_dataset(cfg)
        train_tfm = custom_tfm_train if custom_tfm_train is not None else build_transform(cfg, is_train=True)
        test_tfm = custom_tfm_test if custom_tfm_test is not None else build_transform(cfg, is_train=False)
        train_u = cfg.DATALOADER.TRAIN_X if cfg.DATALOADER.TRAIN_U.SAME_AS_X else cfg.DATALOADER.TRAIN_U

        def loader(items: Any, part: CfgNode, tfm: Any, is_train: bool) -> DataLoader | None:
            if items is None or (not items and not is_train and items is not dataset.test):
                return None
            return build_data_loader(
                cfg, part.SAMPLER, items, part.BATCH_SIZE, tfm=tfm, is_train=is_train, dataset_wrapper=dataset_wrapper
            )

        self.train_loader_x = loader(dataset.train_x, cfg.DATALOADER.TRAIN_X, train_tfm, True)
        self.train_loader_u = loader(dataset.train_u or None, train_u, train_tfm, True)
        self.val_loader = loader(dataset.val, cfg.DATALOADER.TEST, test_tfm, False)
        self.test_loader = loader(dataset.test, cfg.DATALOADER.TEST, test_tfm, False)
        self.num_classes: int = dataset.num_classes
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.lab2cname: dict[int, str] = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        sizes = {"train_x": self.dataset.train_x, "train_u": self.dataset.train_u, "val": self.dataset.val,
                 "test": self.dataset.test}  # fmt: skip
        rows = [["Dataset", cfg.DATASET.NAME]]
        rows += [[k.title(), v] for k, v in (("source", cfg.DATASET.SOURCE_DOMAINS),
                                             ("target", cfg.DATASET.TARGET_DOMAINS)) if v]  # fmt: skip
        rows.append(["# classes", f"{self.num_classes:,}"])
        rows += [[f"# {part}", f"{len(items):,}"] for part, items in sizes.items() if items]
        print(tabulate(rows))
