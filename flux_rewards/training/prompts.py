"""Prompts that were not found: said in reports, and refused where something is learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import InputError

if TYPE_CHECKING:
    from flux_rewards.training.preferences_data import PreferenceData

__all__ = ["count_of_prompts", "refuse_unknown_prompts", "says_no_prompts"]

_LIKELY = (
    "prompt",
    "prompts",
    "question",
    "instruction",
    "query",
    "problem",
    "input",
    "inputs",
    "history",
    "context",
    "conversation",
    "dialogue",
    "messages",
    "post",
    "task",
    "user",
)
_TURNS = ("\n\nAssistant:", "\nAssistant:", "[/INST]", "<|im_start|>assistant\n", "<|assistant|>")


def count_of_prompts(prompts: int, without: int) -> str:
    """How many prompts there are, in words.

    Args:
        prompts: Different ones that are known.
        without: Pairs whose prompt is not known.

    Examples:
        >>> count_of_prompts(7, 0), count_of_prompts(7, 2), count_of_prompts(0, 2)
        ('7 prompts', '7 prompts and 2 unknown', 'prompts unknown')
    """
    if not without:
        return f"{prompts} prompts"
    return f"{prompts} prompts and {without} unknown" if prompts else "prompts unknown"


def says_no_prompts(columns: Mapping[str, str | None] | None) -> bool:
    """Whether the caller said that there is no column of prompts.

    Examples:
        >>> says_no_prompts({"prompt": None}), says_no_prompts({"chosen": "better"}), says_no_prompts(None)
        (True, False, False)
    """
    return columns is not None and "prompt" in columns and columns["prompt"] is None


def refuse_unknown_prompts(pairs: PreferenceData, what: str = "pairs") -> None:
    """A prompt that was not found would be learned without, and could be on both sides of a split.

    Raises:
        InputError: Pairs have no prompt, and nobody said that there is none; with the columns that may hold it.

    Examples:
        >>> from flux_rewards.training.preferences import PreferencePair
        >>> from flux_rewards.training.preferences_data import PreferenceData
        >>> refuse_unknown_prompts(PreferenceData([PreferencePair(None, "4", "5")], no_prompts=True))
    """
    if pairs.no_prompts or not pairs.without_prompt:
        return
    unknown = [index for index, pair in enumerate(pairs) if not pair.says_what_was_asked]
    raise InputError(
        f"{len(unknown)} of {len(pairs)} {what} have no prompt (first: {unknown[0]}): the model would not see what was "
        f"asked, and one prompt could be trained on and held out. {_where([pairs[index] for index in unknown])}; or, "
        "where there are none, columns={'prompt': None} (--column prompt=), or PreferenceData(pairs, no_prompts=True)"
    )


def _where(pairs: list[Any]) -> str:
    """Where prompts may be: in a column of another name, or at the beginning of both texts."""
    held = Counter(key for pair in pairs for key in pair.metadata)
    likely = [key for name in _LIKELY for key in held if key.lower().rpartition(".")[2] == name]
    texts = [(pair.chosen, pair.rejected) for pair in pairs if isinstance(pair.chosen, str)]
    marks = [mark for mark in _TURNS if texts and all(mark in text for both in texts for text in both)]
    ways = []
    if likely:
        also = f" (or {', '.join(map(repr, likely[1:]))})" if likely[1:] else ""
        ways.append(
            f"they may be in the column {likely[0]!r}{also}: columns={{'prompt': {likely[0]!r}}} "
            f"(--column prompt={likely[0]})"
        )
    if marks:
        shown = marks[0].encode("unicode_escape").decode()
        ways.append(f"both texts may begin with it: prompt_ends_with={marks[0]!r} (--prompt-ends-with '{shown}')")
    if not ways:
        ways.append(
            "say which column holds it, columns={'prompt': ...} (--column prompt=...), or, where both texts begin with "
            "it, how it ends, prompt_ends_with=... (--prompt-ends-with)"
        )
    said = "; ".join(ways)
    return said[0].upper() + said[1:]
