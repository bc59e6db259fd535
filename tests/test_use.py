"""Trained runs in use: load_run, predict.py, export.py, the page; what they say is what the evaluation said."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from conftest import CLASSES, ROOT, acting, patience, run_train
from PIL import Image
from yacs.config import CfgNode

from harness.launcher import free_port
from harness.prompt_words import nearest_words, prompts_of
from harness.router import configuration
from trainers import load_run
from trainers.core.inference import open_model
from trainers.core.inference.export import FILES, export, hub_model, read_export
from trainers.core.inference.export import configuration as configuration_of
from trainers.core.inference.model import refuse_part
from trainers.core.inference.predict import find, names_from
from trainers.core.inference.sheet import Shown, pages
from trainers.core.inference.truth import truth_of
from trainers.core.loading.read import read_picture
from trainers.core.runs import mistakes
from trainers.core.training import checkpoints
from trainers.core.training.calibration import calibration_error, fitted_temperature
from trainers.core.training.device import described
from trainers.methods import methods

pytestmark = pytest.mark.xdist_group("use")  # the runs are made once

METHODS = ("MoCoOp", "CoOp", "CoCoOp", "ZeroshotCLIP", "LinearProbe", "MoCoOp+head")
PIECES = {"head": ("MODEL.HEAD.NAME", "text_means"), "tokens": ("TRAINER.MOCOOP.VISUAL_TOKENS", "[1, 2]"),
          "rank": ("TRAINER.MOCOOP.VISUAL_RANK", "2")}  # fmt: skip
LATER = ("LASP", "PromptSRC", "HardMixture", "TipAdapterF", "MaPLe", "TipAdapter", "GDA", "LPPlusPlus", "CLIPAdapter",
         "ZeroshotHead", "LASP+head", "CoCoOp+head", "TCP", "CLIPLoRA", "TwoSFS", "MMRL", "CLIPSVD", "MMRLpp", "CoPrompt",
         "DPL", "NormTuning", "MoCoOp+tokens", "MoCoOp+rank")  # fmt: skip


class Runs:
    """A finished run of every method, with or without one of PIECES, by name; made when it is first asked for."""

    def __init__(self, make):
        self._make, self._made = make, {}

    def __getitem__(self, name):
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]


@pytest.fixture(scope="module")
def runs(mini_root, literate_clip_file, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")

    def make(name):
        trainer, *pieces = name.split("+")
        done = run_train(
            "--trainer", trainer, "--root", mini_root, "--seed", "1", "--backbone", literate_clip_file, "--output-dir",
            root / name, "--dataset-config-file", "configs/datasets/caltech101.yaml", "--config-file",
            f"configs/trainers/{methods()[trainer].recipes_of}/small.yaml", *acting(trainer, "DATASET.NUM_SHOTS", "2",
            "OPTIM.MAX_EPOCH", "1", "OPTIM.WARMUP_EPOCH", "0", "DATALOADER.NUM_WORKERS", "0",
            *(["TRAINER.PROMPTSRC.GPA_MEAN", "1"] if trainer == "PromptSRC" else [])),
            *(word for piece in pieces for word in PIECES[piece]),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return root / name

    return Runs(make)


@pytest.fixture(scope="module")
def pictures(mini_root):
    folder = mini_root / "caltech-101" / "101_ObjectCategories"
    return [(folder / path, name) for path, _, name in
            json.loads((mini_root / "caltech-101" / "split_zhou_Caltech101.json").read_text())["test"]]  # fmt: skip


def predict(*words, cwd=ROOT):
    return forked.run(ROOT / "predict.py", *words, cwd=cwd, timeout=patience(120))


@pytest.mark.parametrize("trainer", [*METHODS, *(pytest.param(name, marks=pytest.mark.slow) for name in LATER)])
def test_what_is_loaded_and_exported_predicts_as_the_evaluation_did(trainer, runs, pictures, tmp_path):
    model = load_run(runs[trainer])
    results = json.loads((runs[trainer] / "results.json").read_text())
    found = model.classify([path for path, _ in pictures], top=1)
    assert sum(p.classes[0][0] == name for p, (_, name) in zip(found, pictures, strict=True)) == results["correct"]
    images = torch.stack([model.read(path) for path, _ in pictures])
    labels = torch.tensor([CLASSES.index(name) for _, name in pictures])
    logits = model(images)
    assert calibration_error(logits, labels) == pytest.approx(results["ece"], abs=1e-3)
    assert model.temperature == results.get("temperature")

    assert export(model, tmp_path / "out", results) < 1e-4
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    outputs = session.run(None, {"pictures": images.numpy()})
    assert np.allclose(outputs[0], logits.numpy(), atol=1e-5 * max(10, float(logits.abs().max())))
    if trainer == "MoCoOp":
        assert np.allclose(outputs[1].sum(1), 1, atol=1e-5)
        assert [p.experts[0][0] for p in found] == [model.experts[row.argmax()] for row in outputs[1]]
    again = read_export(tmp_path / "out")
    assert torch.equal(again(images), logits)
    assert again.classnames == model.classnames


def test_it_needs_no_dassl_no_yacs_and_no_folder(runs, pictures, tmp_path):
    code = f"""
import sys
for name in ("dassl", "yacs", "yacs.config"):
    sys.modules[name] = None
