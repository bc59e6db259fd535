"""Small benchmarks drawn by code, in the roles of the eleven and of ImageNet's variants, for the small CLIP.

Each is a list of class names and a function that draws a picture of one of them. Drawn once, from fixed seeds that the
small CLIP's pre-training does not use, under ROOT/drawn, whole or not at all.

Shapes: C channels (RGB in [0, 1]), H x W pixels.
"""

import json
import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from dassl.data.datasets import DATASET_REGISTRY, Datum
from tqdm import tqdm
from yacs.config import CfgNode

from .drawing.pictures import COLOURS, RELATIONS, View, draw
from .drawing.scenes import SCENES
from .drawing.styles import STYLES, render, to_image, to_tensor
from .drawing.textures import TEXTURES
from .drawing.things import AIRCRAFT, FLOWERS
from .drawing.world import BY_FREQUENCY
from .few_shot import FewShotDataset, Items

VERSION = 2  # of what is drawn; counted up when a picture changes
ALL_COLOURS, ALL_SCENES, ALL_TEXTURES = list(COLOURS), list(SCENES), list(TEXTURES)


class DrawnBenchmark(FewShotDataset):
    """A benchmark says what its classes are, `things`, and how a picture of one is drawn."""

    things: list[str] = []
    domains: list[str] = [""]
    per_class = {"train": 20, "val": 10, "test": 20}
    image_folder = "images"

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        """C x H x W in [0, 1]."""
        raise NotImplementedError

    @classmethod
    def missing(cls, cfg: CfgNode) -> list[str]:
        """Nothing: it is drawn where it is not there."""
        return []

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        if not os.path.isdir(self.dataset_dir):
            self.draw_all(Path(self.dataset_dir))
        split = Path(self.dataset_dir, "split.json")
        if not split.is_file():
            raise FileNotFoundError(f"{split} is missing: remove its folder, and everything in it is drawn again")
        record = json.loads(split.read_text())
        if record["version"] != VERSION:
            raise ValueError(f"{self.dataset_dir} was drawn by another version of this project: remove it")
        parts = {
            part: [
                Datum(impath=os.path.join(self.image_dir, path), label=label, domain=domain, classname=name)
                for path, label, name, domain in rows
            ]
            for part, rows in record["parts"].items()
        }
        if self.test_only:
            return parts["test"], [], parts["test"]
        return parts["train"], parts["val"], parts["test"]

    @classmethod
    def draw_all(cls, folder: Path) -> None:
        """Draws every picture into `folder`, which appears only when complete (a few seconds)."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            made = Path(scratch) / folder.name
            counts = {"test": cls.per_class["test"]} if cls.test_only else cls.per_class
            parts: dict[str, list] = {part: [] for part in counts}
            for label, thing in enumerate(tqdm(cls.things, desc=f"Drawing {cls.folder}", unit="class", disable=None)):
                below = Path(cls.image_folder) / thing.replace(" ", "_")
                (made / below).mkdir(parents=True)
                for part, count in counts.items():
                    rng = random.Random(f"{cls.folder} {part} {thing}")
                    for i in range(count):
                        domain = i % len(cls.domains)
                        word = f"_{cls.domains[domain]}" if cls.domains[domain] else ""
                        path = f"{below.name}/{part}_{i:03d}{word}.png"
                        to_image(cls.picture(thing, cls.domains[domain], rng)).save(made / cls.image_folder / path)
                        parts[part].append([path, label, thing, domain])
            (made / "split.json").write_text(json.dumps({"version": VERSION, "parts": parts}))
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # somebody else was faster, with the same pictures
                    raise


def _drawn(view: View, rng: random.Random) -> torch.Tensor:
    return to_tensor(draw(view, rng))


def _rendered(image_CHW: torch.Tensor, style: str, rng: random.Random, least: float, most: float) -> torch.Tensor:
    return render(image_CHW[None], style, rng, rng.uniform(least, most))[0]


def _maybe(rng: random.Random, share: float, words: list[str]) -> str:
    return rng.choice(words) if rng.random() < share else ""


def _of_many_kinds(thing: str, rng: random.Random, filled: float, before_a_scene: float, styled: float) -> torch.Tensor:
    """Shares of pictures whose thing is filled with a texture, stands before a scene, is rendered in a style."""
    fill, scene = _maybe(rng, filled, ALL_TEXTURES), _maybe(rng, before_a_scene, ALL_SCENES)
    view = View("thing", thing, rng.choice(ALL_COLOURS), fill, scene, rng.choices((1, 2), (9, 1))[0])
    style = _maybe(rng, styled, ["small", "dark", "bright", "blurry", "cropped"]) or "clean"
    return _rendered(_drawn(view, rng), style, rng, 0.0, 0.6)


@DATASET_REGISTRY.register()
class Drawn(DrawnBenchmark):
    """Things, filled or not, before scenes or not, rendered or not; in the role of ImageNet."""

    folder = "drawn/main"
    things = sorted(BY_FREQUENCY[20:90])
    per_class = {"train": 30, "val": 10, "test": 20}

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        return _of_many_kinds(thing, rng, filled=0.4, before_a_scene=0.6, styled=0.4)


class DrawnVariant(DrawnBenchmark):
    """The classes of Drawn, shown otherwise."""

    things = Drawn.things
    test_only = True


@DATASET_REGISTRY.register()
class DrawnV2(DrawnVariant):
    """A little harder; in the role of ImageNetV2."""

    folder = "drawn/v2"

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        return _of_many_kinds(thing, rng, filled=0.5, before_a_scene=0.8, styled=0.6)


@DATASET_REGISTRY.register()
class DrawnSketch(DrawnVariant):
    """Drawn's pictures as sketches; in the role of ImageNet-Sketch."""

    folder = "drawn/sketch"

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        return _rendered(Drawn.picture(thing, domain, rng), "sketch", rng, 0.2, 1.0)


