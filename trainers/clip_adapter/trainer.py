"""CLIP-Adapter: a bottleneck behind the picture tower (Gao et al., IJCV 2024, arXiv 2110.04544)."""

from ..core.settings.configure import declaring
from ..core.training.trainer import register
from ..zsclip.trainer import ZeroshotCLIP
from .model import AdapterCLIP
from .options import AdapterOptions, ClipAdapterOptions


@register
class CLIPAdapter(ZeroshotCLIP):
    """Trains AdapterCLIP with cross-entropy, on zero-shot CLIP's text."""

    def build_model(self) -> None:
        self.model = AdapterCLIP(
            self.load_clip(), self.classnames, self.templates_of(self.cfg), **self.options.keywords(AdapterOptions),
            **self.encoder_options,
        )  # fmt: skip
        self.finish_model()


add_config = declaring(ClipAdapterOptions)
