"""Shared by all tests: one thread, no GPU surprises, the golden CLIP, miniature data."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
for _name in list(os.environ):  # of the user's, whose own runs they are for
    if _name in ("DATA", "OUTPUT", "SEEDS", "SHOTS", "CFG", "TAG", "JOBS", "GPUS", "CLUSTER", "RANK", "WORLD_SIZE",
                 "LOCAL_RANK") or _name.startswith(("SLURM_", "SBATCH_")):  # fmt: skip
        del os.environ[_name]
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # where tests start servers
ASKED_FOR_A_GPU = "MOCOOP_TEST_GPU" in os.environ
if not ASKED_FOR_A_GPU:  # the numbers that tests expect are a CPU's
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
if "MOCOOP_CACHE" not in os.environ:  # the first process's, for all that it starts
    _cache = tempfile.TemporaryDirectory(prefix="mocoop-cache-")
    os.environ["MOCOOP_CACHE"] = _cache.name

import forked  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image  # noqa: E402

from trainers.core.clip.backbones.openai import ClipVocabulary, build_model  # noqa: E402
from trainers.core.ranks.processes import cores  # noqa: E402

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests start would ignore Ctrl-C, too
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
    signal.signal(signal.SIGHUP, lambda number, frame: None)  # as before here, but not in what tests start
DEVICE = "cuda" if ASKED_FOR_A_GPU else "cpu"  # of tests that any device has to pass

settings.register_profile(
    "same", derandomize=True
)  # a failure is a change's; to search on: --hypothesis-profile default
settings.load_profile("same")

IDLE = 0.1  # seconds that patience()'s sum takes on the machine where the tests' limits were set
VOCABULARY = ClipVocabulary()
encode = VOCABULARY.encode
SOS, EOT = "<|startoftext|>", "<|endoftext|>"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that it is not left alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_slow.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A process more than cores for the slow tests, whose time is half waiting: for Slurm, for what they kill later."""
    return cores() + 1 if config.option.markexpr == "slow" else None


def patience(seconds: float) -> float:
    """How long to wait for what takes `seconds` on an idle machine, on this one, as busy as it is now."""
    begin = time.perf_counter()
    sum(range(4_000_000))
    return 2 * seconds * max(1.0, (time.perf_counter() - begin) / IDLE)


def tensors_in(name: str) -> dict[str, torch.Tensor]:
    """Those of a file below tests/data."""
    with np.load(DATA / name) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def golden_state() -> dict[str, torch.Tensor]:
    return tensors_in("tiny_clip.npz")


@pytest.fixture
def tiny_clip() -> torch.nn.Module:
    """The random CLIP of the golden numbers: 32 px, patch 8, width 64, 2 layers, 1 text head."""
    return build_model(golden_state()).float().eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny_clip.pt"
    torch.save(golden_state(), path)
    return path


@pytest.fixture(scope="session")
def literate_clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden CLIP with an embedding for every word: most of its own are zero, since its numbers do not need them."""
    path = tmp_path_factory.mktemp("clip") / "literate_clip.pt"
    torch.save(literate_state(), path)
    return path


def literate_state() -> dict[str, torch.Tensor]:
    state = golden_state()
    embedding = state["token_embedding.weight"]
    unread = (embedding == 0).all(1)
    drawn = torch.randn(int(unread.sum()), embedding.shape[1], generator=torch.Generator().manual_seed(0))
    embedding[unread] = 0.02 * drawn
    return state


def eight_batches(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight times five pictures and their labels of six classes, as they were drawn for authors' code."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 5, 3, 32, 32, generator=generator).double()
    return images, torch.randint(0, len(CLASSES), (8, 5), generator=generator)


def in_double(model: torch.nn.Module) -> torch.nn.Module:
    """CLIP in float64; its own LayerNorm always computes in float32, so torch's takes its place."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.__class__ = torch.nn.LayerNorm
    return model.double()


def golden_in_double() -> torch.nn.Module:
    return in_double(build_model(golden_state()).float().eval())


