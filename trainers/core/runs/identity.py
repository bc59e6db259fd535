"""The identity of a run: the settings that affect its result, the backbone's hash, the pictures. Any reuse checks it
first."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from yacs.config import CfgNode

from ...options import Method
from ..settings.configure import SHARED, UNUSED, flat
from ..settings.idle import OF_TRAINING, acts_with

if TYPE_CHECKING:
    from ..loading.contents import Contents  # which imports numpy: settings are checked without

# Settings that change where or how fast a run goes or how much it prints, but not its result. The paths among them are
# covered by the backbone's hash and the fingerprint of the pictures.
_IMMATERIAL = {
    "VERSION", "LOG", "OUTPUT_DIR", "RESUME", "VERBOSE", "DATASET.ROOT", "DATASET.FOLDER", "DATASET.SPLIT_FILE",
    "DATASET.NAMES_FILE", "MODEL.BACKBONE.NAME", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_MB", "CACHE.FOLDER",
    "CACHE.LIMIT_MB", "TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TRAIN.CHECKPOINT_MINUTES", "TRAIN.CUDA_GRAPH",
    "MODEL.TEXT_CHUNK", "MODEL.TEXT_MEMORY_MB", "TEST.PER_CLASS_RESULT", "TEST.COMPUTE_CMAT",
    *(key for key, setting in SHARED.items() if setting.help == UNUSED),
}  # fmt: skip
# The behaviour of runs from before a setting existed.
_BEFORE: dict[str, Any] = {
    "DETERMINISTIC": False,
    "TF32": False,
    "TRAIN.COMPILE": False,
    "INPUT.RESIZE_MODE": "shortest",
    "MODEL.HEAD.NAME": "",
    "DATASET.FOLDS": 0,
    "DATASET.TEMPLATE": "",
    "DATASET.TEMPLATE_GROUPS": [],
    "TRAINER.MOCOOP.TEXT_LOSS": "contrastive",
    "TRAINER.MOCOOP.BLEND": 0.0,
    **{
        f"TRAINER.{key}.{name}": value
        for key in ("MOCOOP", "MOCOOPPLUS", "FEDMOCOOP")
        for name, value in (("VISUAL_TOKENS", []), ("VISUAL_RANK", 0), ("CONDITIONAL", False))
    },
    "OPTIM.EPS": 1e-8,
    "OPTIM.SCHEDULE": "epoch",
    "OPTIM.LR_MIN": 0.0,
    "INPUT.SEED_PER_PICTURE": False,
    "DATASET.INCLUDE_ALL_CLASSES": False,
    "TRAINER.LASP.TEXT_CLASSES": "all",
    "TRAINER.LASP.TEXT_LOSS_OVER": "hard",
    "TRAINER.MOCOOP.LAYOUT": "sentence",
    "TRAINER.LINEARPROBE.SEARCH": "neighbours",
    **{f"TRAINER.{key}.CTX_COUNT": "tokens" for key in ("COOP", "COCOOP", "LASP")},
}
PARTS = ("train", "val", "test")


def material_settings(cfg: CfgNode, method: Method) -> dict[str, Any]:
    """The settings that affect a method's result. Tuples become lists, as in JSON."""
    key = method.options.KEY
    found = {}
    for name, value in flat(cfg).items():
        others = (
            name.startswith("TRAINER.") and name != "TRAINER.NAME" and not (key and name.startswith(f"TRAINER.{key}."))
        )
        if others or name in _IMMATERIAL or not acts_with(name, cfg.INPUT.TRANSFORMS):
            continue
        if not method.takes_steps and name.startswith(OF_TRAINING):
            continue
        if value is None and name.startswith("INPUT."):
            continue  # not read off the backbone yet
        if not method.draws and (name == "DATASET.NUM_SHOTS" or (name == "SEED" and not cfg.DATASET.FOLDS)):
            continue
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def fingerprint(items: Iterable[Any], folder: str) -> str:
    """SHA-256 over path below `folder`, label, class name, domain and size in bytes of every picture, in order.

    Raises FileNotFoundError for a picture that is not there, naming it and its class.
    """
    return _digest(((item, _size_of(item)) for item in items), folder)


def content_fingerprint(items: Sequence[Any], folder: str, contents: "Contents") -> str:
    """The same with the files' content instead of their sizes."""
    digests = contents.of_all([item.impath for item in items])
    return _digest(zip(items, (own.hex() for own in digests), strict=True), folder)


