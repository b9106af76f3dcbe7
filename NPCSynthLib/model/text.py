"""The text tower: open_clip's tokenizer and TextTransformer, small, over the tokens that training has seen.

Numbers are no words: CLIP's tokenizer takes them apart into digits, and a small tower does not learn from what it meets
to put these together again. So a number is one token of its own, of its size on a logarithmic scale.

open_clip is imported only when a prompt has to be read anew (training, free text). A routine run uses the
canonical prompts' features that ship with the weights.
"""

import math
import re
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import NPCSynthError
from .network import ModelConfig, TextFeatures

PAD, START, END = 0, 49406, 49407
#: Tokens of numbers follow CLIP's: from 1 to 2**14, so many to the doubling.
_FIRST_NUMBER, _TO_THE_DOUBLING, _NUMBERS = 49408, 12, 12 * 14 + 1
#: A number in a prompt. The 2 of T2 is part of a word.
NUMBER = re.compile(r"(?<![A-Za-z0-9.])\d+(?:\.\d+)?(?=ms\b|T\b|[^A-Za-z0-9]|$)")
#: Plain words that a clinician may use beside those of the templates.
_EXTRA_WORDS = (
    "0 1 2 3 4 5 6 7 8 9 . , - / ( ) + ms T tesla at axial coronal sagittal image scan MRI MR magnetic resonance "
    "pre post contrast gadolinium Gd enhanced unenhanced native fat saturation suppression suppressed fs STIR SPIR "
    "SPAIR Dixon water turbo fast spin echo gradient MPRAGE long short heavily weighted sequence T1 T2 T1w T2w PD "
    "FLAIR dark fluid attenuated inversion recovery with without no and of the head neck nasopharynx skull base"
)


_NEEDS_OPEN_CLIP = (
    "A prompt in free text, or a sequence that the weights do not know, needs the package open_clip_torch. Install it, "
    "or leave out that prompt or sequence."
)


@lru_cache(maxsize=1)
def _tokenizer():
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise NPCSynthError(_NEEDS_OPEN_CLIP) from error
    return SimpleTokenizer()


def clip_tokens(text: str) -> list[int]:
    """open_clip's byte-pair tokens of ``text``, without start, end and padding; numbers are tokens of our own."""
    tokens, after = [], 0
    for number in NUMBER.finditer(text):
        size = round(_TO_THE_DOUBLING * math.log2(max(1.0, float(number[0]))))
        tokens += [*_tokenizer().encode(text[after : number.start()]), _FIRST_NUMBER + min(size, _NUMBERS - 1)]
        after = number.end()
    return tokens + _tokenizer().encode(text[after:])


def _ordered(tokens: set[int]) -> list[int]:
    """Padding first, and the end last: there open_clip looks for it."""
    return sorted(tokens, key=lambda token: (token == END, token))


def tokens_of_vocabulary() -> list[int]:
    """Every token that a prompt of the vocabulary can hold, padding (first), start and end (last) included."""
    from ..vocabulary import load_sequences
    from ..vocabulary.sequences import prompt_templates

    templates = prompt_templates()
    pieces = [_EXTRA_WORDS]
    fills = [word for kind in ("fat", "agent") for words in templates[kind].values() for word in words]
    wordings = [templates["canonical"], *templates["paraphrases"], *templates["timed"]]
    for sequence in load_sequences().values():
        for wording in wordings:
            for fill in fills:
                values = {"name": sequence.name, "id": sequence.id, "weighting": sequence.weighting}
                pieces.append(wording.format(**values, fat=fill, agent=fill, TR="1", TE="1"))
        pieces += sequence.aliases
    pieces += [wording.format(TI="1") for wording in templates["inversion"]]
    free = templates["free"]
    kinds = [free[kind] for kind in ("inverted_fat", "plane", "noun", "region", "timing")]
    kinds += [*free["technique"].values(), *free["weighting"].values()]
    pieces += [piece.format(TR="1", TE="1") for kind in kinds for piece in kind]
    tokens = {PAD, START, END, *range(_FIRST_NUMBER, _FIRST_NUMBER + _NUMBERS)}
    for word in {word for piece in pieces for word in piece.split()}:  # no token reaches across a space
        tokens.update(clip_tokens(word))
    return _ordered(tokens)


class TextTower(nn.Module):
    """Prompts to :class:`TextFeatures`.

    Args:
        tokens: the ids that the pruned embedding knows, CLIP's and numbers; the first is padding, the last CLIP's end.
    """

    def __init__(self, config: ModelConfig, tokens: list[int]):
        super().__init__()
        try:
            from open_clip.transformer import TextTransformer
        except ImportError as error:
            raise NPCSynthError(_NEEDS_OPEN_CLIP) from error
        self.config = config
        self.tokens = list(tokens)
        self._row = {token: row for row, token in enumerate(self.tokens)}
        self.transformer = TextTransformer(
            context_length=config.context_length,
            vocab_size=len(self.tokens),
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
            output_dim=config.text_width,
            pool_type="argmax",
            output_tokens=True,
        )
        self._place_numbers()

    @torch.no_grad()
    def _place_numbers(self) -> None:
        """Numbers begin as waves of their logarithm, so that what is learned of one holds for its neighbors."""
        embedding = self.transformer.token_embedding.weight
        frequencies = torch.logspace(-1, 1, embedding.shape[1] // 2)  # radians to the doubling
        for token, row in self._row.items():
            if token >= _FIRST_NUMBER:
                phases = (token - _FIRST_NUMBER) / _TO_THE_DOUBLING * frequencies
                embedding[row] = 0.03 * torch.cat([phases.sin(), phases.cos()])

    def grown(self, tokens: list[int]) -> "TextTower":
        """A copy that knows these tokens too; their rows begin at random, what the others mean stays."""
        tower = TextTower(self.config, _ordered({*self.tokens, *tokens}))
        name = "transformer.token_embedding.weight"
        state, embedding = self.state_dict(), tower.state_dict()[name].clone()
        embedding[[tower._row[token] for token in self.tokens]] = state[name]
        tower.load_state_dict({**state, name: embedding})
        return tower

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, list[str]]:
        """Rows of the pruned embedding, (N, context_length) int64, and the words that the model has never met.

        Unknown tokens are left out of the row. A prompt too long for the context is cut before its end token.
        """
        rows = torch.zeros(len(prompts), self.config.context_length, dtype=torch.long)
        unknown = []
        for n, prompt in enumerate(prompts):
            known = []
            for token in clip_tokens(prompt):
                if token in self._row:
                    known.append(self._row[token])
                else:
                    unknown.append("numbers" if token >= _FIRST_NUMBER else _tokenizer().decode([token]).strip())
            known = known[: self.config.context_length - 2]
            row = [self._row[START], *known, self._row[END]]
            rows[n, : len(row)] = torch.tensor(row)
        return rows, list(dict.fromkeys(unknown))

    def forward(self, rows: Tensor) -> TextFeatures:
        """(N, context_length) rows to features; padding beyond the longest prompt is dropped."""
        rows = rows[:, : int((rows != 0).sum(dim=1).max())]
        causal = {"attn_mask": self.transformer.attn_mask[: rows.shape[1], : rows.shape[1]]}  # open_clip's is whole
        pooled, tokens = functional_call(self.transformer, causal, (rows,))
        return TextFeatures(pooled, tokens, rows != 0)

    def encode(self, prompts: list[str]) -> tuple[TextFeatures, list[str]]:
        """Features of prompts, and the unknown words in them."""
        rows, unknown = self.tokenize(prompts)
        return self(rows.to(self.transformer.positional_embedding.device)), unknown