def noting_steps(steps: list[dict[str, float]], in_float64: bool) -> dict[str, Callable]:
    """Methods to put in the place of PromptTrainer's: they note in `steps` what each step shows, and compute in float64."""
    from trainers.core.training.trainer import PromptTrainer

    step, load, finish = PromptTrainer.forward_backward, PromptTrainer.load_clip, PromptTrainer.finish_model

    def noted(self, batch):
        shown = step(self, batch)
        steps.append({name: float(value) for name, value in shown.items()})
        return shown

    def doubled(self):
        backbone = load(self)
        in_double(backbone.model)
        return backbone

    def finished(self, *args, **options):
        self.model.double()
        finish(self, *args, **options)

    found: dict[str, Callable] = {"forward_backward": noted}
    return found | ({"load_clip": doubled, "finish_model": finished} if in_float64 else {})


# The golden CLIP has two blocks in each tower; published depths are for twelve.
SHALLOW: dict[str, list[object]] = {
    "IVLP": ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 2],
    "PromptSRC": ["TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2],
    "TCP": ["TRAINER.TCP.BLOCK", 1],
    "CLIPLoRA": ["TRAINER.CLIPLORA.STEPS_PER_SHOT", 0],
    "TwoSFS": ["TRAINER.TWOSFS.STEPS_PER_SHOT", 0],
    "MMRL": ["TRAINER.MMRL.FIRST_BLOCK", 1],
    "MaPLe": ["TRAINER.MAPLE.PROMPT_DEPTH", 2],
    "DPL": ["TRAINER.DPL.SEARCH_EPOCHS", 2],
    "CLIPSVD": ["TRAINER.CLIPSVD.STEPS_PER_SHOT", 0],
    "MMRLpp": ["TRAINER.MMRLPP.FIRST_BLOCK", 0],
    "CoPrompt": ["TRAINER.COPROMPT.PROMPT_DEPTH", 2],
}


def acting(trainer: str, *words: object) -> list[object]:
    """KEY value KEY value ..., without what a method that takes no steps refuses, and as deep as the golden CLIP."""
    from trainers.core.settings.idle import OF_TRAINING
    from trainers.methods import methods

    words = (*words, *SHALLOW.get(trainer, []))
    pairs = zip(words[::2], words[1::2], strict=True)
    idle = () if trainer not in methods() or methods()[trainer].takes_steps else OF_TRAINING
    return [word for key, value in pairs if not str(key).startswith(idle) for word in (key, value)]


CLASSES = ["accordion", "air_plane", "anchor", "ant", "barrel", "bass"]


def write_pictures(folder: Path, split: dict[str, list], size: int = 40) -> None:
    """Writes a picture for every path of a split: a noisy patch whose colour tells its class."""
    rng = np.random.default_rng(0)
    for items in split.values():
        for path, label, _ in items:
            colour = np.random.default_rng(label).integers(0, 255, 3)
            pixels = (colour + rng.normal(0, 25, (size, size, 3))).clip(0, 255).astype(np.uint8)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / path)


def write_caltech(root: Path, names: list[str], counts: dict[str, int], suffix: str) -> Path:
    split = {
        part: [[f"{name}/{part}_{i}.{suffix}", y, name] for y, name in enumerate(names) for i in range(n)]
        for part, n in counts.items()
    }
    write_pictures(root / "caltech-101" / "101_ObjectCategories", split)
    (root / "caltech-101" / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    return root


@pytest.fixture(scope="session")
def mini_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a Caltech101 of six classes in the real layout."""
    return write_caltech(tmp_path_factory.mktemp("data"), CLASSES, {"train": 5, "val": 2, "test": 4}, "jpg")


def fidelity_root(root: Path) -> Path:
    """The data on which CoOp's own code was run for tests/data/fidelity.json (PNG, so that every decoder agrees)."""
    return write_caltech(root, [*CLASSES, "beaver", "bonsai"], {"train": 20, "val": 4, "test": 10}, "png")


def run_train(*args: object, **environment: str) -> subprocess.CompletedProcess:
    """train.py as a user runs it."""
    return forked.run(ROOT / "train.py", *args, env=os.environ | environment)
