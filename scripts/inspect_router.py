"""Which experts a trained MoCoOp uses for which pictures: a table of domains (or classes) against experts.

python scripts/inspect_router.py output/.../MoCoOp/small/seed1 --dataset demo
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import trainers  # noqa: E402, F401  (makes `dassl` importable)


def routes(model_dir: Path, dataset: str, root: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str], list[str]]:
    """Mixture weights (N x G), hard-prompt targets (N) and domains (N) of the test pictures, experts' and domains' names.

    Raises ValueError or FileNotFoundError, in one line, if there is no trained MoCoOp in `model_dir`.
    """
    import torch
    from dassl.config import get_cfg_default
    from dassl.data.transforms import build_transform
    from torch.utils.data import DataLoader

    import datasets
    from train import method_modules
    from trainers import checkpoints
    from trainers.base import build_dataset
    from trainers.loading import Pictures
    from trainers.mocoop import MixtureCLIP
    from trainers.parts.backbone import load_clip

    datasets.register_all()
    path = checkpoints.latest(model_dir)
    if path is None:
        raise FileNotFoundError(f"no checkpoint in {model_dir}: give the folder of a trained run")
    state = checkpoints.load(path)
    identity = state.get("identity", {})
    if identity.get("trainer") != "MoCoOp":
        raise ValueError(f"{path} is no MoCoOp but {identity.get('trainer', 'something else')}: it has no router")
    cfg = get_cfg_default()
    for module in method_modules():
        module.add_config(cfg)
    own = type(cfg).load_cfg(state["config"])
    cfg.merge_from_other_cfg(own)
    cfg.merge_from_file(str(ROOT / "configs" / "datasets" / f"{dataset}.yaml"))
    cfg.DATASET.ROOT, cfg.VERBOSE = root, False
    data = build_dataset(cfg)
    options = cfg.TRAINER.MOCOOP
    model = MixtureCLIP(
        load_clip(cfg.MODEL.BACKBONE.NAME), data.classnames, identity["template_groups"], top_k=options.TOP_K,
        correction=options.CORRECTION, train_visual_ln=options.TRAIN_VISUAL_LN, router=options.ROUTER,
    )  # fmt: skip
    checkpoints.copy_into(model.learned(), state["state_dict"], path)
    model.eval()
    loader = DataLoader(Pictures(cfg, data.test, transform=build_transform(cfg, is_train=False)), batch_size=200)
    weights, targets, domains = [], [], []
    with torch.no_grad():
        for batch in loader:
            image_BD = model.image_features(batch["img"])
            weights.append(model.route(image_BD)[1])
            targets.append(model.gate_similarity(image_BD, batch["label"]).argmax(1))
            domains.append(batch["domain"])
    names = getattr(data, "domains", None) or ["all pictures"]
    experts = [group[0] for group in identity["template_groups"]]
    joined = (torch.cat(part).numpy() for part in (weights, targets, domains))
    return (*joined, experts, list(names))  # type: ignore[return-value]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="folder of a trained run")
    parser.add_argument("--dataset", default="demo", help="config name of the dataset to look at")
    parser.add_argument("--root", default="data", help="folder of the datasets")
    parser.add_argument("--format", default="simple", help="any format of tabulate")
    args = parser.parse_args()
    try:
        weights_NG, target_N, domain_N, experts, names = routes(args.model_dir, args.dataset, args.root)
    except (ValueError, OSError) as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    top_N = weights_NG.argmax(1)
    rows = []
    for d in np.unique(domain_N):
        own = top_N[domain_N == d]
        shares = [100.0 * float((own == g).mean()) for g in range(len(experts))]
        rows.append([names[d] if d < len(names) else d, *(f"{s:.0f}" if s >= 0.5 else "." for s in shares)])
    print("Percent of the test pictures of each domain (rows) whose first expert is each soft prompt (columns):\n")
    print(tabulate(rows, headers=["", *range(len(experts))], tablefmt=args.format, stralign="right"))
    print()
    for g, expert in enumerate(experts):
        print(f"{g}: {expert}")
    entropy = -(weights_NG * np.log(np.where(weights_NG > 0, weights_NG, 1))).sum(1).mean()
    print(
        f"\nMean entropy of the mixture weights: {entropy:.2f} nats (at most {np.log((weights_NG > 0).sum(1).max()):.2f})"
    )
    print(
        f"First expert is the hard prompts' first choice for the true class: {100 * (top_N == target_N).mean():.1f} %"
    )
    if len(names) == len(experts):
        print(f"First expert is the one of the picture's own domain: {100 * (top_N == domain_N).mean():.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
