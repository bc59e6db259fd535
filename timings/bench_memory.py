"""Peak memory of encoding 20 x 1000 prompts for training under a budget; the same losses and gradients as without it.

Peak is the process's own high-water mark (or CUDA's), less what stood before; each case runs in a process of its own.
"""

import json
import resource
import subprocess
import sys

import torch
from common import DEVICE, ROOT, classnames, groups, report, vit_b16

from trainers.core.clip.backbones.openai import ClipVocabulary
from trainers.core.clip.prompts import SoftPrompts
from trainers.core.clip.text_tower import KEPT_PER_TOKEN, TextEncoder

CASES = [(1, 100, "plain", 0), (5, 100, "fast", 0), (5, 100, "fast", 256), (20, 1000, "fast", 2048)]


def peak_mb() -> float:
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(count: int, classes: int, mode: str, budget_mb: int) -> dict:
    model = vit_b16()
    prompts = SoftPrompts(
        [g[0] for g in groups(count)], classnames(classes), model.token_embedding, ClipVocabulary()
    ).to(DEVICE)
    chunk = 0 if budget_mb else 10**6
    encoder = TextEncoder(model, mode, chunk=chunk, memory_budget=budget_mb * 2**20)
    before = peak_mb()
    features = encoder(prompts.plan, prompts.vectors())
    weights = torch.linspace(0, 1, features.shape[-1], device=DEVICE)
    torch.nn.functional.normalize(features, dim=-1).square().mul(weights).sum().backward()
    used = peak_mb() - before
    kept = used * 2**20 / (prompts.plan.n_tokens * 12 * 512 * 4)
    gradient = torch.cat([p.grad.reshape(-1) for p in prompts.parameters() if p.numel()])
    return {
        "mb": used,
        "chunk": encoder.training_chunk,
        "kept": kept,
        "gradient": [float(gradient.norm()), float(gradient.sum())],
    }


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
        return
    rows = []
    for case in CASES:
        done = subprocess.run(
            [sys.executable, __file__, json.dumps(case)], capture_output=True, text=True, cwd=ROOT / "timings"
        )
        if done.returncode:
            raise SystemExit(f"error: {case}: {done.stderr.strip().splitlines()[-1]}")
        got = json.loads(done.stdout.splitlines()[-1])
        count, classes, mode, budget = case
        whole = got["chunk"] >= count * classes
        rows.append(
            [
                count,
                classes,
                mode,
                budget or "-",
                f"{got['mb']:.0f}",
                "all" if whole else got["chunk"],
                f"{got['kept']:.1f}" if whole and mode == "fast" else "-",
                f"{got['gradient'][0]:.6g}",
            ]
        )
    header = [
        "prompts",
        "classes",
        "encoder",
        "budget, MB",
        "peak, MB",
        "prompts at a time",
        "numbers per token and width",
        "norm of the gradient",
    ]
    title = (
        f"Memory of text encoding, forward + backward, float32; {KEPT_PER_TOKEN} numbers assumed per token and width"
    )
    report("memory", title, header, rows)


if __name__ == "__main__":
    main()
