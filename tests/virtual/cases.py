"""Whole runs of train.py's own code on the virtual GPU, in one process: cases.py DATA OUT PART
[NAMES], a line of JSON for each."""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import gpu  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
gpu.install()

import train  # noqa: E402
from trainers.core.training import checkpoints  # noqa: E402
from trainers.core.training.trainer import PromptTrainer  # noqa: E402
from trainers.methods import methods  # noqa: E402

DEEP = {
    "KgCoOp": (),
    "ProGrad": (),
    "PromptSRC": ("TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2,
                  "TRAINER.PROMPTSRC.GPA_MEAN", 1),
    "MaPLe": ("TRAINER.MAPLE.PROMPT_DEPTH", 2),
    "TipAdapterF": (),
    "CLIPAdapter": (),
    "TCP": ("TRAINER.TCP.BLOCK", 1),
    # with the recipe's rate roundings to half precision grow in six steps to more than is compared
    "CLIPLoRA": ("TRAINER.CLIPLORA.STEPS_PER_SHOT", 0, "OPTIM.LR", 0.002),
    "TwoSFS": ("TRAINER.TWOSFS.STEPS_PER_SHOT", 0),
    "PLOTPP": (),
    "MMRL": ("TRAINER.MMRL.FIRST_BLOCK", 1),
    "MMRLpp": ("TRAINER.MMRLPP.FIRST_BLOCK", 0),
    "CLIPSVD": ("TRAINER.CLIPSVD.STEPS_PER_SHOT", 0, "OPTIM.LR", 0.004),
    "CoPrompt": ("TRAINER.COPROMPT.PROMPT_DEPTH", 2),
    "DPL": ("TRAINER.DPL.SEARCH_EPOCHS", 1),
}  # fmt: skip
KEYS = {"MoCoOp": "MOCOOP", "CoOp": "COOP", "CoCoOp": "COCOOP", "LASP": "LASP", "HardMixture": "HARDMIXTURE"}
BATCHES = 3  # of an epoch
DATA, OUT, PART = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]


def words(folder: Path, trainer: str, *settings: object) -> list[str]:
    """A command line, of paths without spaces."""
    config = methods()[trainer].recipes_of
    shared = f"""--traceback --root {DATA} --seed 1 --trainer {trainer} --backbone {DATA}/tiny_clip.pt --output-dir {folder}
        --dataset-config-file configs/datasets/caltech101.yaml --config-file configs/trainers/{config}/small.yaml
        DATASET.NUM_SHOTS 4 DATALOADER.NUM_WORKERS 0"""
    if methods()[trainer].takes_steps:
        shared += (
            f""" OPTIM.MAX_EPOCH 2 DATALOADER.TRAIN_X.BATCH_SIZE 8 TRAIN.CHECKPOINT_FREQ 1 TRAIN.PRINT_FREQ {BATCHES}"""
        )
    return [*shared.split(), *map(str, settings)]


def run(name: str, trainer: str, *settings: object, stop_after: int = 0, folder: Path | None = None) -> dict[str, Any]:
    """One run; what was done to the GPU in its last steps, and its losses."""
    folder = folder or OUT / name
    step, taken, per_step = PromptTrainer.forward_backward, [], []

    def noted(self: Any, batch: Any) -> Any:
        if not taken:
            gpu.watch(self.model)
        before = gpu.counts.copy()
        shown = step(self, batch)
        per_step.append({kind: n - before[kind] for kind, n in gpu.counts.items() if n > before[kind]})
        taken.append(shown["loss"])
        if len(taken) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return shown

    PromptTrainer.forward_backward = noted  # type: ignore[method-assign]
    gpu.reset()
    log, status, error = io.StringIO(), 0, ""
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            args = train.parse_arguments(words(folder, trainer, *settings))
            train.run(args, train.setup_cfg(args))
        except SystemExit as asked:
            status = int(asked.code or 0)
        except Exception as failure:  # noqa: BLE001  (is the case's result)
            status, error = 1, f"{type(failure).__name__}: {failure}"
    PromptTrainer.forward_backward = step  # type: ignore[method-assign]
    (OUT / f"{name}.log").write_text(log.getvalue())
    latest = checkpoints.latest(folder) if (folder / "prompt_learner").is_dir() else None
    digest = checkpoints.digest_of(checkpoints.load(latest)["state_dict"]) if latest else ""
    return {
        "case": name,
        "trained": digest,
        "status": status,
        "error": error,
        "losses": [float(loss) for loss in taken],
        "steps": per_step,
        "waits": gpu.waits(),
        "float64": gpu.counts["float64"],
        "pools": list(gpu.pools.values()),
        "notes": [line for line in log.getvalue().splitlines() if line.startswith("Note") and "every test" not in line],
        "warnings": sorted({str(w.message) for w in told if not issubclass(w.category, DeprecationWarning)}),
    }


