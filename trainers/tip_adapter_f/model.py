"""Tip-Adapter-F: Tip-Adapter with trained keys (Zhang et al., ECCV 2022, arXiv 2207.09519)."""

from ..tip_adapter.model import TipCLIP


class TrainedTipCLIP(TipCLIP):
    """TipCLIP whose keys are learned."""

    trains = True