sys.path.insert(0, {str(ROOT)!r})
from trainers import load_run
model = load_run({str(runs["MoCoOp"])!r})
print(model.classify({str(pictures[0][0])!r}, top=2)[0].classes[0][0])
print(model.with_classes(["okapi", "red panda"]).classnames)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=patience(120)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("['okapi', 'red panda']")


def test_the_router_of_a_mixture_with_a_head_is_shown(runs):
    shown = forked.run(ROOT / "scripts" / "inspect_router.py", runs["MoCoOpPlus"], cwd=ROOT, timeout=patience(120))
    assert shown.returncode == 0, shown.stderr
    assert (runs["MoCoOpPlus"] / "router.json").is_file()
    assert "picture's own domain" not in shown.stdout  # whose groups are no styles
    none = forked.run(ROOT / "scripts" / "inspect_router.py", runs["CoOp"], cwd=ROOT, timeout=patience(120))
    assert none.returncode != 0
    assert "is no MoCoOp but CoOp: it has no router" in none.stderr


def test_the_router_is_shown_from_another_folder_or_in_one_line_it_is_said_why_not(runs, tmp_path):
    (tmp_path / "file").write_text("mine")
    words = [ROOT / "scripts" / "inspect_router.py", runs["MoCoOpPlus"], "--across", "1", "--out"]
    shown = forked.run(*words, tmp_path / "shown", cwd=tmp_path, timeout=patience(120))
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "shown" / "contact_sheet.png").is_file()
    failed = forked.run(*words, tmp_path / "file", cwd=tmp_path, timeout=patience(120))
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert len(failed.stderr.splitlines()) == 1


def test_what_a_federations_clients_keep_is_not_interpreted():
    tensors = {"prompts.before.0": torch.ones(2, 4), "ctx": torch.ones(3, 4)}
    state = {"state_dict": tensors, "identity": {"trainer": "FedPer"}, "federation": {"kept": ["ctx"]}}
    assert [name for name, _ in prompts_of(state)] == ["group 0, before the class name"]
    with pytest.raises(ValueError, match="FedPer's server, and its clients keep what it lacks: ctx"):
        refuse_part(state, Path("model"))


def test_class_names_with_a_slash_and_those_of_a_folder_of_pictures(tmp_path):
    assert names_from("F/A-18,Spitfire") == ["F/A-18", "Spitfire"]
    (tmp_path / "classnames.txt").write_text("star a star\nheart a heart\n")
    assert names_from(str(tmp_path / "classnames.txt")) == ["star a star", "heart a heart"]
    for name in ("star", "heart"):
        (tmp_path / name).mkdir()
    assert names_from(str(tmp_path / "classnames.txt")) == ["a star", "a heart"]
    (tmp_path / "train").mkdir()
    for name in ("star", "heart"):
        (tmp_path / name).rename(tmp_path / "train" / name)
    assert names_from(str(tmp_path / "classnames.txt")) == ["a star", "a heart"]
    with pytest.raises(FileNotFoundError, match="no file a/b"):
        names_from("a/b")


def test_a_picture_that_is_named_twice_is_classified_once(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert find(["a.png", "./a.png", str(tmp_path)]) == (["a.png"], [])
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    assert [Path(path).name for path in find(["b.png", str(tmp_path)])[0]] == ["b.png", "a.png"]  # as they were named
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.CR2").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"no pictures at raw \(1 files are no pictures of a kind that is read \(.cr2\)"
    ):
        find(["raw"])


def test_truth_of_a_part_of_a_folder_reads_the_whole_folders_names(tmp_path):
    (tmp_path / "test" / "nominal").mkdir(parents=True)
    (tmp_path / "classnames.txt").write_text("nominal nominal texture\n")
    picture = str(tmp_path / "test" / "nominal" / "a.png")
    assert truth_of([picture], [str(tmp_path / "test")], ["nominal texture", "star"]) == {picture: "nominal texture"}
    within = [str(tmp_path / "test" / "nominal")]
    assert truth_of([picture], within, ["nominal texture", "star"]) == {picture: "nominal texture"}
    (tmp_path / "star").mkdir()
    assert truth_of([str(tmp_path / "star" / "a.png")], [str(tmp_path / "star")], ["star"])  # a list above is no matter


def test_another_dataset_is_shown_whole():
    own = {
        "DATASET": {"NAME": "Caltech101", "SUBSAMPLE_CLASSES": "base"},
        "MODEL": {"BACKBONE": {"NAME": str(ROOT / "assets" / "drawn_clip.pt")}},
    }
    cfg = CfgNode(own)
    assert configuration(cfg.dump(), "demo", None).DATASET.SUBSAMPLE_CLASSES == "all"
    assert configuration(cfg.dump(), None, None).DATASET.SUBSAMPLE_CLASSES == "base"


def test_words_that_were_never_learned_are_no_nearest_words():
    table_VW = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 9.0]])
    vocabulary = SimpleNamespace(words=lambda rows: [f"word {i}" for i in rows])
    (found,) = nearest_words(torch.tensor([[1.0, 0.0]]), table_VW, 2, vocabulary)
    assert [word for word, _ in found] == ["word 1", "word 3"]


