"""Files with right digests that say what no run says: each is refused in one line that names it, before it does harm."""

import copy
import json
import shutil

import pytest
import torch
from conftest import run_train
from test_runs import arguments, fails

from harness.data.prepare import read_sources
from trainers import load_run, methods
from trainers.core.clip.backbones import Preprocessing
from trainers.core.settings.errors import believing
from trainers.core.training import checkpoints
from trainers.core.training.resuming import Training

ANYTHING = [None, [], "x", 5, 1.5, True, float("nan"), {"a": 1}, 10**400]


@pytest.fixture(scope="module")
def run(mini_root, tiny_clip_file, tmp_path_factory):
    """A run of MoCoOp, as its user started it: (words, folder)."""
    out = tmp_path_factory.mktemp("forged") / "run"
    words = arguments(mini_root, tiny_clip_file, out)
    done = run_train(*words)
    assert done.returncode == 0, done.stderr
    return words, out


@pytest.fixture(scope="module")
def training(run):
    """What would resume it, without its data."""
    methods.register_all()
    _, out = run
    model = load_run(out).model
    for tensor in model.checkpoint_tensors().values():
        tensor.requires_grad_(True)
    state = checkpoints.load(checkpoints.latest(out))
    optimiser = torch.optim.SGD([{"params": list(model.trainable().values()), "lr": 0.1}] * 1, lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: 1.0)
    about = {
        "identity": state["identity"],
        "config": state["config"],
        "settings": state["settings"],
        "precision": "fp32",
    }
    found = Training(out, model, optimiser, schedule, torch.amp.GradScaler("cuda", enabled=False), about)
    for p in found.model.trainable().values():
        p.grad = torch.ones_like(p)
    optimiser.step()
    return found


def forged(folder, state):
    path = folder / "prompt_learner" / "model.pth.tar-9"
    path.parent.mkdir(exist_ok=True)
    state = {key: value for key, value in state.items() if key != "digest"}
    checkpoints.save(path, state)
    return path


def changes(state):
    """The state with one of its values, at the top or in the optimiser, put to anything."""
    for key in ("epoch", "optimizer", "random", "best_result", "batches_done", "text_chunk"):
        for value in ANYTHING:
            if (key, value) not in (("epoch", 1), ("best_result", 5), ("best_result", 1.5), ("text_chunk", 5)):
                yield f"{key} {str(value)[:9]}", lambda s, k=key, v=value: s.__setitem__(k, v)
    for name in ("python", "numpy", "torch"):
        yield f"random.{name}", lambda s, n=name: s["random"].__setitem__(n, 5)
    yield "rate", lambda s: s["optimizer"]["param_groups"][0].__setitem__("lr", 1e9)
    yield "rate nan", lambda s: s["optimizer"]["param_groups"][0].__setitem__("lr", float("nan"))
    yield "momentum", lambda s: s["optimizer"]["state"][0].__setitem__("momentum_buffer", torch.zeros(3))
    yield "kept", lambda s: s["optimizer"].__setitem__("state", [])


HARMLESS = {  # taken for what they spell, or never read in this run
    "epoch True", "best_result True", "best_result nan", "batches_done True", "batches_done 5", "batches_done 1.5",
    "batches_done nan", "text_chunk None", "text_chunk []", "text_chunk x", "text_chunk 1.5", "text_chunk True",
    "text_chunk nan", "text_chunk {'a': 1}", "text_chunk 100000000",
}  # fmt: skip


def test_a_training_goes_on_from_what_a_training_wrote_alone(training, tmp_path):
    """Eighty checkpoints with one value changed: ValueError, one line, naming the file; the generators stay whole."""
    whole = training.state(1, 50.0)
    path = forged(tmp_path, whole)
    training.restore(path, 2)  # what was not changed is resumed
    for name, change in changes(whole):
        state = copy.deepcopy(whole)
        change(state)
        path = forged(tmp_path, state)
        if name in HARMLESS:
            continue
        with pytest.raises(ValueError, match=r"model\.pth\.tar-9") as refused:
            training.restore(path, 2)
        assert "\n" not in str(refused.value), name