def say(**row: Any) -> None:
    print(json.dumps(row), file=sys.__stdout__, flush=True)


def resumed(name: str, trainer: str, stop_after: int, *settings: object) -> None:
    """A run stopped after some steps and continued, beside one that was not."""
    whole, parted = (
        run(f"{name}-whole", trainer, *settings),
        run(f"{name}-parted", trainer, *settings, stop_after=stop_after),
    )
    rest = run(f"{name}-rest", trainer, *settings, folder=OUT / f"{name}-parted")
    say(**whole)
    say(
        case=name,
        status=max(whole["status"], rest["status"]),
        stopped=parted["status"],
        error=whole["error"] + rest["error"],
        bit_equal=whole["trained"] == rest["trained"] != "",
        losses=[whole["losses"], parted["losses"] + rest["losses"]],
        warnings=whole["warnings"] + rest["warnings"],
    )


@contextlib.contextmanager
def asking_in_the_backward_pass() -> Iterator[None]:
    """CoOp whose backward pass asks a tensor for its value, when some gradients are there already."""
    from trainers.coop.trainer import CoOp

    finish, loss = CoOp.finish_model, CoOp.compute_loss

    def finished(self: Any) -> None:
        self.model.more = torch.nn.Parameter(torch.zeros(1))
        finish(self)
        self.model.ctx.register_hook(lambda grad: grad + 0 * float(grad.sum()))

    def computed(self: Any, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        found, shown = loss(self, images, labels)
        return found + (self.model.more - 1).square().sum(), shown

    CoOp.finish_model, CoOp.compute_loss = finished, computed  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        CoOp.finish_model, CoOp.compute_loss = finish, loss  # type: ignore[method-assign]


def leaders() -> None:
    for trainer, settings in DEEP.items():
        for prec in ("fp32", "fp16", "amp"):
            say(**run(f"{trainer}-{prec}", trainer, f"TRAINER.{trainer.upper()}.PREC", prec, *settings))
    resumed("TipAdapterF-amp-within", "TipAdapterF", BATCHES + 1, "TRAINER.TIPADAPTERF.PREC", "amp")
    resumed("PromptSRC-amp-within", "PromptSRC", BATCHES + 2, "TRAINER.PROMPTSRC.PREC", "amp", *DEEP["PromptSRC"])
    resumed("DPL-amp-within", "DPL", BATCHES - 1, "TRAINER.DPL.PREC", "amp", *DEEP["DPL"])
    resumed("TwoSFS-amp-within", "TwoSFS", BATCHES + 1, "TRAINER.TWOSFS.PREC", "amp", *DEEP["TwoSFS"])
    resumed("CLIPLoRA-amp-within", "CLIPLoRA", BATCHES + 1, "TRAINER.CLIPLORA.PREC", "amp", *DEEP["CLIPLoRA"])
    use("TipAdapterF-fp16")


def once_at_fault() -> None:
    """What a GPU alone would have shown of further methods."""
    amp = ("TRAINER.DPL.PREC", "amp", *DEEP["DPL"])
    for name, more in {"whole": (), "chunks": ("MODEL.TEXT_CHUNK", 3)}.items():
        say(**run(f"DPL-{name}", "DPL", *amp, *more))
    for trainer in ("CLIPSVD", "CLIPLoRA"):
        say(**run(f"{trainer}-once", trainer, f"TRAINER.{trainer.upper()}.PREC", "fp16", *DEEP[trainer]))
        use(f"{trainer}-once")
    chunks = ("TRAINER.CLIPLORA.PREC", "amp", *DEEP["CLIPLoRA"], "MODEL.TEXT_CHUNK", 3)
    say(**run("CLIPLoRA-chunks", "CLIPLoRA", *chunks))
    for prec in ("fp16", "amp"):
        federation(prec)


def federation(prec: str) -> None:
    """Three rounds of pFedMoAP's server and of clients in one process."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    import datasets
    from trainers.core.federated.client import Client
    from trainers.methods import register_all

    class Link:
        """Asks clients that share a trainer, as one of Flower's processes does."""

        def ask(self, kind: str, questions: dict[int, Any]) -> dict[int, Any]:
            return {
                k: getattr(Client(worker, k, OUT / f"PFedMoAP-{prec}-clients"), kind)(q) for k, q in questions.items()
            }

    register_all()
    datasets.register_all()
    own = {"PREC": prec, "CLIENTS": 3, "PARTICIPATION": 1.0, "GATE_WIDTH": 16}
    settings = [word for key, value in own.items() for word in (f"TRAINER.PFEDMOAP.{key}", value)]
    gpu.reset()
    error, accuracies = "", []
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            cfg = train.setup_cfg(
                train.parse_arguments(words(OUT / f"PFedMoAP-{prec}", "PFedMoAP", *settings, "OPTIM.MAX_EPOCH", 3))
            )
            set_random_seed(1)
            server, worker = build_trainer(cfg), build_trainer(cfg)
            worker.prepare_client()
            server.link = Link()
            server.train()
            accuracies = [row["accuracy"] for row in server.rounds]
        except Exception as failure:  # noqa: BLE001  (is the case's result)
            error = f"{type(failure).__name__}: {failure}"
    say(case=f"PFedMoAP-{prec}", status=int(bool(error)), error=error, rounds=len(accuracies))


def is_asked(name: str) -> bool:
    """Of the cases in main(): "main" has all but those named, "rest" these."""
    return (name in sys.argv[4].split(",")) == (PART == "rest")


def main() -> None:
    for trainer, key in KEYS.items():
        for prec in ("fp32", "fp16", "amp", "bf16"):
            if is_asked(f"{trainer}-{prec}") and (trainer != "HardMixture" or prec in ("fp16", "bf16")):
                say(**run(f"{trainer}-{prec}", trainer, f"TRAINER.{key}.PREC", prec))
    for trainer in filter(is_asked, ("ZeroshotCLIP", "LinearProbe", "LPPlusPlus")):
        say(**run(trainer, trainer))
    for trainer in ("TipAdapter", "GDA"):
        if not is_asked(f"{trainer}-fp16"):
            continue
        own = (f"TRAINER.{trainer.upper()}.PREC", "fp16", f"TRAINER.{trainer.upper()}.VIEWS", 2)
        crops = ("INPUT.TRANSFORMS", "['random_resized_crop', 'normalize']")
        say(**run(f"{trainer}-fp16", trainer, *own, *crops))
    amp = ("TRAINER.MOCOOP.PREC", "amp")
    for name, settings in {
        "plain": ("MODEL.TEXT_ENCODER", "plain"),
        "chunks": ("MODEL.TEXT_CHUNK", 3),
        "kernels": ("TRAIN.CUDA_GRAPH", False),
        "adamw": ("OPTIM.NAME", "adamw", "OPTIM.LR", 1e-3),
        "deterministic": ("DETERMINISTIC", True),
        "tf32": ("TF32", True),
        "best_val": ("TEST.FINAL_MODEL", "best_val"),
        "views": ("DATALOADER.K_TRANSFORMS", 2),
        "crops": ("INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']"),
        "frozen": ("TRAINER.MOCOOP.TRAIN_VISUAL_LN", False),
        "tokens": ("TRAINER.MOCOOP.VISUAL_TOKENS", "[1,2]"),
        "rank": ("TRAINER.MOCOOP.VISUAL_RANK", 1),
        "conditional": ("TRAINER.MOCOOP.CONDITIONAL", True),
        "head": ("MODEL.HEAD.NAME", "text_means", "TRAINER.MOCOOP.TEXT_LOSS", "anchor", "TRAINER.MOCOOP.BLEND", 1.0),
    }.items():
        if is_asked(f"MoCoOp-{name}"):
            say(**run(f"MoCoOp-{name}", "MoCoOp", *amp, *settings))
    for name, trainer, stop_after, settings in (
        ("LASP-amp-within", "LASP", 4, ()),
        ("MoCoOp-fp32-between", "MoCoOp", BATCHES, ("OPTIM.NAME", "adamw", "OPTIM.LR", 1e-3)),
        ("CoCoOp-fp16-within", "CoCoOp", 1, ()),
        ("CoOp-bf16-within", "CoOp", 5, ()),
    ):
        if is_asked(name):
            resumed(name, trainer, stop_after, f"TRAINER.{KEYS[trainer]}.PREC", name.split("-")[1], *settings)
    if PART == "main":
        what_goes_wrong_and_what_is_used(amp)


def what_goes_wrong_and_what_is_used(amp: tuple[str, ...]) -> None:
    for name, settings in {"asks": (), "asks-kernels": ("TRAIN.CUDA_GRAPH", False)}.items():
        with asking_in_the_backward_pass():
            say(**run(f"CoOp-{name}", "CoOp", "TRAINER.COOP.PREC", "fp32", *settings))
    say(**run("CoCoOp-best_val", "CoCoOp", "TRAINER.COCOOP.PREC", "amp", "TEST.FINAL_MODEL", "best_val"))
    half = ("TRAINER.NORMTUNING.PREC", "amp", "CACHE.LIMIT_MB", 0)
    say(**run("NormTuning-base", "NormTuning", *half, "DATASET.SUBSAMPLE_CLASSES", "base"))
    new = ("--eval-only", "--model-dir", OUT / "NormTuning-base")
    say(**run("NormTuning-new", "NormTuning", *new, *half, "DATASET.SUBSAMPLE_CLASSES", "new"))
    say(**run("MoCoOp-eval", "MoCoOp", *amp, "--eval-only", "--model-dir", OUT / "MoCoOp-amp"))
    bad = run("MoCoOp-bad", "MoCoOp", *amp, "OPTIM.LR", 1e38, "OPTIM.WARMUP_EPOCH", 0)
    say(**bad, kept=(OUT / "MoCoOp-bad" / "bad_step" / "state.pth.tar").is_file())
    for name in (
        "MoCoOp-amp",
        "CoCoOp-fp16",
        "LASP-bf16",
        "HardMixture-fp16",
        "LinearProbe",
        "MoCoOp-head",
    ):
        use(name)
    shutil.rmtree(OUT / "cache", ignore_errors=True)


def use(name: str) -> None:
    """A trained run on the GPU and on the CPU: the same classes, probabilities as near as the precision allows."""
    from trainers import load_run

    pictures = sorted(str(p) for p in (DATA / "caltech-101").glob("**/test_*.jpg"))
    try:
        # with_classes() too; then the form that is exported
        on_cpu = load_run(OUT / name).classify(pictures)
        model = load_run(OUT / name).to("cuda")
        found = model.classify(pictures)
        exported = model.model.exported().to("cuda")
        with torch.no_grad():
            exported(torch.stack([model.read(p) for p in pictures[:2]]).to("cuda"))
        apart = max(
            abs(dict(a.classes)[c] - p)
            for a, b in zip(on_cpu, found, strict=True)
            for c, p in b.classes
            if c in dict(a.classes)
        )
        half = str(model.backbone.text_dtype)
        say(case=f"use-{name}", status=0, error="", apart=apart, text_dtype=half, waits=gpu.waits())
    except Exception as failure:  # noqa: BLE001  (is the case's result)
        say(case=f"use-{name}", status=1, error=f"{type(failure).__name__}: {failure}")


if __name__ == "__main__":
    os.environ["MOCOOP_CACHE"] = str(OUT / "cache")
    OUT.mkdir(parents=True, exist_ok=True)
    {"leaders": leaders, "once_at_fault": once_at_fault}.get(PART, main)()
