"""Whether a response has the wanted form, from its first character to its last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.errors import ConfigError
from flux_rewards.rewards.text.regex import compiled
from flux_rewards.validation import texts

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["FormatReward"]

_TAG_NAME = re.compile(r"[A-Za-z_][\w.-]*")


class FormatReward(RewardFunction):
    """1.0 where the whole response has the form, else 0.0.

    With ``tags=["think", "answer"]`` the response is ``<think>...</think><answer>...</answer>``: the blocks in this
    order, each of these tags exactly once, and nothing but whitespace before, between and after the blocks. With a
    `pattern`, the regular expression matches the whole response (``re.fullmatch``, where ``.`` is any character,
    newlines too).

    Args:
        tags: Names of the blocks, without brackets, in order.
        pattern: A regular expression, as Python writes them. Give either this or `tags`.
        allow_empty: A block may hold nothing, or whitespace only. Of `tags` only.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1); only these two values. An empty response scores 0.0, unless a pattern matches it.

    Raises:
        ConfigError: Neither or both of `tags` and `pattern` are given, a tag is no name or listed twice, or the
            pattern is no regular expression.

    Does not parse XML: other tags are text, and so are ``<Think>`` and ``<think lang="en">``. Tags are found in one
    pass, however long the response; how long a `pattern` takes is up to the pattern.

    Examples:
        >>> form = FormatReward(["think", "answer"])
        >>> form(response=["<think>3 + 4</think><answer>7</answer>", "<think>3</think><answer>7</answer> Bye."]).rewards
        array([1., 0.])
        >>> FormatReward(pattern=r"(yes|no)[.]?")(response=["yes.", "yes, and no"]).rewards
        array([1., 0.])
    """

    required_fields = ("response",)
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"tags": ["think", "answer"]}

    def __init__(
        self,
        tags: Sequence[str] | None = None,
        pattern: str | None = None,
        allow_empty: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        if (tags is None) == (pattern is None):
            raise ConfigError(
                f"give exactly one of tags and pattern, found tags={tags!r} and pattern={pattern!r}", reward=self.name
            )
        self.tags = None if tags is None else _checked(tags, self.name)
        self.pattern = pattern
        self.allow_empty = allow_empty
        self._compiled = None if pattern is None else compiled(pattern, self.name, re.DOTALL)

    def compute_reward(self, sample: Sample) -> float:
        """1.0 or 0.0."""
        text = sample.response_text
        if self._compiled is not None:
            return float(self._compiled.fullmatch(text) is not None)
        return float(self._has_blocks(text))

    def _has_blocks(self, text: str) -> bool:
        rest = text
        for tag in self.tags or ():
            opening, closing = f"<{tag}>", f"</{tag}>"
            if text.count(opening) != 1 or text.count(closing) != 1:
                return False
            before, _, after = rest.partition(opening)
            content, closed, rest = after.partition(closing)
            # Each tag occurs once, so a block that is not closed here was closed before it began.
            if before.strip() or not closed or not (self.allow_empty or content.strip()):
                return False
        return not rest.strip()


def _checked(tags: Sequence[str], reward: str) -> list[str]:
    names = texts(tags, "tags", reward)
    for name in names:
        if not _TAG_NAME.fullmatch(name):
            raise ConfigError(
                f"tags must be names such as 'think', without brackets and spaces, found {name!r}", reward=reward
            )
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"tags must be one or more different names, found {names!r}", reward=reward)
    return names
