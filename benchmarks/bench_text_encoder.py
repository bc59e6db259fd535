"""Text encoding for training, forward and backward: fast against plain, five prompts against the plain path's one."""

from common import alternate, classnames, groups, ratio, report, spread, vit_b16

from trainers.parts.prompts import SoftPrompts
from trainers.parts.text_encoder import TextEncoder


def main() -> None:
    model, names = vit_b16(), classnames(100)
    calls = {}
    for label, mode, count in (
        ("plain, 5 prompts", "plain", 5),
        ("plain, 1 prompt", "plain", 1),
        ("fast, 5 prompts", "fast", 5),
    ):
        prompts = SoftPrompts([g[0] for g in groups(count)], names, model.token_embedding)
        encoder = TextEncoder(model, mode, chunk=100 if mode == "plain" and count > 1 else 10**6)

        def call(prompts=prompts, encoder=encoder):  # type: ignore[no-untyped-def]
            encoder(prompts.plan, prompts.vectors()).square().sum().backward()

        calls[label] = call
    times = alternate(calls)
    plain, one, fast = times.values()
    rows = [[label, spread(t)] for label, t in times.items()]
    rows += [["plain / fast, 5 prompts (target: at least 15)", f"{ratio(plain, fast):.1f}"],
             ["fast 5 prompts / plain 1 prompt (target: at most 0.5)", f"{ratio(fast, one):.2f}"]]  # fmt: skip
    title = "Text encoding, forward + backward, 100 classes, ViT-B/16 sizes, float32: seconds, median (range)"
    report("text_encoder", title, ["", "s"], rows, times=times)


if __name__ == "__main__":
    main()
