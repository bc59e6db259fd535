"""Everything that has to be measured on a GPU, in one call of fifteen minutes: python timings/bench_gpu.py --out FOLDER

Sections, each in a process of its own with its own share of the time, so that one that fails takes no other with it:

    ceilings    what the card does at best: products, copies
    towers      both encoders alone: milliseconds, share of the bf16 ceiling
    steps       a training step of each method, replayed (step_graph.py) and kernel by kernel
    theirs      a step of MoCoOp's authors' code, where AUTHORS names a clone of it (timings/theirs.py), beside ours
    compiled    a step with TRAIN.COMPILE
    equal       every method: CPU against GPU over 21 steps and in tests; a run stopped and continued; steps recorded and
                not, bit by bit; several methods at a time
    methods     a step of every method through its trainer, with its published recipe, of 100 classes
    evaluation  test pictures per second
    loading     training pictures per second from this machine's cores
    budget      20 x 1000 prompts in the memory of smaller cards
    demo        scripts/demo.py, as a user starts it
    tests       the part of the test suite that runs on a GPU

Lines of JSON are written as they come, into FOLDER/<section>.jsonl. The models are random, of ViT-B/16's sizes, but for
`equal` (the small CLIP on drawn pictures, through train.py's own code). --tiny does a part of it on a CPU in five minutes;
its numbers mean nothing. Needs torch, torchvision and the packages of docs/BENCHMARKS.md.
"""

import argparse
import contextlib
import copy
import functools
import gc
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "timings")]
SECONDS = {
    "ceilings": 10,
    "towers": 35,
    "steps": 80,
    "theirs": 25,
    "compiled": 75,
    "equal": 200,
    "methods": 260,
    "evaluation": 25,
    "loading": 25,
    "budget": 30,
    "demo": 60,
    "tests": 45,
}
TINY = 0.3  # of that time
TESTS = ("test_precision",)
FIRST = ("MoCoOp", "CoOp", "GDA")  # of --tiny
DRAWS_ON_THE_DEVICE = {"TEXT_NOISE": 0.0, "DROPOUT": 0.0}  # by another generator than the CPU's
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when CUDA starts


class Bench:
    """One section: its clock, its device, where its lines go."""

    def __init__(self, file: Path, seconds: float, tiny: bool) -> None:
        import torch

        from trainers.core.training.device import set_up

        self.file, self.end, self.tiny = file, time.monotonic() + seconds, tiny
        self.gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.gpu else "cpu")
        self.sync: Callable[[], None] = torch.cuda.synchronize if self.gpu else (lambda: None)
        set_up(deterministic=False, tf32=False)

    def note(self, **row: Any) -> None:
        line = json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
        with open(self.file, "a") as file:
            file.write(f"{line}\n")
        print(line, file=sys.__stdout__, flush=True)

    def late(self, **what: Any) -> bool:
        """Whether the time is over; then says what was left out."""
        if time.monotonic() <= self.end:
            return False
        self.note(left_out=what)
        return True

    def ms(self, call: Callable[[], Any], seconds: float = 0.5) -> dict[str, float]:
        """Milliseconds of a call among others, of the host alone to ask for it, and the peak of memory in MB."""
        import torch

        call()
        self.sync()
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        call()
        self.sync()
        count = max(2, min(50, int(seconds / 4 / (time.perf_counter() - begin))))
        times, hosts = [], []
        for _ in range(3):
            begin = time.perf_counter()
            for _ in range(count):
                call()
            hosts.append((time.perf_counter() - begin) / count)
            self.sync()
            times.append((time.perf_counter() - begin) / count)
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.gpu else 0.0
        return {
            "ms": 1e3 * statistics.median(times),
            "ms_min": 1e3 * min(times),
            "ms_max": 1e3 * max(times),
            "ms_host": 1e3 * statistics.median(hosts),
            "peak_mb": round(peak),
        }


# --- models of ViT-B/16's sizes -----------------------------------------------------------------------------------------