def _size_of(item: Any) -> int:
    try:
        return os.stat(item.impath).st_size
    except OSError:
        raise FileNotFoundError(
            f'image {item.impath} (class "{item.classname}") is missing: restore it, then start again'
        ) from None


def _digest(marked: Iterable[tuple[Any, int | str]], folder: str) -> str:
    """Of pictures, each with what tells its file from others."""
    digest = hashlib.sha256()
    for item, mark in marked:
        line = (os.path.relpath(item.impath, folder), item.label, item.classname, item.domain, mark)
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Identity:
    """What a run is. data: part of the pictures -> fingerprint, by their sizes. model: digest of the checkpoint that is
    evaluated. templates: the hard templates in use, wherever they came from. contents: part of the pictures -> fingerprint
    by what they hold, which older versions did not look at. head: the head's groups of templates, where there is a head.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    backbone_sha256: str = ""
    data: dict[str, str] = field(default_factory=dict)
    model: str = ""
    templates: list | None = None
    contents: dict[str, str] = field(default_factory=dict)
    head: list | None = None

    def left_unsaid(self) -> str:
        """What a run of an older version did not note of its pictures, as a note's end; empty where it noted all."""
        if not self.data:
            return "was made before runs noted their pictures; only its settings were compared"
        if not self.contents:
            return "was made when runs noted only the sizes of their pictures; only these were compared"
        return ""

    def record(self) -> dict[str, Any]:
        """As JSON can hold it. Raises ValueError for what is nested too deeply."""
        try:
            return json.loads(json.dumps(asdict(self)))
        except RecursionError:
            raise ValueError("what it says of its run is nested too deeply") from None

    @classmethod
    def of(cls, record: Any) -> "Identity":
        """From a record, also an older version's, which was the settings alone. Raises ValueError for anything else."""
        if not isinstance(record, dict):
            raise ValueError("it does not say what run it belongs to")
        if "settings" not in record:
            return cls(_translated(record))
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        kinds = {"settings": dict, "data": dict, "backbone_sha256": str, "model": str, "templates": list | None,
                 "contents": dict, "head": list | None}  # fmt: skip
        if not all(isinstance(value, kinds[name]) for name, value in known.items()) or not all(
            isinstance(digest, str) for name in ("data", "contents") for digest in known.get(name, {}).values()
        ):
            raise ValueError("what it says of its run is damaged")
        return cls(**known)

    def digest(self) -> str:
        """SHA-256; equal for runs that must give equal results."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def differences(self, theirs: "Identity", apart_from: tuple[str, ...] = ()) -> list[str]:
        """How another run differs from this one, in words. Fields that an older version did not record are ignored.

        apart_from: names of settings, or "train" and "val", whose pictures a seed draws.
        """
        ours = {k: v for k, v in self.record()["settings"].items() if k not in apart_from}
        found = []
        for name, new in ours.items():
            old = theirs.settings.get(name, _BEFORE.get(name))
            if old != new:
                found.append(f"{name} was {_short(old)}, now {_short(new)}")
        if theirs.backbone_sha256 and self.backbone_sha256 and theirs.backbone_sha256 != self.backbone_sha256:
            found.append(f"backbone was {theirs.backbone_sha256[:12]}, now {self.backbone_sha256[:12]} (SHA-256)")
        both_looked = bool(self.contents and theirs.contents)
        own, other = (self.contents, theirs.contents) if both_looked else (self.data, theirs.data)
        for part in PARTS:
            if part not in apart_from and other and other.get(part) != own.get(part):
                found.append(f"other {part} pictures")
        if theirs.model != self.model and theirs.model and self.model:
            found.append("another trained model")
        if theirs.templates is not None and theirs.templates != self.record()["templates"]:
            found.append("other templates")
        if theirs.head is not None and theirs.head != self.record()["head"]:
            found.append("other templates of the head")
        return found


def _translated(settings: dict[str, Any]) -> dict[str, Any]:
    """An older configuration with today's keys: LASP's key once set which names the text loss scores."""
    found = dict(settings)
    if "DATASET.INCLUDE_ALL_CLASSES" in found and "TRAINER.LASP.TEXT_CLASSES" not in found:
        scored = "all" if found.pop("DATASET.INCLUDE_ALL_CLASSES") else "train"
        if found.get("TRAINER.NAME") == "LASP":
            found["TRAINER.LASP.TEXT_CLASSES"] = scored
    for name in ("MODEL_DIR", "LOAD_EPOCH"):
        found.pop(name, None)
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
