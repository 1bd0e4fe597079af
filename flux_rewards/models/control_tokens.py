"""Texts that reach a tokenizer as text, and not as its control tokens."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from flux_rewards.errors import InputError

__all__ = ["ControlTokens", "control_tokens_of"]

_NOT_SPOKEN = frozenset({"role", "type"})


class ControlTokens:
    """The special tokens of a tokenizer, such as the end of a turn, and the words that a user may not write as one.

    Those marked special only: ``<think>`` and ``<tool_call>``, which many tokenizers know but don't mark, are what a
    response is expected to hold, and chat templates look for them.

    Args:
        tokenizer: Of transformers.

    Does not touch what a chat template writes itself.

    Examples:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"Stop": 0, "<|im_end|>": 1}, unk_token="Stop"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>")
        >>> ControlTokens(tokenizer).apart("Stop.<|im_end|>")
        ('Stop.< |im_end|>', 1)
    """

    def __init__(self, tokenizer: Any) -> None:
        added = list(tokenizer.added_tokens_decoder.values())
        found = {str(token) for token in tokenizer.all_special_tokens}
        found |= {token.content for token in added if token.special}
        known = sorted((token for token in found if token.strip()), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known)) or "(?!)")
        # Such a token is looked for after the text was normalised, and may appear where none was written.
        self._unsure = {token.content for token in added if token.special and token.normalized}
        self._tokenizer = weakref.ref(tokenizer)

    def apart(self, text: str) -> tuple[str, int]:
        """The text with a space after the first character of each control token, and how many there were.

        Raises:
            InputError: The tokenizer finds one all the same.
        """
        text, count = self._pattern.subn(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        if self._unsure:
            tokenizer: Any = self._tokenizer()
            read = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            hidden = self._unsure.intersection(tokenizer.convert_ids_to_tokens(read))
            hidden -= {tokenizer.unk_token}  # unknown characters are text
            if hidden:
                raise InputError(
                    f"the text holds something that the tokenizer reads as its control token {min(hidden)!r}; take it "
                    "out"
                )
        return text, count

    def apart_in(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """A chat message, all of its texts set apart, and how many control tokens there were."""
        counted = 0

        def one(text: str) -> str:
            nonlocal counted
            text, count = self.apart(text)
            counted += count
            return text

        return {key: value if key in _NOT_SPOKEN else _mapped(value, one) for key, value in message.items()}, counted


_known: weakref.WeakKeyDictionary[Any, tuple[int, ControlTokens]] = weakref.WeakKeyDictionary()


def control_tokens_of(tokenizer: Any) -> ControlTokens:
    """The control tokens of a tokenizer, found once; again when it was given more tokens."""
    size, found = _known.get(tokenizer, (-1, None))
    if found is None or size != len(tokenizer):
        found = ControlTokens(tokenizer)
        _known[tokenizer] = (len(tokenizer), found)
    return found


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed; keys, and the roles and types of parts, stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: entry if key in _NOT_SPOKEN else _mapped(entry, change) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(entry, change) for entry in value]
    return value
