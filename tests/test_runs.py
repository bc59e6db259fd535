"""Whole runs of train.py on a miniature benchmark and the golden CLIP: results, checkpoints, resuming, bad input."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
import wandb
from conftest import CLASSES, ROOT, acting, run_train

from trainers.core.training import checkpoints
from trainers.core.training.step_log import StepLog
from trainers.methods import methods

TRAINED = ["MoCoOp", "CoOp", "CoCoOp", "LASP"]


def arguments(root, clip_file, out, trainer="MoCoOp", *extra):
    config = methods()[trainer].recipes_of
    return [
        "--root", root, "--seed", 1, "--trainer", trainer, "--dataset-config-file", "configs/datasets/caltech101.yaml",
        "--config-file", f"configs/trainers/{config}/small.yaml", "--backbone", clip_file, "--output-dir", out,
        *extra, *acting(trainer, "DATASET.NUM_SHOTS", 4, "OPTIM.MAX_EPOCH", 2, "DATALOADER.TRAIN_X.BATCH_SIZE", 8,
                        "DATALOADER.NUM_WORKERS", 0, "TRAIN.PRINT_FREQ", 1),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def finished(mini_root, tiny_clip_file, tmp_path_factory):
    """A finished run of every method, base classes only: {trainer: (folder, completed process)}."""
    done = {}
    for trainer in TRAINED:
        out = tmp_path_factory.mktemp("runs") / trainer
        words = arguments(mini_root, tiny_clip_file, out, trainer)
        done[trainer] = out, run_train(*words, "DATASET.SUBSAMPLE_CLASSES", "base")
    return done


@pytest.mark.parametrize("trainer", TRAINED)
def test_a_run_leaves_log_results_and_a_small_checkpoint(finished, trainer):
    out, process = finished[trainer]
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("Warning") == 0
    log = (out / "log.txt").read_text()
    for line in ("epoch [2/2] batch [1/1] time ", "Checkpoint saved to ", "Finish training",
                 "Evaluate on the *test* set",
                 "=> result", "* total: 12", "* accuracy: ", "* macro_f1: ", "Elapsed: 0:0", "Dassl: "):  # fmt: skip
        assert line in log, line
    results = json.loads((out / "results.json").read_text())
    assert results["accuracy"] + results["error_rate"] == pytest.approx(100)
    assert (results["trainer"], results["dataset"], results["seed"], results["shots"]) == (trainer, "Caltech101", 1, 4)
    assert f"* accuracy: {results['accuracy']:.1f}%" in log
    assert (out / "prompt_learner" / "checkpoint").read_text() == "model.pth.tar-2\n"
    file = out / "prompt_learner" / "model.pth.tar-2"
    assert file.stat().st_size < 2**20
    state = checkpoints.load(file)
    assert {k.split(".")[0] for k in state["state_dict"]} <= {
        "ctx", "meta_net", "prompt_learner", "prompts", "correction", "router", "image_encoder",
    }  # fmt: skip
    assert list((out / "tensorboard").iterdir())
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"], line.get("split")) for line in steps] == [
        (0, 1, None),
        (1, 2, None),
        (2, 2, "test"),
    ]
    printed = re.findall(r"^epoch .*? loss (\S+) ", log, re.MULTILINE)
    assert [f"{line['loss']:.4f}" for line in steps[:2]] == printed
    assert steps[2]["accuracy"] == results["accuracy"]


@pytest.mark.parametrize("trainer", TRAINED)
def test_base_model_is_tested_on_new_classes(finished, trainer, mini_root, tiny_clip_file, tmp_path):
    base, _ = finished[trainer]
    words = arguments(mini_root, tiny_clip_file, tmp_path, trainer, "--model-dir", base, "--eval-only")
    process = run_train(*words, "DATASET.SUBSAMPLE_CLASSES", "new")
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["n_classes"] == 3
    assert results["subsample_classes"] == "new"


@pytest.mark.parametrize("trainer", ["MoCoOp", "CoCoOp"])
def test_base_model_is_tested_with_all_classes_as_candidates(finished, trainer, mini_root, tiny_clip_file, tmp_path):
    base, _ = finished[trainer]
    words = arguments(mini_root, tiny_clip_file, tmp_path, trainer, "--model-dir", base, "--eval-only")
    process = run_train(*words, "DATASET.SUBSAMPLE_CLASSES", "joint")
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["n_classes"], results["total"], results["trained"]["subsample_classes"]) == (6, 24, "base")
    halves = results["base_accuracy"], results["new_accuracy"]
    assert sum(halves) / 2 == pytest.approx(results["accuracy"])  # equally many pictures of each class
    assert f"* new classes among all, mean over classes: {halves[1]:.2f}%" in process.stdout


@pytest.mark.parametrize(
    ("trainer", "key", "trained", "tested"),
    [("MoCoOp", "TRAINER.MOCOOP.TOP_K", "2", "1"), ("CoOp", "TRAINER.COOP.CLASS_TOKEN_POSITION", "'end'", "'middle'")],
)
def test_testing_with_other_settings_is_said(
    finished, trainer, key, trained, tested, mini_root, tiny_clip_file, tmp_path
):
    words = arguments(mini_root, tiny_clip_file, tmp_path, trainer, "--model-dir", finished[trainer][0], "--eval-only")
    process = run_train(*words, "DATASET.SUBSAMPLE_CLASSES", "base", key, tested.strip("'"))
    assert process.returncode == 0, process.stderr
    assert f"Note: {key} was {trained} in training and is {tested} here" in process.stdout


def test_a_run_of_the_same_settings_is_copied(finished, mini_root, tiny_clip_file, tmp_path):
    there = finished["CoOp"][0]
    base = ("DATASET.SUBSAMPLE_CLASSES", "base")
    words = arguments(mini_root, tiny_clip_file, tmp_path / "same", "CoOp", "--same-as", tmp_path, "--same-as", there)
    process = run_train(*words, *base)
    assert process.returncode == 0, process.stderr
    assert f"the run in {there} is this one and was copied" in process.stdout
    assert "epoch [" not in process.stdout
    for name in ("prompt_learner/model.pth.tar-2", "log.txt"):
        assert (tmp_path / "same" / name).read_bytes() == (there / name).read_bytes()
    own, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "same", there))
    assert own == theirs | {"taken_from": str(there)}
    words = arguments(mini_root, tiny_clip_file, tmp_path / "other", "CoOp", "--same-as", there)
    process = run_train(*words, *base, "OPTIM.LR", "0.5")
    assert process.returncode == 0, process.stderr
    assert "epoch [2/2]" in process.stdout


def test_a_finished_run_is_not_done_again(finished, mini_root, tiny_clip_file):
    out, _ = finished["MoCoOp"]
    before = (out / "results.json").stat().st_mtime_ns
    process = run_train(*arguments(mini_root, tiny_clip_file, out), "DATASET.SUBSAMPLE_CLASSES", "base")
    assert process.returncode == 0
    assert "is finished already" in process.stdout
    assert (out / "results.json").stat().st_mtime_ns == before


def test_another_configuration_is_refused_in_the_same_folder(finished, mini_root, tiny_clip_file):
    out, _ = finished["MoCoOp"]
    process = run_train(
        *arguments(mini_root, tiny_clip_file, out), "DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.LR", 0.5
    )
    assert process.returncode == 1
    assert "OPTIM.LR was 0.1, now 0.5" in process.stderr


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "ZeroshotCLIP2", "HardMixture", "LinearProbe"])
def test_methods_without_training(mini_root, tiny_clip_file, tmp_path, trainer):
    process = run_train(*arguments(mini_root, tiny_clip_file, tmp_path, trainer))
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "results.json").read_text())["n_classes"] == 6
    if trainer == "LinearProbe":  # colours tell the classes apart, even to a random CLIP
        assert json.loads((tmp_path / "results.json").read_text())["accuracy"] > 90


def test_text_loss_scores_all_class_names_with_the_base_classes_first(finished):
    log = (finished["MoCoOp"][0] / "log.txt").read_text()
    assert "5 soft prompts; the text loss scores 6 class names" in log
    state = checkpoints.load(finished["MoCoOp"][0] / "prompt_learner" / "model.pth.tar-2")
    assert state["identity"]["classnames"] == CLASSES[:3]
    assert state["identity"]["text_classes"] == "all"


def test_a_checkpoint_keeps_its_template_groups(finished, mini_root, tiny_clip_file, tmp_path):
    """Evaluated under another dataset's groups, the model uses those it was trained with."""
    base, _ = finished["MoCoOp"]
    words = arguments(mini_root, tiny_clip_file, tmp_path, "MoCoOp", "--model-dir", base, "--eval-only")
    groups = "[['a {}.'],['one {}.']]"
    process = run_train(*words, "DATASET.SUBSAMPLE_CLASSES", "new", "TRAINER.MOCOOP.TEMPLATE_GROUPS", groups)
    assert process.returncode == 0, process.stderr
    assert "2 soft prompts" in process.stdout
    assert process.stdout.rindex("5 soft prompts") > process.stdout.rindex("2 soft prompts")


