"""Tip-Adapter-F: Tip-Adapter with trained keys (Zhang et al., ECCV 2022, arXiv 2207.09519)."""

from yacs.config import CfgNode

from ..core.settings.configure import declaring
from ..core.training.trainer import register
from ..tip_adapter.trainer import TipAdapter
from .model import TrainedTipCLIP
from .options import TipAdapterFOptions


@register
class TipAdapterF(TipAdapter):
    """Trains the keys by cross-entropy at beta 1 and the dataset's alpha, and searches these afterwards.

    Not on the shots, whose classes the keys have learned.
    """

    kind = TrainedTipCLIP

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if cfg.TEST.FINAL_MODEL == "best_val":
            raise ValueError(
                "TEST.FINAL_MODEL is best_val, but beta and alpha are chosen for the last epoch's keys: use last_step"
            )

    def finish(self) -> None:
        self.finish_model()

    def trained(self) -> None:
        if self.options.search_on == "shots" or (self.options.search_on == "val" and not self.dm.dataset.val):
            print("beta and alpha stay as in training: there are no other pictures to choose them on")
        else:
            self.search()


add_config = declaring(TipAdapterFOptions)
