"""A trained model as a folder that needs nothing of this project: weights, model.onnx, config.json, a model card.

The folder appears under its name when it is complete and its ONNX has been compared with torch. With this project, it
can be read back to classify other classes (`read_export`) or put on the Hugging Face hub (`HubModel`).
"""

import contextlib
import io
import json
import logging
import os
import re
import shutil
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..clip.adapted import Trained
from ..loading import read as pictures
from ..runs.files import write_atomically
from ..runs.results import Validated
from ..settings.errors import believing
from ..settings.text_files import read_text
from .model import TrainedModel, build

TOLERANCE = 1e-4  # of logits and weights, ONNX against torch, relative to the largest logit
DATA = "model.onnx.data"  # beside model.onnx, where that would be too large for one file
FILES = ("model.safetensors", "model.onnx", "config.json", "README.md", "pictures.py")
ON_THE_HUB = {  # OpenAI's CLIPs, under the MIT licence
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
PACKAGES = "pip install onnx onnxscript onnxruntime safetensors"


def export(model: TrainedModel, folder: str | os.PathLike, results: dict[str, Any] | None = None) -> float:
    """Writes the folder. Returns the largest difference between ONNX and torch on random pictures, relative to the
    largest logit.

    results: of the run, for the model card. Raises ValueError where a package is missing, the folder holds something else,
    or the ONNX does not compute what the model does; then nothing is written.
    """
    folder = Path(folder)
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if there - {*FILES, DATA} or (there and "model.onnx" not in there):  # a README alone is no earlier export
        raise ValueError(f"{folder} holds other files: choose a folder that is not there yet")
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ValueError(f"export needs the package {error.name}: {PACKAGES}") from error
    before = model.device
    try:
        return _exported(model.to("cpu").float(), folder, results or {}, save_file)
    finally:
        model.to(before)


def _exported(model: TrainedModel, folder: Path, results: dict[str, Any], save_file: Any) -> float:
    frozen: Any = model.model.exported().eval()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        made = Path(place)
        apart = _write_onnx(frozen, model, made / "model.onnx")
        tensors = {f"learned.{name}": tensor.detach() for name, tensor in model.model.checkpoint_tensors().items()}
        tensors |= {f"frozen.{name}": tensor for name, tensor in frozen.class_features().items()}
        save_file({name: t.cpu().contiguous().clone() for name, t in tensors.items()}, made / "model.safetensors")
        config = configuration(model, results)
        write_atomically(made / "config.json", json.dumps(config, indent=1, ensure_ascii=False).encode())
        write_atomically(made / "README.md", card(model, config, apart, (made / DATA).exists()).encode())
        shutil.copyfile(pictures.__file__, made / "pictures.py")
        folder.mkdir(exist_ok=True)
        is_large = (made / DATA).exists()
        for name in (*([DATA] if is_large else []), *FILES):
            os.replace(made / name, folder / name)
        if not is_large:
            (folder / DATA).unlink(missing_ok=True)
    return apart


def _write_onnx(frozen: torch.nn.Module, model: TrainedModel, path: Path) -> float:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx imports it, and would say less)
    except ImportError as error:
        raise ValueError(f"export needs the package {error.name}: {PACKAGES}") from error
    height, width = model.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, height, width, generator=generator)
    outputs = ["logits", "weights"] if model.experts else ["logits"]
    with torch.no_grad(), _silent():
        program: Any = torch.onnx.export(
            frozen, (images[:3],), dynamo=True, input_names=["pictures"], output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
        )  # fmt: skip
        program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    apart = 0.0
    for count in (1, 5):
        found = session.run(None, {"pictures": images[:count].numpy()})
        with torch.no_grad():
            expected = [tensor for tensor in model.model.predict(images[:count]) if tensor is not None]
        largest = float(expected[0].abs().max())
        for ours, theirs in zip(found, expected, strict=True):
            apart = max(apart, float((torch.from_numpy(ours) - theirs).abs().max()) / max(1.0, largest))
    if not apart <= TOLERANCE:
        raise ValueError(
            f"the ONNX model differs from torch's by {apart:.1e} of the largest logit, more than {TOLERANCE}"
        )
    return apart