@functools.cache
def random_clip(tiny: bool, device: Any, tiny_layers: int = 2) -> Any:
    import torch

    from trainers.core.clip.backbones.openai import CLIP

    torch.manual_seed(0)
    tiny_sizes = (64, 32, tiny_layers, 64, 8, 77, 49408, 64, 2, tiny_layers)
    sizes = tiny_sizes if tiny else (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12)
    return CLIP(*sizes).float().eval().requires_grad_(False).to(device)


def built(bench: Bench, method: str, prec: str, classes: int, prompts: int = 1, **options: Any) -> Any:
    """A method's model as its trainer makes it, on the device, in training mode."""
    from common import classnames, groups

    from trainers.cocoop.model import CoCoOpCLIP
    from trainers.coop.model import CoOpCLIP
    from trainers.core.clip.backbones.openai import OpenAIBackbone
    from trainers.lasp.model import LaspCLIP
    from trainers.mocoop.model import MixtureCLIP
    from trainers.zsclip.model import HardPromptCLIP

    backbone = OpenAIBackbone(copy.deepcopy(random_clip(bench.tiny, bench.device)))
    if prec == "fp16":
        backbone.halve()
    names, hard = classnames(classes), [group[0] for group in groups(5)]
    model = {
        "MoCoOp": lambda: MixtureCLIP(backbone, names, groups(prompts), **options),
        "CoOp": lambda: CoOpCLIP(backbone, names, n_ctx=16, **options),
        "CoCoOp": lambda: CoCoOpCLIP(backbone, names, ctx_init="a photo of a", **options),
        "LASP": lambda: LaspCLIP(backbone, names, hard, **options),
        "ZeroshotCLIP": lambda: HardPromptCLIP(backbone, names, hard[:1], **options),
    }[method]()
    model.to(bench.device)
    if half(prec) is not None:
        backbone.store_frozen(half(prec))
    return model.train()


def half(prec: str) -> Any:
    import torch

    return {"amp": torch.float16, "bf16": torch.bfloat16}.get(prec)


def inside(bench: Bench, prec: str) -> Any:
    import torch

    return torch.autocast(bench.device.type, dtype=half(prec) or torch.bfloat16, enabled=half(prec) is not None)


class Step:
    """PromptTrainer.forward_backward on the same batch each time, without its loader."""

    def __init__(self, bench: Bench, model: Any, prec: str, batch: int, replayed: bool) -> None:
        import torch

        from trainers.core.training.step_graph import StepGraph

        self.bench, self.model, self.prec = bench, model, prec
        self.learned = list(model.trainable().values())
        self.optim = torch.optim.SGD(self.learned, lr=1e-3, momentum=0.9)
        self.scaler = torch.amp.GradScaler("cuda", enabled=prec == "amp" and bench.gpu)
        sees_features = model.from_features and not model.tuned
        size = (model.backbone.features,) if sees_features else (3, *model.backbone.preprocessing.size)
        self.images = torch.randn(batch, *size, device=bench.device)
        self.labels = torch.randint(0, 10, (batch,), device=bench.device)
        self.replayed = replayed and bench.gpu
        self.gradients: Any = StepGraph(self.backward, self.learned) if self.replayed else self.backward

    def drawn(self) -> tuple[Any, ...]:
        return (self.model.seen_hard_features(),) if hasattr(self.model, "losses") else ()

    def backward(self, images: Any, labels: Any, *drawn: Any) -> dict[str, Any]:
        from torch.nn import functional as F

        with inside(self.bench, self.prec):
            if drawn:
                parts = self.model.losses(images, labels, *drawn)
                loss = parts["cls"] + 5 * parts["text"] + parts.get("gate", 0)
            else:
                loss = F.cross_entropy(self.model(images), labels)
        self.scaler.scale(loss).backward()
        return {"loss": loss.detach()}

    def __call__(self) -> Any:
        import torch

        self.optim.zero_grad()
        shown = self.gradients(self.images, self.labels, *self.drawn())
        if self.prec == "amp":
            self.scaler.unscale_(self.optim)
            torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.scaler.step(self.optim)
        self.scaler.update()
        return shown["loss"]

    def warm(self) -> "Step":
        for _ in range(3):  # the third is recorded
            self()
        trouble = getattr(self.gradients, "trouble", "")
        if trouble:
            self.bench.note(not_recorded=trouble)
        return self