def fails(process, *words):
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    for word in words:
        assert word in last, (word, last)


IDLE = {
    "--model-dir /nowhere": "--model-dir /nowhere is for --eval-only: to go on with that run, give --resume",
    "--load-epoch 3": "--load-epoch 3 is for --eval-only",
    "--resume /nowhere": "nothing to resume in /nowhere: it holds no checkpoint",
    "PromptFL --eval-only --model-dir /nowhere": "PromptFL is tested by its clients, in its rounds: leave out --eval-only",
    "--eval-only --no-train": "--eval-only and --no-train exclude each other",
    "--eval-only --resume /nowhere": "--eval-only and --resume exclude each other",
    "--source-domains clean": "Caltech101 has no domains: leave out --source-domains",
    "DATASET.FOLDER /nowhere": "DATASET.FOLDER is for FolderDataset, not for Caltech101",
    "ZeroshotCLIP --eval-only --model-dir /nowhere": "ZeroshotCLIP is made anew from its pictures: leave out --model-dir",
    "LinearProbe --resume /nowhere": "LinearProbe trains nothing that could be resumed",
}


@pytest.mark.parametrize("words", IDLE)
def test_words_that_could_do_nothing_are_refused(words, mini_root, tiny_clip_file, tmp_path):
    own = words.split()
    trainer = own.pop(0) if own[0] in methods() else "CoOp"
    process = run_train(*arguments(mini_root, tiny_clip_file, tmp_path / "out", trainer), *own)
    assert process.returncode == 1
    assert process.stderr.startswith(f"error: {IDLE[words]}"), process.stderr
    assert not (tmp_path / "out" / "results.json").exists()


