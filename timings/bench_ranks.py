"""One training on one and on two processes of one thread each: step time, tokens, memory and bytes sent of each rank.

And computed, for what no machine here has: how ImageNet's prompts fall to 1 to 64 ranks, and what they gather in a step.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from common import ROOT, classnames, groups, report, vit_b16
from open_clip import IMAGENET_CLASSNAMES
from torch.nn import functional as F

from harness.launcher import environments
from trainers.cocoop.trainer import CoCoOpCLIP
from trainers.core.clip.backbones.openai import ClipVocabulary
from trainers.core.clip.prompts import SoftPrompts
from trainers.core.ranks.process_group import joined
from trainers.mocoop.trainer import MixtureCLIP

BATCH, CLASSES, STEPS, ROUNDS = 8, 60, 3, 2
MB = 2**20
ON_GPUS = torch.cuda.device_count() > 1  # two ranks need a GPU each


def sent() -> int:
    """Bytes that have gone through this machine's loopback device."""
    rows = [line.split() for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")]
    return int(rows[0][9])


def worker(method: str) -> None:
    """A rank: takes steps as the trainer does, and prints what they took."""
    torch.set_num_threads(1)
    with joined(use_cuda=True) as ranks:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)
        clip = vit_b16()
        if method == "MoCoOp":
            model: MixtureCLIP | CoCoOpCLIP = MixtureCLIP(clip, classnames(CLASSES), groups(5), text_chunk=10**6)
        else:
            model = CoCoOpCLIP(clip, classnames(CLASSES), ctx_init="a photo of a", text_chunk=10**6)
        model.to(device).train()
        torch.manual_seed(1)
        images, labels = torch.randn(BATCH, 3, 224, 224).to(device), torch.randint(0, CLASSES, (BATCH,)).to(device)
        own = ranks.slice_of(BATCH)
        share = (own.stop - own.start) / BATCH
        rows = []
        for _ in range(STEPS + 1):
            ranks.all_max()
            before, begin = sent(), time.perf_counter()
            model.zero_grad()
            if isinstance(model, MixtureCLIP):
                parts = model.losses(images[own], labels[own])
                loss = parts["cls"] + 5 * parts["text"] + parts["gate"]
            else:
                loss = F.cross_entropy(model(images[own]), labels[own])
            shown = {"loss": loss * share}
            shown["loss"].backward()
            summed = ranks.add_up([p.grad for p in model.trainable().values() if p.grad is not None], shown)
            ranks.all_max()
            rows.append([time.perf_counter() - begin, float(summed["loss"]), sent() - before])
        if isinstance(model, MixtureCLIP):
            tokens = model.prompts.plan.share(ranks.rank, ranks.size).n_tokens
        else:
            tokens = model._plan_for(own.stop - own.start).n_tokens
        peak = torch.cuda.max_memory_allocated() / MB if device.type == "cuda" else peak_mb()
        told = ranks.collect({"tokens": tokens, "peak": peak, "rows": rows[1:]})
        if ranks.first:
            print("RESULT " + json.dumps(told))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(method: str, size: int) -> list[dict]:
    """What each of `size` ranks says."""
    shared = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **({} if ON_GPUS else {"CUDA_VISIBLE_DEVICES": ""})}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, method], cwd=ROOT / "timings", stdout=subprocess.PIPE, text=True,
            env=os.environ | own | shared,
        )
        for own in environments(size)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{method} on {size} ranks failed")
    return json.loads(said[0].split("RESULT ")[1])


def computed() -> list[list]:
    """ImageNet's names around 5, 10 and 20 prompts on 1 to 64 ranks."""
    rows = []
    for count in (5, 10, 20):
        embedding = torch.nn.Embedding(49408, 1)
        plan = SoftPrompts([g[0] for g in groups(count)], IMAGENET_CLASSNAMES, embedding, ClipVocabulary()).plan
        gathered = plan.G * plan.C * 512 * 4 / MB
        for size in (1, 2, 4, 8, 16, 32, 64):
            tokens = [plan.share(rank, size).n_tokens for rank in range(size)]
            sent_each = gathered * (size - 1) / size
            rows.append([count, size, max(tokens), f"{max(tokens) * size / sum(tokens):.2f}",
                         f"{plan.n_tokens / max(tokens):.1f}", f"{gathered:.1f}", f"{2 * sent_each:.1f}"])  # fmt: skip
    return rows


def main() -> None:
    if len(sys.argv) > 1:
        worker(sys.argv[1])
        return
    rows, data = [], {}
    for method in ("MoCoOp", "CoCoOp"):
        found: dict[int, list[list[dict]]] = {1: [], 2: []}
        for _ in range(ROUNDS):
            for size in found:
                found[size].append(measured(method, size))
        ratios = []
        for size, rounds in found.items():
            times = [row[0] for ranks in rounds for row in ranks[0]["rows"]]
            first = rounds[0]
            through = "-" if ON_GPUS else f"{statistics.median(row[2] for row in first[0]['rows']) / MB:.2f}"
            rows.append(
                [method, size, f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})",
                 ", ".join(str(rank["tokens"]) for rank in first), ", ".join(f"{rank['peak']:.0f}" for rank in first),
                 through, f"{first[0]['rows'][0][1]:.6f}"]
            )  # fmt: skip
            ratios.append(statistics.median(times))
        rows.append([f"{method}: 1 rank / 2 ranks", "", f"{ratios[0] / ratios[1]:.2f}", "", "", "", ""])
        data[method] = {str(size): rounds for size, rounds in found.items()}
    header = ["method", "ranks", "step, s", "tokens of text", "peak of a rank, MB", "sent in a step, MB", "first loss"]
    title = (
        f"A step on one and two ranks of one thread each, ViT-B/16's sizes, batch {BATCH}, {CLASSES} classes, 5 prompts"
    )
    report("ranks", title, header, rows, measured=data)
    header = ["prompts", "ranks", "tokens, largest rank", "largest / mean", "text at most faster by", "gathered, MB",
              "sent and received by a rank, MB, forward and backward"]  # fmt: skip
    report("ranks_computed", "Computed: 1,000 classes of ImageNet, 512 features, float32", header, computed())


if __name__ == "__main__":
    main()
