"""Gaps in a tree of runs: unfinished runs, and runs missing from an otherwise present set, each with its command."""

import re
from collections import defaultdict

from harness.catalog import registry_names
from harness.plan import in_words
from trainers.core.runs.files import printable
from trainers.methods import methods
from trainers.paths import ROOT

from .collect import Run
from .tables import shots_title


def gaps(runs: list[Run]) -> list[str]:
    """One line per run that is unfinished, or missing beside its fellows, with the command that does it."""
    lines = []
    for r in runs:
        if not r.finished:
            at = f", at epoch {r.details['epoch']}/{r.details['max_epoch']}" if "epoch" in r.details else ""
            lines.append(f"unfinished{at}: {r.file}  ->  {_command(r)}")
    groups: dict[tuple, dict[tuple, dict[int | None, Run]]] = defaultdict(lambda: defaultdict(dict))
    for r in runs:
        group = groups[r.protocol, r.method, r.variant, r.source]
        group[r.dataset, r.shots, r.part][r.seed] = r
        if r.protocol == "base2new":
            group[r.dataset, r.shots, "new" if r.part == "base" else "base"] |= {}
    said = set()
    for key, places in groups.items():
        seeds = {seed for present in places.values() for seed in present}
        for (dataset, shots, part), present in places.items():
            example = next(iter(present.values()), None) or next(
                r for (d, k, _), own in places.items() if (d, k) == (dataset, shots) for r in own.values()
            )
            for seed in sorted(seeds - present.keys(), key=lambda s: -1 if s is None else s):
                words = [
                    key[1],
                    dataset,
                    shots_title(shots) if shots else "",
                    part,
                    "" if seed is None else f"seed {seed}",
                ]
                command = _command(example, seed)
                if (command, part) not in said:
                    said.add((command, part))
                    lines.append(f"missing: {' '.join(filter(None, words))}  ->  {command}")
    return [printable(line) for line in lines]


def _command(run: Run, seed: int | None = None) -> str:
    """The command that started this run, for another seed if one is given. If none was recorded, the command that would
    start it."""
    seed = run.seed if seed is None else seed
    if run.command:
        return re.sub(r"\bSEEDS=\d+", f"SEEDS={seed}", run.command) if seed is not None else run.command
    name = methods()[run.method].name if run.method in methods() else None
    if name is None or run.dataset not in registry_names().values():
        return "by its own project's scripts" if name is None else f"with the command that made {run.file.parent}"
    protocol = {"fewshot": "main"}.get(run.protocol, run.protocol)
    said = in_words(run.shots) if run.shots is not None else ""
    words = {"fewshot": f"{run.dataset} {said}", "ablation": f"{run.dataset} {said}", "base2new": run.dataset}
    shots = f" SHOTS={said}" if run.shots not in (16, None) and run.protocol not in ("fewshot", "ablation") else ""
    own = f"scripts/{name}/{protocol}.sh"
    script = f"bash {own}" if (ROOT / own).is_file() else f"python scripts/run.py {name} {protocol}"
    return f"SEEDS={seed}{shots} {script} {words.get(run.protocol, run.source)}"
