"""Which backbones can be named, and whether their weights are on this machine.

    python scripts/list_backbones.py                  OpenAI's models and all of open_clip's
    python scripts/list_backbones.py siglip2 B-16     those whose names hold all of these words

The first column is what MODEL.BACKBONE.NAME (or train.py --backbone) takes. "prompts": token by token where the text tower
is causal and read at its end, whole where it is not. Files and folders of one's own can be named too: docs/BACKBONES.md.
"""

import argparse
import functools
import sys

from tabulate import tabulate
from tqdm import tqdm


def rows(words: list[str]) -> list[list]:
    """Name, millions of parameters, pixels, context length, way of encoding, and whether it is there."""
    from trainers.core.clip.backbones import source_of
    from trainers.core.clip.backbones.weights import published

    found = [
        [model.name, f"{model.parameters:.0f}", model.pixels, 77, "token by token", model.cached.is_file()]
        for model in published().values()
        if _holds(model.name, words)
    ]
    try:
        import open_clip

        from trainers.core.clip.backbones.open_clip import facts_of
    except (ImportError, ValueError):
        print("open_clip is not installed (pip install open_clip_torch transformers); OpenAI's alone:", file=sys.stderr)
        return found
    facts = functools.cache(facts_of)
    named = [f"open_clip:{model}/{tag}" for model, tag in open_clip.list_pretrained()]
    for name in tqdm([n for n in named if _holds(n, words)], leave=False, disable=not sys.stderr.isatty()):
        source = source_of(name)
        try:
            there = not source.missing()
        except ValueError:  # weights of another activation, listed under this architecture too
            continue
        fact = facts(source.architecture)
        size = "-" if fact["parameters"] is None else f"{fact['parameters']:.0f}"
        how = "token by token" if fact["fast"] else "whole"
        found.append([name, size, fact["pixels"], fact["context"], how, there])
    return found


def _holds(name: str, words: list[str]) -> bool:
    return all(word.lower() in name.lower() for word in words)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="words that the name must hold")
    args = parser.parse_args()
    table = rows(args.words)
    if not table:
        print(f"error: no backbone's name holds {' and '.join(args.words)}", file=sys.stderr)
        return 1
    shown = [[*row[:-1], "there" if row[-1] else "-"] for row in table]
    header = ["name", "million parameters", "pixels", "context", "prompts", "weights"]
    print(tabulate(shown, header, disable_numparse=True, colalign=("left", "right", "right", "right", "left", "left")))
    return 0
