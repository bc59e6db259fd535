"""What every method costs on the demo: trained numbers, seconds a step, peak memory, seconds of a whole run, test accuracy.

    python timings/bench_methods.py [--methods coop,mocoop] [--shots 16]

One run each, with its recipe for the small CLIP, seed 1, in a process of its own, on as many threads as it likes, with a
cache of its own, in which nothing is kept from runs before. The accuracy is one look at the test set.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import RESULTS, ROOT

from harness.catalog import config_for, method_named
from trainers.methods import methods


def measured(name: str, shots: int, folder: Path) -> dict[str, object]:
    """One run of a method."""
    method = method_named(name)
    config = f"configs/trainers/{method.recipes_of}/{config_for(method, 'demo', 'main', shots)}.yaml"
    words = ["--seed", "1", "--trainer", method.trainer, "--output-dir", str(folder), "--dataset-config-file",
             "configs/datasets/demo.yaml", "--config-file", config]  # fmt: skip
    drawn = ["DATASET.NUM_SHOTS", str(shots)] if method.draws else []
    command = [sys.executable, str(ROOT / "train.py"), *words, *drawn]
    own = os.environ | {"MOCOOP_CACHE": str(folder.with_name("cache"))}
    process = subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{name}: {said.strip().splitlines()[-1] if said.strip() else status}")
    results = json.loads((folder / "results.json").read_text())
    log = (folder / "log.txt").read_text()
    trained = re.search(r"^Training ([\d,]+) parameters", log, re.MULTILINE)
    steps = [json.loads(line) for line in (folder / "steps.jsonl").open()] if (folder / "steps.jsonl").is_file() else []
    times = [line["time"] for line in steps if "split" not in line]
    apart = [later - sooner for sooner, later in itertools.pairwise(times[2:])]
    return {
        "method": method.title,
        "trained": int(trained[1].replace(",", "")) if trained else 0,
        "steps": len(times),
        "step_s": round(statistics.median(apart), 4) if apart else None,
        "memory_mb": round(usage.ru_maxrss / 1024),
        "seconds": results["seconds"],
        "accuracy": round(results["accuracy"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # a federation's steps and memory are its clients'
    in_order = sorted((m for m in methods().values() if not m.federated), key=lambda method: method.place)
    parser.add_argument("--methods", default=",".join(method.name for method in in_order), help="with commas between")
    parser.add_argument("--shots", type=int, default=16)
    args = parser.parse_args()
    rows = []
    header = ["method", "trained numbers", "steps", "s / step", "peak memory, MB", "whole run, s", "accuracy, %"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for name in args.methods.split(","):
        with tempfile.TemporaryDirectory() as folder:
            row = measured(name, args.shots, Path(folder) / "run")
        rows.append(row)
        step = "" if row["step_s"] is None else f"{row['step_s']:.3f}"
        print(f"| {row['method']} | {row['trained']:,} | {row['steps']:,} | {step} | {row['memory_mb']:,} | "
              f"{row['seconds']} | {row['accuracy']} |", flush=True)  # fmt: skip
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "methods.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