def flops(call: Callable[[], Any]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


# --- sections -----------------------------------------------------------------------------------------------------------


def ceilings(bench: Bench) -> None:
    import torch

    n = 256 if bench.tiny else 8192
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        a, b = (torch.randn(n, n, device=bench.device, dtype=dtype) for _ in "ab")
        got = bench.ms(functools.partial(torch.matmul, a, b))
        bench.note(product=n, dtype=str(dtype), tflops=2 * n**3 / got["ms"] / 1e9, **got)
    x = torch.randn(2**20 if bench.tiny else 2**28, device=bench.device)
    got = bench.ms(functools.partial(torch.empty_like(x).copy_, x), 0.2)
    bench.note(copy="on the device", tb_per_s=8 * x.numel() / got["ms"] / 1e9, **got)
    if bench.gpu:
        for kind, host in (
            ("floats", torch.randn(32, 3, 224, 224)),
            ("bytes", torch.zeros(32, 224, 224, 3, dtype=torch.uint8)),
        ):
            for pinned in (host, host.pin_memory()):
                got = bench.ms(functools.partial(pinned.to, "cuda", non_blocking=True), 0.2)
                bench.note(pictures_to_the_device=32, as_=kind, pinned=pinned.is_pinned(), **got)


class Run:
    """train.py's own code, on drawn pictures with the small CLIP: the losses of every step, the trained tensors, the
    accuracy if it is tested."""

    def __init__(self, folder: Path, method: str, *settings: object, stop_after: int = 0) -> None:
        from trainers.core.training import checkpoints
        from trainers.core.training.trainer import PromptTrainer
        from trainers.methods import methods

        taken, step = [], PromptTrainer.forward_backward

        def noted(trainer: Any, batch: Any) -> Any:
            shown = step(trainer, batch)
            taken.append(shown["loss"])
            if len(taken) == stop_after:
                os.kill(os.getpid(), signal.SIGTERM)
            return shown

        config = f"configs/trainers/{methods()[method].recipes_of}/small.yaml"
        # fmt: off
        words = ("--root", folder.parent / "data", "--dataset-config-file", "configs/datasets/demo.yaml",
                 "--config-file", config, "--output-dir", folder, "CACHE.LIMIT_MB", 0)
        # fmt: on
        with stepping(noted):
            started(method, *words, *settings)
        self.losses = [float(loss) for loss in taken]
        latest = checkpoints.latest(folder)
        self.tensors = checkpoints.load(latest)["state_dict"] if latest else {}
        results = folder / "results.json"
        self.accuracy = json.loads(results.read_text())["accuracy"] if results.is_file() else None

    def equals(self, other: "Run") -> bool:
        import torch

        return bool(self.tensors) and all(torch.equal(self.tensors[name], other.tensors[name]) for name in self.tensors)


@contextlib.contextmanager
def stepping(step: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Trainers step so while inside."""
    from trainers.core.training.trainer import PromptTrainer

    before = PromptTrainer.forward_backward
    PromptTrainer.forward_backward = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        PromptTrainer.forward_backward = before  # type: ignore[method-assign]


def started(method: str, *words: object) -> None:
    """train.py for a method, in this process and silent, until it ends or is told to stop."""
    import train

    args = train.parse_arguments([str(word) for word in ("--trainer", method, "--seed", 1, *words)])
    with open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent), contextlib.suppress(SystemExit):
        train.run(args, train.setup_cfg(args))


def own_settings(method: str) -> dict[str, str]:
    """The full names of a method's own settings, by their last part."""
    from trainers.methods import methods

    return {name.rpartition(".")[2]: name for name in methods()[method].options.settings()}


def equal(bench: Bench) -> None:
    """Several methods at a time, each in a process of its own."""
    from trainers.methods import methods

    for left_over in bench.file.parent.glob("equal_*"):
        shutil.rmtree(left_over)
    names = FIRST if bench.tiny else tuple(name for name, method in methods().items() if not method.federated)
    failed = []

    def one(method: str) -> None:
        seconds = bench.end - time.monotonic()
        if seconds < 1:
            return bench.note(left_out={"equal": method})
        words = [sys.executable, __file__, "--section", "equal", "--method", method, "--out", str(bench.file.parent)]
        words += ["--tiny"] if bench.tiny else []
        try:
            done = subprocess.run(
                words, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=seconds + 300 * bench.tiny
            )
        except subprocess.TimeoutExpired:
            return bench.note(left_out={"equal": method})
        if done.returncode:
            failed.append(method)
            bench.note(equal=method, failed=done.stderr.strip()[-600:])

    import torch

    several_fit = 1 if bench.tiny or not bench.gpu else torch.cuda.get_device_properties(0).total_memory // 2**31
    with ThreadPoolExecutor(max(1, min(14, os.cpu_count() or 1, several_fit))) as several:
        list(several.map(one, names))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def equal_of(bench: Bench, method: str) -> None:
    """What has to be equal of one method."""
    from trainers.methods import methods

    at, own = bench.file.parent / f"equal_{method}", own_settings(method)
    few = ("DATASET.NUM_SHOTS", 4, "DATALOADER.NUM_WORKERS", 0, "TRAIN.PRINT_FREQ", 1000)
    exact = [word for name, value in DRAWS_ON_THE_DEVICE.items() if name in own for word in (own[name], value)]
    exact += [own["PREC"], "fp32"] if "PREC" in own else []
    if not methods()[method].takes_steps:
        few = few if methods()[method].draws else ()
        cpu, gpu = (Run(at / name, method, *few, *exact, "USE_CUDA", name == "gpu") for name in ("cpu", "gpu"))
        return bench.note(cpu_against_gpu=method, accuracy_cpu=cpu.accuracy, accuracy_gpu=gpu.accuracy)
    several = ["OPTIM.MAX_EPOCH", 2 if bench.tiny else 7]  # of three steps
    if "STEPS_PER_SHOT" in own:
        few += (own["STEPS_PER_SHOT"], 0)
    if "SEARCH_EPOCHS" in own:
        few += (own["SEARCH_EPOCHS"], 1)
    if method == "CoCoOp":
        several += ["DATALOADER.TRAIN_X.BATCH_SIZE", 8, "DATASET.NUM_SHOTS", 1]
    cpu = Run(at / "cpu", method, *few, *exact, *several, "USE_CUDA", False)
    for tf32 in (False, True) if method == "CoOp" else (False,):
        gpu = Run(at / f"gpu{tf32}", method, *few, *exact, *several, "TF32", tf32)
        apart = [abs(a - b) / max(1e-9, abs(a)) for a, b in zip(cpu.losses, gpu.losses, strict=True)]
        bench.note(cpu_against_gpu=method, tf32=tf32, steps=len(apart), largest_relative_difference=max(apart),
                   accuracy_cpu=cpu.accuracy, accuracy_gpu=gpu.accuracy)  # fmt: skip
    for prec in ("amp", "fp16", "fp32") if method == "MoCoOp" else ("amp", "fp16"):
        for deterministic in (False, True):
            if bench.tiny and (prec, deterministic) != ("amp", True):
                continue
            short = (*few, "OPTIM.MAX_EPOCH", 3, own["PREC"], prec, "DETERMINISTIC", deterministic, "TEST.NO_TEST", True,
                     "DATALOADER.TRAIN_X.BATCH_SIZE", 8, "DATASET.NUM_SHOTS", 1)  # fmt: skip
            name, what = f"{prec}{deterministic}", {"resumed": method, "prec": prec, "deterministic": deterministic}
            try:
                whole = Run(at / f"{name}a", method, *short)
                kernel_by_kernel = Run(at / f"{name}b", method, *short, "TRAIN.CUDA_GRAPH", False)
                Run(at / f"{name}c", method, *short, stop_after=len(whole.losses) // 2)
                resumed = Run(at / f"{name}c", method, *short)
            except RuntimeError as error:
                bench.note(**what, failed=str(error)[:300])
                continue
            bench.note(**what, steps=len(whole.losses), bit_equal=resumed.equals(whole),
                       replayed_equals_kernel_by_kernel=kernel_by_kernel.equals(whole),
                       last_loss=whole.losses[-1])  # fmt: skip


class Measured(Exception):
    """Enough of a training."""


def methods(bench: Bench) -> None:
    """The trainer's own step on a batch of its loader, the same each time; with every method's own precision and batch."""
    import numpy as np
    import torch
    from PIL import Image

    from harness.catalog import config_for
    from trainers.core.training.trainer import PromptTrainer
    from trainers.methods import methods

    place, rng = bench.file.parent / "of_methods", np.random.default_rng(0)
    for label in range(10 if bench.tiny else 100):
        folder = place / "pictures" / f"thing {label}"
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 255, (224, 224, 3)).astype(np.uint8)).save(folder / f"{i}.jpg")
    torch.save(random_clip(bench.tiny, torch.device("cpu"), 12).state_dict(), place / "clip.pt")
    # fmt: off
    words = ("--dataset-config-file", "configs/datasets/folder.yaml", "--backbone", place / "clip.pt",
             "DATASET.FOLDER", place / "pictures", "DATASET.NUM_SHOTS", 4, "DATALOADER.NUM_WORKERS", 0,
             "CACHE.FOLDER", place / "cache", "TEST.NO_TEST", True, "OPTIM.MAX_EPOCH", 10)
    # fmt: on
    step = PromptTrainer.forward_backward
    for method in [method for method in methods().values() if method.takes_steps and not method.federated]:
        if bench.late(step=method.title):
            return
        name, taken = config_for(method, "caltech101", "main", 4), 0
        recipe = ROOT / f"configs/trainers/{method.recipes_of}/{name}.yaml"

        def timed(trainer: Any, batch: Any, method: Any = method) -> Any:
            nonlocal taken
            taken += 1
            if taken <= 3:  # the third is recorded
                return step(trainer, batch)
            what = {
                "step": method.title,
                "classes": trainer.num_classes,
                "batch": len(batch["label"]),
                "prec": trainer.precision,
                "trained": sum(p.numel() for p in trainer.model.trainable().values()),
            }
            for replayed in (True, False) if trainer._graph is not None else (False,):
                if not replayed:
                    trainer._graph = None
                bench.note(**what, replayed=replayed, **bench.ms(lambda: step(trainer, batch), 0.8))
            raise Measured

        try:
            with stepping(timed):
                started(method.trainer, "--config-file", recipe, "--output-dir", place / method.trainer, *words)
        except Measured:
            pass
        except (RuntimeError, ValueError) as error:
            bench.note(step=method.title, failed=str(error)[:300])
        gc.collect()
        if bench.gpu:
            torch.cuda.empty_cache()


def towers(bench: Bench) -> None:
    import torch

    def measured(call: Callable[[], Any], **what: Any) -> None:
        from trainers.core.training.step_graph import StepGraph

        count = flops(call)
        graph = StepGraph(lambda: call() or {"none": torch.zeros((), device=bench.device)}, []) if bench.gpu else call
        got = bench.ms(graph, 0.4)
        bench.note(**what, tflops=count / got["ms"] / 1e9, gflop=count / 1e9, **got)

    for prec in ("amp", "fp32", "bf16"):
        for batch in (32, 1):
            for tuned in (True, False):
                if bench.late(tower="image", prec=prec, batch=batch):
                    return
                model = built(bench, "MoCoOp", prec, 10, train_visual_ln=tuned)
                images = torch.randn(batch, 3, *model.backbone.preprocessing.size, device=bench.device)

                def image(model: Any = model, images: Any = images, prec: str = prec) -> None:
                    model.zero_grad()
                    with inside(bench, prec):
                        found = model.image_features(images)
                    if found.requires_grad:
                        found.float().square().sum().backward()

                measured(image, tower="image", prec=prec, batch=batch, trains_layer_norms=tuned)
        for mode, classes, prompts in (("fast", 100, 5), ("fast", 1000, 5), ("plain", 100, 1)):
            if bench.late(tower="text", prec=prec, mode=mode, classes=classes):
                return
            model = built(
                bench, "MoCoOp", prec, min(classes, 10) if bench.tiny else classes, prompts, text_encoder=mode
            )

            def text(model: Any = model, prec: str = prec) -> None:
                model.zero_grad()
                with inside(bench, prec):
                    found = model.text_features()
                found.float().square().sum().backward()

            text()
            peak = 0
            if bench.gpu:
                model.zero_grad()
                torch.cuda.reset_peak_memory_stats()
                base = torch.cuda.memory_allocated()
                text()
                peak = torch.cuda.max_memory_allocated() - base
            tokens, sizes = model.prompts.plan.n_tokens, model.backbone.text_width * model.backbone.text_layers
            measured(
                text,
                tower="text",
                prec=prec,
                mode=mode,
                classes=classes,
                prompts=prompts,
                tokens=tokens,
                bytes_per_token_layer_and_width=peak / tokens / sizes,
            )


def steps(bench: Bench) -> None:
    sizes = [
        ("MoCoOp", 5, 32),
        ("CoOp", 1, 32),
        ("LASP", 1, 32),
        ("CoCoOp", 1, 1),
        ("MoCoOp", 20, 32),
        ("MoCoOp", 5, 1),
    ]
    for prec in ("amp", "fp32", "bf16", "fp16"):
        for classes in (100, 1000):
            for method, prompts, batch in sizes:
                if (bench.tiny and classes > 100) or (prec == "fp16" and method in ("MoCoOp", "LASP")):
                    continue
                for replayed in (True, False) if prec == "amp" else (True,):
                    if bench.late(step=method, prec=prec, classes=classes, prompts=prompts, batch=batch):
                        return
                    model = built(bench, method, prec, classes, prompts)
                    what = {
                        "step": method,
                        "prec": prec,
                        "classes": classes,
                        "prompts": prompts,
                        "batch": batch,
                        "replayed": replayed,
                    }
                    try:
                        got = bench.ms(Step(bench, model, prec, batch, replayed).warm(), 0.5)
                    except RuntimeError as error:  # out of memory is a result
                        bench.note(**what, failed=str(error)[:150])
                        continue
                    bench.note(
                        **what, chunk=model.text_encoder.training_chunk, pictures_per_s=1e3 * batch / got["ms"], **got
                    )


def compiled(bench: Bench) -> None:
    for classes in (1000, 100):
        if bench.late(compiled=classes):
            return
        model = built(bench, "MoCoOp", "amp", 10 if bench.tiny else classes, 5)
        model.compile_training()
        begin = time.monotonic()
        step = Step(bench, model, "amp", 32, True).warm()
        bench.sync()
        seconds = time.monotonic() - begin
        bench.note(
            compiled="MoCoOp",
            prec="amp",
            classes=classes,
            prompts=5,
            batch=32,
            seconds_until_the_fourth_step=seconds,
            **bench.ms(step),
        )


def evaluation(bench: Bench) -> None:
    import torch

    for prec in ("amp", "fp32"):
        for method, classes in (("ZeroshotCLIP", 1000), ("MoCoOp", 100), ("MoCoOp", 1000), ("CoCoOp", 100)):
            if bench.late(evaluation=method, classes=classes, prec=prec):
                return
            model = built(bench, method, prec, 10 if bench.tiny else classes, 5).eval()
            images = torch.randn(100, 3, *model.backbone.preprocessing.size, device=bench.device)

            def test(model: Any = model, images: Any = images, prec: str = prec) -> Any:
                with torch.no_grad(), inside(bench, prec):
                    return model(images)

            got = bench.ms(test, 0.6)
            bench.note(evaluation=method, classes=classes, prec=prec, pictures_per_s=1e5 / got["ms"], **got)


def budget(bench: Bench) -> None:
    import torch

    from trainers.core.clip import text_tower as text_encoder

    if not bench.gpu:
        return bench.note(budget="no GPU")
    total = torch.cuda.get_device_properties(0).total_memory
    for card in (80, 24, 16, 8):
        if bench.late(budget_gb=card):
            return
        gc.collect()  # a step and its graph hold each other
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, card * 2**30 / total))
        text_encoder.memory_to_use = lambda device, card=card: card * 2**30 // 2
        what = {"budget_gb": card, "prompts": "20 x 1000", "prec": "amp"}
        try:
            model = built(bench, "MoCoOp", "amp", 1000, 20)
            got = bench.ms(Step(bench, model, "amp", 32, True).warm(), 0.6)
            bench.note(**what, chunk=model.text_encoder.training_chunk, **got)
        except RuntimeError as error:
            bench.note(**what, failed=str(error)[:200])
        model = None


