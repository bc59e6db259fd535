"""What the benchmarks share: a CLIP of ViT-B/16's sizes with random weights, alternating timing, tables, JSON.

Shapes do not matter here; times are wall-clock seconds of one call.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this checkout's code, whatever else is installed

from trainers.core.clip.backbones.openai import CLIP  # noqa: E402

RESULTS = ROOT / "timings" / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# Names of two to four tokens, as benchmarks have them.
_FIRST = ["golden", "great", "small", "red", "wild", "african", "american", "blue", "black", "giant"]
_LAST = [
    "retriever",
    "shark",
    "bird",
    "panda",
    "tabby cat",
    "airplane",
    "sea lion",
    "tree frog",
    "chair",
    "water bottle",
]


def classnames(count: int) -> list[str]:
    return [f"{_FIRST[i % 10]} {_LAST[i // 10 % 10]}{'' if i < 100 else f' {i // 100}'}" for i in range(count)]


GROUPS = [
    ["a photo of a {}."],
    ["a photo of many {}."],
    ["a low resolution photo of the {}."],
    ["a good photo of the {}."],
    ["a photo of the small {}."],
]


def groups(count: int) -> list[list[str]]:
    return [GROUPS[i % len(GROUPS)] for i in range(count)]


def vit_b16() -> torch.nn.Module:
    """A CLIP of ViT-B/16's sizes, random weights, frozen, float32."""
    torch.manual_seed(0)
    model = CLIP(512, 224, 12, 768, 16, 77, 49408, 512, 8, 12).float().eval()
    return model.requires_grad_(False).to(DEVICE)


def seconds(call: Callable[[], Any]) -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def alternate(calls: dict[str, Callable[[], Any]], rounds: int = 3) -> dict[str, list[float]]:
    """Times every call once per round, one after the other, after one warm-up each."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def machine() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {os.cpu_count()} cores"
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def spread(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.3f} ({min(times):.3f}-{max(times):.3f})"


def ratio(slow: Sequence[float], quick: Sequence[float]) -> float:
    """Median over rounds of slow / quick."""
    return statistics.median(a / b for a, b in zip(slow, quick, strict=True))


def report(name: str, title: str, header: list[str], rows: list[list[Any]], **data: Any) -> None:
    """Prints the table and writes timings/results/<name>.json."""
    print(f"\n{title}\n{machine()}\n")
    print(tabulate(rows, headers=header, tablefmt="github"), flush=True)
    RESULTS.mkdir(exist_ok=True)
    record = {"title": title, "machine": machine(), "header": header, "rows": rows, **data}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1))
