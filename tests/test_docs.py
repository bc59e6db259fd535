"""What the documents say is what happens."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import forked
import numpy as np
import pytest
from conftest import ROOT, write_pictures
from PIL import Image

README = (ROOT / "README.md").read_text()
DOCS = sorted([ROOT / "README.md", ROOT / "assets" / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(*command, **kwargs):
    return forked.run(*command, **kwargs)


@pytest.mark.parametrize(
    ("document", "last", "shown"),
    [("README.md", "print(tuple(logits_BC.shape))", "(4, 2)"), ("docs/BACKBONES.md", "", "[2, 256]) (224, 224) CLIP")],
)
def test_the_notebook_examples(document, last, shown):
    (code,) = blocks((ROOT / document).read_text(), "python")
    process = run("-W", "error::UserWarning:__main__", "-c", f"{code}\n{last}")
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip().endswith(shown)


@pytest.mark.parametrize("document", DOCS, ids=lambda p: p.name)
def test_links_and_files_exist(document):
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / target).exists(), target
    for name in re.findall(
        r"`((?:trainers|datasets|scripts|harness|tests|configs|compat|timings|assets)/[\w/.]+)`", text
    ):
        if "my_birds" not in name and "iased" not in name:
            assert (ROOT / name).exists(), name
    assert "@@" not in text


@pytest.mark.parametrize(
    "line", re.findall(r"^    (?:[A-Z]+=\S+ (?:SEEDS=\"1 2\" )?)?bash (scripts/\S+ ?[^#\n]*)", README, re.MULTILINE)
)
def test_commands_of_the_readme_plan_their_runs(line, tmp_path):
    (tmp_path / "pictures").mkdir()
    script, *words = line.replace("path/to", str(tmp_path)).split()
    process = subprocess.run(
        ["bash", script, *words, "--dry-run"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable},
    )
    assert process.returncode == 0, process.stderr
    assert "to do" in process.stdout


@pytest.mark.parametrize("script", sorted(p.relative_to(ROOT) for p in (ROOT / "scripts").glob("*/*.sh")), ids=str)
def test_every_script_has_help_and_needs_no_particular_folder(script, tmp_path):
    process = subprocess.run(
        ["bash", str(ROOT / script), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHON": sys.executable},
    )
    assert process.returncode == 0, process.stderr
    for word in ("DATA", "OUTPUT", "SEEDS", "JOBS", "GPUS"):
        assert word in process.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mocoop", "main", "caltech11", "16"], 'did you mean "caltech101"?'),
        (["mocoo", "main", "demo"], 'method "mocoo" is unknown'),
        (["mocoop", "mian", "demo"], 'protocol "mian" is unknown'),
        (["mocoop", "main"], "which dataset?"),
        (["mocoop", "main", "demo", "16", "smal"], 'did you mean "small"?'),
        (["coop", "ablation", "demo"], "CoOp has no parts to change: bash scripts/mocoop/ablation.sh"),
        (["linear_probe", "xd", "demo"], "Linear probe knows only the classes it was fitted on"),
    ],
)
def test_typing_errors(words, message):
    process = run("scripts/run.py", *words)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert message in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1


def test_missing_data_are_told_before_anything_is_done(tmp_path):
    out = tmp_path / "out"
    words = ["--data", tmp_path / "data", "--output", out, "--seeds", "1", "--shots", "1"]
    process = run("scripts/run.py", "zsclip", "xd", "demo", "quickdraw", "cifar10", *words)
    assert process.returncode == 1
    (line,) = process.stderr.strip().splitlines()
    assert "quickdraw is missing, and 1 more datasets are not there" in line
    assert f"python scripts/prepare_data.py quickdraw cifar10 --root {tmp_path / 'data'}" in line
    assert not out.exists()
    assert not (tmp_path / "data").exists()


def test_folders_are_relative_to_where_the_user_is(tmp_path, mini_root):
    (tmp_path / "data").symlink_to(mini_root)
    command = [
        "zsclip",
        "main",
        "caltech101",
        "--cfg",
        "small",
        "--data",
        "data",
        "--output",
        "out",
        "--seeds",
        "1 2 3",
    ]
    process = run(ROOT / "scripts" / "run.py", *command, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "Zero-shot CLIP" in process.stdout[process.stdout.rindex("Few-shot") :]
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("results.json")] == [
        Path("out/fewshot/caltech101/ZeroshotCLIP/small/results.json")  # once, whatever the seeds
    ]


@pytest.mark.slow
def test_the_new_benchmark_and_the_new_method(tmp_path, literate_clip_file):
    """In a copy of the project: the files that EXTENDING.md shows, one command, and nothing else; then all uses of them."""
    text = (ROOT / "docs" / "EXTENDING.md").read_text()
    benchmark, *method = blocks(text, "python")
    config, recipes = blocks(text, "yaml")
    copy = tmp_path / "project"
    for name in ("trainers", "datasets", "harness", "configs", "scripts", "compat", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "pictures", "results"))
    for name in ("train.py", "predict.py", "export.py", "parse_results.py"):
        shutil.copy(ROOT / name, copy / name)
    for folder in ("trainers/kgcoop", "scripts/kgcoop", "configs/trainers/KgCoOp"):
        shutil.rmtree(copy / folder)
    (copy / "datasets" / "my_birds.py").write_text(benchmark)
    (copy / "configs" / "datasets" / "my_birds.yaml").write_text(config)
    (copy / "trainers" / "kgcoop").mkdir()
    files = ["__init__.py", "options.py", "model.py", "trainer.py", "recipes.yaml"]
    for name, content in zip(files, [*method, recipes], strict=True):
        assert content == (ROOT / "trainers" / "kgcoop" / name).read_text(), name
        (copy / "trainers" / "kgcoop" / name).write_text(content)
    names = ("finch", "great_tit", "wren", "owl")
    split = {
        p: [[f"{c}/{p}{i}.png", y, c] for y, c in enumerate(names) for i in range(3)] for p in ("train", "val", "test")
    }
    write_pictures(tmp_path / "data" / "my_birds" / "images", split)
    (tmp_path / "data" / "my_birds" / "split_my_birds.json").write_text(json.dumps(split))

    def call(*words, status=0):
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=copy, env=os.environ | {"SEEDS": "1"})
        assert done.returncode == status, done.stderr
        return done

    call("scripts/make_files.py")
    assert (copy / "scripts" / "kgcoop" / "base2new.sh").read_text() == (
        ROOT / "scripts/kgcoop/base2new.sh"
    ).read_text()
    words = ["--data", tmp_path / "data", "--output", tmp_path / "out", "--cfg", "small", "MODEL.BACKBONE.NAME",
             literate_clip_file, "OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0"]  # fmt: skip
    wrong = call("scripts/run.py", "kgcoop", "main", "my_birds", 2, *words, "TRAINER.KGCOOP.W", "-1", status=2)
    assert wrong.stderr.strip() == "error: TRAINER.KGCOOP.W is -1: use a number at least 0"
    done = call("scripts/run.py", "kgcoop", "main", "my_birds", 2, *words)
    assert "KgCoOp" in done.stdout[done.stdout.rindex("Few-shot") :]
    assert "is finished: skipped" in call("scripts/run.py", "kgcoop", "main", "my_birds", 2, *words).stdout
    mixture = call("scripts/run.py", "hard_mixture", "main", "my_birds", *words[:8])
    assert "a photo of the small {}." in mixture.stdout
    done = call("scripts/run.py", "kgcoop", "base2new", "my_birds", "--shots", 2, *words)
    assert "KgCoOp H" in done.stdout
    run = tmp_path / "out/fewshot/my_birds/shots_2/KgCoOp/small/seed1"
    picture = tmp_path / "data" / "my_birds" / "images" / "wren" / "test0.png"
    for model in (run, tmp_path / "exported"):
        if model != run:
            assert "ONNX is within" in call("export.py", run, model).stdout
        assert "wren" in call("predict.py", model, picture).stdout
        assert "okapi" in call("predict.py", model, picture, "--classnames", "okapi, red panda").stdout
    state = run / "prompt_learner" / "model.pth.tar-2"
    (run / "results.json").unlink()
    state.unlink()
    (run / "prompt_learner" / "checkpoint").unlink()
    call("scripts/run.py", "kgcoop", "main", "my_birds", 2, *words)
    assert state.is_file()


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """In a copy of the project, as on Colab: nothing is installed anew, since all packages are there."""
    import nbformat
    from nbclient import NotebookClient

    copy = tmp_path / "mocoop"
    copy.mkdir()
    for name in ("trainers", "datasets", "harness", "configs", "scripts", "compat", "assets", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "pictures", "results"))
    for file in (*ROOT.glob("*.py"), ROOT / "requirements.txt", ROOT / "pyproject.toml"):
        shutil.copy(file, copy)
    monkeypatch.setenv("MOCOOP", str(copy))
    monkeypatch.setenv("PYTHONPATH", str(copy))
    notebook = nbformat.read(ROOT / "docs" / "colab.ipynb", as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.get("text", "") or str(output.get("data", {}))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert "error" not in printed.lower().replace("error_rate", ""), printed
    assert "has the best accuracy" in printed
    assert "pictures of 3 classes" in printed
    assert "Prediction(picture='pictures/axe/" in printed
    assert "image/png" in printed


def test_the_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"DISABLE_MKDOCS_2_WARNING": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = {path.parent.name for path in tmp_path.rglob("index.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} <= pages
    text = (tmp_path / "index.html").read_text()
    assert "fonts.googleapis" not in text


def test_the_container_has_what_it_copies_and_runs():
    """It cannot be built here; what it names is there, and the packages that it installs are extras of this project."""
    text = (ROOT / "Dockerfile").read_text()
    (extras,) = re.findall(r"-e \"\.\[(.*?)\]\"", text)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*extras.split(",")} <= {*known}
    (command,) = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    assert (ROOT / json.loads(command)[1]).is_file()
    for script in re.findall(r"scripts/[\w/]+\.\w+", text):
        assert (ROOT / script).is_file(), script
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "output", "data"} <= {*ignored}


@pytest.mark.slow
def test_the_tutorials_commands_on_a_small_cut(tmp_path, monkeypatch):
    """Every command of TUTORIAL.md, in its order, on thirty pictures of each class, one seed and short training."""
    copy = tmp_path / "mocoop"
    copy.mkdir()
    for name in ("trainers", "datasets", "harness", "configs", "scripts", "compat", "assets"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("*.py"):
        shutil.copy(file, copy)
    rng = np.random.default_rng(0)
    for name in ("global", "local", "nominal"):
        (copy / "data/textile/images" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.normal(100 + 30 * len(name), 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(copy / f"data/textile/images/{name}/textile_{i:04}.jpg")
    text = (ROOT / "docs" / "TUTORIAL.md").read_text()
    commands = [line.removeprefix("$ ") for block in blocks(text, "text") for line in block.splitlines()
                if line.startswith("$ ")]  # fmt: skip
    assert len(commands) >= 10
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = os.environ | {"SEEDS": "1", "PYTHONPATH": str(copy), "PATH": path}
    for command in commands:
        if "prepare_data.py" in command or "explore.py" in command:  # fetches; stays until Ctrl-C
            continue
        if "--folds" in command:
            command = f"env -u SEEDS {command.replace('--folds 5', '--folds 2')}"
        done = subprocess.run(
            command, shell=True, cwd=copy, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