def loading(bench: Bench) -> None:
    """JPEG photographs of 500 x 375 through the training augmentation, decoded and kept as training keeps them."""
    import numpy as np
    from PIL import Image

    import datasets
    import train
    from trainers import methods
    from trainers.core.loading.loaders import build_data_manager, follow_backbone

    folder, rng = bench.file.parent / "photographs", np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(8 if bench.tiny else 320):
            coarse = rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)
            Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(folder / name / f"{i}.jpg")
    methods.register_all()
    datasets.register_all()
    for workers in sorted({0, 8, os.cpu_count() or 1}):
        for alone in (False, True):
            if bench.late(loading=workers):
                return
            words = [
                "--dataset-config-file",
                "configs/datasets/folder.yaml",
                "--config-file",
                "configs/trainers/MoCoOp/vit_b16_ep50.yaml",
                "--trainer",
                "MoCoOp",
                "--seed",
                "1",
                "DATASET.FOLDER",
                str(folder),
                "DATALOADER.NUM_WORKERS",
                str(workers),
                "INPUT.SEED_PER_PICTURE",
                str(alone),
                "CACHE.FOLDER",
                str(bench.file.parent / "cache"),
                "DATASET.NUM_SHOTS",
                "-1",
            ]
            args = train.parse_arguments(words)
            with open(os.devnull, "w") as silent:
                before, sys.stdout = sys.stdout, silent
                cfg = train.setup_cfg(args)
                cfg.defrost()
                cfg.MODEL.BACKBONE.NAME, cfg.INPUT.SIZE = "assets/drawn_clip.pt", (224, 224)
                follow_backbone(cfg)
                manager = build_data_manager(cfg)
                manager.train_loader_x.dataset.keep()
                sys.stdout = before
            times = []
            for epoch in range(3):
                manager.train_loader_x.dataset.epoch = epoch
                begin, count = time.perf_counter(), 0
                for batch in manager.train_loader_x:
                    count += len(batch["label"])
                times.append(time.perf_counter() - begin)
            bench.note(
                loading=workers,
                seed_per_picture=alone,
                pictures=count,
                batch=len(batch["label"]),
                seconds_of_an_epoch=times,
                ms_per_batch_of_32=1e3 * 32 * min(times) / count,
            )


