"""TCP: textual-based class-aware prompt tuning (Yao, Zhang, Xu, CVPR 2024)."""

from pathlib import Path

from yacs.config import CfgNode

from ..core.settings.configure import declaring
from ..core.settings.text_files import read_yaml
from ..core.training.trainer import PromptTrainer, register
from ..kgcoop.trainer import KgCoOp
from .model import TcpCLIP
from .options import TcpModelOptions, TcpOptions


@register
class TCP(PromptTrainer):
    """Trains TcpCLIP by KgCoOp's loss, L = L_cls + W L_text."""

    templates_called = "templates"

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        """The prompt and the teacher's template."""
        known = read_yaml(Path(__file__).with_name("templates.yaml"))
        return known.get(cfg.DATASET.NAME, known["other"])

    def build_model(self) -> None:
        template, teacher = self.templates_of(self.cfg)
        o = self.options.keywords(TcpModelOptions)
        self.model = TcpCLIP(self.load_clip(), self.classnames, template, teacher, **o, **self.encoder_options)
        print(f'Prompt "{template}", class tokens from "{teacher}"')
        self.finish_model()

    compute_loss = KgCoOp.compute_loss


add_config = declaring(TcpOptions)
