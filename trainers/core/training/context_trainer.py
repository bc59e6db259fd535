"""What CoOp, CoCoOp and LASP have in common: one context of M tokens, started from words or at random."""

from typing import Any

import torch

from ..clip.prompts import described, with_count_of
from .trainer import PromptTrainer


class ContextTrainer(PromptTrainer):
    """A trainer of methods with the options ctx_init and ctx_count. context: the name of its tensor in a checkpoint."""

    context = "ctx"

    def print_context(self, ctx: torch.Tensor) -> None:
        """Says what `ctx`, [C or G x] M x W, began as."""
        print(described(self.options.ctx_init, self.options.ctx_count, ctx.shape[-2]))

    def adopt(self, identity: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """A checkpoint of their authors' code counts CTX_INIT in words, and is recognised by its length."""
        self.options = with_count_of(tensors.get(self.context), self.options, self.model.vocabulary)
        if self.options.ctx_count != self.model.options.ctx_count:
            self.rebuild_model()
