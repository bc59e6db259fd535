"""Does the small CLIP on the small benchmarks behave as ViT-B/16 on the real ones? What the literature knows, beside what
is measured here.

    python timings/yardstick.py output/small [--sets drawn,demo,...] [--markdown]

A line holds if the value here lies where the line says; the bounds ask for the sign and the rough size, no more. Published:
harness/report/published.yaml; of linear probes only what Radford et al. (2021) and Zhou et al. (2022) show in figures.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's code, whatever else is installed

import numpy as np
from tabulate import tabulate

from harness.catalog import config_for, group
from harness.report.collect import Run, collect
from trainers.methods import methods


class Measured:
    """Accuracies by protocol, method and so on, means over seeds; of the recipes' own runs, and of those with a TAG, which
    stands behind the method's name. left_out: finished runs of anything else."""

    def __init__(self, runs: Iterable[Run], sets: list[str]) -> None:
        self.sets = sets
        self.left_out: list[Run] = []
        found: dict[tuple, list[float]] = defaultdict(list)
        for r in (run for run in runs if run.finished):
            protocol = "main" if r.protocol == "fewshot" else r.protocol
            config, _, tag = r.variant.partition(" ")
            known = methods().get(r.method)
            if r.validated or not known or config != config_for(known, r.source or r.dataset, protocol, r.shots or 0):
                self.left_out.append(r)
                continue
            method = f"{r.method} {tag}".strip()
            found[r.protocol, method, r.dataset, r.shots, r.part].append(r.metrics["accuracy"])
        self.means = {key: float(np.mean(values)) for key, values in found.items()}

    def at(self, protocol: str, method: str, dataset: str, shots: int = 16, part: str = "") -> float:
        """A method that draws no pictures is the same at all shots. Raises KeyError for what was not measured."""
        same = (protocol, method, dataset, None, part)
        return self.means[same if same in self.means else (protocol, method, dataset, shots, part)]

    def each(self, method: str) -> list[float]:
        return [self.at("fewshot", method, name) for name in self.sets]

    def mean(self, protocol: str, method: str, shots: int = 16, part: str = "") -> float:
        return float(np.mean([self.at(protocol, method, name, shots, part) for name in self.sets]))

    def few_shot(self, method: str, shots: int = 16) -> float:
        return self.mean("fewshot", method, shots)

    def to_other_sets(self, method: str) -> float:
        return float(np.mean([self.at("xd", method, name, part=name) for name in self.sets if name != "drawn"]))

    def to_variants(self, method: str) -> float:
        return float(np.mean([self.at("dg", method, name, part=name) for name in group("small_variants")]))


@dataclass(frozen=True)
class Line:
    """A fact of the literature. low and high: where the value here has to lie."""

    fact: str
    published: str
    value: Callable[[Measured], float]
    low: float
    high: float = float("inf")


def base(method: str) -> Callable[[Measured], float]:
    return lambda m: m.mean("base2new", method, part="base")


def new(method: str) -> Callable[[Measured], float]:
    return lambda m: m.mean("base2new", method, part="new")


