"""The LayerNorms of the picture tower are trained, as MoCoOp trains them beside its prompts, by a hard prompt's text."""

from collections.abc import Sequence
from typing import Any

from ..zsclip.model import HardPromptCLIP


class NormTunedCLIP(HardPromptCLIP):
    """HardPromptCLIP whose ln_1 and ln_2 of every block of the picture tower are learned; no gradient passes the text.

    Raises ValueError for a picture tower without such LayerNorms.
    """

    def __init__(
        self, clip_model: Any, classnames: Sequence[str], templates: Sequence[str], **encoder_options: Any
    ) -> None:
        super().__init__(clip_model, classnames, templates, train_visual_ln=True, **encoder_options)
        if not self.tuned:
            raise ValueError(
                "the picture tower of this backbone has no LayerNorms in blocks (a ResNet): use another backbone"
            )
