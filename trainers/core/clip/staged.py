"""Models that are trained in two stages; which one they are in is part of their checkpoints."""

import torch

from .adapted import AdaptedCLIP


class StagedCLIP(AdaptedCLIP):
    """A model in its first stage until begin_second_stage() is called."""

    stage: torch.Tensor  # 1 or 2
    in_second_stage = False

    def put_stage(self) -> None:
        """Call it when the model is made."""
        self.register_buffer("stage", torch.ones(()), persistent=False)

    def begin_second_stage(self) -> None:
        self.stage.fill_(2)
        self.weights_changed()

    def weights_changed(self) -> None:
        super().weights_changed()
        if "stage" in self._buffers:
            self.in_second_stage = bool(self.stage == 2)

    def checkpoint_tensors(self) -> dict[str, torch.Tensor]:
        return super().checkpoint_tensors() | {"stage": self.stage}
