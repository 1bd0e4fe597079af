"""Which tokens stand for which characters of a response: the one place that decides it.

Offsets are (start, end) characters of the text that is judged, one pair a token. A fast tokenizer gives them
(``return_offsets_mapping=True``); for tokens that a policy sampled, `offsets_of` finds them by decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.errors import InputError, brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from flux_rewards.data import Sample

__all__ = ["checked_offsets", "offsets_of", "tokens_of_spans"]

_UNFINISHED = "\ufffd"  # what decoders write for bytes that are no character, or not yet
_WINDOW = 16  # tokens that are decoded together
_UNREADABLE = 64  # tokens without a whole character, beyond which it is looked for less often


def checked_offsets(sample: Sample) -> NDArray[np.int64]:
    """The sample's `token_offsets`, shape (tokens, 2): one pair for each of `token_ids`, within `response_text`.

    Raises:
        InputError: They differ from `token_ids` in number, or are no spans of the text.

    Examples:
        >>> from flux_rewards import Sample
        >>> checked_offsets(Sample(response="ab", token_ids=[7, 8], token_offsets=[(0, 1), (1, 2)])).tolist()
        [[0, 1], [1, 2]]
    """
    length = len(sample.response_text)
    given: Any = sample.token_offsets
    tokens: Any = sample.token_ids
    if len(given) != len(tokens):
        raise InputError(
            f"expected one (start, end) for each of the {len(tokens)} token_ids, found {len(given)}",
            field="token_offsets",
        )
    if not len(tokens):
        return np.zeros((0, 2), dtype=np.int64)
    try:
        offsets = np.asarray(given)
    except (TypeError, ValueError) as error:  # rows of different lengths
        raise _not_spans(given) from error
    if offsets.shape != (len(tokens), 2) or offsets.dtype.kind not in "iu":
        raise _not_spans(given)
    outside = (offsets[:, 0] < 0) | (offsets[:, 1] > length) | (offsets[:, 0] > offsets[:, 1])
    if outside.any():
        token = int(outside.argmax())
        raise InputError(
            f"expected 0 <= start <= end <= {length}, the length of the response, found "
            f"{tuple(offsets[token].tolist())} for token {token}; offsets count characters of the response alone",
            field="token_offsets",
        )
    return offsets.astype(np.int64)


def tokens_of_spans(spans: Iterable[tuple[int, int]], offsets: Any) -> NDArray[np.bool_]:
    """Which tokens share a character with any of the spans, shape (tokens,).

    Touching is not sharing, so a space that a tokenizer keeps in front of a word does no harm. An empty span shares
    nothing, be it of a pattern that matched nothing or the (0, 0) of a special token. Tokens that are bytes of one
    character share it.

    Args:
        spans: (start, end) characters, in any order; they may overlap.
        offsets: (start, end) characters of each token, shape (tokens, 2).

    Examples:
        >>> tokens_of_spans([(6, 13)], [(0, 0), (0, 5), (5, 8), (8, 13)]).tolist()
        [False, False, True, True]
    """
    tokens = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    covered = np.zeros(int(tokens.max(initial=0)) + 1, dtype=np.bool_)
    for start, end in spans:
        covered[start:end] = True
    upto = np.concatenate([[0], np.cumsum(covered)])
    sharing: NDArray[np.bool_] = upto[tokens[:, 1]] > upto[tokens[:, 0]]
    return sharing


def offsets_of(
    tokenizer: Any, token_ids: Sequence[int], text: str, *, skip_special_tokens: bool = True
) -> list[tuple[int, int]]:
    """The (start, end) characters of each token in a text that was decoded from the tokens, or from some of them.

    It decodes step by step, so it also holds for ids that a policy sampled and that a tokenizer would not give for the
    same text, and for tokenizers without offsets.

    - Tokens that hold parts of one character, such as bytes of an emoji, all get the whole character. Where bytes are
      no character at all, the next token that is one gets them too.
    - Special tokens, where they are skipped, get an empty span where they stand.
    - `text` may be a part of what the tokens say, such as the last message of a conversation, or without the spaces at
      its ends: tokens outside it get an empty span at its start or end. Where it occurs several times, the last counts.
    - `text` may go on beyond the tokens, as where those were cut.

    Args:
        tokenizer: Of `transformers`, fast or slow, or of `tokenizers`: anything with ``decode(ids,
            skip_special_tokens=...)``.
        token_ids: The ids of the response.
        text: The text that is judged: `Sample.response_text`.
        skip_special_tokens: Whether `text` is without special tokens.

    Returns:
        One pair a token, with 0 <= start <= end <= len(text).

    Raises:
        InputError: The text is not what the tokens say.

    Does not tokenize, and does not undo what was done to the text after decoding (lower case, other spaces).

    Examples:
        >>> class Letters:
        ...     def decode(self, ids, skip_special_tokens=True):
        ...         return "".join(map(chr, ids))
        >>> offsets_of(Letters(), [104, 105, 33], "hi!")
        [(0, 1), (1, 2), (2, 3)]
    """
    ids = token_ids.tolist() if hasattr(token_ids, "tolist") else list(token_ids)
    decode = _decoder(tokenizer, skip_special_tokens=skip_special_tokens)
    whole = decode(ids)
    said, spans = _spans(decode, ids, _WINDOW)
    if said != whole:  # a decoder that looks back further
        said, spans = _spans(decode, ids, len(ids))
    shift = _place(whole, text)
    length = len(text)
    return [(min(max(start - shift, 0), length), min(max(end - shift, 0), length)) for start, end in spans]


def _decoder(tokenizer: Any, *, skip_special_tokens: bool) -> Callable[[list[int]], str]:
    # Only tokenizers of transformers tidy up after decoding, and only they can be told not to.
    tidies = hasattr(tokenizer, "clean_up_tokenization_spaces")
    options = {"clean_up_tokenization_spaces": False} if tidies else {}

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, **options))

    return decode


def _spans(decode: Callable[[list[int]], str], ids: list[int], window: int) -> tuple[str, list[tuple[int, int]]]:
    """The text and each token's part in it: what decoding one more token adds to a window of those before it."""
    spans: list[tuple[int, int]] = []
    settled: list[str] = []  # of the text, before the window
    before = 0  # characters of it
    readable = 0  # tokens up to the last that ended with a whole character
    first, seen = 0, ""  # the window's first token, and the whole characters that its tokens say
    for end in range(1, len(ids) + 1):
        if end - readable > _UNREADABLE and end % _UNREADABLE and end < len(ids):
            continue  # a long run of bytes that are no characters: these tokens share what the next one finds
        now = decode(ids[first:end])
        start = before + len(seen)
        if now.endswith(_UNFINISHED) and end < len(ids):
            whole = now.rstrip(_UNFINISHED)
            # Some decoders take back a character where the bytes after it are unfinished.
            seen = whole if whole.startswith(seen) else seen
            spans.extend([(start, before + len(seen) + 1)] * (end - len(spans)))
            continue  # the next token may complete the character
        if not now.startswith(seen):
            start = before + _alike(seen, now)
        spans.extend([(start, before + len(now))] * (end - len(spans)))
        seen, readable = now, end
        if end - first >= window:
            # The next window starts with words of this one: many decoders drop a space in front of the first.
            later = end - window // 4
            said = decode(ids[later:end])
            if said.strip() and seen.endswith(said):
                settled.append(seen[: len(seen) - len(said)])
                before += len(settled[-1])
                first, seen = later, said
    return "".join([*settled, seen]), spans


def _place(said: str, text: str) -> int:
    """Where the text starts in what the tokens say; below 0 where it starts before."""
    at = said.rfind(text)
    if at >= 0:
        return at
    cut = said.rstrip(_UNFINISHED)  # the last character may be cut, too
    for known in (cut, cut.lstrip()):
        if known and text.startswith(known):
            return len(cut) - len(known)
    common = _alike(said, text)
    raise InputError(
        f"the text is not what the tokens say: from character {common} on it is {brief(text[common : common + 30])}, "
        f"and the tokens say {brief(said[common : common + 30])}; give the text as it was decoded, and "
        "skip_special_tokens as it was then",
        field="token_ids",
    )


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _not_spans(given: object) -> InputError:
    return InputError(
        f"expected a (start, end) pair of whole numbers for each token, found {brief(given)}", field="token_offsets"
    )