def test_no_train_is_no_evaluation(mini_root, tiny_clip_file, tmp_path):
    words = arguments(mini_root, tiny_clip_file, tmp_path / "out", "ZeroshotCLIP", "--no-train")
    assert run_train(*words).returncode == 0
    assert not (tmp_path / "out" / "results.json").exists()


class TestBadInput:
    """Each ends with one clear message, a non-zero status, and nothing half-written."""

    @pytest.fixture
    def root(self, mini_root, tmp_path):
        shutil.copytree(
            mini_root / "caltech-101", tmp_path / "data" / "caltech-101", ignore=lambda d, f: {"split_fewshot"} & {*f}
        )
        return tmp_path / "data"

    @pytest.fixture
    def words(self, root, tiny_clip_file, tmp_path):
        return arguments(root, tiny_clip_file, tmp_path / "out")

    @pytest.fixture(autouse=True)
    def nothing_half_written(self, tmp_path):
        yield
        assert not list(tmp_path.rglob("*.partial"))
        assert not (tmp_path / "out" / "results.json").exists()
        assert not list(tmp_path.rglob("model.pth.tar-2"))

    def test_missing_dataset(self, words, root):
        shutil.rmtree(root / "caltech-101")
        fails(run_train(*words), "101_ObjectCategories is missing", "python scripts/prepare_data.py caltech101 --root")

    def test_missing_split_file(self, words, root):
        (root / "caltech-101" / "split_zhou_Caltech101.json").unlink()
        fails(run_train(*words), "split_zhou_Caltech101.json is missing", "prepare_data.py caltech101")

    def test_damaged_split_file(self, words, root):
        (root / "caltech-101" / "split_zhou_Caltech101.json").write_text('{"train": [[1, 2]]}')
        fails(run_train(*words), "split_zhou_Caltech101.json is no split file")

    @pytest.mark.parametrize("workers", [0, 1])
    def test_missing_image(self, words, root, workers):
        for image in (root / "caltech-101" / "101_ObjectCategories" / "ant").glob("test_*.jpg"):
            image.unlink()
        process = run_train(*words, "DATALOADER.NUM_WORKERS", workers)
        fails(process, 'ant/test_0.jpg (class "ant") is missing')

    @pytest.mark.parametrize("cache", [0, 100])
    def test_corrupt_image(self, words, root, cache):
        for image in (root / "caltech-101" / "101_ObjectCategories" / "bass").glob("train_*.jpg"):
            image.write_bytes(image.read_bytes()[:200])
        fails(run_train(*words, "DATALOADER.CACHE_MB", cache), '(class "bass") cannot be decoded')

    def test_unknown_trainer(self, words):
        fails(
            run_train(*["MoCoOpp" if w == "MoCoOp" else w for w in words]),
            '"MoCoOpp" is unknown',
            'did you mean "MoCoOp"',
        )

    def test_unknown_dataset(self, words):
        fails(run_train(*words, "DATASET.NAME", "Caltech11"), 'did you mean "Caltech101"')

    def test_unknown_key(self, words):
        fails(
            run_train(*words, "TRAINER.MOCOOP.TOPK", 3), '"TRAINER.MOCOOP.TOPK"', 'did you mean "TRAINER.MOCOOP.TOP_K"'
        )

    def test_unknown_config_file(self, words):
        changed = ["configs/trainers/MoCoOp/smal.yaml" if str(w).endswith("small.yaml") else w for w in words]
        fails(run_train(*changed), "no config file", 'did you mean "small.yaml"')

    def test_linear_probe_of_new_classes(self, mini_root, tiny_clip_file, tmp_path):
        words = arguments(mini_root, tiny_clip_file, tmp_path, "LinearProbe")
        for part in ("new", "joint"):
            words_of_part = (*words, "DATASET.SUBSAMPLE_CLASSES", part)
            fails(run_train(*words_of_part), f"knows only the classes it was made for: SUBSAMPLE_CLASSES {part}")

    def test_training_on_joint(self, words):
        fails(
            run_train(*words, "DATASET.SUBSAMPLE_CLASSES", "joint"), "is an evaluation of a model of the base classes"
        )

    def test_template_without_place(self, words):
        fails(
            run_train(*words, "TRAINER.MOCOOP.TEMPLATE_GROUPS", "[['a photo.']]"),
            'template "a photo."',
            "exactly one {}",
        )

    def test_template_too_long(self, words):
        long = "very " * 80
        fails(
            run_train(*words, "TRAINER.MOCOOP.TEMPLATE_GROUPS", f"[['a {long}{{}}.']]"),
            'class "accordion" has',
            "at most 77",
        )

    def test_unknown_backbone(self, words):
        fails(
            run_train(*words, "MODEL.BACKBONE.NAME", "ViT-B/17"), '"ViT-B/17", which is neither a file nor', "ViT-B/16"
        )

    def test_backbone_that_is_no_clip(self, words, tmp_path):
        (tmp_path / "x.pt").write_bytes(b"nothing")
        fails(run_train(*words, "MODEL.BACKBONE.NAME", tmp_path / "x.pt"), "is no CLIP")
        torch.save({"weight": torch.ones(1)}, tmp_path / "y.pt")
        fails(run_train(*words, "MODEL.BACKBONE.NAME", tmp_path / "y.pt"), "is no CLIP in OpenAI's layout")

    def test_input_size(self, words):
        fails(run_train(*words, "INPUT.SIZE", "(224, 224)"), "INPUT.SIZE is (224, 224)", "takes 32 x 32 pixels")

    def test_nothing_to_evaluate(self, words, tmp_path):
        fails(run_train(*words[:-10], "--eval-only", *words[-10:]), "--model-dir")
        fails(run_train(*words[:-10], "--eval-only", "--model-dir", tmp_path / "no", *words[-10:]), "no checkpoint at")

    def test_checkpoint_that_does_not_fit(self, words, finished, tmp_path):
        folder = tmp_path / "trained" / "prompt_learner"
        shutil.copytree(finished["MoCoOp"][0] / "prompt_learner", folder)
        path = folder / "model.pth.tar-2"
        state = torch.load(path, weights_only=True)
        state["state_dict"]["router.weight"] = torch.zeros(2, 64)
        del state["state_dict"]["correction"]
        checkpoints.save(path, state)
        process = run_train(*words[:-10], "--eval-only", "--model-dir", folder.parent, *words[-10:])
        fails(process, "correction is missing", "router.weight is (2, 64), but should be (5, 64)")
        folder.joinpath("model.pth.tar-2").unlink()

    @pytest.mark.parametrize(
        ("harm", "message"),
        [("cut", "truncated"), ("flip", "digest"), ("code", "holds code"), ("other", "no checkpoint")],
    )
    def test_harmed_checkpoint(self, words, finished, tmp_path, harm, message):
        folder = tmp_path / "trained" / "prompt_learner"
        shutil.copytree(finished["MoCoOp"][0] / "prompt_learner", folder)
        path = folder / "model.pth.tar-2"
        if harm == "cut":
            path.write_bytes(path.read_bytes()[:-500])
        elif harm == "flip":
            state = torch.load(path, weights_only=True)
            state["state_dict"]["correction"] += 1
            torch.save(state, path)
        elif harm == "code":
            torch.save({"state_dict": {}, "x": Dangerous()}, path)
        else:
            torch.save([1, 2], path)
        process = run_train(*words[:-10], "--eval-only", "--model-dir", folder.parent, *words[-10:])
        fails(process, message)
        assert "Dangerous was run" not in process.stdout + process.stderr
        path.unlink()

    def test_another_backbones_checkpoint(self, words, finished, tmp_path):
        other = tmp_path / "other.pt"
        state = torch.load(words[words.index("--backbone") + 1], weights_only=True)
        torch.save(state | {"logit_scale": state["logit_scale"] + 1}, other)
        changed = [other if previous == "--backbone" else w for previous, w in zip([None, *words], words, strict=False)]
        process = run_train(*changed[:-10], "--eval-only", "--model-dir", finished["MoCoOp"][0], *changed[-10:])
        fails(process, "belongs to something else: backbone_sha256")


