"""From templates and class names to token sequences in which some tokens are learned.

A prompt is a list of integers: a token id (>= 0) stands for that token's fixed CLIP embedding, `slot(k)` for the
k-th learned vector. Prompts that begin alike are stored as one prefix with many continuations ("tails"), which is how
the text encoder computes them.

Shapes: G prefixes (groups; images for CoCoOp), C classes, N = G x C prompts, P prefix and T tail positions (padded),
S packed tokens, R rows of the bank, W width of the text transformer, V token ids in use.
"""

import contextlib
import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ..ranks.collectives import balanced
from .backbones import Backbone, Vocabulary


def numbered(classnames: Sequence[str]) -> list[tuple[str, int]]:
    """Each name as prompts have it, and how many classes before it are called so: ImageNet has two kinds of missile."""
    found, before = [], Counter[str]()
    for name in map(clean_classname, classnames):
        found.append((name, before[name]))
        before[name] += 1
    return found


def clean_classname(name: str) -> str:
    """ "air_plane" -> "air plane"."""
    return name.replace("_", " ")


def slot(k: int) -> int:
    """The sign in a prompt for the k-th learned vector."""
    return -1 - k


def split_template(template: str) -> tuple[str, str]:
    """The words before and after the class name. Raises ValueError unless there is exactly one `{}`."""
    if template.count("{}") != 1:
        raise ValueError(f'template "{template}" needs exactly one {{}} where the class name goes')
    before, after = template.split("{}")
    return before, after


@dataclass(frozen=True)
class PromptTokens:
    """One template filled with one class name, in token ids.

    [SOS] + before + name + after + stop + [EOT] is what clip.tokenize gives for the sentence; `stop` is the template's
    final full stop, or empty.
    """

    before: list[int]
    name: list[int]
    after: list[int]
    stop: list[int]


def tokenize_prompt(template: str, classname: str, vocabulary: Vocabulary, cut_at_count: bool = False) -> PromptTokens:
    """Splits the tokens of a filled template into what is before the class name, the name, and what is after it.

    Where the tokeniser merges the name with the words beside it ("kite (bird of prey)" and a comma: "),"), each part is
    tokenised separately. With cut_at_count, the sentence's tokens are cut as in MoCoOp's authors' code: after as many
    tokens as the name has alone. Raises ValueError, naming template and class, if the sentence is longer than the
    context or the name has no token of its own.
    """
    before_text, after_text = split_template(template)
    name = clean_classname(classname)
    whole = vocabulary.encode(template.replace("{}", name))
    _check_length(template, name, len(vocabulary.sos) + len(whole) + len(vocabulary.eot), vocabulary)
    body = after_text.rstrip()
    stop = "." if body.endswith(".") else ""
    try:
        return PromptTokens(*vocabulary.cut(before_text, name, body.removesuffix("."), stop))
    except ValueError as error:
        if body == "." and vocabulary.encode(name):
            with contextlib.suppress(
                ValueError
            ):  # a stop that joins the name's own punctuation ("etc..") is the name's
                return PromptTokens(*vocabulary.cut(before_text, name + stop, "", ""))
        alone = [vocabulary.encode(part) for part in (before_text, name, body.removesuffix("."), stop)]
        if not alone[1]:
            raise ValueError(
                f'template "{template}" with class "{name}": the name has no token of its own; rename the class'
            ) from error
        if cut_at_count:
            rest = whole[len(alone[0]) :]
            return PromptTokens(alone[0], rest[: len(alone[1])], rest[len(alone[1]) :], [])
        _check_length(template, name, sum(map(len, (vocabulary.sos, *alone, vocabulary.eot))), vocabulary)
        return PromptTokens(*alone)


def _check_length(template: str, name: str, tokens: int, vocabulary: Vocabulary) -> None:
    if tokens > vocabulary.context_length:
        raise ValueError(
            f'template "{template}" with class "{name}" has {tokens} tokens, '
            f"but CLIP reads at most {vocabulary.context_length}: shorten the template or the class name"
        )


