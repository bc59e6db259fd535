"""What a tree of runs lacks: unfinished runs, and those missing beside their fellows, with the command that does them."""

from collections import defaultdict
from typing import Any

from .collect import Run

SCRIPTS = {"ZeroshotCLIP": "zsclip", "LinearProbe": "linear_probe", "CoOp": "coop", "CoCoOp": "cocoop", "LASP": "lasp",
           "MoCoOp": "mocoop"}  # fmt: skip


def gaps(runs: list[Run]) -> list[str]:
    """One line per run that is unfinished, or missing beside its fellows, with the command that does it."""
    lines = []
    for r in runs:
        if not r.finished:
            at = f", at epoch {r.details['epoch']}/{r.details['max_epoch']}" if "epoch" in r.details else ""
            lines.append(f"unfinished{at}: {r.file}  ->  {_command(r)}")
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], set[int]]] = defaultdict(lambda: defaultdict(set))
    examples: dict[Any, Run] = {}
    for r in runs:
        place = (r.dataset, r.shots)
        groups[r.protocol, r.method, r.config, r.source][(*place, r.part)].add(r.seed)
        if r.protocol == "base2new":
            groups[r.protocol, r.method, r.config, r.source][(*place, "new" if r.part == "base" else "base")] |= set()
        examples[(r.protocol, r.method, r.config, r.source), place] = r
    for key, places in groups.items():
        seeds = set().union(*places.values())
        for place, present in places.items():
            dataset, shots, *_ = place
            example = examples[key, (dataset, shots)]
            for seed in sorted(seeds - present):
                what = f"{key[1]} {dataset} {shots} shots {place[-1]} seed {seed}".replace("  ", " ")
                lines.append(f"missing: {what}  ->  {_command(example, seed)}")
    return lines


def _command(run: Run, seed: int | None = None) -> str:
    folder = SCRIPTS.get(run.method, run.method.lower())
    script = {"fewshot": "main", "base2new": "base2new", "xd": "xd", "dg": "dg", "ablation": "ablation"}[run.protocol]
    seed = run.seed if seed is None else seed
    shots_too = f"{run.dataset} {run.shots}"
    words = {"fewshot": shots_too, "ablation": shots_too, "base2new": run.dataset}.get(run.protocol, run.source)
    shots = f" SHOTS={run.shots}" if run.shots != 16 and run.protocol != "fewshot" else ""
    return f"SEEDS={seed}{shots} bash scripts/{folder}/{script}.sh {words}"