def test_class_specific_contexts_for_other_classes(mini_root, tiny_clip_file, tmp_path):
    own = ("TRAINER.COOP.CSC", True, "TRAINER.COOP.CTX_INIT", "")
    trained = run_train(*arguments(mini_root, tiny_clip_file, tmp_path / "base", "CoOp"), *own,
                        "DATASET.SUBSAMPLE_CLASSES", "base")  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    there = ("--model-dir", tmp_path / "base", "--eval-only")
    words = arguments(mini_root, tiny_clip_file, tmp_path / "new", "CoOp", *there)
    fails(run_train(*words, *own, "DATASET.SUBSAMPLE_CLASSES", "new"), "class-specific contexts belong to the classes")


def test_damaged_results(finished, mini_root, tiny_clip_file, tmp_path):
    folder = shutil.copytree(finished["MoCoOp"][0], tmp_path / "damaged")
    (folder / "results.json").write_text("{")
    words = arguments(mini_root, tiny_clip_file, folder)
    fails(
        run_train(*words, "DATASET.SUBSAMPLE_CLASSES", "base"),
        "results.json is damaged (it is no JSON",
        "remove it, and the run is evaluated again",
    )


class Dangerous:
    def __reduce__(self):
        return print, ("Dangerous was run",)


def test_seed_is_drawn_when_none_is_given(mini_root, tiny_clip_file, tmp_path):
    words = arguments(mini_root, tiny_clip_file, tmp_path, "ZeroshotCLIP")
    words[words.index("--seed") + 1] = -1
    process = run_train(*words)
    assert process.returncode == 0, process.stderr
    seed = json.loads((tmp_path / "results.json").read_text())["asked"]["seed"]
    assert f"No seed was given; drew {seed}" in process.stdout