def theirs(bench: Bench) -> None:
    import torch
    from common import classnames, groups
    from theirs import authors_model

    place = os.environ.get("AUTHORS", "")
    if not os.path.isdir(place):
        return bench.note(theirs="no clone of the authors' code: name one in AUTHORS")
    for classes, batch in ((20, 32), (60, 32)):
        if bench.late(theirs=classes):
            return
        clip = copy.deepcopy(random_clip(bench.tiny, bench.device)).cpu()  # it is moved with their model
        model = authors_model(place, clip, classnames(classes), groups(5), batch, bench.device.type).train()
        images = torch.randn(batch, 3, *[clip.visual.input_resolution] * 2, device=bench.device)
        labels = torch.randint(0, 10, (batch,), device=bench.device)

        def step(model: Any = model, images: Any = images, labels: Any = labels) -> None:
            model.zero_grad()
            with inside(bench, "amp"):
                loss = model(images, labels)
            loss.backward()

        what = {"prec": "amp", "classes": classes, "prompts": 5, "batch": batch}
        bench.note(theirs="MoCoOp, forward and backward", **what, **bench.ms(step))
        for replayed in (True, False):
            ours = Step(bench, built(bench, "MoCoOp", "amp", classes, 5), "amp", batch, replayed).warm()
            bench.note(ours="MoCoOp, whole step", replayed=replayed, **what, **bench.ms(ours))