class TestClasses:
    @pytest.mark.parametrize("name", ["MoCoOp", "CLIPLoRA", "CLIPSVD"])
    def test_other_classes_without_training(self, name, runs, pictures):
        model = load_run(runs[name])
        learned = set(model.model.checkpoint_tensors())
        images = torch.stack([model.read(path) for path, _ in pictures[:3]])
        before = model(images)
        same = model.with_classes(list(reversed(CLASSES)))
        assert set(model.model.checkpoint_tensors()) == learned
        assert torch.allclose(same(images), before.flip(1), atol=1e-5)
        more = model.with_classes([*CLASSES, "okapi"])
        assert torch.allclose(more(images)[:, :-1], before, atol=1e-5)
        assert torch.equal(model(images), before)

    @pytest.mark.parametrize("names", [[], ["cat", ""], ["cat", " cat"], ["red_panda", "red panda"]])
    def test_names_that_make_no_sense(self, runs, names):
        with pytest.raises(ValueError, match=r"is empty|named twice"):
            load_run(runs["CoOp"], classnames=names)

    @pytest.mark.parametrize(
        "name",
        ["MoCoOp+head", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ZeroshotHead", "CoCoOp+head"))],
    )
    def test_a_head_knows_its_classes_by_name(self, name, runs, pictures):
        """In any order, among others, and for classes without pictures it predicts what theirs would look like."""
        model = load_run(runs[name])
        images = torch.stack([model.read(path) for path, _ in pictures[:3]])
        before = model(images)
        shuffled = model.with_classes(list(reversed(CLASSES)))
        assert torch.allclose(shuffled(images), before.flip(1), atol=1e-4)
        with_more = model.with_classes([*CLASSES, "okapi"])
        assert with_more(images).isfinite().all()
        head, other = model.model.head, with_more.model.head
        assert other.seen_C.tolist() == [0, 1, 2, 3, 4, 5, -1]
        assert torch.equal(head.mean_SD, other.mean_SD)
        scale = model.model.logit_scale.exp()
        assert float(other.classifier(scale)[0][-1].detach().norm()) > 0

    def test_a_probe_knows_its_own_only(self, runs):
        with pytest.raises(ValueError, match="knows only the classes"):
            load_run(runs["LinearProbe"]).with_classes(["cat", "dog"])


class TestWhatIsNoRun:
    def test_no_folder_and_no_run(self, runs, tmp_path):
        with pytest.raises(FileNotFoundError, match="no folder"):
            load_run(tmp_path / "nowhere")
        with pytest.raises(ValueError, match="holds no trained model: give"):
            load_run(tmp_path)
        with pytest.raises(ValueError, match=r"holds no trained model; did you mean .*/\w+\?"):
            load_run(runs["MoCoOp"].parent)

    def test_a_run_that_is_not_finished(self, runs, tmp_path):
        shutil.copytree(runs["CoOp"], tmp_path / "run")
        (tmp_path / "run" / "results.json").unlink()
        with pytest.raises(ValueError, match="is not finished"):
            load_run(tmp_path / "run")
        assert load_run(tmp_path / "run", epoch=1).method == "CoOp"

    def test_a_backbone_that_is_not_at_hand_or_another_one(self, runs, tmp_path):
        with pytest.raises(ValueError, match=r"trained on .*literate_clip\.pt \(SHA-256 [0-9a-f]{64}\): give it"):
            load_run(runs["CoOp"], backbone=str(tmp_path / "gone.pt"))
        with pytest.raises(ValueError, match="is another backbone than the model's"):
            load_run(runs["CoOp"], backbone=str(ROOT / "assets" / "drawn_clip.pt"))

    def test_a_damaged_export(self, runs, tmp_path):
        export(load_run(runs["CoOp"]), tmp_path / "out")
        whole = (tmp_path / "out" / "model.safetensors").read_bytes()
        (tmp_path / "out" / "model.safetensors").write_bytes(whole[:100])
        with pytest.raises(ValueError, match="damaged"):
            open_model(tmp_path / "out")
        (tmp_path / "out" / "model.safetensors").write_bytes(whole)
        (tmp_path / "out" / "config.json").write_text("{}")
        with pytest.raises(ValueError, match="no export of this project"):
            open_model(tmp_path / "out")


def test_an_export_writes_nothing_where_something_else_is(runs, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other files"):
        export(load_run(runs["CoOp"]), tmp_path / "mine")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    (tmp_path / "mine" / "thesis.tex").rename(tmp_path / "mine" / "README.md")
    with pytest.raises(ValueError, match="holds other files"):
        export(load_run(runs["CoOp"]), tmp_path / "mine")


def test_the_cards_own_example_predicts_the_same(runs, pictures, tmp_path):
    """Also of pictures that are turned, transparent, or 16 bits deep, as people's own are read."""
    model = load_run(runs["LASP"])
    model.upright = True
    export(model, tmp_path / "out", json.loads((runs["LASP"] / "results.json").read_text()))
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    noise, exif = Image.effect_noise((60, 40), 90), Image.Exif()
    exif[0x0112] = 6
    noise.convert("RGB").save(tmp_path / "turned.jpg", exif=exif)
    Image.merge("RGBA", [noise, noise, noise, noise.rotate(180)]).save(tmp_path / "clear.png")
    Image.fromarray(np.asarray(noise).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    paths = [str(path) for path, _ in pictures] + [
        str(tmp_path / name) for name in ("turned.jpg", "clear.png", "deep.png")
    ]
    prepare = code.split("session =")[0] + "\nnp.save('prepared.npy', np.stack([prepare(p) for p in sys.argv[1:]]))"
    subprocess.run([sys.executable, "-c", prepare, *paths], cwd=tmp_path / "out", check=True)
    prepared = torch.from_numpy(np.load(tmp_path / "out" / "prepared.npy"))
    assert torch.allclose(prepared, torch.stack([model.read(path) for path in paths]), atol=1e-5)
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    shown = [line.removeprefix(f"{path} ") for path, line in zip(paths, done.stdout.splitlines(), strict=True)]
    found = [p.classes[0] for p in model.classify(paths, top=1, calibrated=True)]
    assert [line.split(" % ")[1] for line in shown] == [name for name, _ in found]
    assert [float(line.split(" % ")[0]) for line in shown] == pytest.approx([100 * p for _, p in found], abs=0.06)
    front = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert front["license"] == "other"  # the golden CLIP is nobody's
    (result,) = front["model-index"][0]["results"]
    expected = json.loads((runs["LASP"] / "results.json").read_text())["accuracy"]
    assert result["metrics"][0]["value"] == pytest.approx(expected, abs=0.01)


def test_the_example_of_the_document(runs, pictures, tmp_path):
    text = (ROOT / "docs" / "USING.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    code = code.replace("output/fewshot/demo/shots_16/MoCoOp/small/seed1", str(runs["MoCoOp"]))
    code = code.replace("pics/dice_dark.png", str(pictures[0][0]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=patience(120))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[Prediction(picture=")


def test_push_and_pull_through_a_folder(runs, pictures, tmp_path):
    model = load_run(runs["MoCoOp"])
    hub_model()(model).save_pretrained(tmp_path / "hub")
    pulled = hub_model().from_pretrained(str(tmp_path / "hub")).model
    path = pictures[0][0]
    assert pulled.classify(path) == model.classify(path)


def test_what_an_export_is_made_of_again_keeps_its_results(runs, tmp_path):
    results = json.loads((runs["CoOp"] / "results.json").read_text())
    assert forked.run(ROOT / "export.py", runs["CoOp"], tmp_path / "first").returncode == 0
    assert forked.run(ROOT / "export.py", tmp_path / "first", tmp_path / "second").returncode == 0
    kept = json.loads((tmp_path / "second" / "config.json").read_text())["results"]
    for found in (kept, hub_model().from_pretrained(str(tmp_path / "second")).results):
        assert found["accuracy"] == results["accuracy"]


@pytest.mark.slow
def test_a_small_model_leaves_no_weights_of_a_large_one(runs, tmp_path):
    for name in ("model.onnx", "model.onnx.data"):  # together they are an earlier export
        (tmp_path / name).write_text("of a large one")
    export(load_run(runs["CoOp"]), tmp_path)
    assert not (tmp_path / "model.onnx.data").exists()


def test_a_large_model_keeps_its_weights_beside_it(runs, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1)
    model = load_run(runs["CoOp"])
    export(model, tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx.data").is_file()
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    images = torch.stack([model.read(path) for path, _ in pictures[:2]])
    found = session.run(None, {"pictures": images.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), model(images), atol=1e-3)


def test_an_opened_picture_is_read_as_its_file_is(runs, tmp_path):
    model, noise, exif = load_run(runs["CoOp"]), Image.effect_noise((60, 40), 90), Image.Exif()
    exif[0x0112] = 6
    noise.convert("RGB").save(tmp_path / "turned.jpg", exif=exif)
    noise.quantize(8).save(tmp_path / "palette.png")
    for upright in (False, True):
        model.upright = upright
        for name in ("turned.jpg", "palette.png"):
            expected = model.read(tmp_path / name)
            with Image.open(tmp_path / name) as picture:
                assert torch.equal(model.read(picture), expected), (name, upright)
            assert torch.equal(model.read(read_picture(tmp_path / name, upright)), expected), (name, upright)


def test_other_classes_have_no_threshold_of_theirs(runs, pictures, tmp_path):
    model = load_run(runs["CoOp"], classnames=["okapi", "red panda"])
    config = configuration_of(model, {})
    assert "reject_below" not in config
    assert "reject_below" in configuration_of(load_run(runs["CoOp"]), {})
    shutil.copy(pictures[0][0], tmp_path / "a.jpg")
    done = predict(runs["CoOp"], tmp_path / "a.jpg", "--classnames", "okapi, red panda", "--reject", "validation")
    assert "Note: the threshold is that of the classes of training, and these are others" in done.stdout
    done = predict(runs["CoOp"], tmp_path / "a.jpg", "--device", "cuda")
    assert done.stderr.strip() == "error: --device is cuda, and torch finds no GPU: leave it out"


def test_float32_is_multiplied_as_in_training_and_then_as_before(runs):
    model = load_run(runs["CoOp"])
    seen, told = [], described()["float32"]
    predict_of = type(model.model).predict
    model.model.predict = lambda images: (seen.append(described()["float32"]), predict_of(model.model, images))[1]
    for tf32 in (False, True):
        model.tf32 = tf32
        model(torch.zeros(1, 3, 32, 32))
        assert described()["float32"] == told
    assert {*seen[0]} <= {"ieee", "False"}
    assert {*seen[-1]} <= {"tf32", "True"}


class TestMistakes:
    def test_a_page_needs_no_backbone(self, runs, tmp_path):
        """Without it, it names no experts; a method without experts does not ask for it."""
        for name, noted in (("MoCoOp", True), ("CoOp", False)):
            run = shutil.copytree(runs[name], tmp_path / name)
            done = forked.run(ROOT / "scripts" / "mistakes.py", run, "--backbone", tmp_path / "gone.pt")
            assert done.returncode == 0, done.stderr
            assert ("Note: the page names no experts" in done.stderr) == noted
            assert (run / "mistakes.html").is_file()

    def test_a_runs_surest_mistakes_as_a_page(self, runs, pictures, tmp_path):
        run = shutil.copytree(runs["MoCoOp"], tmp_path / "run")
        results = json.loads((run / "results.json").read_text())
        found = mistakes.read(run / mistakes.NAME)
        assert len(found) == results["total"] - results["correct"] > 0
        assert [m.confidence for m in found] == sorted((m.confidence for m in found), reverse=True)
        known = {str(path): name for path, name in pictures}
        model = load_run(run)
        for m in found:
            assert m.classname == known[m.picture] != m.predicted
            (own,) = model.classify(m.picture, top=6)
            assert own.classes[0] == (m.predicted, pytest.approx(m.confidence, abs=1e-5))
            assert dict(own.classes)[m.classname] == pytest.approx(m.of_class, abs=1e-5)
        done = forked.run(ROOT / "scripts" / "mistakes.py", run)
        assert done.returncode == 0, done.stderr
        page = (run / "mistakes.html").read_text()
        assert page.count('<figure class="wrong">') == len(found)
        assert "weight of an expert" in page
        assert f"{len(found)} of {len(found)} mistakes" in page

    def test_where_there_is_none(self, runs, tmp_path):
        run = shutil.copytree(runs["CoOp"], tmp_path / "run")
        for change, said in (
            (lambda: (run / mistakes.NAME).write_text("picture\na\n"), "cannot be read"),
            (lambda: (run / mistakes.NAME).write_text(",".join(mistakes.HEADER) + "\n/x.jpg,ant,bass,0.1,0.9\n"),
             "lists no mistakes of a run"),
            (lambda: (run / mistakes.NAME).write_text(",".join(mistakes.HEADER) + "\n/x.jpg,ant,bass,0.9,0.1\n"),
             "/x.jpg and the others are gone"),
            (lambda: (run / mistakes.NAME).unlink(), "evaluated by an older version"),
            (lambda: (run / "results.json").unlink(), "is no finished run"),
        ):  # fmt: skip
            change()
            done = forked.run(ROOT / "scripts" / "mistakes.py", run)
            assert done.returncode == 2
            assert said in done.stderr


class TestPredict:
    def test_table_files_and_sheet(self, runs, pictures, tmp_path):
        names = [tmp_path / f"{i}.png" for i in range(3)]
        for name, (path, _) in zip(names, pictures, strict=False):
            Image.open(path).save(name)
        done = predict(runs["MoCoOp"], tmp_path, "--top", 2, "--csv", "a.csv", "--json", "a.json", "--sheet", "a.html",
                       cwd=tmp_path)  # fmt: skip
        assert done.returncode == 0, done.stderr
        expected = load_run(runs["MoCoOp"]).classify(names, top=2)
        with open(tmp_path / "a.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["picture", "rank", "class", "probability", "experts"]
        assert [(r["picture"], r["class"]) for r in rows] == [(p.picture, c) for p in expected for c, _ in p.classes]
        assert [float(r["probability"]) for r in rows] == pytest.approx(
            [s for p in expected for _, s in p.classes], abs=1e-6
        )
        read = json.loads((tmp_path / "a.json").read_text())
        assert [p["experts"][0]["template"] for p in read] == [p.experts[0][0] for p in expected]
        page = (tmp_path / "a.html").read_text()
        assert page.count("data:image/jpeg;base64,") == 3
        assert "http" not in page

    def test_truth_by_folders_and_what_is_rejected(self, runs, pictures, tmp_path):
        """Figures are those of a run's own evaluation; pictures of no class count apart; mistakes come first."""
        for path, name in pictures:
            target = tmp_path / "pictures" / name.replace("_", " ").upper() / "deeper" / Path(path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        (tmp_path / "pictures" / "unknown").mkdir()
        Image.effect_noise((40, 40), 90).save(tmp_path / "pictures" / "unknown" / "noise.png")
        words = [runs["MoCoOp"], tmp_path / "pictures", "--truth", "folders", "--csv", "a.csv", "--sheet", "a.html"]
        done = predict(*words, "--reject", "validation", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results = json.loads((runs["MoCoOp"] / "results.json").read_text())
        below = results["reject_below"]
        shown = f"{results['accuracy']:.1f} % ({results['correct']}) right, macro F1 {results['macro_f1']:.1f} %"
        assert f"24 pictures of 6 classes: {shown}" in done.stdout
        assert f"less probable than {below:.3f}, as chosen on validation pictures" in done.stdout
        assert "none of these classes: 1 pictures in other folders" in done.stdout
        assert "AUROC" in done.stdout
        with open(tmp_path / "a.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["rank"] == "1"]
        assert {row["truth"] for row in rows} == {*CLASSES, ""}
        assert all((row["rejected"] == "yes") == (float(row["probability"]) < below) for row in rows)
        page = (tmp_path / "a.html").read_text()
        assert page.count('<figure class="wrong">') + page.count('<figure class="right">') == 25
        assert page.rindex('class="wrong"') < page.index('class="right"')
        assert "none of the classes" in page
        with_calibration = predict(*words[:4], "--reject", "validation", "--calibrated")
        assert f"less probable than {results['reject_below_calibrated']:.3f}" in with_calibration.stdout
        everything = predict(*words[:4], "--reject", "1")
        assert "25 pictures: none, 25 rejected" in everything.stdout
        assert "rejected: 100.0 % (24) of them; of the others none right" in everything.stdout

    def test_what_is_wrong_with_truth_and_thresholds(self, runs, pictures, tmp_path):
        shutil.copy(pictures[0][0], tmp_path / "a.jpg")
        done = predict(runs["CoOp"], tmp_path / "a.jpg", "--truth", "folders")
        assert done.returncode == 2
        assert f'"{tmp_path.name}" is none of accordion, air_plane' in done.stderr
        done = predict(runs["CoOp"], tmp_path / "a.jpg", "--reject", "1.5")
        assert done.returncode == 2
        assert '--reject is "1.5": use a probability from 0 to 1, or validation' in done.stderr
        done = predict(runs["ZeroshotCLIP"], tmp_path / "a.jpg", "--reject", "validation")
        assert done.returncode == 2
        assert "no threshold that was chosen on validation pictures" in done.stderr
        (tmp_path / "classnames.txt").write_text("n01 ant\nn02 bass\n")
        assert truth_of([str(tmp_path / "n01" / "x.jpg")], [str(tmp_path)], ["ant", "bass"]) == {
            str(tmp_path / "n01" / "x.jpg"): "ant"
        }
        (tmp_path / "classnames.txt").write_text("cls_a-1 ant\nn02 bass\n")
        inside = [str(tmp_path / "cls_a-1" / "deep" / "x.jpg"), str(tmp_path / "junk" / "y.jpg")]
        assert list(truth_of(inside, [str(tmp_path)], ["ant", "bass"]).values()) == ["ant", ""]
        above = str(tmp_path / "ant" / "given")  # a folder above that which was given says nothing
        with pytest.raises(ValueError, match="no picture lies in a folder"):
            truth_of([f"{above}/junk/z.jpg"], [above], ["ant", "bass"])

    def test_sheets_stay_small_and_overwrite_nothing(self, runs, pictures, tmp_path):
        shown = [Shown(str(pictures[i % 4][0]), [("ant", 0.9)], []) for i in range(450)]
        made = dict(pages(tmp_path / "found.html", shown, "450 pictures", "two classes", False))
        assert [path.name for path in made] == ["found.html", "found-2.html", "found-3.html"]
        assert [page.count("<figure") for page in made.values()] == [200, 200, 50]
        assert all('<a href="found-3.html">3</a>' in page for page in [*made.values()][:2])
        assert max(map(len, made.values())) < 3 * 2**20
        for name in ("found-2.html", "other.csv"):
            shutil.copy(pictures[0][0], tmp_path / name)
        many = tmp_path / "many"
        many.mkdir()
        for i in range(201):
            (many / f"{i}.jpg").symlink_to(pictures[0][0])
        before = (tmp_path / "found-2.html").read_bytes()
        for more in ([tmp_path / "found-2.html"], ["--csv", tmp_path / "found-2.html"],
                     ["--classnames", tmp_path / "found-2.html"]):  # fmt: skip
            done = predict(runs["CoOp"], many, *more, "--sheet", tmp_path / "found.html")
            assert done.returncode == 2
            assert "found-2.html would be overwritten" in done.stderr
        assert (tmp_path / "found-2.html").read_bytes() == before
        gone = dict(pages(tmp_path / "a.html", [Shown("/nowhere.png", [("ant", 0.9)], [])], "1", "x", False))
        assert "not there any more" in gone[tmp_path / "a.html"]

    def test_files_that_are_named_for_it(self, runs, pictures, tmp_path):
        """Devices are written to and stay devices, links stay links, and a spreadsheet meets no formula."""
        odd = tmp_path / "=1+1.png"
        shutil.copy(pictures[0][0], odd)
        steering = tmp_path / "\x1b[31mred.png"
        shutil.copy(pictures[0][0], steering)
        raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
        shutil.copy(pictures[0][0], raw)
        (tmp_path / "link.csv").symlink_to("there.csv")
        done = predict(
            runs["CoOp"], "=1+1.png", str(steering), os.fsdecode(raw), "--csv", tmp_path / "link.csv", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert "\\x1b[31mred.png" in done.stdout
        assert (tmp_path / "link.csv").is_symlink()
        rows = list(csv.reader((tmp_path / "there.csv").read_text().splitlines()))
        assert rows[1][0] == "'=1+1.png"
        assert rows[-1][0].endswith("caf\\udce9.png")
        assert predict(runs["CoOp"], odd, "--csv", "/dev/null").returncode == 0
        assert Path("/dev/null").is_char_device()
        full = predict(runs["CoOp"], odd, "--csv", "/dev/full")
        assert full.returncode == 2
        assert "No space left on device" in full.stderr
        assert Path("/dev/full").is_char_device()

    def test_nothing_that_was_read_is_overwritten(self, runs, pictures, tmp_path):
        run = shutil.copytree(runs["CoOp"], tmp_path / "run")
        (tmp_path / "names.txt").write_text("red panda\nokapi\n")
        for target, *more in (
            (run / "results.json",),
            (tmp_path / "names.txt", "--classnames", tmp_path / "names.txt"),
        ):
            before = target.read_bytes()
            done = predict(run, pictures[0][0], "--csv", target, *more)
            assert done.returncode == 2
            assert "would be overwritten: name another file" in done.stderr
            assert target.read_bytes() == before
        done = predict(run, pictures[0][0], "--classnames", "okapi;red panda")
        assert '"okapi;red panda" is one class, and every picture would be that' in done.stderr

    def test_other_classes_by_words_and_by_file(self, runs, pictures, tmp_path):
        by_words = predict(runs["CoOp"], pictures[0][0], "--classnames", "red panda, okapi")
        (tmp_path / "names.txt").write_text("red panda\nokapi\n\n")
        by_file = predict(runs["CoOp"], pictures[0][0], "--classnames", tmp_path / "names.txt")
        assert by_words.returncode == by_file.returncode == 0, by_words.stderr
        assert by_words.stdout == by_file.stdout
        assert "okapi" in by_words.stdout

    def test_what_cannot_be_read_is_named_and_the_rest_done(self, runs, pictures, tmp_path):
        (tmp_path / "bad.jpg").write_text("no picture")
        done = predict(runs["CoOp"], tmp_path / "bad.jpg", pictures[0][0])
        assert done.returncode == 1
        assert "bad.jpg cannot be read" in done.stderr
        assert str(pictures[0][0]) in done.stdout

    def test_pictures_of_all_modes(self, runs, pictures, tmp_path):
        picture = Image.open(pictures[0][0]).convert("RGB")
        picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
        picture.quantize(16).save(tmp_path / "palette.png")
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.png")
        picture.convert("LA").save(tmp_path / "alpha.png")
        done = predict(runs["CoOp"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert len([line for line in done.stdout.splitlines() if str(tmp_path) in line]) == 4

    @pytest.mark.parametrize(("words", "message"), [
        (["nowhere", "x.jpg"], "no pictures at x.jpg"),
        (["nowhere", str(ROOT / "docs" / "pictures")], "no folder nowhere"),
    ])  # fmt: skip
    def test_wrong_words_are_one_line(self, words, message):
        done = predict(*words)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_turned_pictures_are_read_as_in_training(runs, pictures, tmp_path):
    model = load_run(runs["CoOp"])
    turned = Image.effect_noise((50, 30), 90).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    as_it_lies = model.read(tmp_path / "turned.png")  # benchmarks are read as Dassl reads them
    model.upright = True  # own pictures as they hang
    upright = model.read(tmp_path / "turned.png")
    assert torch.allclose(upright, model.transform(turned.rotate(-90, expand=True)), atol=1e-5)
    assert not torch.allclose(upright, as_it_lies)


def test_calibration():
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (4000,))
    sharp = torch.randn(4000, 5)
    sharp[torch.arange(4000), labels] += 1.0
    temperature = fitted_temperature(5 * sharp, labels)
    assert temperature == pytest.approx(5 * fitted_temperature(sharp, labels), rel=1e-2)
    assert calibration_error(5 * sharp, labels, temperature) < 3 < calibration_error(5 * sharp, labels)
    faultless = torch.eye(5)[labels]
    assert 0.05 <= fitted_temperature(10 * faultless, labels) < 1
    assert fitted_temperature(10 * faultless, (labels + 1) % 5) == pytest.approx(20.0, rel=1e-3)
    few = [fitted_temperature(scale * faultless[:5], labels[:5]) for scale in (10, 30, 100, 1000)]
    assert few == pytest.approx(sorted(few), abs=1e-4)  # nothing is left to chance where pictures say little
    assert all(0.3 < t <= 1.0 + 1e-4 for t in few)


@pytest.mark.parametrize("value", [-1, 0, 1e9, "x", None, True])
def test_a_temperature_that_was_never_fitted_is_refused(value, runs, tmp_path):
    run = shutil.copytree(runs["CoOp"], tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"temperature": value}))
    with pytest.raises(ValueError, match=r"results.json cannot be believed: temperature is .*from 0\.05 to 20"):
        load_run(run)


def test_calibrated_where_nothing_was_fitted(runs, pictures):
    done = predict(runs["ZeroshotCLIP"], pictures[0][0], "--calibrated")
    assert done.returncode == 2
    assert "there is no temperature for calibrated probabilities" in done.stderr
    assert load_run(runs["CoOp"]).temperature is not None
    assert load_run(runs["CoOp"], epoch=1).temperature is None


def test_an_earlier_epochs_export_claims_no_result(runs, tmp_path):
    """results.json is of the last one."""
    done = forked.run(ROOT / "export.py", runs["CoOp"], tmp_path / "out", "--epoch", "1", timeout=patience(120))
    assert done.returncode == 0, done.stderr
    assert not json.loads((tmp_path / "out" / "config.json").read_text()).get("results")


def test_how_calibrated_sure_probabilities_are():
    sure = torch.tensor([[100.0, 0.0], [100.0, 0.0]])
    assert calibration_error(sure, torch.tensor([0, 1])) == pytest.approx(50.0)
    assert calibration_error(sure, torch.tensor([0, 0])) == pytest.approx(0.0)


def test_a_method_without_steps_keeps_what_it_made(runs):
    state = checkpoints.load(runs["LinearProbe"] / "prompt_learner" / "model.pth.tar")
    assert sorted(state["state_dict"]) == ["bias_C", "weight_CD"]


def test_the_page_answers_its_own_requests_beside_silent_connections(runs, pictures):
    """Half-sent requests hold up nobody; other hosts, other origins, too many names and too much are refused in a line."""
    port = free_port()
    here, boundary = f"http://127.0.0.1:{port}", "b"
    command = [sys.executable, "scripts/explore.py", str(runs["ZeroshotCLIP"]), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert server.stdout.readline().startswith("Open ")

    def ask(headers=(), names="", body=None):
        head = f"--{boundary}\r\nContent-Disposition: form-data; name="
        sent = f'{head}"classnames"\r\n\r\n{names}\r\n{head}"picture"; filename="x"\r\n\r\n'.encode()
        sent += (pictures[0][0].read_bytes() if body is None else body) + f"\r\n--{boundary}--\r\n".encode()
        said = {"Content-Type": f"multipart/form-data; boundary={boundary}"} | dict(headers)
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{here}/classify", sent, said), timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    try:
        for connection in silent[10:]:
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999\r\n\r\nhalf")
        status, answer = ask({"Origin": here})
        assert status == 200
        (expected,) = load_run(runs["ZeroshotCLIP"]).classify(str(pictures[0][0]))
        assert json.loads(answer)["classes"][0][0] == expected.classes[0][0]
        assert ask()[0] == 200  # a program sends no Origin
        assert ask({"Origin": "http://elsewhere.example"}) == (403, "this page answers its own requests alone")
        assert ask({"Origin": "null"})[0] == 403
        assert ask({"Host": "elsewhere.example"}) == (403, "this page answers 127.0.0.1 alone")
        assert ask({"Host": f"127.0.0.1:{port + 1}"})[0] == 403
        many = ",".join(f"thing {i}" for i in range(1001))
        assert ask(names=many)[0] == 400
        assert "1,001 names are too many for this page" in ask(names=many)[1]
        for names in ("okapi, red panda", "okapi, okapi", ",", "x" * 5000):
            assert ask(names=names)[0] == (200 if names == "okapi, red panda" else 400)
        assert ask(body=b"%!PS-Adobe-3.0 EPSF-3.0")[0] == 400
    finally:
        for connection in silent:
            connection.close()
        server.send_signal(signal.SIGINT)
        with server:
            try:
                assert server.wait(patience(20)) == 0
            finally:
                server.kill()


@pytest.mark.slow
def test_the_page_in_a_browser(runs, pictures, tmp_path):
    """A picture dropped, the answer read, a wrong file refused, at 1,280 and 390 pixels; no other host is asked."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("no chromium with chromedriver on this machine (Debian: chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By

    port = free_port()
    command = [sys.executable, "scripts/explore.py", str(runs["MoCoOp"]), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for word in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-sync", f"user-data-dir={tmp_path / 'chromium'}"):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = None

    def wait_for(found):
        end = time.monotonic() + patience(20)
        while not (value := found()):
            assert time.monotonic() < end, browser.find_element(By.TAG_NAME, "body").text
            time.sleep(0.2)
        return value

    def text():
        return browser.find_element(By.TAG_NAME, "body").text

    def is_up():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).status == 200
        except OSError:
            return False

    (expected,) = load_run(runs["MoCoOp"]).classify(str(pictures[0][0]))
    try:
        browser = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
        wait_for(is_up)
        for width in (1280, 390):
            screen = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            browser.get(f"http://127.0.0.1:{port}/")
            field = wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "input[type=file]"))[0]
            field.send_keys(str(pictures[0][0]))
            wait_for(lambda: "%" in text())
            assert browser.find_element(By.CSS_SELECTOR, "#drop img").get_attribute("naturalWidth") != "0"
            assert expected.classes[0][0] in text()
            assert expected.experts[0][0] in text()
            assert browser.execute_script("return document.documentElement.scrollWidth") == width
            names = browser.find_element(By.CSS_SELECTOR, "input[type=text]")
            names.send_keys("okapi, red panda")
            next(b for b in browser.find_elements(By.TAG_NAME, "button") if b.text == "Classify").click()
            wait_for(lambda: "red panda" in text() and expected.classes[0][0] not in text())
            names.clear()
            names.send_keys("okapi, okapi")
            names.submit()
            wait_for(lambda: 'class "okapi" is named twice' in text())
        browser.get(f"http://127.0.0.1:{port}/")
        (tmp_path / "letter.txt").write_text("no picture")
        field = wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "input[type=file]"))[0]
        field.send_keys(str(tmp_path / "letter.txt"))
        wait_for(lambda: "This is no picture." in text())
        asked: set[str] = set()
        for entry in browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"])
        outside = [u for u in asked if u.startswith("http") and not u.startswith(f"http://127.0.0.1:{port}")]
        assert not outside
    finally:
        if browser is not None:
            browser.quit()
        server.terminate()
        server.wait(20)
