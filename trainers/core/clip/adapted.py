"""Base class of the methods' models: a frozen CLIP with trainable tensors added.

Shapes: B pictures, H x W pixels, D features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ..heads.text_means import TextMeansHead, check_fitted
from .backbones import Backbone, as_backbone
from .doors import DeepVisual
from .exportable import Exportable
from .hard_features import group_means, hard_features
from .precision import linear
from .prompts import numbered
from .text_tower import TextEncoder
from .visual_tower import encode_pictures


@dataclass(frozen=True)
class Trained:
    """What a checkpoint says of a trained model. options: its method's settings, TRAINER.<KEY> of the configuration."""

    options: Mapping[str, Any]
    identity: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]
    classnames: Sequence[str]


class AdaptedCLIP(nn.Module):
    """CLIP's two encoders, frozen except, optionally, the visual LayerNorms. A subclass adds its trainable tensors.

    clip_model: a backbone, or a plain model of OpenAI's clip, used in place. train_visual_ln: train the LayerNorms of a
    visual transformer's blocks (a ResNet has none). text_encoder: "fast" or "plain"; text_chunk: prompts encoded at a
    time, 0 by memory; text_memory: bytes that a chunk may take, 0 for memory_to_use() of text_tower.py.
    """

    from_features = False  # whether precomputed features replace pictures when the image encoder is frozen
    image_encoder: Any
    text_encoder: TextEncoder
    logit_scale: torch.Tensor
    head: TextMeansHead | None

    def __init__(
        self,
        clip_model: Any,
        train_visual_ln: bool = False,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = as_backbone(clip_model)
        self.vocabulary = self.backbone.vocabulary
        self.backbone.model.requires_grad_(False)
        self.image_encoder = self.backbone.visual
        self.text_encoder = TextEncoder(self.backbone, text_encoder, text_chunk, text_memory)
        self.logit_scale = self.backbone.logit_scale
        self.tuned = list(self.backbone.visual_layer_norms().values()) if train_visual_ln else []
        for p in self.tuned:
            p.requires_grad_(True)
        self.head = None
        self._kept: torch.Tensor | None = None
        self._kept_head: tuple[torch.Tensor, ...] | None = None
        self._compiled: Callable[..., torch.Tensor] | None = None
        self.register_load_state_dict_post_hook(lambda model, _: model.weights_changed())

    def train(self, mode: bool = True) -> "AdaptedCLIP":
        """Frozen encoders stay in evaluation mode (a ResNet's batch statistics must not move)."""
        super().train(mode)
        self.image_encoder.eval()
        self.text_encoder.eval()
        for module in self.backbone.model.modules():  # inserted by a method: dropout is on in training
            if isinstance(module, parametrize.ParametrizationList):
                module.train(mode)
        self.weights_changed()
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> "AdaptedCLIP":
        self.weights_changed()
        return super()._apply(fn, recurse)

    def weights_changed(self) -> None:
        """Drops what cached_in_eval() keeps. Called by train(), eval(), to(), load_state_dict(); else do it."""
        self._kept, self._kept_head = None, None

    def compile_training(self) -> None:
        """From now on torch.compile fuses the kernels of both encoders in training; evaluation stays as it is."""
        self.text_encoder.compile_training()
        self._compiled = torch.compile(encode_pictures, dynamic=False)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trainable parameters by name; a checkpoint needs no others."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def checkpoint_tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds, by name."""
        return dict(self.trainable()) | self.head_tensors()

    def head_tensors(self) -> dict[str, torch.Tensor]:
        """Those of the head."""
        return {} if self.head is None else {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}

    def put_head(self, groups: Sequence[Sequence[str]], seen: Sequence[str], asked: Sequence[str]) -> None:
        """A head, not fitted yet, for the classes `asked`, which are recognised by name among those `seen` in training.

        groups: of hard templates; a class's text feature is the normalised mean of the groups'.
        """
        names, wanted = numbered(seen), numbered(asked)
        place = {name: i for i, name in enumerate(dict.fromkeys([*names, *wanted]))}
        flat = [template for group in groups for template in group]
        hard_TAD = hard_features(self.text_encoder, flat, [name for name, _ in place], self.vocabulary)
        hard_TAD = hard_TAD.to(torch.promote_types(hard_TAD.dtype, torch.float32))
        text_AD = F.normalize(group_means(hard_TAD, groups).mean(0), dim=-1)
        at_C = torch.tensor([place[name] for name in wanted], device=text_AD.device)
        self.head = TextMeansHead(text_AD[: len(names)], text_AD[at_C], torch.where(at_C < len(names), at_C, -1))
        self.weights_changed()

    def with_head(self, logits_BC: torch.Tensor, image_BD: torch.Tensor) -> torch.Tensor:
        """The logits of a picture's normalised features, with those of the head in evaluation."""
        if self.head is None or self.training:
            return logits_BC
        if self._kept_head is None:
            scale = self.logit_scale.detach().exp()
            self._kept_head = self.head.classifier(scale) if self.head.fitted else ()
        return logits_BC + linear(image_BD, *self._kept_head) if self._kept_head else logits_BC

    def predict(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits, B x C, and, where a method has experts, the weight of each for each picture, B x G."""
        return self(images_BCHW), None

    def exportable(self) -> Exportable:
        """This model for its classes with the text already encoded (exportable.py), without its head."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is frozen")

    @torch.no_grad()
    def exported(self) -> Exportable:
        """This model for its classes with the text already encoded, for programs without this project."""
        frozen = self.exportable()
        if self.head is not None and self.head.fitted:
            frozen.add_head(*self.head.classifier(self.logit_scale.exp()))
        return frozen

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "AdaptedCLIP":
        """The model for a checkpoint and `classnames`, before the checkpoint's tensors are copied in.

        Raises ValueError if the model cannot tell these classes apart.
        """
        raise NotImplementedError(f"{cls.__name__} does not say how it is made from a checkpoint")

    @classmethod
    def for_classes(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "AdaptedCLIP":
        """from_checkpoint(), with a head where the checkpoint has one."""
        model = cls.from_checkpoint(backbone, trained, classnames)
        if "head" in trained.identity:
            check_fitted(trained.tensors)
            model.put_head(trained.identity["head"], trained.classnames, classnames)
        return model

    def encoded(self, images_BCHW: torch.Tensor, prompts: DeepVisual | None = None) -> torch.Tensor:
        """ImageEncoder(x), not normalised; B x D. Precomputed features, B x D, are returned unchanged.

        prompts: in the place of visual_prompts().
        """
        if images_BCHW.ndim == 2 and not self.tuned:
            return images_BCHW
        encode = self._compiled if self._compiled and self.training else encode_pictures
        return encode(self.backbone, images_BCHW, learns=bool(self.tuned), prompts=prompts or self.visual_prompts())

    def visual_prompts(self) -> DeepVisual | None:
        """Hook: the prompt tokens of the picture tower; None where a method has none."""
        return None

    def image_features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """f = normalise(ImageEncoder(x)); B x D."""
        return F.normalize(self.encoded(images_BCHW), dim=-1)

    def cached_in_eval(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """compute(), which depends only on text and weights. In evaluation without gradients it is called once and its
        result kept."""
        if self.training or torch.is_grad_enabled():
            return compute()
        if self._kept is None:
            self._kept = compute()
        return self._kept