def demo(bench: Bench) -> None:
    if bench.tiny:
        return bench.note(demo="left out: it takes minutes on a CPU")
    begin, output = time.monotonic(), bench.file.parent / "demo"
    shutil.rmtree(output, ignore_errors=True)  # what is finished would not be run again
    words = [sys.executable, "scripts/demo.py", "--output", str(output)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=bench.end - begin)
    tables = done.stdout[done.stdout.find("Few-shot") :].splitlines()
    bench.note(
        demo=done.returncode,
        seconds=time.monotonic() - begin,
        table=tables,
        said=done.stderr[-600:] if done.returncode else "",
    )
    done.check_returncode()


def tests(bench: Bench) -> None:
    files = [f"tests/{name}.py" for name in TESTS]
    workers = min(6, os.cpu_count() or 1)  # each starts CUDA anew
    command = f"-m pytest -q --no-header -p no:cacheprovider -p no:benchmark -n {workers} --dist loadgroup".split()
    environment = os.environ | ({"MOCOOP_TEST_GPU": "1"} if bench.gpu else {})
    seconds = 300 if bench.tiny else bench.end - time.monotonic()
    done = subprocess.run([sys.executable, *command, *files], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=seconds)  # fmt: skip
    lines = [
        line[:300] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR")) or "[100%]" in line
    ]
    bench.note(
        tests=files, status=done.returncode, lines=lines[-40:], tail="" if lines else (done.stdout + done.stderr)[-800:]
    )
    done.check_returncode()


