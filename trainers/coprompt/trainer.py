"""CoPrompt: consistency-guided prompt learning (Roy, Etemad, ICLR 2024).

Shapes: B pictures, C classes, H x W pixels.
"""

import hashlib
import random
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from ..core.clip.losses import accuracy
from ..core.clip.prompts import clean_classname
from ..core.settings.configure import declaring
from ..core.settings.text_files import of_dataset, read_yaml
from ..core.training.trainer import PromptTrainer, register
from ..paths import ROOT
from .model import CoPromptCLIP
from .options import CoPromptOptions

EIGHTY = ROOT / "configs" / "templates" / "clip80.yaml"


@register
class CoPrompt(PromptTrainer):
    """Trains CoPromptCLIP: L = L_cls + weight (L_text + L_image). Each picture has two views, one for the teacher; the
    sentence on each class is drawn at each step, the same number for all classes."""

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        file = cfg.TRAINER.COPROMPT.SENTENCES
        if file and not Path(file).is_file():
            raise ValueError(f"TRAINER.COPROMPT.SENTENCES is {file}, and there is no such file")
        return [f"sentences {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"] if file else read_yaml(EIGHTY)

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if cfg.DATALOADER.K_TRANSFORMS != 2:
            raise ValueError(
                f"DATALOADER.K_TRANSFORMS is {cfg.DATALOADER.K_TRANSFORMS}, but CoPrompt sees two views of each picture: "
                "set it to 2"
            )

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"prompts": self.prompts}

    def build_model(self) -> None:
        o, authors = self.options, of_dataset(Path(__file__).with_name("by_dataset.yaml"), self.cfg.DATASET.NAME)
        self.weight = authors["weight"] if o.weight is None else o.weight
        if not hasattr(self, "prompts"):  # a checkpoint brings its own
            own = {"n_ctx": o.n_ctx, "prompt_depth": o.prompt_depth}
            self.prompts = {name: authors[name] if value is None else value for name, value in own.items()}
        sentences = sentences_on(self.classnames, o.sentences)
        self.model = CoPromptCLIP(
            self.load_clip(), self.classnames, sentences, ctx_init=o.ctx_init, **self.prompts, **self.encoder_options
        )
        print(
            f"Prompts: {self.prompts['n_ctx']} tokens before each of {self.prompts['prompt_depth']} blocks of both towers; "
            f"features held by {self.weight:g} to those of {len(sentences[0])} sentences on each class"
        )
        self.finish_model()

    def adopt(self, identity: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        if identity.get("prompts", self.prompts) != self.prompts:
            self.prompts = {name: int(identity["prompts"][name]) for name in ("n_ctx", "prompt_depth")}
            self.rebuild_model()

    def drawn(self) -> tuple[torch.Tensor, ...]:
        """Which sentence."""
        return (torch.full((), random.randrange(len(self.model.teacher_KCD)), device=self.device),)

    def compute_loss(
        self, images: torch.Tensor, labels: torch.Tensor, *drawn: Any, **_: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        one, other = images.chunk(2)
        labels = labels[: len(one)]
        parts = self.model.losses(one, labels, other, *drawn)
        shown = {f"loss_{name}": parts[name] for name in ("cls", "text", "image")}
        loss = parts["cls"] + self.weight * (parts["text"] + parts["image"])
        return loss, shown | {"acc": accuracy(parts["logits_BC"], labels)}


def sentences_on(classnames: list[str], file: str) -> list[list[str]]:
    """K sentences on each class, of a file, or of CLIP's eighty templates.

    Raises ValueError, in one line, for a class that the file does not have, and where one has more than another.
    """
    names = [clean_classname(name) for name in classnames]
    if not file:
        return [[template.replace("{}", name) for template in read_yaml(EIGHTY)] for name in names]
    found = read_yaml(file)
    fits = isinstance(found, dict) and all(
        isinstance(own, list) and own and all(isinstance(text, str) for text in own) for own in found.values()
    )
    if not fits:
        raise ValueError(f"{file} holds no sentences on classes: expected class name -> list of sentences")
    known = {clean_classname(str(name)): own for name, own in found.items()}
    missing = next((name for name in names if name not in known), None)
    if missing:
        raise ValueError(f'{file} has no sentences on "{missing}": add some, or leave TRAINER.COPROMPT.SENTENCES out')
    counts = {name: len(known[name]) for name in names}
    fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[fewest] != counts[most]:
        raise ValueError(
            f'{file} has {counts[fewest]} sentences on "{fewest}" and {counts[most]} on "{most}": give each as many'
        )
    return [known[name] for name in names]


add_config = declaring(CoPromptOptions)
