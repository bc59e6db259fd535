"""A whole protocol, now against then: zero-shot CLIP, CoOp, CoCoOp, LASP, MoCoOp, few-shot and base-to-new, one sweep.

    python timings/bench_sweep.py                       demo and cifar10, seeds 1 2 3: hours
    python timings/bench_sweep.py --seeds 1 --datasets demo --methods zsclip,coop
    python timings/bench_sweep.py --parts coop --coop CoOp --dassl Dassl.pytorch      CoOp's own code, brought by you
    python timings/bench_sweep.py --parts authors --authors mocoop                    MoCoOp's authors' code, likewise

"Then" is every run in a Python of its own with nothing kept, one call of run.py a method, as before there were warm workers
and caches; or, with --then CHECKOUT, an earlier release itself. The numbers of both sides are compared: metrics, printed
losses, trained tensors. The floor is what the pictures alone cost: each training picture through the image encoder as often
as the method asks, each test picture decoded once and encoded once per distinct encoder.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from common import DEVICE, ROOT, alternate, classnames, groups, ratio, report, seconds, spread, vit_b16
from theirs import authors_model

from trainers.core.clip.backbones import load_backbone
from trainers.core.training import checkpoints

PARTS = ("start", "pictures", "encode", "text", "rest")
BATCH = 8  # of the step against the authors' code, whose text alone takes 19 GB at 100 classes
LEARNS_ENCODER = ("MoCoOp", "LASP")


def call(command: list[str], cwd: Path, environment: dict[str, str]) -> float:
    """Seconds of a command. Raises RuntimeError, with its last words, when it fails."""
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:] or done.stdout[-2000:]}")
    return time.perf_counter() - begin


# --- the whole sweep ----------------------------------------------------------------------------------------------------


def sweep(args: argparse.Namespace, output: Path, then: bool) -> tuple[float, list[dict[str, Any]]]:
    """Wall-clock seconds, and where the time of each run went."""
    checkout = Path(args.then).resolve() if then and args.then else ROOT
    times = output.with_name(f"{output.name}-times")
    times.mkdir()
    environment = {"MOCOOP_CACHE": str(output.with_name("cache")), "MOCOOP_TIMES": str(times),
                   "PYTHONPATH": os.pathsep.join([str(checkout), str(ROOT / "timings" / "timers")])}  # fmt: skip
    settings = []
    if then and not args.then:
        environment["MOCOOP_COLD"], settings = "1", ["CACHE.LIMIT_MB", "0"]
    total = 0.0
    for method in args.methods.split(",") if then else [args.methods]:
        for dataset in args.datasets.split(","):
            for protocol in (["main", dataset, "--shots", args.shots], ["base2new", dataset]):
                words = [
                    *protocol,
                    "--data",
                    str(Path(args.data).resolve()),
                    "--output",
                    str(output),
                    "--seeds",
                    args.seeds,
                ]
                command = [sys.executable, str(checkout / "scripts" / "run.py"), method, *words,
                           "--jobs", str(args.jobs), "--no-table", *settings]  # fmt: skip
                took = call(command, checkout, environment)
                total += took
                print(f"{'then' if then else 'now'}: {method} {' '.join(protocol)}: {took:.1f} s", flush=True)
    return total, [json.loads(file.read_text()) for file in times.glob("*.json")]


def differences(ours: Path, theirs: Path) -> tuple[int, list[str]]:
    """How many runs both folders hold, and what differs between them."""
    found, runs = [], sorted(ours.rglob("results.json"))
    for file in runs:
        other = theirs / file.relative_to(ours)
        a, b = (json.loads(path.read_text()) for path in (file, other))
        found += [f"{file}: {key}" for key in ("accuracy", "macro_f1", "total", "correct", "ece", "temperature")
                  if a.get(key) != b.get(key)]  # fmt: skip
        if losses(file.parent) != losses(other.parent):
            found.append(f"{file.parent}: losses")
        for checkpoint in (file.parent / checkpoints.FOLDER).glob("model*"):
            x, y = (
                checkpoints.load(path) for path in (checkpoint, other.parent / checkpoints.FOLDER / checkpoint.name)
            )
            if any(not torch.equal(tensor, y["state_dict"][name]) for name, tensor in x["state_dict"].items()):
                found.append(f"{checkpoint}: tensors")
    return len(runs), found


def losses(run: Path) -> list[str]:
    lines = (run / "log.txt").read_text().split("\n")
    return [re.sub(r" time .*?(?= loss)| eta .*", "", line) for line in lines if line.startswith("epoch [")]


def floor(output: Path, data: Path) -> dict[str, float]:
    """Seconds of one core that the pictures of all runs cost at least, by what they are spent on."""
    torch.set_num_threads(1)
    backbone = load_backbone(str(ROOT / "assets" / "drawn_clip.pt"))
    images = torch.randn(200, 3, *backbone.preprocessing.size)

    def step() -> None:
        backbone.encode_image(images[:32]).square().sum().backward()

    with torch.no_grad():
        forward = alternate({"encode": lambda: backbone.encode_image(images)}, 5)["encode"]
    encode = min(forward) / len(images)
    for parameter in backbone.visual_layer_norms().values():
        parameter.requires_grad_(True)
    learn = min(alternate({"step": step}, 5)["step"]) / 32
    spent: dict[str, float] = defaultdict(float)
    tested: dict[str, int] = {}
    for file in output.rglob("results.json"):
        results = json.loads(file.read_text())
        settings = results["identity"]["settings"]
        learns = results["trainer"] in LEARNS_ENCODER
        steps = re.findall(r"epoch \[\d+/(\d+)\] batch \[\d+/(\d+)\]", (file.parent / "log.txt").read_text())
        if steps and not results["identity"]["model"]:
            pictures = int(steps[-1][0]) * int(steps[-1][1]) * settings["DATALOADER.TRAIN_X.BATCH_SIZE"]
            spent["training pictures"] += pictures * (learn if learns else encode)
        if learns:
            spent["test pictures"] += results["total"] * encode
        name = f"{results['dataset']}/{settings['DATASET.SUBSAMPLE_CLASSES']}"
        tested[name] = results["total"]
    whole = {name.split("/")[0]: count for name, count in tested.items() if name.endswith("/all")}
    spent["test pictures"] += sum(whole.values()) * encode
    spent["decoding"] += sum(whole.values()) * decoding(data)
    return dict(spent)


def decoding(data: Path) -> float:
    """Seconds to decode and resize one picture of the demo."""
    from PIL import Image

    transform = load_backbone(str(ROOT / "assets" / "drawn_clip.pt")).transform
    pixels = transform.transforms[: [type(t).__name__ for t in transform.transforms].index("ToTensor")]  # type: ignore
    paths = sorted((data / "drawn" / "styled" / "images").rglob("test_*.png"))[:200]

    def read() -> None:
        for path in paths:
            picture = Image.open(path).convert("RGB")
            for step in pixels:
                picture = step(picture)

    return min(seconds(read) for _ in range(3)) / len(paths)


def part_sweep(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="sweep-") as scratch:
        folders = {side: Path(scratch, side) for side in ("now", "then")}
        measured = {side: sweep(args, folder, side == "then") for side, folder in folders.items()}
        count, found = differences(folders["now"], folders["then"])
        least = floor(folders["now"], Path(args.data))
    now, then = measured["now"][0], measured["then"][0]
    spent = {side: by_method(records) for side, (_, records) in measured.items()}
    text = sum(parts["text"] for parts in spent["now"].values())
    pictures = sum(least.values()) / args.jobs
    rows: list[list[Any]] = [
        ["then, s", f"{then:.0f}"], ["now, s", f"{now:.0f}"], ["now / then (aim: 0.33)", f"{now / then:.2f}"],
        ["floor: pictures alone, s", f"{pictures:.0f}"], ["now / floor (aim: 1.3)", f"{now / pictures:.2f}"],
        ["floor with the text of every step, s", f"{pictures + text / args.jobs:.0f}"],
        ["now / that", f"{now / (pictures + text / args.jobs):.2f}"],
        ["runs compared", count], ["differences in metrics, losses, tensors", len(found)],
    ]  # fmt: skip
    title = (
        f"{args.methods}; {args.datasets}; shots {args.shots}, base-to-new; seeds {args.seeds}; {args.jobs} at a time"
    )
    report("sweep", title, ["", ""], rows, spent=spent, floor=least, found=found)
    table = [[side, method, *(f"{parts[name]:.0f}" for name in PARTS)]
             for side in ("then", "now") for method, parts in spent[side].items()]  # fmt: skip
    report("sweep_parts", "Where the time goes: seconds summed over runs", ["", "method", *PARTS], table)
    if args.picture:
        draw(spent, args.picture)


def by_method(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for record in records:
        own = found.setdefault(record["trainer"], dict.fromkeys(PARTS, 0.0))
        known = sum(record[name] for name in PARTS if name != "rest")
        for name in PARTS:
            own[name] += record["total"] - known if name == "rest" else record[name]
    return dict(sorted(found.items()))


def draw(spent: dict[str, dict[str, dict[str, float]]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    methods = list(spent["now"])
    figure, axis = plt.subplots(figsize=(8, 0.75 * len(methods) + 1.4), layout="constrained")
    colours = ["#999999", "#4477aa", "#66ccee", "#ee8866", "#dddddd"]
    for i, method in enumerate(methods):
        for side, y in (("then", i - 0.2), ("now", i + 0.2)):
            left = 0.0
            for name, colour in zip(PARTS, colours, strict=True):
                width = spent[side][method][name] / 60
                axis.barh(y, width, 0.36, left, color=colour, label=name if not i and side == "now" else None)
                left += width
            axis.text(left, y, f" {side}", va="center", fontsize=8)
    axis.set_yticks(range(len(methods)), methods)
    axis.invert_yaxis()
    axis.set_xlabel("minutes, summed over runs")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, ncols=len(PARTS), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.savefig(path, dpi=150)


# --- against the code of others -----------------------------------------------------------------------------------------


def part_coop(args: argparse.Namespace) -> None:
    """The same few-shot sweep of CoOp: their train.py on Dassl, a call a run as their scripts do, against ours."""
    with tempfile.TemporaryDirectory(prefix="coop-") as scratch:
        root = as_caltech(Path(args.data), Path(scratch, "data"))
        backbone = ROOT / "assets" / "drawn_clip.pt"
        shared = ["--root", str(root), "--config-file", str(ROOT / "configs/trainers/CoOp/small.yaml")]
        size = ["INPUT.SIZE", "(32, 32)", "INPUT.INTERPOLATION", "bicubic", "INPUT.PIXEL_MEAN",
                "[0.48145466, 0.4578275, 0.40821073]", "INPUT.PIXEL_STD", "[0.26862954, 0.26130258, 0.27577711]",
                "MODEL.BACKBONE.NAME", "small"]  # fmt: skip
        theirs = 0.0
        for shots in args.shots.split():
            for seed in args.seeds.split():
                out = Path(scratch, "theirs", shots, seed)
                words = [
                    *shared,
                    "--trainer",
                    "CoOp",
                    "--seed",
                    seed,
                    "--output-dir",
                    str(out),
                    "--dataset-config-file",
                    str(Path(args.coop, "configs/datasets/caltech101.yaml").resolve()),
                    *size,
                    "DATASET.NUM_SHOTS",
                    shots,
                ]
                command = [
                    sys.executable,
                    str(ROOT / "timings" / "theirs.py"),
                    args.coop,
                    args.dassl,
                    str(backbone),
                    "--",
                ]
                theirs += call([*command, *words], ROOT, {"OMP_NUM_THREADS": str(os.cpu_count())})
        out = Path(scratch, "ours")
        command = [
            sys.executable,
            str(ROOT / "scripts/run.py"),
            "coop",
            "main",
            "caltech101",
            "--cfg",
            "small",
            "--shots",
            args.shots,
            "--seeds",
            args.seeds,
            "--data",
            str(root),
            "--output",
            str(out),
            "--jobs",
            str(args.jobs),
        ]
        ours = call([*command, "--no-table"], ROOT, {"MOCOOP_CACHE": str(Path(scratch, "cache"))})
        pairs = []
        for file in sorted(out.rglob("results.json")):
            results = json.loads(file.read_text())
            log = Path(scratch, "theirs", str(results["shots"]), str(results["seed"]), "log.txt").read_text()
            pairs.append([results["shots"], results["seed"], re.findall(r"accuracy: (\S+)%", log)[-1],
                          f"{results['accuracy']:.1f}"])  # fmt: skip
    rows = [
        ["CoOp's code on Dassl, one run after the other, s", f"{theirs:.0f}"],
        [f"ours, {args.jobs} runs at a time, s", f"{ours:.0f}"],
        ["theirs / ours (aim: 5)", f"{theirs / ours:.1f}"],
    ]
    report("sweep_coop", f"CoOp, demo, shots {args.shots}, seeds {args.seeds}", ["", ""], rows, accuracies=pairs)
    report("sweep_coop_accuracies", "Accuracies", ["shots", "seed", "theirs", "ours"], pairs)


def as_caltech(data: Path, root: Path) -> Path:
    """The demo's pictures where CoOp's code looks for Caltech101."""
    source, folder = data.resolve() / "drawn" / "styled", root / "caltech-101"
    folder.mkdir(parents=True)
    shutil.copytree(source / "images", folder / "101_ObjectCategories")
    split = json.loads((source / "split.json").read_text())["parts"]
    (folder / "split_zhou_Caltech101.json").write_text(
        json.dumps({part: [row[:3] for row in rows] for part, rows in split.items()})
    )
    return root


def part_authors(args: argparse.Namespace) -> None:
    """One step and one test batch, MoCoOp's authors' code against ours, ViT-B/16's sizes, random weights."""
    from trainers.mocoop.model import MixtureCLIP

    rows = []
    for count in map(int, args.classes.split(",")):
        names = classnames(count)
        ours = MixtureCLIP(vit_b16(), names, groups(5), text_chunk=10**6).to(DEVICE)
        theirs = authors_model(args.authors, vit_b16(), names, groups(5), BATCH, DEVICE.type)
        images, labels = torch.randn(BATCH, 3, 224, 224).to(DEVICE), torch.randint(0, count, (BATCH,)).to(DEVICE)

        def our_step(model: Any = ours, images: Any = images, labels: Any = labels) -> None:
            parts = model.train().losses(images, labels)
            (parts["cls"] + 5 * parts["text"] + parts["gate"]).backward()

        def their_step(model: Any = theirs, images: Any = images, labels: Any = labels) -> None:
            model.train()(images, labels).backward()

        def test(model: Any, images: Any = images) -> None:
            model.eval()(images)

        times = alternate({"theirs": their_step, "ours": our_step}, args.rounds)
        rows.append([f"step, {count} classes", *map(spread, times.values()), f"{ratio(*times.values()):.1f}"])
        with torch.no_grad():
            ours.eval()
            calls = {"theirs": lambda: test(theirs), "ours": lambda: ours(images)}  # noqa: B023
            times = alternate(calls, args.rounds)
        rows.append([f"test batch, {count} classes", *map(spread, times.values()), f"{ratio(*times.values()):.1f}"])
    title = f"MoCoOp, ViT-B/16's sizes, 5 prompts, batch {BATCH}: seconds, median (range)"
    report("sweep_authors", title, ["", "theirs", "ours", "theirs / ours"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="sweep", help="sweep, coop, authors, or several with commas")
    parser.add_argument("--data", default=str(ROOT / "data"))
    parser.add_argument("--datasets", default="demo,cifar10")
    parser.add_argument("--methods", default="zsclip,coop,cocoop,lasp,mocoop")
    parser.add_argument("--seeds", default="1 2 3")
    parser.add_argument("--shots", default="1 4 16")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--then", default="", help="checkout of an earlier release")
    parser.add_argument("--coop", default="", help="checkout of CoOp")
    parser.add_argument("--dassl", default="", help="checkout of Dassl.pytorch")
    parser.add_argument("--authors", default="", help="checkout of the MoCoOp authors' code")
    parser.add_argument(
        "--classes", default="20,100", help="for --parts authors; 100 take more than 24 GB with their code"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--picture", default="", help="file for the stacked picture")
    args = parser.parse_args()
    for part in args.parts.split(","):
        globals()[f"part_{part}"](args)


if __name__ == "__main__":
    main()
