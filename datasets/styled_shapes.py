"""The demo: coloured shapes drawn by code, each in one of ten styles that its template groups speak of.

Class = colour and shape ("red star", 80 classes); style = Dassl's domain. Drawn once, from a fixed seed, under
ROOT/styled_shapes, whole or not at all.
"""

import json
import os
import random
import tempfile
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum
from tqdm import tqdm
from yacs.config import CfgNode

from .drawing import CLASSNAMES, STYLES, draw_shape, render, to_image, to_tensor
from .few_shot import FewShotDataset, Items

PER_CLASS = {"train": 20, "val": 10, "test": 20}
SEED = 20260101
STRENGTH = (0.0, 0.6)  # as strongly as in the pictures that the small CLIP was trained on, which are others


def draw_all(folder: Path) -> None:
    """Draws every picture of the demo into `folder`, which appears only when complete (a few seconds)."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    styles = list(STYLES)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        made = Path(scratch) / folder.name
        split: dict[str, list] = {part: [] for part in PER_CLASS}
        for label, name in enumerate(tqdm(CLASSNAMES, desc="Drawing the demo", unit="class", disable=None)):
            (made / "images" / name.replace(" ", "_")).mkdir(parents=True)
            for part, count in PER_CLASS.items():
                for i in range(count):
                    domain = i % len(styles)
                    path = f"{name.replace(' ', '_')}/{part}_{i:03d}_{styles[domain]}.png"
                    picture = to_tensor(draw_shape(name, rng))[None]
                    styled = render(picture, styles[domain], rng, rng.uniform(*STRENGTH))
                    to_image(styled[0]).save(made / "images" / path)
                    split[part].append([path, label, name, domain])
        (made / "split.json").write_text(json.dumps(split))
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # somebody else was faster, with the same pictures
                raise


@DATASET_REGISTRY.register()
class StyledShapes(FewShotDataset):
    """DATASET.SOURCE_DOMAINS trains on some styles, DATASET.TARGET_DOMAINS tests on some; empty means all."""

    folder = "styled_shapes"
    image_folder = "images"
    domains = list(STYLES)

    @classmethod
    def missing(cls, cfg: CfgNode) -> list[str]:
        """Nothing: it is drawn where it is not there."""
        return []

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        if not os.path.isdir(self.dataset_dir):
            draw_all(Path(self.dataset_dir))
        split = json.loads(Path(self.require(os.path.join(self.dataset_dir, "split.json"))).read_text())
        wanted = {
            "train": cfg.DATASET.SOURCE_DOMAINS,
            "val": cfg.DATASET.SOURCE_DOMAINS,
            "test": cfg.DATASET.TARGET_DOMAINS,
        }
        parts = {part: self._of_styles(split[part], list(names)) for part, names in wanted.items()}
        return parts["train"], parts["val"], parts["test"]

    def _of_styles(self, rows: list, names: list[str]) -> Items:
        for name in names:
            if name not in self.domains:
                raise ValueError(f'style "{name}" is unknown; known: {", ".join(self.domains)}')
        return [
            Datum(impath=os.path.join(self.image_dir, path), label=label, domain=domain, classname=classname)
            for path, label, classname, domain in rows
            if not names or self.domains[domain] in names
        ]
