"""The vocabulary's words nearest to each learned vector of a trained run, prompt by prompt.

    python scripts/interpret_prompt.py output/.../MoCoOp/small/seed1 --top 3

Distance is Euclidean, between a learned vector and CLIP's token embeddings, as in the appendix of CoOp's paper.
"""

import argparse
import sys
from pathlib import Path

import torch
from tabulate import tabulate, tabulate_formats

from trainers.core.clip.backbones import Vocabulary, load_backbone
from trainers.core.inference.model import kept_by_clients, opened_backbone, refuse_part
from trainers.core.settings.errors import believing
from trainers.core.training import checkpoints


def prompts_of(state: dict) -> list[tuple[str, torch.Tensor]]:
    """(name, tokens x W) of every learned piece of prompt in a checkpoint; of ctx with a class or prompt axis, each one."""
    groups = state.get("identity", {}).get("template_groups")
    found = []
    kept = kept_by_clients(state)
    for name, tensor in ((name, tensor) for name, tensor in state["state_dict"].items() if name not in kept):
        parts = name.split(".")
        if parts[-1] == "ctx":
            stacked = tensor if tensor.dim() == 3 else tensor[None]
            found += [(f"{name}[{i}]" if len(stacked) > 1 else name, t) for i, t in enumerate(stacked)]
        elif parts[:1] == ["prompts"] and len(tensor):
            side, g = parts[1], int(parts[2])
            began = f' (began as "{groups[g][0]}")' if groups else ""
            found.append((f"group {g}, {side} the class name{began}", tensor))
    return found


def nearest_words(
    vectors_KW: torch.Tensor, table_VW: torch.Tensor, top: int, vocabulary: Vocabulary
) -> list[list[tuple[str, float]]]:
    """For each of K vectors, the `top` nearest rows of the token embeddings as (word, Euclidean distance).

    Rows of zeros, of words that a small CLIP has never learned, are none of them."""
    distance_KV = torch.cdist(vectors_KW.float(), table_VW.float(), compute_mode="donot_use_mm_for_euclid_dist")
    distance_KV = distance_KV.masked_fill((table_VW == 0).all(1), torch.inf)
    near, which = distance_KV.topk(top, largest=False)
    return [
        list(zip(vocabulary.words(row_i.tolist()), row_d.tolist(), strict=True))
        for row_d, row_i in zip(near, which, strict=True)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="folder of a trained run, or a checkpoint file")
    parser.add_argument("--top", type=int, default=3, help="words per vector")
    parser.add_argument("--backbone", default="", help="CLIP model or file, for checkpoints that do not say")
    parser.add_argument("--format", default="simple", choices=tabulate_formats, metavar="FORMAT", help="of tabulate")
    args = parser.parse_args()

    try:
        path = args.model_dir if args.model_dir.is_file() else checkpoints.model_file(args.model_dir)
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint in {args.model_dir}: give the folder of a trained run")
        state = checkpoints.load(path)
        with believing(path, "give another run"):
            pieces = prompts_of(state)
        if not pieces:
            refuse_part(state, path)
            raise ValueError(f"{path} holds no learned context tokens")
        identity = state.get("identity", {})
        backbone = args.backbone or identity.get("backbone")
        if not backbone or not (args.backbone or identity.get("backbone_sha256")):
            raise ValueError(f"{path} does not say which CLIP it belongs to: name it with --backbone")
        if not 1 <= args.top <= 100:
            raise ValueError(f"--top is {args.top}: use 1 to 100")
        is_untold = args.backbone and not identity.get("backbone_sha256")
        model = load_backbone(args.backbone) if is_untold else opened_backbone(args.backbone, identity)
        table_VW = model.token_embedding.weight.detach()
        other = next((t for _, t in pieces if t.ndim != 2 or t.shape[1] != table_VW.shape[1]), None)
        if other is not None:
            widths = f"{other.shape[-1] if other.ndim else 0} numbers wide, those of {backbone} {table_VW.shape[1]}"
            raise ValueError(f"the tokens of {path} are {widths}: name the right CLIP with --backbone")
    except (ValueError, OSError) as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    for name, vectors_KW in pieces:
        found = nearest_words(vectors_KW, table_VW, args.top, model.vocabulary)
        rows = [[k, *(f"{word} ({distance:.3f})" for word, distance in words)] for k, words in enumerate(found)]
        headers = ["token", "nearest", *(f"{n}." for n in range(2, args.top + 1))]
        print(f"{name}\n\n{tabulate(rows, headers=headers, tablefmt=args.format)}\n")
    return 0
