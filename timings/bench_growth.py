"""How the time of text encoding (forward and backward) grows with classes and with prompts."""

import statistics

from common import DEVICE, alternate, classnames, groups, report, spread, vit_b16

from trainers.core.clip.backbones.openai import ClipVocabulary
from trainers.core.clip.prompts import SoftPrompts
from trainers.core.clip.text_tower import TextEncoder


def main() -> None:
    model = vit_b16()
    sizes = [(1, 10), (1, 100), (1, 1000), (5, 100), (20, 100)]
    rows, calls, tokens = [], {}, {}
    for count, classes in sizes:
        prompts = SoftPrompts(
            [g[0] for g in groups(count)], classnames(classes), model.token_embedding, ClipVocabulary()
        ).to(DEVICE)
        encoder = TextEncoder(model, chunk=10**6)  # nothing is recomputed, in any row

        def call(prompts=prompts, encoder=encoder):  # type: ignore[no-untyped-def]
            encoder(prompts.plan, prompts.vectors()).square().sum().backward()

        calls[count, classes], tokens[count, classes] = call, prompts.plan.n_tokens
    times = alternate(calls, rounds=2)
    for size, t in times.items():
        each = 1e6 * statistics.median(t) / tokens[size]
        rows.append([*size, tokens[size], spread(t), f"{each:.0f}"])
    title = "Growth of text encoding, forward + backward, ViT-B/16 sizes: seconds, median (range)"
    record = {f"{g}x{c}": t for (g, c), t in times.items()}
    report("growth", title, ["prompts", "classes", "tokens computed", "s", "µs per token"], rows, times=record)


if __name__ == "__main__":
    main()
