"""From templates and class names to token sequences in which some tokens are learned.

A prompt is a list of integers: a token id (>= 0) stands for that token's fixed CLIP embedding, `learned(k)` for the
k-th learned vector. Prompts that begin alike are stored as one prefix with many continuations ("tails"), which is how
the text encoder computes them.

Shapes: G prefixes (groups; images for CoCoOp), C classes, N = G x C prompts, P prefix and T tail positions (padded),
S packed tokens, R rows of the bank, W width of the text transformer, V token ids in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .backbone import tokenizer

SOS, EOT = "<|startoftext|>", "<|endoftext|>"


def clean_classname(name: str) -> str:
    """ "air_plane" -> "air plane"."""
    return name.replace("_", " ")


def encode(text: str) -> list[int]:
    """Token ids of `text`, without SOS and EOT."""
    return tokenizer().encode(text)


def learned(k: int) -> int:
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


def tokenize_prompt(template: str, classname: str, context_length: int = 77) -> PromptTokens:
    """Splits the tokens of a filled template into what is before the class name, the name, and what is after it.

    Raises ValueError, naming template and class, if the sentence is longer than `context_length` tokens, or if the
    encoder joins the end of the name with the words after it (a name ending in punctuation before a comma).
    """
    before_text, after_text = split_template(template)
    name = clean_classname(classname)
    full = encode(template.format(name))
    if len(full) + 2 > context_length:
        raise ValueError(
            f'template "{template}" with class "{name}" has {len(full) + 2} tokens, '
            f"but CLIP reads at most {context_length}: shorten the template or the class name"
        )
    body = after_text.rstrip()
    stop = encode(".") if body.endswith(".") else []
    before, after = encode(before_text), encode(body[:-1] if stop else body)
    if not after and full[len(full) - len(stop) :] != stop:
        stop = []  # the stop has joined the name's own punctuation ("etc.."), and belongs to the name
    end = len(full) - len(stop) - len(after)
    if full[: len(before)] != before or full[end:] != after + stop or end <= len(before):
        raise ValueError(
            f'template "{template}" cannot be told apart from class "{name}" token by token: '
            "the name runs into the words beside it; rename the class"
        )
    return PromptTokens(before, full[len(before) : end], after, stop)


class PromptPlan:
    """Prompts laid out for the text encoder: G prefixes, each continued by C tails.

    prefixes: G prompts' beginnings. tails: for each prefix, C endings, all ending in EOT. Both in the integers described
    at the top. Raises ValueError if a whole prompt is longer than `context_length`.

    rows_S are the bank's rows of all tokens that are ever computed, prefixes first; see `bank`.
    """

    def __init__(
        self, prefixes: Sequence[list[int]], tails: Sequence[Sequence[list[int]]], context_length: int = 77
    ) -> None:
        self.prefixes, self.tails, self.context_length = prefixes, tails, context_length
        G, C = len(prefixes), len(tails[0])
        longest = max(len(p) + len(t) for p, group in zip(prefixes, tails, strict=True) for t in group)
        if longest > context_length:
            raise ValueError(f"a prompt has {longest} tokens, but CLIP reads at most {context_length}")
        self.G, self.C = G, C
        flat = [token for p in prefixes for token in p] + [token for g in tails for tail in g for token in tail]
        self.tokens_S = torch.tensor(flat)
        self.vocabulary_V = torch.unique(self.tokens_S[self.tokens_S >= 0])
        self.rows_S = self._rows(self.tokens_S)

        prefix_length_G = torch.tensor([len(p) for p in prefixes])
        tail_length_N = torch.tensor([len(tail) for group in tails for tail in group])
        self.P, self.T = P, T = int(prefix_length_G.max()), int(tail_length_N.max())
        position_P, position_T = torch.arange(P), torch.arange(T)
        in_prefix_GP = position_P < prefix_length_G[:, None]
        in_tail_NT = position_T < tail_length_N[:, None]
        start_N = prefix_length_G.repeat_interleave(C)
        tail_position_NT = start_N[:, None] + position_T
        self.position_S = torch.cat([position_P.expand(G, P)[in_prefix_GP], tail_position_NT[in_tail_NT]])
        self.n_prefix = int(prefix_length_G.sum())
        self.length_N = start_N + tail_length_N
        self.eot_N = self.n_prefix + tail_length_N.cumsum(0) - 1

        # The packed row of every padded place (0 where there is padding), and the padded place of every packed row.
        self.prefix_from_packed, self.prefix_to_packed = _places(in_prefix_GP)
        self.tail_from_packed, self.tail_to_packed = _places(in_tail_NT)
        # Additive masks: padding of the prefix, causal order within a tail, what a tail's EOT sees of it.
        hidden = torch.tensor(-torch.inf)
        self.prefix_mask_GP = torch.where(in_prefix_GP, 0.0, hidden)
        self.causal_TT = torch.full((T, T), -torch.inf).triu_(1)
        self.eot_mask_NT = torch.where(in_tail_NT, 0.0, hidden)
        self._parts: tuple[int, list] = (0, [])
        self._whole: torch.Tensor | None = None

    def to(self, device: torch.device) -> "PromptPlan":
        """Moves every table to `device`, in place."""
        if self.rows_S.device != device:
            for key, value in vars(self).items():
                if isinstance(value, torch.Tensor):
                    setattr(self, key, value.to(device))
        return self

    @property
    def n_tokens(self) -> int:
        """Tokens computed, each prefix counted once."""
        return len(self.rows_S)

    def parts(self, prompts: int) -> "list[tuple[slice, PromptPlan]]":
        """Cuts the plan into plans of at most `prompts` prompts, each with the slice of classes that it covers.

        Whole groups where they fit, otherwise some classes of one group. Rows refer to the same bank as this plan's.
        """
        if self._parts[0] != prompts:
            if prompts >= self.C:
                width = prompts // self.C
                cuts = [(slice(g, min(g + width, self.G)), slice(0, self.C)) for g in range(0, self.G, width)]
            else:
                starts = range(0, self.C, prompts)
                cuts = [(slice(g, g + 1), slice(c, min(c + prompts, self.C))) for g in range(self.G) for c in starts]
            self._parts = prompts, [(of_c, self._part(of_g, of_c)) for of_g, of_c in cuts]
        return self._parts[1]

    def _part(self, of_g: slice, of_c: slice) -> "PromptPlan":
        part = PromptPlan(self.prefixes[of_g], [g[of_c] for g in self.tails[of_g]], self.context_length)
        part.rows_S = self._rows(part.tokens_S)
        part.vocabulary_V = self.vocabulary_V
        return part.to(self.rows_S.device)

    def _rows(self, tokens: torch.Tensor) -> torch.Tensor:
        vocabulary_V = self.vocabulary_V.to(tokens.device)
        return torch.where(tokens >= 0, torch.searchsorted(vocabulary_V, tokens), len(vocabulary_V) - 1 - tokens)

    def whole_prompts(self) -> torch.Tensor:
        """The bank's row at every position of every prompt, SOS to EOT and row 0 after it; N x context length."""
        if self._whole is None:
            rows = torch.zeros(self.G * self.C, self.context_length, dtype=torch.long)
            whole = [p + tail for p, group in zip(self.prefixes, self.tails, strict=True) for tail in group]
            for n, tokens in enumerate(whole):
                rows[n, : len(tokens)] = self._rows(torch.tensor(tokens))
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


