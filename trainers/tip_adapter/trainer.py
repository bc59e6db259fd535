"""Tip-Adapter: a cache of the training pictures (Zhang et al., ECCV 2022, arXiv 2207.09519).

Shapes: N training pictures, B other pictures, V views, C classes, D features, K candidates.
"""

from pathlib import Path

import torch
from torch.nn import functional as F

from ..core.heads.search import Labelled, choose
from ..core.heads.trainer import HeadTrainer
from ..core.settings.configure import declaring
from ..core.settings.text_files import of_dataset
from ..core.training.trainer import register
from .model import TipCLIP, votes
from .options import TipAdapterOptions

BETAS, ALPHAS = 200, 20  # candidates


@register
class TipAdapter(HeadTrainer):
    """A cache whose keys are the normalised means of each training picture's views; alpha and beta are searched."""

    kind = TipCLIP

    def build_model(self) -> None:
        backbone = self.load_clip()
        items = self.dm.dataset.train_x
        keys_ND = F.normalize(self.views(backbone).mean(0), dim=-1)
        labels_N = torch.tensor([item.label for item in items], device=self.device)
        (keys_ND,) = self.agreed(keys_ND)
        self.model = self.kind(
            backbone, self.classnames, self.templates_of(self.cfg), keys_ND, labels_N, **self.encoder_options
        )
        self.constant = constants(self.cfg.DATASET.NAME, self.options)
        self.model.alpha.fill_(self.constant["alpha"])
        print(f"A cache of {len(keys_ND):,} training pictures")
        self.finish()

    def finish(self) -> None:
        self.model.to(self.device)
        self.search()
        self.register_model("tip_adapter", self.model)

    @torch.no_grad()
    def search(self) -> None:
        """Puts the first of the best alpha and beta into the model."""
        model, backbone = self.model, self.model.backbone
        keys = model.keys_ND.detach()

        def fit(kept_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return keys[kept_N], model.labels_N[kept_N]

        def score(cache: tuple[torch.Tensor, torch.Tensor], tested: Labelled) -> torch.Tensor:
            keys_ND, labels_N = cache
            return right_of_grid(model, keys_ND, labels_N, tested, self.constant)

        usual = (1.0, self.constant["alpha"])
        shots = self.labelled(backbone, self.dm.dataset.train_x)
        chosen = choose("beta, alpha =", grid(self.constant), fit, score, shots, self.held_out(backbone), usual)
        beta, alpha = self.agreed(*map(torch.tensor, chosen))
        model.beta.copy_(beta)
        model.alpha.copy_(alpha)


def constants(dataset: str, options: TipAdapterOptions) -> dict[str, float]:
    """beta_max, alpha_max and alpha: those of the options, else the authors' for the dataset."""
    authors = of_dataset(Path(__file__).with_name("by_dataset.yaml"), dataset)
    said = {name: getattr(options, name) for name in ("beta_max", "alpha_max", "alpha")}
    return authors | {name: value for name, value in said.items() if value is not None}


def grid(constant: dict[str, float]) -> list[tuple[float, float]]:
    """All pairs of 200 betas and 20 alphas, each from 0.1 up, the largest not included."""
    betas, alphas = (
        [0.1 + i * (constant[name] - 0.1) / steps for i in range(steps)]
        for name, steps in (("beta_max", BETAS), ("alpha_max", ALPHAS))
    )
    return [(beta, alpha) for beta in betas for alpha in alphas]


def right_of_grid(
    model: TipCLIP,
    keys_ND: torch.Tensor,
    labels_N: torch.Tensor,
    tested: Labelled,
    constant: dict[str, float],
    at_once: int = 4096,
) -> torch.Tensor:
    """How many of the tested pictures are right with each pair of the grid; K. at_once: of how many the similarities to
    all shots are in memory."""
    parts = zip(tested.features_ND.split(at_once), tested.labels_N.split(at_once), strict=True)
    return torch.stack([_right_of(model, keys_ND, labels_N, Labelled(*part), constant) for part in parts]).sum(0)


def _right_of(
    model: TipCLIP, keys_ND: torch.Tensor, labels_N: torch.Tensor, tested: Labelled, constant: dict[str, float]
) -> torch.Tensor:
    zero_shot_BC = model.logit_scale.exp() * tested.features_ND @ model.text_CD.to(tested.features_ND.dtype).T
    affinity_BN = tested.features_ND @ keys_ND.T
    found, last = [], None
    for beta, alpha in grid(constant):
        if beta != last:
            cache_BC, last = votes(beta * affinity_BN - beta, labels_N, zero_shot_BC.shape[1]), beta
        found.append(((zero_shot_BC + alpha * cache_BC).argmax(1) == tested.labels_N).sum())
    return torch.stack(found)


add_config = declaring(TipAdapterOptions)
