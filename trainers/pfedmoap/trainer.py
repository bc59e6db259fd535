"""pFedMoAP (Luo, Chen, Wu, "Mixture of Experts Made Personalized: Federated Prompt Learning for Vision-Language Models",
ICLR 2025).

A client trains its prompt from the mean of the last round's, beside prompts of other clients as they were before that
mean, and a gate over all of them, which never leaves it. One that trains for the first time trains its prompt alone.
"""

import random

import torch

from ..coop.options import CoOpModelOptions
from ..core.federated.letters import Letter
from ..core.federated.trainer import FederatedTrainer
from ..core.settings.configure import declaring
from ..core.training.context_trainer import ContextTrainer
from ..core.training.trainer import register
from .model import ExpertsCLIP
from .options import GateOptions, PFedMoAPOptions

EXPERTS = "experts"  # of a question: the contexts of others, K x M x W


@register
class PFedMoAP(FederatedTrainer, ContextTrainer):
    """Contexts are shared, gates private."""

    tests_own = True
    is_whole_without = True  # a context, beside no others

    def build_model(self) -> None:
        o = self.options
        model = ExpertsCLIP(
            self.load_clip(), self.classnames, **o.keywords(GateOptions), **o.keywords(CoOpModelOptions),
            **self.encoder_options,
        )  # fmt: skip
        self.model = model
        self.print_context(model.ctx)
        self.finish_model(slower=list(model.gate.parameters()), times=o.gate_lr_mult)

    def shared(self) -> dict[str, torch.Tensor]:
        return {"ctx": self.model.ctx}

    def private(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.model.trainable().items() if name != "ctx"}

    def further(self, client: int) -> dict[str, torch.Tensor]:
        """The contexts of other clients, as they last came, for one that has trained before."""
        others = selected(self.taken, client, self.options.experts - 1, self.options.select, self.cfg.SEED)
        return {EXPERTS: torch.stack([self.taken[k]["ctx"] for k in others])} if others else {}

    def received(self, letter: Letter) -> None:
        experts = letter.tensors.get(EXPERTS)
        with self.autocast():
            self.model.set_experts(None if experts is None else experts.to(self.device))


def selected(taken: dict[int, dict[str, torch.Tensor]], client: int, count: int, select: str, seed: int) -> list[int]:
    """`count` clients whose contexts `client` downloads; none for a client that has not trained.

    taken: the last context of each client that has. select: "nearest" by Euclidean distance, or "random": the first of an
    order of all clients that is drawn once, so that all get nearly the same, as in the authors' code.
    """
    if client not in taken:
        return []
    others = sorted(taken.keys() - {client})
    if select == "random":
        return sorted(others, key=lambda k: random.Random(f"{seed} {k}").random())[:count]
    own = taken[client]["ctx"].double()
    return sorted(others, key=lambda k: (float((taken[k]["ctx"].double() - own).norm()), k))[:count]


add_config = declaring(PFedMoAPOptions)