# --- the call -----------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("timings/results/gpu"), help="folder of the lines")
    parser.add_argument("--only", default=",".join(SECONDS), help="sections, with commas between them")
    parser.add_argument(
        "--minutes", type=float, default=sum(SECONDS.values()) / 60, help="that all sections share (15)"
    )
    parser.add_argument("--tiny", action="store_true", help="small models, a few seconds each, on any machine")
    parser.add_argument("--section", default="", help=argparse.SUPPRESS)
    parser.add_argument("--method", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.only.split(",")
    unknown = [name for name in names if name not in SECONDS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}: choose from {', '.join(SECONDS)}")
    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    share = (TINY if args.tiny else 1) * args.minutes * 60 / sum(SECONDS.values())
    if args.section:
        bench = Bench(out / f"{args.section}.jsonl", SECONDS[args.section] * share, args.tiny)
        if args.method:
            equal_of(bench, args.method)
        else:
            globals()[args.section](bench)
        return 0
    words = ["--out", str(out), "--minutes", str(args.minutes), *(["--tiny"] if args.tiny else [])]
    failed = [name for name in names if not in_a_process(name, out, SECONDS[name] * share + 30, words)]
    print(f"# failed: {', '.join(failed)}" if failed else "# every section ended well")
    return 1 if failed else 0


def in_a_process(name: str, out: Path, seconds: float, words: list[str]) -> bool:
    """Whether the section ended well."""
    (out / f"{name}.jsonl").unlink(missing_ok=True)
    command = [sys.executable, __file__, "--section", name, *words]
    environment = os.environ | {"MOCOOP_CACHE": str(out / "cache"), "PYTHONUNBUFFERED": "1"}
    seconds += 300 if words[-1] == "--tiny" else 0  # a CPU's time, which others may be using
    begin = time.monotonic()
    # a group of its own, all of which ends with it: what it started would train on beside the next section
    section = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = section.communicate(timeout=seconds)
        status = section.returncode
    except subprocess.TimeoutExpired as late:
        status, said = -1, f"over its time: {(late.stderr or b'')[-300:]!r}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(section.pid, signal.SIGKILL)
        section.wait()
    if status:
        print(f"# {name} failed with {status}: {said[-1500:]}")
    print(f"# {name}: {time.monotonic() - begin:.0f} s", flush=True)
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