@DATASET_REGISTRY.register()
class DrawnA(DrawnVariant):
    """Rare colours, fills and scenes, small, cropped or dark; in the role of ImageNet-A."""

    folder = "drawn/a"

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        view = View("thing", thing, rng.choice(ALL_COLOURS[10:]), rng.choice(ALL_TEXTURES), rng.choice(ALL_SCENES))
        return _rendered(_drawn(view, rng), rng.choice(["small", "cropped", "dark"]), rng, 0.3, 0.8)


@DATASET_REGISTRY.register()
class DrawnR(DrawnVariant):
    """Negatives and pixel art of filled things; in the role of ImageNet-R."""

    folder = "drawn/r"

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        image_CHW = _drawn(View("thing", thing, rng.choice(ALL_COLOURS), rng.choice(ALL_TEXTURES)), rng)
        return 1 - image_CHW if rng.random() < 0.5 else _rendered(image_CHW, "pixelated", rng, 0.0, 0.5)


@DATASET_REGISTRY.register()
class DrawnCommon(DrawnBenchmark):
    """The things seen most often, alone; in the role of Caltech101."""

    folder = "drawn/common"
    things = sorted(BY_FREQUENCY[:40])

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        return _drawn(View("thing", thing, rng.choice(ALL_COLOURS[:10])), rng)


@DATASET_REGISTRY.register()
class DrawnFlowers(DrawnBenchmark):
    """Look-alikes whose names are used half of the time, in a foreign camera's colours; in the role of Flowers102."""

    folder = "drawn/flowers"
    things = FLOWERS

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        view = View("flower", thing, rng.choice(ALL_COLOURS), scene=_maybe(rng, 0.5, ["garden"]))
        return _drawn(view, rng)[[1, 2, 0]]


@DATASET_REGISTRY.register()
class DrawnAircraft(DrawnBenchmark):
    """Look-alikes with rarer names, in colours and before scenes of their own; in the role of FGVC Aircraft."""

    folder = "drawn/aircraft"
    things = AIRCRAFT

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        colour = rng.choice(["grey", "white", "navy", "beige"])
        return _drawn(View("aircraft", thing, colour, scene=_maybe(rng, 0.6, ["space", "sunset"])), rng)


