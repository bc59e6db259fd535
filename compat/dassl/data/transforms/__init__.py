"""cfg.INPUT -> what happens to a picture before the model sees it."""

from collections.abc import Callable

from torchvision import transforms as T
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from .randaugment import RandAugment

INTERPOLATION_MODES = {mode.value: mode for mode in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC,
                                                     InterpolationMode.NEAREST)}  # fmt: skip
AVAI_CHOICES = ["random_flip", "random_resized_crop", "random_crop", "center_crop", "normalize", "randaugment",
                "colorjitter", "randomgrayscale", "gaussian_blur"]  # fmt: skip


def build_transform(cfg: CfgNode, is_train: bool = True, choices: list[str] | None = None) -> Callable | None:
    """The training or test transform that cfg.INPUT (or `choices`) asks for; None with INPUT.NO_TRANSFORM.

    Raises ValueError for a transform that is not in AVAI_CHOICES.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    chosen = list(cfg.INPUT.TRANSFORMS if choices is None else choices)
    for name in chosen:
        if name not in AVAI_CHOICES:
            raise ValueError(f'INPUT.TRANSFORMS holds "{name}", which is unknown; known: {", ".join(AVAI_CHOICES)}')
    print(f"Building transform_{'train' if is_train else 'test'}")
    steps = _training_steps(cfg, chosen) if is_train else _test_steps(cfg)
    print("+ to torch tensor of range [0, 1]")
    steps.append(T.ToTensor())
    if "normalize" in chosen:
        print(f"+ normalization (mean={cfg.INPUT.PIXEL_MEAN}, std={cfg.INPUT.PIXEL_STD})")
        steps.append(T.Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
    return T.Compose(steps)


def _training_steps(cfg: CfgNode, chosen: list[str]) -> list[Callable]:
    c, size = cfg.INPUT, tuple(cfg.INPUT.SIZE)
    mode = INTERPOLATION_MODES[c.INTERPOLATION]
    offers: list[tuple[bool, str, Callable[[], Callable]]] = [
        (
            not {"random_crop", "random_resized_crop"} & set(chosen),
            f"resize to {size[0]}x{size[1]}",
            lambda: T.Resize(size, interpolation=mode),
        ),
        (
            "random_crop" in chosen,
            f"random crop (padding = {c.CROP_PADDING})",
            lambda: T.RandomCrop(size, padding=c.CROP_PADDING),
        ),
        (
            "random_resized_crop" in chosen,
            f"random resized crop (size={size}, scale={tuple(c.RRCROP_SCALE)})",
            lambda: T.RandomResizedCrop(size, scale=tuple(c.RRCROP_SCALE), interpolation=mode),
        ),
        ("random_flip" in chosen, "random flip", T.RandomHorizontalFlip),
        (
            "randaugment" in chosen,
            f"randaugment (n={c.RANDAUGMENT_N}, m={c.RANDAUGMENT_M})",
            lambda: RandAugment(c.RANDAUGMENT_N, c.RANDAUGMENT_M),
        ),
        (
            "colorjitter" in chosen,
            "color jitter",
            lambda: T.ColorJitter(c.COLORJITTER_B, c.COLORJITTER_C, c.COLORJITTER_S, c.COLORJITTER_H),
        ),
        ("randomgrayscale" in chosen, "random gray scale", lambda: T.RandomGrayscale(p=c.RGS_P)),
        (
            "gaussian_blur" in chosen,
            f"gaussian blur (kernel={c.GB_K})",
            lambda: T.RandomApply([T.GaussianBlur(c.GB_K)], p=c.GB_P),
        ),
    ]
    for wanted, label, _ in offers:
        if wanted:
            print(f"+ {label}")
    return [build() for wanted, _, build in offers if wanted]


def _test_steps(cfg: CfgNode) -> list[Callable]:
    size = tuple(cfg.INPUT.SIZE)
    print(f"+ resize the smaller edge to {max(size)}\n+ {size[0]}x{size[1]} center crop")
    return [T.Resize(max(size), interpolation=INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]), T.CenterCrop(size)]