LINES = [
    Line("zero-shot CLIP, lowest set", "25", lambda m: min(m.each("ZeroshotCLIP")), 5, 40),
    Line("zero-shot CLIP, highest set", "93", lambda m: max(m.each("ZeroshotCLIP")), 75),
    Line("zero-shot CLIP, mean", "65", lambda m: m.few_shot("ZeroshotCLIP"), 45, 75),
    Line("ensemble minus one template", "+2 to +4",
         lambda m: m.few_shot("ZeroshotCLIP2") - m.few_shot("ZeroshotCLIP"), 1, 6),
    Line("linear probe minus zero-shot, 1 shot", "far below",
         lambda m: m.few_shot("LinearProbe", 1) - m.few_shot("ZeroshotCLIP"), -45, -8),
    Line("linear probe minus zero-shot, 16 shots", "above",
         lambda m: m.few_shot("LinearProbe", 16) - m.few_shot("ZeroshotCLIP"), 1, 25),
    Line("CoOp minus zero-shot, 1 shot", "+2.7", lambda m: m.few_shot("CoOp", 1) - m.few_shot("ZeroshotCLIP"), 0, 8),
    Line("CoOp minus zero-shot, 4 shots", "+8.2", lambda m: m.few_shot("CoOp", 4) - m.few_shot("ZeroshotCLIP"), 3, 15),
    Line("CoOp minus zero-shot, 16 shots", "+13.7", lambda m: m.few_shot("CoOp") - m.few_shot("ZeroshotCLIP"), 7, 25),
    Line("CoOp minus zero-shot, base", "+13.4", lambda m: base("CoOp")(m) - base("ZeroshotCLIP")(m), 6, 25),
    Line("CoOp minus zero-shot, new", "-11.0", lambda m: new("CoOp")(m) - new("ZeroshotCLIP")(m), -20, -4),
    Line("CoCoOp minus CoOp, base", "-2.2", lambda m: base("CoCoOp")(m) - base("CoOp")(m), -8, -0.5),
    Line("CoCoOp minus CoOp, new", "+8.5", lambda m: new("CoCoOp")(m) - new("CoOp")(m), 3, 15),
    Line("LASP minus CoOp, base", "+0.3", lambda m: base("LASP")(m) - base("CoOp")(m), -3, 4),
    Line("LASP minus zero-shot, new", "+2.4", lambda m: new("LASP")(m) - new("ZeroshotCLIP")(m), -0.5, 6),
    Line("KgCoOp minus CoOp, new", "+10.4", lambda m: new("KgCoOp")(m) - new("CoOp")(m), 2, 16),
    Line("PromptSRC minus CoOp, new", "+12.9", lambda m: new("PromptSRC")(m) - new("CoOp")(m), 2, 18),
    Line("MaPLe minus CoCoOp, new", "+3.5", lambda m: new("MaPLe")(m) - new("CoCoOp")(m), 0.5, 8),
    Line("Tip-Adapter-F minus CoOp, 1 shot", "+2.5",
         lambda m: m.few_shot("TipAdapterF", 1) - m.few_shot("CoOp", 1), 0.5, 8),
    Line("LP++ minus CoOp, 1 shot", "+2.3", lambda m: m.few_shot("LPPlusPlus", 1) - m.few_shot("CoOp", 1), 0.5, 8),
    Line("CLIP-LoRA minus CoOp, 1 shot", "+4.1", lambda m: m.few_shot("CLIPLoRA", 1) - m.few_shot("CoOp", 1), 0.5, 10),
    Line("GDA minus linear probe, 16 shots", "+3.3", lambda m: m.few_shot("GDA") - m.few_shot("LinearProbe"), 0, 8),
    Line("MoCoOp minus itself without visual LayerNorms, base", "above",
         lambda m: base("MoCoOp")(m) - base("MoCoOp no_visual_ln")(m), 0, 10),
    Line("CoOp of the main set minus zero-shot, other sets", "-1.2",
         lambda m: m.to_other_sets("CoOp") - m.to_other_sets("ZeroshotCLIP"), -6, 1),
    Line("CoOp of the main set minus zero-shot, its variants", "+2.1",
         lambda m: m.to_variants("CoOp") - m.to_variants("ZeroshotCLIP"), 0.5, 8),
]  # fmt: skip


def lines(measured: Measured) -> list[list[str]]:
    rows = []
    for line in LINES:
        try:
            value = line.value(measured)
        except KeyError:
            rows.append([line.fact, line.published, "not measured", ""])
            continue
        signed = "minus" in line.fact
        rows.append([line.fact, line.published, f"{value:+.1f}" if signed else f"{value:.1f}",
                     "yes" if line.low <= value <= line.high else "no"])  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of the runs")
    parser.add_argument("--sets", default=",".join(group("small")), help="which datasets count (all small ones)")
    parser.add_argument("--markdown", action="store_true", help="as in docs/YARDSTICK.md")
    args = parser.parse_args()
    sets = args.sets.split(",")
    unknown = [name for name in sets if name not in group("small")]
    if unknown:
        print(f'error: "{unknown[0]}" is no small benchmark; known: {", ".join(group("small"))}', file=sys.stderr)
        return 2
    try:
        measured = Measured(collect(args.output).runs, sets)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if measured.left_out:
        print(
            f"Left out: {len(measured.left_out)} runs of other configs or settings than the recipes'", file=sys.stderr
        )
    header = ["what is known", "published", "here", "holds"]
    style = "github" if args.markdown else "simple"
    aligned = ("left", *["right"] * 3)
    print(tabulate(lines(measured), header, style, colalign=aligned, disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