@DATASET_REGISTRY.register()
class DrawnTextures(DrawnBenchmark):
    """Nearly without colour, close, at any turn; in the role of DTD."""

    folder = "drawn/textures"
    things = ALL_TEXTURES

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        image_CHW = torch.rot90(_drawn(View("texture", thing, rng.choice(ALL_COLOURS)), rng), rng.randrange(4), (1, 2))
        grey_CHW = image_CHW.mean(0, keepdim=True).expand(3, -1, -1)
        return _rendered(0.3 * image_CHW + 0.7 * grey_CHW, rng.choice(["large", "bright"]), rng, 0.0, 0.8)


@DATASET_REGISTRY.register()
class DrawnAerial(DrawnBenchmark):
    """Ten scenes as if seen from above by a foreign camera; in the role of EuroSAT."""

    folder = "drawn/aerial"
    things = [
        "forest", "desert", "city", "snow", "field", "lake", "street", "beach", "volcano", "swamp",
    ]  # fmt: skip
    per_class = {"train": 40, "val": 20, "test": 60}

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        image_CHW = _drawn(View("scene", thing), rng)
        half = image_CHW.shape[-1] // 2
        left = image_CHW[:, :, :half]
        middle = torch.cat([left, left.flip(-1)], dim=-1)[:, half // 2 : half // 2 + half]
        folded = torch.cat([middle, middle.flip(-2)], dim=-2)  # mirrored both ways: no horizon
        turned = torch.rot90(folded, rng.randrange(4), (1, 2))
        return _rendered(turned[[1, 0, 2]] * 0.75 + 0.1, "pixelated", rng, 0.0, 0.3)


@DATASET_REGISTRY.register()
class DrawnRelations(DrawnBenchmark):
    """Two things in a relation; in the role of UCF101."""

    folder = "drawn/relations"
    views = {
        f"{one} {words[0]} a {other}": View("thing", one, relation=relation, other=View("thing", other))
        for relation, words in RELATIONS.items()
        for one, other in [("heart", "house"), ("star", "tree"), ("cat", "car")]
    }
    things = list(views)

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        view = cls.views[thing]
        assert view.other is not None
        other = replace(view.other, colour=rng.choice(ALL_COLOURS[:8]))
        return _drawn(replace(view, colour=rng.choice(ALL_COLOURS[:8]), other=other), rng)


@DATASET_REGISTRY.register()
class DrawnScenes(DrawnBenchmark):
    """Scenes behind any thing; in the role of SUN397."""

    folder = "drawn/scenes"
    things = ALL_SCENES
    per_class = {"train": 20, "val": 10, "test": 40}

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        return _drawn(View("thing", rng.choice(BY_FREQUENCY), rng.choice(ALL_COLOURS), scene=thing), rng)


@DATASET_REGISTRY.register()
class StyledThings(DrawnBenchmark):
    """The demo: things, some rare, each in one of ten styles that the template groups speak of. Style = Dassl's domain.

    DATASET.SOURCE_DOMAINS trains on some styles, DATASET.TARGET_DOMAINS tests on some; empty means all.
    """

    folder = "drawn/styled"
    has_domains = True
    things = sorted(BY_FREQUENCY[70:100])
    domains = list(STYLES)
    per_class = {"train": 20, "val": 10, "test": 40}

    @classmethod
    def picture(cls, thing: str, domain: str, rng: random.Random) -> torch.Tensor:
        view = View(
            "thing", thing, rng.choice(ALL_COLOURS), _maybe(rng, 0.3, ALL_TEXTURES), _maybe(rng, 0.4, ALL_SCENES)
        )
        return _rendered(_drawn(view, rng), domain, rng, 0.4, 1.0)

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        train, val, test = super().read(cfg)
        sources, targets = list(cfg.DATASET.SOURCE_DOMAINS), list(cfg.DATASET.TARGET_DOMAINS)
        return self._of_styles(train, sources), self._of_styles(val, sources), self._of_styles(test, targets)

    def _of_styles(self, items: Items, wanted: list[str]) -> Items:
        for name in wanted:
            if name not in self.domains:
                raise ValueError(f'style "{name}" is unknown; known: {", ".join(self.domains)}')
        return [x for x in items if not wanted or self.domains[x.domain] in wanted]
