"""Text encoding for training, forward and backward: fast against plain, five prompts against the plain path's one."""

from collections.abc import Callable
from typing import Any

from common import DEVICE, ROOT, alternate, classnames, groups, ratio, report, spread, vit_b16

from trainers.core.clip.backbones import load_backbone
from trainers.core.clip.backbones.openai import ClipVocabulary
from trainers.core.clip.prompts import SoftPrompts
from trainers.core.clip.text_tower import TextEncoder
from trainers.dpl.model import SEARCHED_WITH, DplCLIP
from trainers.ivlp.model import IvlpCLIP
from trainers.tcp.model import TcpCLIP


def backward_through(model: Any, mode: str, plans: list[SoftPrompts]) -> Callable[[], None]:
    """Encodes and differentiates each set of prompts in turn (the plain path keeps 4 GB for every 100 of them)."""
    encoder = TextEncoder(model, mode, chunk=10**6)

    def call() -> None:
        for prompts in plans:
            encoder(prompts.plan, prompts.vectors()).square().sum().backward()

    return call


def vit_b16_sizes() -> None:
    model, names = vit_b16(), classnames(100)
    templates = [group[0] for group in groups(5)]
    together, *each = (
        SoftPrompts(some, names, model.token_embedding, ClipVocabulary()).to(DEVICE)
        for some in (templates, *([template] for template in templates))
    )
    calls = {
        "plain, 5 prompts": backward_through(model, "plain", each),
        "plain, 1 prompt": backward_through(model, "plain", each[:1]),
        "fast, 5 prompts": backward_through(model, "fast", [together]),
    }
    times = alternate(calls, rounds=2)
    plain, one, fast = times.values()
    rows = [[label, spread(t)] for label, t in times.items()]
    rows += [["plain / fast, 5 prompts (target: at least 15)", f"{ratio(plain, fast):.1f}"],
             ["fast 5 prompts / plain 1 prompt (target: at most 0.5)", f"{ratio(fast, one):.2f}"]]  # fmt: skip
    title = "Text encoding, forward + backward, 100 classes, ViT-B/16 sizes, float32: seconds, median (range)"
    report("text_encoder", title, ["", "s"], rows, times=times)


def small_sizes() -> None:
    """Is there a model so small that the plain path wins? The smallest that the project knows, one prompt, few classes."""
    model = load_backbone(str(ROOT / "assets" / "drawn_clip.pt")).model.to(DEVICE)
    rows = []
    for count, classes in [(1, 1), (1, 10), (5, 10), (10, 100)]:
        prompts = SoftPrompts(
            [g[0] for g in groups(count)], classnames(classes), model.token_embedding, ClipVocabulary()
        ).to(DEVICE)
        calls = {mode: backward_through(model, mode, [prompts]) for mode in ("plain", "fast")}
        times = alternate(calls, rounds=9)
        rows.append([count, classes, *map(spread, times.values()), f"{ratio(times['plain'], times['fast']):.1f}"])
    title = "The same with the small CLIP"
    report("text_encoder_small", title, ["prompts", "classes", "plain, s", "fast, s", "plain / fast"], rows)


def of_published_methods() -> None:
    """Methods that change what stands between the blocks: deep prompts, and tokens made from each class."""
    clip, names, rows = vit_b16(), classnames(100), []
    makers = {
        "IVLP, deep prompts to block 9": lambda mode: IvlpCLIP(clip, names, prompt_depth_vision=0, text_encoder=mode),
        "DPL's search, contexts of 0 to 6 in every block": lambda mode: DplCLIP(
            clip, names, SEARCHED_WITH, [SEARCHED_WITH], text_encoder=mode
        ),
        "DPL, three vectors in every block": lambda mode: DplCLIP(
            clip, names, SEARCHED_WITH, [SEARCHED_WITH], lengths=[[3] * 12] * 2, text_encoder=mode
        ),
        "TCP, tokens of each class from block 8 on": lambda mode: TcpCLIP(
            clip, names, "X X X X {}.", "a photo of a {}.", text_encoder=mode
        ),
    }
    for label, make in makers.items():
        calls = {mode: encoding(make(mode).to(DEVICE)) for mode in ("plain", "fast")}
        times = alternate(calls, rounds=2)
        rows.append([label, *map(spread, times.values()), f"{ratio(times['plain'], times['fast']):.1f}"])
    title = "Text of published methods, forward + backward, 100 classes, ViT-B/16 sizes, float32"
    report("text_encoder_methods", title, ["", "plain, s", "fast, s", "plain / fast"], rows)


def encoding(model: Any) -> Callable[[], None]:
    """Encodes and differentiates what a model in training asks of the text tower."""
    model.text_encoder.training_chunk = 100
    return lambda: model.train().text_features().square().sum().backward()


def main() -> None:
    vit_b16_sizes()
    of_published_methods()
    small_sizes()


if __name__ == "__main__":
    main()