def test_weights_that_are_not_finite_are_not_saved(training):
    tensor = next(iter(training.model.trainable().values()))
    with torch.no_grad():
        kept = tensor.clone()
        tensor.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="is not finite after epoch 1, and is not saved"):
        training.state(1, 50.0)
    with torch.no_grad():
        tensor.copy_(kept)


@pytest.mark.parametrize("part", ["identity", "config", "classnames", "template_groups", "trainer", "backbone",
                                  "backbone_sha256", "INPUT", "SIZE", "PIXEL_MEAN", "TRAINER"])  # fmt: skip
def test_load_run_believes_what_a_run_wrote_alone(part, run, tmp_path):
    folder = shutil.copytree(run[1], tmp_path / "run")
    path = checkpoints.latest(folder)
    whole = checkpoints.load(path)
    for value in [*ANYTHING, ["x", "x"], [[5]], {"a": {}}, "["]:
        state = copy.deepcopy(whole)
        if part in ("identity", "config"):
            state[part] = value
        elif part.isupper():
            import yaml

            config = yaml.safe_load(state["config"])
            (config if part in config else config["INPUT"])[part] = value if value != 10**400 else 7
            state["config"] = yaml.safe_dump(config)
        else:
            state["identity"][part] = value
        state.pop("digest")
        checkpoints.save(path, state)
        harmless = {"TRAINER": [{"a": 1}, {"a": {}}], "classnames": [["x", "x"]]}  # no options; ImageNet's two missiles
        if value in harmless.get(part, []):
            continue
        with pytest.raises((ValueError, OSError)) as refused:
            load_run(folder)
        assert "\n" not in str(refused.value)


def test_evaluating_a_forged_model(run, mini_root, tiny_clip_file, tmp_path):
    folder = shutil.copytree(run[1], tmp_path / "run")
    path = checkpoints.latest(folder)
    state = checkpoints.load(path)
    state["identity"]["template_groups"] = 5
    state.pop("digest")
    checkpoints.save(path, state)
    words = [*arguments(mini_root, tiny_clip_file, tmp_path / "out"), "--eval-only", "--model-dir", folder]
    fails(run_train(*words), "model.pth.tar-2")


@pytest.mark.parametrize(("change", "said"), [
    ({"size": (10**6, 10**6)}, "size of the preprocessing"), ({"mean": (1.0,)}, "mean of the"),
    ({"std": (0.0, 1.0, 1.0)}, "std of the"), ({"interpolation": "x"}, "interpolation of the"),
    ({"resize_mode": 5}, "resize_mode of the"),
])  # fmt: skip
def test_no_backbone_wants_that_of_a_picture(change, said):
    right = {"size": (32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(ValueError, match=said):
        Preprocessing(**right | change)


@pytest.mark.parametrize("text", ["", "[]", "x", "{}", "datasets: null", "datasets: []", "datasets: {a: null}",
                                  "datasets: {a: {folder: a, pictures: [1, 1, 1], classes: 1, parts: [{gives: []}]}}",
                                  "datasets: {a: {folder: 5, pictures: [1], classes: 1}}", "a:\n\t- b", "a: [",
                                  "datasets: {a: {folder: a, pictures: [1], classes: 1, npm_gb: x}}"])  # fmt: skip
def test_a_list_of_sources_that_is_none(text, tmp_path):
    file = tmp_path / "sources.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"sources\.yaml") as refused:
        read_sources(file)
    assert "\n" not in str(refused.value)


def test_what_names_the_file_or_wants_memory_stays_as_it_is():
    for error in (ValueError("a/b: gone"), MemoryError("x"), OSError("no file")):
        with pytest.raises(type(error), match=str(error)), believing("a/b", "remove it"):
            raise error
    with (
        pytest.raises(ValueError, match=r"^a/b is damaged, or was changed by hand \(KeyError: epoch\): remove it$"),
        believing("a/b", "remove it"),
    ):
        json.loads("{}")["epoch"]