def tokenize_names(classnames: Sequence[str], vocabulary: Vocabulary) -> list[PromptTokens]:
    """The sentences "name." of CoOp and related methods, with the name tokenised as it is after a word."""
    return [replace(tokenize_prompt("a {}.", name, vocabulary), before=[]) for name in classnames]


@dataclass(frozen=True)
class HeadRows:
    """Index tables for the rows of attention heads, E numbers each.

    Packed, there are S x K x H rows, with K of queries, keys and values. Padded, there are K x G x H x P rows of the
    prefixes and K x G x H x C x T of the tails. from_*: the packed row of every padded row (for padding, of an
    arbitrary token). to_*: the padded row of every packed row.
    """

    from_prefix: torch.Tensor
    to_prefix: torch.Tensor
    from_tail: torch.Tensor
    to_tail: torch.Tensor


class PromptPlan(nn.Module):
    """Prompts laid out for the text encoder: G prefixes, each continued by C tails; a module, so that it moves with one.

    prefixes: G prompts' beginnings. tails: for each prefix, C endings, each read at its last token. Both in the integers
    described at the top. Raises ValueError if a whole prompt is longer than `context_length`.

    rows_S are the bank's rows of all tokens that are ever computed, prefixes first; see `bank`.
    """

    tokens_S: torch.Tensor
    vocabulary_V: torch.Tensor
    rows_S: torch.Tensor
    position_S: torch.Tensor
    length_N: torch.Tensor
    eot_N: torch.Tensor
    prefix_from_packed: torch.Tensor
    prefix_to_packed: torch.Tensor
    tail_from_packed: torch.Tensor
    tail_to_packed: torch.Tensor
    prefix_mask_GP: torch.Tensor
    causal_TT: torch.Tensor
    eot_mask_NT: torch.Tensor

    def __init__(
        self,
        prefixes: Sequence[list[int]],
        tails: Sequence[Sequence[list[int]]],
        context_length: int = 77,
        pad: int = 0,
    ) -> None:
        super().__init__()
        self.prefixes, self.tails, self.context_length, self.pad = prefixes, tails, context_length, pad
        G, C = len(prefixes), len(tails[0])
        longest = max(len(p) + len(t) for p, group in zip(prefixes, tails, strict=True) for t in group)
        if longest > context_length:
            raise ValueError(f"a prompt has {longest} tokens, but CLIP reads at most {context_length}")
        self.G, self.C = G, C
        flat = [token for p in prefixes for token in p] + [token for g in tails for tail in g for token in tail]
        tokens_S = torch.tensor(flat)
        vocabulary_V = torch.unique(torch.cat([tokens_S[tokens_S >= 0], torch.tensor([pad])]))

        prefix_length_G = torch.tensor([len(p) for p in prefixes])
        tail_length_N = torch.tensor([len(tail) for group in tails for tail in group])
        self.P, self.T = P, T = int(prefix_length_G.max()), int(tail_length_N.max())
        position_P, position_T = torch.arange(P), torch.arange(T)
        in_prefix_GP = position_P < prefix_length_G[:, None]
        in_tail_NT = position_T < tail_length_N[:, None]
        start_N = prefix_length_G.repeat_interleave(C)
        tail_position_NT = start_N[:, None] + position_T
        self.n_prefix = int(prefix_length_G.sum())
        self.prefixes_differ = len(set(prefix_length_G.tolist())) > 1  # in length
        # The packed row of every padded place (0 where there is padding), and the padded place of every packed row.
        prefix_from_packed, prefix_to_packed = _places(in_prefix_GP)
        tail_from_packed, tail_to_packed = _places(in_tail_NT)
        hidden = torch.tensor(-torch.inf)
        tables = {
            "tokens_S": tokens_S,
            "vocabulary_V": vocabulary_V,
            "rows_S": _rows(tokens_S, vocabulary_V),
            "position_S": torch.cat([position_P.expand(G, P)[in_prefix_GP], tail_position_NT[in_tail_NT]]),
            "length_N": start_N + tail_length_N,
            "eot_N": self.n_prefix + tail_length_N.cumsum(0) - 1,
            "prefix_from_packed": prefix_from_packed,
            "prefix_to_packed": prefix_to_packed,
            "tail_from_packed": tail_from_packed,
            "tail_to_packed": tail_to_packed,
            # Additive masks: padding of the prefix, causal order within a tail, what a tail's last token sees of it.
            "prefix_mask_GP": torch.where(in_prefix_GP, 0.0, hidden),
            "causal_TT": torch.full((T, T), -torch.inf).triu_(1),
            "eot_mask_NT": torch.where(in_tail_NT, 0.0, hidden),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self._forget()

    def _forget(self) -> None:
        self._parts: dict[int, list[tuple[slice, PromptPlan]]] = {}  # all are kept: a recorded step reads its own
        self._shares: dict[tuple[int, int], PromptPlan] = {}
        self._whole: torch.Tensor | None = None
        self._unshared: tuple[PromptPlan, torch.Tensor] | None = None
        self._prefix_rows: dict[tuple[int, int], torch.Tensor] = {}
        self._heads: dict[tuple[int, int], HeadRows] = {}

    def _apply(self, fn: Callable, recurse: bool = True) -> "PromptPlan":
        """Called by .to() and similar methods. Tensors derived from the tables are rebuilt on the new device."""
        self._forget()
        return super()._apply(fn, recurse)

    @property
    def n_tokens(self) -> int:
        """Tokens computed, each prefix counted once."""
        return len(self.rows_S)

    def parts(self, prompts: int) -> "list[tuple[slice, PromptPlan]]":
        """Cuts the plan into plans of at most `prompts` prompts, each with the slice of classes that it covers.

        Whole groups where they fit, otherwise some classes of one group. Rows refer to the same bank as this plan's.
        """
        if prompts not in self._parts:
            if prompts >= self.C:
                width = prompts // self.C
                cuts = [(slice(g, min(g + width, self.G)), slice(0, self.C)) for g in range(0, self.G, width)]
            else:
                starts = range(0, self.C, prompts)
                cuts = [(slice(g, g + 1), slice(c, min(c + prompts, self.C))) for g in range(self.G) for c in starts]
            self._parts[prompts] = [(of_c, self._part(of_g, of_c)) for of_g, of_c in cuts]
        return self._parts[prompts]

    def cuts(self, parts: int) -> tuple[str, list[int]]:
        """Cuts the plan into `parts` with about equal numbers of tokens, along "classes" or, where there are more of
        them, "groups". Returns that axis and the parts + 1 cut positions. A part may be empty."""
        if self.C >= self.G:
            return "classes", balanced([sum(len(group[c]) for group in self.tails) for c in range(self.C)], parts)
        whole = zip(self.prefixes, self.tails, strict=True)
        return "groups", balanced([len(p) + sum(map(len, group)) for p, group in whole], parts)

    def share(self, number: int, parts: int) -> "PromptPlan":
        """Part `number` of cuts(parts); where that is empty, the plan's first prompt."""
        if (number, parts) not in self._shares:
            along, places = self.cuts(parts)
            own = slice(*places[number : number + 2])
            if own.start == own.stop:
                of_g, of_c = slice(0, 1), slice(0, 1)
            else:
                of_g, of_c = (slice(0, self.G), own) if along == "classes" else (own, slice(0, self.C))
            self._shares[number, parts] = self._part(of_g, of_c)
        return self._shares[number, parts]

    def _part(self, of_g: slice, of_c: slice) -> "PromptPlan":
        part = PromptPlan(self.prefixes[of_g], [g[of_c] for g in self.tails[of_g]], self.context_length, self.pad)
        part.vocabulary_V = self.vocabulary_V.cpu()
        part.rows_S = _rows(part.tokens_S, part.vocabulary_V)
        return part.to(self.rows_S.device)

    def prefix_rows(self, first: int, count: int) -> torch.Tensor:
        """The packed rows of `count` places of every prefix from `first` on, prefix by prefix."""
        if (first, count) not in self._prefix_rows:
            starts = itertools.accumulate(map(len, self.prefixes), initial=0)
            rows = [start + first + i for start, _ in zip(starts, self.prefixes, strict=False) for i in range(count)]
            self._prefix_rows[first, count] = torch.tensor(rows, device=self.rows_S.device)
        return self._prefix_rows[first, count]

    def unshared(self) -> "PromptPlan":
        """The same prompts, each a group of its own with its own prefix."""
        return self._apart()[0]

    def unshared_rows(self) -> torch.Tensor:
        """The packed row of this plan that each of unshared() comes from."""
        return self._apart()[1]

    def _apart(self) -> "tuple[PromptPlan, torch.Tensor]":
        if self._unshared is None:
            alone = PromptPlan([p for p in self.prefixes for _ in range(self.C)], [[t] for g in self.tails for t in g],
                               self.context_length, self.pad)  # fmt: skip
            starts = itertools.accumulate(map(len, self.prefixes), initial=0)
            of_prefixes = [
                start + i
                for start, p in zip(starts, self.prefixes, strict=False)
                for _ in range(self.C)
                for i in range(len(p))
            ]
            rows = torch.tensor([*of_prefixes, *range(self.n_prefix, self.n_tokens)])
            self._unshared = alone.to(self.rows_S.device), rows.to(self.rows_S.device)
        return self._unshared

    @property
    def is_laid_out(self) -> bool:
        """Whether heads() has been asked before."""
        return bool(self._heads)

    def heads(self, K: int, H: int) -> HeadRows:
        """The places of K x H heads' rows."""
        if (K, H) not in self._heads:
            G, C, P, T = self.G, self.C, self.P, self.T
            device = self.rows_S.device
            k_K, h_H = torch.arange(K, device=device), torch.arange(H, device=device)
            token_GP, token_GR = (
                self.prefix_from_packed.view(G, P),
                self.n_prefix + self.tail_from_packed.view(G, C * T),
            )

            def padded(token_GR: torch.Tensor) -> torch.Tensor:
                return ((token_GR[None, :, None] * K + k_K[:, None, None, None]) * H + h_H[:, None]).flatten()

            def packed(place_S: torch.Tensor, width: int) -> torch.Tensor:
                group, within = place_S[:, None, None] // width, place_S[:, None, None] % width
                return (((k_K[:, None] * G + group) * H + h_H) * width + within).flatten()

            self._heads[K, H] = HeadRows(
                padded(token_GP), packed(self.prefix_to_packed, P), padded(token_GR), packed(self.tail_to_packed, C * T)
            )
        return self._heads[K, H]

    def whole_prompts(self) -> torch.Tensor:
        """The bank's row at every position of every prompt, SOS to EOT and padding after it; N x context length."""
        if self._whole is None:
            whole = [p + tail for p, group in zip(self.prefixes, self.tails, strict=True) for tail in group]
            vocabulary_V = self.vocabulary_V.cpu()
            padding = int(_rows(torch.tensor(self.pad), vocabulary_V))
            rows = torch.full((self.G * self.C, self.context_length), padding)
            for n, tokens in enumerate(whole):
                rows[n, : len(tokens)] = _rows(torch.tensor(tokens), vocabulary_V)
            self._whole = rows.to(self.rows_S.device)
        return self._whole

    def bank(self, token_embedding: nn.Embedding, learned_vectors_KW: torch.Tensor | None = None) -> torch.Tensor:
        """The embeddings that rows_S chooses from: the fixed tokens in use, then the learned vectors; R x W."""
        fixed_VW = token_embedding(self.vocabulary_V)
        if learned_vectors_KW is None:
            return fixed_VW
        return torch.cat([fixed_VW, learned_vectors_KW.to(fixed_VW.dtype)])


def _places(inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = inside.reshape(-1)
    return torch.where(flat, flat.cumsum(0) - 1, 0), torch.nonzero(flat)[:, 0]


def _rows(tokens: torch.Tensor, vocabulary_V: torch.Tensor) -> torch.Tensor:
    return torch.where(tokens >= 0, torch.searchsorted(vocabulary_V, tokens), len(vocabulary_V) - 1 - tokens)


def hard_plan(templates: Sequence[str], classnames: Sequence[str], vocabulary: Vocabulary) -> PromptPlan:
    """All templates filled with all class names, nothing learned; templates in the place of groups."""
    filled = [[_hard_prompt(template, name, vocabulary) for name in classnames] for template in templates]
    for i, prompts in enumerate(filled):
        if any(prompt.before != prompts[0].before for prompt in prompts):  # then nothing is shared
            filled[i] = [replace(prompt, before=[], name=prompt.before + prompt.name) for prompt in prompts]
    return context_plan([Context(prompts[0].before) for prompts in filled], filled, vocabulary)


def _hard_prompt(template: str, classname: str, vocabulary: Vocabulary) -> PromptTokens:
    """The tokens of the whole sentence. A hard prompt is not cut after the name, so merged tokens do not matter."""
    prompt = tokenize_prompt(template, classname, vocabulary)
    whole = vocabulary.encode(template.replace("{}", clean_classname(classname)))
    if prompt.before + prompt.name + prompt.after + prompt.stop == whole:
        return prompt
    shared = len(prompt.before) if whole[: len(prompt.before)] == prompt.before else 0
    return PromptTokens(whole[:shared], whole[shared:], [], [])


def alike(names: Sequence[str], backbone: Backbone) -> list[list[str]]:
    """The groups of two or more of `names` that a backbone cannot distinguish: they give the same tokens (it may ignore
    capitals or accents), or they differ only in words whose embeddings it has never learned."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        text = f"a {clean_classname(name)}."
        unread = set(backbone.unread(text))
        key = tuple(-1 if token in unread else token for token in backbone.vocabulary.encode(text))
        groups.setdefault(key, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def refuse_alike(names: Sequence[str], backbone: Backbone) -> None:
    """Raises ValueError if a backbone cannot tell two of `names` apart, or has learned none of the words of one."""
    for group in alike(names, backbone):
        first, second = _told_apart(*group[:2])
        raise ValueError(
            f'classes "{first}" and "{second}" are the same to this backbone{_unlearned(group, backbone)}: rename one, or '
            "use another backbone (MODEL.BACKBONE.NAME)"
        )
    for name in names:
        own = set(backbone.vocabulary.encode(clean_classname(name)))
        if own and own <= set(backbone.unread(clean_classname(name))):
            raise ValueError(
                f'class "{name}" says nothing to this backbone{_unlearned([name], backbone)}: rename it, or use another '
                "backbone (MODEL.BACKBONE.NAME)"
            )


def _told_apart(first: str, second: str) -> tuple[str, str]:
    """Two names as a message can show them on one line, with escapes where they would look alike."""
    look_alike = unicodedata.normalize("NFKC", first) == unicodedata.normalize("NFKC", second)
    if look_alike or not (first + second).isprintable():
        return ascii(first)[1:-1], ascii(second)[1:-1]
    return first, second


def _unlearned(names: Sequence[str], backbone: Backbone) -> str:
    """Which words of `names` have no embedding that was learned, in brackets; empty where all have one."""
    words = [word for name in names for word in clean_classname(name).split() if backbone.unread(word)]
    shown = ", ".join(f'"{word}"' for word in dict.fromkeys(words))
    return f" (it has never learned {shown}; OpenAI's ViT-B/16 knows all words)" if words else ""


@dataclass(frozen=True)
class Context:
    """What stands around the class names of one group, in the integers described at the top.

    The sentence is before + rest + name + (the template's own words after it) + stop. After the tokens of the name,
    `after` replaces the next `replaced` tokens. `rest`: tokens that stay fixed where a context is counted in words and
    a word has more than one token.
    """

    before: list[int]
    after: list[int] = field(default_factory=list)
    rest: list[int] = field(default_factory=list)
    replaced: int = 0


def context_plan(
    contexts: Sequence[Context], names: Sequence[Sequence[PromptTokens]], vocabulary: Vocabulary
) -> PromptPlan:
    """G contexts, each around the C names of its own list."""
    tails = []
    for context, own in zip(contexts, names, strict=True):
        row = []
        for name in own:
            tail = context.rest + name.name + name.after + name.stop + vocabulary.eot
            n = len(name.name)
            row.append(tail[:n] + context.after + tail[n + context.replaced :])
        tails.append(row)
    prefixes = [vocabulary.sos + c.before for c in contexts]
    return PromptPlan(prefixes, tails, vocabulary.context_length, vocabulary.pad)


class SoftPrompts(nn.Module):
    """One soft prompt per template: the words before and after the class name become learned vectors.

    before[g] (tokens x W) and after[g] (tokens x W) start as the token embeddings of template g; the final full stop,
    SOS, EOT and the class names keep CLIP's embeddings (MoCoOp section 3.2; METHOD: soft prompts).

    as_released: the layout of MoCoOp's authors' code. It splits templates at spaces and has no final full stop, and the
    vector after the last word, at the position of EOT, is learned. plan_with_stop: the same with the full stop, which
    their text loss uses when it scores more names than are trained on.
    """

    def __init__(
        self,
        templates: Sequence[str],
        classnames: Sequence[str],
        token_embedding: nn.Embedding,
        vocabulary: Vocabulary,
        as_released: bool = False,
    ) -> None:
        super().__init__()
        if as_released:
            templates = [template.replace(".", "") for template in templates]
        self.before, self.after = nn.ParameterList(), nn.ParameterList()
        filled = [[tokenize_prompt(t, name, vocabulary, as_released) for name in classnames] for t in templates]
        counts = []
        for template, (first, *_) in zip(templates, filled, strict=True):
            n_before, n_after = len(first.before), len(first.after)
            if as_released:
                words_before, words_after = split_template(template)
                n_before = len(words_before.split())
                n_after = len(words_after.split(" ")) if words_after else 0
            counts.append((n_before, n_after))
        total_before = sum(n for n, _ in counts)  # learned vectors are numbered: all `before`s, then all `after`s
        k_before, k_after = 0, total_before
        contexts = []
        for (n_before, n_after), (first, *_) in zip(counts, filled, strict=True):
            contexts.append(
                Context(
                    before=[slot(k_before + i) for i in range(n_before)],
                    after=[slot(k_after + i) for i in range(n_after)],
                    rest=first.before[n_before:],
                    replaced=n_after,
                )
            )
            k_before, k_after = k_before + n_before, k_after + n_after
            after_ids = (first.after + vocabulary.eot)[:n_after]
            for ids, vectors in ((first.before[:n_before], self.before), (after_ids, self.after)):
                start_LW = token_embedding(_ids(ids, token_embedding))
                vectors.append(nn.Parameter(start_LW.detach().clone().float()))
        self._contexts, self._filled, self._vocabulary = contexts, filled, vocabulary
        self.plan = context_plan(contexts, filled, vocabulary)
        if as_released:
            stopped = [[tokenize_prompt(f"{t}.", name, vocabulary, True) for name in classnames] for t in templates]
            self.plan_with_stop = context_plan(contexts, stopped, vocabulary)

    def vectors(self) -> torch.Tensor:
        """All learned vectors in the order of their numbers; K x W."""
        return torch.cat([*self.before, *self.after])

    def each_its_own(self, groups: Sequence[int], classes: int) -> tuple[PromptPlan, torch.Tensor, torch.Tensor]:
        """The prompts of `groups`, any of them any number of times, each with vectors of its own, for the first `classes`
        names: their plan, and for each of its vectors its number in vectors(), and its prompt's place in `groups`."""
        contexts: list[Context] = []
        numbers: list[int] = []
        places: list[int] = []
        for place, g in enumerate(groups):
            context = self._contexts[g]
            own = {token: slot(len(numbers) + i) for i, token in enumerate([*context.before, *context.after])}
            contexts.append(
                replace(context, before=[own[t] for t in context.before], after=[own[t] for t in context.after])
            )
            numbers += [-1 - token for token in own]
            places += [place] * len(own)
        plan = context_plan(contexts, [self._filled[g][:classes] for g in groups], self._vocabulary)
        return plan, torch.tensor(numbers), torch.tensor(places)


def _ids(ids: list[int], token_embedding: nn.Embedding) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.long, device=token_embedding.weight.device)


def initial_context(
    token_embedding: nn.Embedding,
    vocabulary: Vocabulary,
    n_ctx: int,
    words: str,
    copies: int = 0,
    counted_in_words: bool = False,
) -> tuple[torch.Tensor, list[int]]:
    """The initial context: the embeddings of `words`, or n_ctx random vectors (std 0.02) if there are none.

    Returns M x W, or copies x M x W, and the tokens of `words` that stay fixed. With counted_in_words, as in CoOp,
    these are the tokens beyond one per word ("itap of a" has three words and four tokens); otherwise none.
    """
    W = token_embedding.weight.shape[1]
    if not words:
        shape = (copies, n_ctx, W) if copies else (n_ctx, W)
        return nn.init.normal_(torch.empty(shape), std=0.02), []
    spaced = words.replace("_", " ")
    ids = vocabulary.encode(spaced)
    if not ids:
        raise ValueError(f'CTX_INIT is "{words}", which has no word: leave it out, and the context starts at random')
    M = len(spaced.split(" ")) if counted_in_words else len(ids)
    start_MW = token_embedding(_ids(ids[:M], token_embedding)).detach().float()
    return (start_MW.repeat(copies, 1, 1) if copies else start_MW.clone()), ids[M:]


def first_tokens(
    token_embedding: nn.Embedding, vocabulary: Vocabulary, n_ctx: int, words: str
) -> tuple[torch.Tensor, list[int]]:
    """A context of the first n_ctx tokens of `words`, M x W, and those that remain fixed; random ones (std 0.02) for none.

    As MaPLe's family counts. Raises ValueError where the words have fewer tokens.
    """
    ids = vocabulary.encode(words.replace("_", " "))
    if words and len(ids) < n_ctx:
        raise ValueError(
            f'CTX_INIT "{words}" has {len(ids)} tokens, fewer than the {n_ctx} of the context: leave it out'
        )
    if not words:
        return initial_context(token_embedding, vocabulary, n_ctx, "")
    return token_embedding(_ids(ids[:n_ctx], token_embedding)).detach().float().clone(), ids[n_ctx:]


def described(words: str, count: str, n_ctx: int) -> str:
    """What a log says of a context."""
    start = f'"{words.replace("_", " ")}", counted in {count}' if words else "random"
    return f"Context: {n_ctx} learned vectors, starting {start}"


def with_count_of(ctx: torch.Tensor | None, options: Any, vocabulary: Vocabulary) -> Any:
    """`options` with the ctx_count that fits a checkpoint's context: CoOp's own code counts CTX_INIT in words."""
    if ctx is None or not options.ctx_init:
        return options
    spaced = options.ctx_init.replace("_", " ")
    lengths = {"tokens": len(vocabulary.encode(spaced)), "words": len(spaced.split(" "))}
    if lengths[options.ctx_count] == ctx.shape[-2]:
        return options
    fitting = [count for count, length in lengths.items() if length == ctx.shape[-2]]
    return replace(options, ctx_count=fitting[0]) if fitting else options