def test_fewer_pictures_than_shots(mini_root, tiny_clip_file, tmp_path):
    words = arguments(mini_root, tiny_clip_file, tmp_path, "ZeroshotCLIP")
    words[words.index("DATASET.NUM_SHOTS") + 1] = 50
    process = run_train(*words)
    assert process.returncode == 0, process.stderr
    assert "6 classes have fewer than 50 training pictures and give all they have" in process.stdout


def test_help_is_quick_to_import():
    command = [sys.executable, "-X", "importtime", "train.py", "--help"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "--eval-only" in process.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}


def test_weights_and_biases(mini_root, tiny_clip_file, tmp_path):
    """Offline, by the library itself: the file that it would send has the figures of steps.jsonl."""
    words = arguments(mini_root, tiny_clip_file, tmp_path, "CoOp", "LOG", "wandb")
    done = run_train(*words, WANDB_MODE="offline", WANDB_SILENT="true")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    sent = file.read_bytes()
    steps = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    for figure in (*(line["loss"] for line in steps if "loss" in line), steps[-1]["accuracy"]):
        assert json.dumps(figure).encode() in sent, figure
    assert all(name in sent for name in (b"train/loss", b"test/accuracy", b"OPTIM.MAX_EPOCH"))
    assert (tmp_path / "wandb_id").read_text() in file.name


def test_weights_and_biases_goes_where_its_own_variables_say(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("wandb.init", lambda **more: asked.update(more))
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    log = StepLog(tmp_path, {}, to_wandb=True)
    log._wandb = None  # whose end is not asked for here
    log.close()
    assert (asked["project"], asked["name"].endswith(tmp_path.name)) == ("mine", True)

    def refuses(**more):
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr("wandb.init", refuses)
    with pytest.raises(ValueError, match="Weights & Biases: No API key configured: wandb login, or WANDB_MODE=offline"):
        StepLog(tmp_path, {}, to_wandb=True)


def test_a_dataset_brings_its_templates(mini_root, tiny_clip_file, tmp_path):
    words = arguments(mini_root, tiny_clip_file, tmp_path, "MoCoOp")
    done = run_train(*words, "--no-train", "DATASET.TEMPLATE_GROUPS", "[['a {}.'], ['a sketch of a {}.']]")
    assert done.returncode == 0, done.stderr
    assert "a sketch of a {}." in done.stdout
    for template in ("a photo.", "a {} of a {}."):
        done = run_train(*words, "DATASET.TEMPLATE", template)
        assert f'the template "{template}" needs exactly one {{}} for the class name' in done.stderr