def hard_plan(templates: Sequence[str], classnames: Sequence[str], context_length: int = 77) -> PromptPlan:
    """All templates filled with all class names, nothing learned; templates in the place of groups."""
    sos, eot = encode(SOS), encode(EOT)
    prefixes, tails = [], []
    for template in templates:
        filled = [tokenize_prompt(template, name, context_length) for name in classnames]
        prefixes.append(sos + filled[0].before)
        tails.append([f.name + f.after + f.stop + eot for f in filled])
    return PromptPlan(prefixes, tails, context_length)


class SoftPrompts(nn.Module):
    """One soft prompt per template: the words before and after the class name become learned vectors.

    before[g] (tokens x W) and after[g] (tokens x W) start as the token embeddings of template g; the final full stop,
    SOS, EOT and the class names keep CLIP's embeddings (MoCoOp section 3.2; METHOD: soft prompts).
    """

    def __init__(
        self,
        templates: Sequence[str],
        classnames: Sequence[str],
        token_embedding: nn.Embedding,
        context_length: int = 77,
    ) -> None:
        super().__init__()
        sos, eot = encode(SOS), encode(EOT)
        self.before, self.after = nn.ParameterList(), nn.ParameterList()
        prefixes: list[list[int]] = []
        tails: list[list[list[int]]] = []
        filled = [[tokenize_prompt(t, name, context_length) for name in classnames] for t in templates]
        n_before = sum(len(prompts[0].before) for prompts in filled)
        k_before, k_after = 0, n_before  # learned vectors are numbered: all `before`s, then all `after`s
        for prompts in filled:
            before, after = prompts[0].before, prompts[0].after
            prefixes.append(sos + [learned(k_before + i) for i in range(len(before))])
            own_after = [learned(k_after + i) for i in range(len(after))]
            tails.append([p.name + own_after + p.stop + eot for p in prompts])
            k_before, k_after = k_before + len(before), k_after + len(after)
            for ids, vectors in ((before, self.before), (after, self.after)):
                start_LW = token_embedding.weight[torch.tensor(ids, dtype=torch.long)]
                vectors.append(nn.Parameter(start_LW.detach().clone().float()))
        self.plan = PromptPlan(prefixes, tails, context_length)

    def vectors(self) -> torch.Tensor:
        """All learned vectors in the order of their numbers; K x W."""
        return torch.cat([*self.before, *self.after])


def initial_context(token_embedding: nn.Embedding, n_ctx: int, words: str, copies: int = 0) -> torch.Tensor:
    """What a context starts from: the embeddings of `words`, or n_ctx random vectors (std 0.02) where there are none.

    M x W, or copies x M x W.
    """
    W = token_embedding.weight.shape[1]
    if not words:
        shape = (copies, n_ctx, W) if copies else (n_ctx, W)
        return nn.init.normal_(torch.empty(shape), std=0.02)
    start_MW = token_embedding.weight[torch.tensor(encode(words.replace("_", " ")))].detach().float()
    return start_MW.repeat(copies, 1, 1) if copies else start_MW.clone()