@contextlib.contextmanager
def _silent() -> Any:
    """Silences torch.onnx, which reports progress and warns of its own internals."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def has_other_classes(model: TrainedModel) -> bool:
    """Than those of training."""
    identity = model.trained.identity
    return model.classnames != list(identity.get("classifies", identity["classnames"]))


def configuration(model: TrainedModel, results: dict[str, Any]) -> dict[str, Any]:
    """What config.json holds."""
    identity = dict(model.trained.identity)
    validated = model.validated.known()
    if has_other_classes(model):  # of which nothing is known of a threshold
        validated = {name: value for name, value in validated.items() if not name.startswith("reject_below")}
    shown = ("dataset", "seed", "shots", "epochs", "subsample_classes", "split", "accuracy", "macro_f1", "ece", "total")
    return {
        "format": 1,
        "method": model.method,
        "classnames": model.classnames,
        "experts": identity.get("template_groups", []),
        "backbone": {
            key.removeprefix("backbone_"): value for key, value in identity.items() if key.startswith("backbone_")
        }
        | {"name": identity["backbone"]},
        "preprocessing": asdict(model.preprocessing) | {"upright": model.upright, "normalizes": model.normalizes},
        "temperature": model.temperature,
        **validated,
        "precision": model.precision,
        "tf32": model.tf32,
        "results": {key: results[key] for key in shown if key in results},
        "options": dict(model.trained.options),
        "identity": identity,
    }


def read_export(folder: str | os.PathLike, backbone: str | os.PathLike = "") -> TrainedModel:
    """The model of an exported folder, with its backbone; used like the result of load_run. Raises ValueError,
    OSError."""
    folder = Path(folder)
    with believing(folder, "export the run again"):
        return _read(folder, os.fspath(backbone))


def _read(folder: Path, backbone: str) -> TrainedModel:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(f"reading an export needs a package ({error}): pip install safetensors") from None
    try:
        config = json.loads(read_text(folder / "config.json"))
        tensors = load_file(folder / "model.safetensors")
        said = dict(config["preprocessing"])
        upright, normalizes = said.pop("upright"), said.pop("normalizes")
        learned = {n.removeprefix("learned."): t for n, t in tensors.items() if n.startswith("learned.")}
        identity, precision = config["identity"], config["precision"]
        trained = Trained(config["options"], identity, learned, identity["classnames"])
        names = [str(name) for name in config["classnames"]]
        validated = Validated.of({name: value for name, value in config.items() if value is not None})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder} is no export of this project, or damaged: {error!r}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise ValueError(f"{folder / 'model.safetensors'} is damaged: {error}") from error
    model = build(trained, names, said, normalizes, upright, precision, validated, backbone, folder)
    model.tf32 = bool(config.get("tf32"))
    return model


def card(model: TrainedModel, config: dict[str, Any], apart: float, has_data: bool) -> str:
    """README.md, in the form of a model card. has_data: whether the weights lie beside model.onnx."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=False, keep_trailing_newline=True
    )
    environment.finalize = _in_markdown
    name = config["backbone"]["name"]
    hub = name.removeprefix("hf-hub:") if name.startswith("hf-hub:") else ON_THE_HUB.get(name, "")
    is_mit = name in ON_THE_HUB or Path(name).name in ("drawn_clip.pt", "second_clip.pt")
    dataset = config["results"].get("dataset") or config["identity"]["dataset"]
    return environment.get_template("card.md.j2").render(
        c=config, model=model, apart=f"{apart:.0e}", base_model=hub, license="mit" if is_mit else "", dataset=dataset,
        other_classes=has_other_classes(model), has_data=has_data,
    )  # fmt: skip


def _in_markdown(value: Any) -> Any:
    """A class name or the like as text of a card: no markup, no HTML, no further line."""
    if not isinstance(value, str):
        return value
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(value.split()))


def hub_model() -> type:
    """`HubModel`, with save_pretrained, push_to_hub and from_pretrained as huggingface_hub's own mixin has them."""
    try:
        from huggingface_hub import ModelHubMixin, snapshot_download
    except ImportError as error:
        raise ValueError(f"the hub needs the package {error.name}: pip install huggingface_hub") from error

    class HubModel(ModelHubMixin, library_name="mocoop", tags=["mocoop", "clip", "prompt-learning"]):
        """A trained model on the hub, or in a folder laid out for it."""

        def __init__(self, model: TrainedModel, results: dict[str, Any] | None = None) -> None:
            self.model, self.results = model, results

        def _save_pretrained(self, save_directory: Path) -> None:
            with tempfile.TemporaryDirectory() as place:
                export(self.model, Path(place) / "export", self.results)
                shutil.copytree(Path(place) / "export", save_directory, dirs_exist_ok=True)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, revision: str | None, cache_dir: Any, force_download: bool,
                             local_files_only: bool, token: Any, backbone: str = "",
                             results: dict[str, Any] | None = None, **_: Any) -> "HubModel":  # fmt: skip
            folder = model_id
            if not os.path.isdir(folder):
                folder = snapshot_download(model_id, revision=revision, cache_dir=cache_dir, token=token,
                                           force_download=force_download, local_files_only=local_files_only)  # fmt: skip
            return cls(read_export(folder, backbone), results)

    return HubModel
