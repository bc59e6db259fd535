"""A trained model to use: classify pictures, ask for other classes, move it to a device.

    from trainers import load_run
    model = load_run("output/fewshot/demo/shots_16/MoCoOp/small/seed1")
    model.classify(["a.jpg", "b.jpg"])

Needs neither Dassl nor a configuration, and no particular working directory.

Shapes: B pictures, C classes, G experts, H x W pixels.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import nn

from ...methods import methods, model_class
from ...options import Method
from ...paths import ROOT
from ..clip.adapted import AdaptedCLIP, Trained
from ..clip.backbones import Backbone, Preprocessing, trained_backbone
from ..clip.prompts import clean_classname, refuse_alike
from ..loading.read import as_people_see_it, read_named
from ..runs.results import Validated, read_results
from ..settings.errors import believing
from ..training import checkpoints
from ..training.device import multiplying

NOT_VALIDATED = Validated()
Picture = str | os.PathLike | Image.Image


@dataclass(frozen=True)
class Prediction:
    """What a picture shows. classes: (name, probability), likeliest first; experts: (template, weight), heaviest first."""

    picture: str
    classes: list[tuple[str, float]]
    experts: list[tuple[str, float]]


class TrainedModel(nn.Module):
    """A method's model with what was learned, its classes and its preprocessing; in evaluation mode.

    model(images_BCHW) gives logits, B x C; `classify` takes picture files. transform: PIL picture -> the model's input.
    validated: what was fitted to the validation split, its temperature above all.
    """

    def __init__(
        self,
        model: AdaptedCLIP,
        trained: Trained,
        classnames: Sequence[str],
        preprocessing: Preprocessing,
        normalizes: bool = True,
        upright: bool = False,
        precision: str = "fp32",
        validated: Validated = NOT_VALIDATED,
    ) -> None:
        super().__init__()
        self.model, self.trained, self.classnames = model, trained, list(classnames)
        self.preprocessing, self.upright, self.normalizes = preprocessing, upright, normalizes
        if not normalizes:  # a configuration without "normalize"
            nothing = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
            preprocessing = Preprocessing(
                preprocessing.size, *nothing, preprocessing.interpolation, preprocessing.resize_mode
            )
        self.transform: Callable[[Image.Image], torch.Tensor] = preprocessing.transform()
        self.precision, self.validated = precision, validated
        self.tf32 = False  # of matrices and convolutions in float32 on a GPU
        self.method: str = trained.identity["trainer"]
        self.experts = [group[0] for group in trained.identity.get("template_groups", [])]
        self.eval()

    @property
    def backbone(self) -> Backbone:
        return self.model.backbone

    @property
    def temperature(self) -> float | None:
        return self.validated.temperature

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    def _apply(self, fn: Callable, recurse: bool = True) -> "TrainedModel":
        """Called by .to() and similar methods. A model trained with half-precision weights has them on a GPU, as in
        training."""
        super()._apply(fn, recurse)
        if self.precision == "fp16" and self.device.type == "cuda" and self.backbone.text_dtype != torch.float16:
            self.backbone.halve()
        return self

    def with_classes(self, classnames: Sequence[str]) -> "TrainedModel":
        """The same model for other classes, also untrained ones, since all classes share the prompts.

        Both models share their weights. Raises ValueError for empty or duplicate names, and for methods that know only
        their training classes (linear probes, class-specific contexts).
        """
        names = checked_names(classnames)
        other = type(self.model).for_classes(self.backbone, self.trained, names)
        refuse_alike(names, self.backbone)
        _put_in(other, self.trained, "the model")
        model = TrainedModel(other, self.trained, names, self.preprocessing, self.normalizes, self.upright, self.precision,
                             self.validated)  # fmt: skip
        model.tf32 = self.tf32
        return model.to(self.device)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, B x C."""
        return self.predict(images_BCHW)[0]

    @torch.no_grad()
    def predict(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits, B x C, and, with MoCoOp, the weight of each expert, B x G; in the precision of training."""
        with self._autocast(), multiplying(self.tf32):
            return self.model.predict(images_BCHW.to(self.device))

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        if self.precision == "amp" and self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.float16)
        return contextlib.nullcontext()

    def read(self, picture: Picture) -> torch.Tensor:
        """A picture, read as in training, as the model takes it, 3 x H x W. Raises OSError or ValueError, naming it."""
        if not isinstance(picture, Image.Image):
            picture = read_named(picture, self.upright)
        else:
            picture = as_people_see_it(picture) if self.upright else picture.convert("RGB")
        return self.transform(picture)

    def classify(
        self,
        pictures: Picture | torch.Tensor | Sequence[Picture],
        top: int = 5,
        calibrated: bool = False,
        batch: int = 64,
        names: Sequence[str] | None = None,
    ) -> list[Prediction]:
        """The `top` likeliest classes of each picture: paths, PIL pictures, or a tensor B x 3 x H x W of prepared ones.

        calibrated: use the temperature fitted to the validation split. names: names of the pictures in the result; the
        default for paths is the path. Raises OSError or ValueError for a picture that cannot be read, and ValueError if
        there is no temperature.
        """
        temperature = self.checked_temperature() if calibrated else 1.0
        if isinstance(pictures, str | os.PathLike | Image.Image):
            pictures = [pictures]
        found: list[Prediction] = []
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch]
            images = part if isinstance(part, torch.Tensor) else torch.stack([self.read(p) for p in part])
            called = [str(p) if isinstance(p, str | os.PathLike) else "" for p in part]
            called = called if names is None else list(names[start : start + batch])
            found += self._named(called, *self.predict(images), top, temperature)
        return found

    def checked_temperature(self) -> float:
        """Raises ValueError where none was fitted."""
        if self.temperature is None:
            raise ValueError(
                "there is no temperature for calibrated probabilities: runs that train, and have validation pictures, fit "
                "one to the model that they test"
            )
        return self.temperature

    def rejection_threshold(self, calibrated: bool = False) -> float:
        """The probability of the likeliest class below which a picture is rejected, as chosen on validation pictures.

        Raises ValueError where none was chosen."""
        v = self.validated
        found = v.reject_below_calibrated if calibrated else v.reject_below
        if found is None:
            raise ValueError(
                "there is no threshold that was chosen on validation pictures: give a probability, or evaluate a run that "
                "trains and has such pictures again"
            )
        return found

    def _named(
        self,
        names: Iterable[str],
        logits_BC: torch.Tensor,
        weights_BG: torch.Tensor | None,
        top: int,
        temperature: float,
    ) -> list[Prediction]:
        probability_BC = (logits_BC.float() / temperature).softmax(1)
        best_BK, class_BK = probability_BC.topk(min(top, probability_BC.shape[1]), dim=1)
        found = []
        for b, name in enumerate(names):
            classes = [(self.classnames[c], p) for c, p in zip(class_BK[b].tolist(), best_BK[b].tolist(), strict=True)]
            experts = []
            if weights_BG is not None:
                weighed = zip(self.experts, weights_BG[b].tolist(), strict=True)
                experts = sorted(((e, w) for e, w in weighed if w > 0), key=lambda pair: -pair[1])
            found.append(Prediction(name, classes, experts))
        return found


def checked_names(classnames: Iterable[str]) -> list[str]:
    """Class names without spaces around them. Raises ValueError for none at all, empty ones and doubles."""
    names = [name.strip() for name in classnames]
    if len(names) == 1 and names[0]:
        raise ValueError(
            f'"{names[0]}" is one class, and every picture would be that: give two or more, with commas between or as a '
            "file with a line each"
        )
    if not names or not all(names):
        raise ValueError("a class name is empty: give names with a comma or a line between them")
    double = next((n for i, n in enumerate(names) if clean_classname(n) in map(clean_classname, names[:i])), None)
    if double:
        raise ValueError(f'class "{double}" is named twice: name each class once')
    return names


def _put_in(model: AdaptedCLIP, trained: Trained, where: Any) -> None:
    checkpoints.copy_into(model.checkpoint_tensors(), trained.tensors, where)
    model.weights_changed()


def load_run(
    folder: str | os.PathLike,
    epoch: int | None = None,
    backbone: str | os.PathLike = "",
    classnames: Sequence[str] | None = None,
) -> TrainedModel:
    """The model that the run in `folder` trained, on the CPU.

    epoch: the checkpoint to load; by default the best on validation if one was kept, else the last. backbone: its name
    or file, if it is no longer where it was in training; its hash must be the same. classnames: other classes than in
    training. Raises ValueError or OSError, in one line, for a folder that is not a finished run, a missing or different
    backbone, and invalid class names.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give that of a run, the one that holds results.json")
    path = checkpoints.model_file(folder, epoch)
    if not path.is_file():
        held = sorted(str(p.parent) for p in folder.glob("**/results.json"))
        hint = f"; did you mean {held[0]}?" if held and held[0] != str(folder) else ""
        raise ValueError(f"{folder} holds no trained model{hint or ': give the folder of a run that trained one'}")
    results = folder / "results.json"
    if not results.is_file() and epoch is None:
        raise ValueError(f"{folder} is not finished: the command that began it continues it (it is in run.json)")
    state = checkpoints.load(path)
    with believing(path, "give another run, or train again"):
        return _opened(state, path, results if epoch is None else None, os.fspath(backbone), classnames)


def refuse_part(state: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError for the checkpoint of a federation's server whose clients keep what it lacks."""
    kept = kept_by_clients(state)
    if kept:
        trainer, lacking = state["identity"]["trainer"], ", ".join(kept)
        raise ValueError(f"{path} is of {trainer}'s server, and its clients keep what it lacks: {lacking}")


def kept_by_clients(state: Mapping[str, Any]) -> list[str]:
    """Names of tensors that a federation's server never learns, and has as they started."""
    return state.get("federation", {}).get("kept", [])


def _opened(
    state: Mapping[str, Any], path: Path, results: Path | None, backbone: str, classnames: Sequence[str] | None
) -> TrainedModel:
    """The model of a checkpoint. results: of its run, where it is the model that was tested."""
    identity, config = state.get("identity", {}), yaml.safe_load(state.get("config") or "{}")
    if not identity or "INPUT" not in config:
        raise ValueError(
            f"{path} was not written by this project, and can be evaluated with train.py --eval-only alone"
        )
    refuse_part(state, path)
    key = _method_of(identity["trainer"]).options.KEY
    trained = Trained(config["TRAINER"].get(key, {}), identity, checkpoints.tensors_of(state), identity["classnames"])
    said = config["INPUT"]
    preprocessing = {
        "size": said["SIZE"], "mean": said["PIXEL_MEAN"], "std": said["PIXEL_STD"],
        "interpolation": said["INTERPOLATION"], "resize_mode": said.get("RESIZE_MODE") or "shortest",
    }  # fmt: skip
    validated = Validated()  # which belongs to the model that was tested
    if results is not None and results.is_file():
        try:
            validated = Validated.of(read_results(results))
        except ValueError as error:
            raise ValueError(f"{results} cannot be believed: {error}") from None
    # what it tells apart: with LASP's INCLUDE_ALL_CLASSES more than it was trained on
    own = identity.get("classifies", identity["classnames"])
    model = build(
        trained, list(own) if classnames is None else checked_names(classnames), preprocessing,
        "normalize" in said["TRANSFORMS"], config["DATASET"]["NAME"] == "FolderDataset", state.get("precision", "fp32"),
        validated, backbone, path,
    )  # fmt: skip
    model.tf32 = bool(config.get("TF32"))
    if classnames is not None:
        refuse_alike(model.classnames, model.backbone)
    return model


def build(
    trained: Trained,
    classnames: Sequence[str],
    preprocessing: Mapping[str, Any],
    normalizes: bool,
    upright: bool,
    precision: str,
    validated: Validated,
    backbone: str,
    where: str | os.PathLike,
) -> TrainedModel:
    """Builds the model that a checkpoint or an export describes. where: its name in messages."""
    kind = model_class(_method_of(trained.identity["trainer"]))
    for names in (trained.classnames, classnames):
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and _is_text(n) for n in names):
            raise ValueError(f"its class names are {str(names)[:60]!r}")
    opened = opened_backbone(backbone, trained.identity)
    model = kind.for_classes(opened, trained, classnames)
    _put_in(model, trained, where)
    said: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in preprocessing.items()
    }
    said["size"] = _pair(said["size"])
    return TrainedModel(model, trained, classnames, Preprocessing(**said), normalizes, upright, precision, validated)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)  # which no file takes


def _pair(size: Any) -> tuple[int, int]:
    """(224, 224), which yaml leaves as text."""
    height, width = yaml.safe_load(size.replace("(", "[").replace(")", "]")) if isinstance(size, str) else size
    return height, width


def _method_of(trainer: str) -> Method:
    if trainer not in methods():
        raise ValueError(
            f"models of {trainer} cannot be loaded without its trainer; those of {', '.join(methods())} can"
        )
    return methods()[trainer]


def opened_backbone(given: str, identity: Any) -> Backbone:
    """`given`, or by the name that training gave it; a path is also looked for beside this package.

    Raises ValueError, OSError.
    """
    name = given or identity["backbone"]
    found = name if os.path.exists(name) or not (ROOT / name).is_file() else str(ROOT / name)
    try:
        return trained_backbone(found, identity, named_by_user=bool(given))
    except (ValueError, OSError) as error:
        needs = identity.get("backbone_sha256", "")
        raise ValueError(f"{error} -- this model was trained on {identity.get('backbone')} (SHA-256 {needs}): give it with "
                         "backbone=NAME_OR_FILE (--backbone)") from error  # fmt: skip
