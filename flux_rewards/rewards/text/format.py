"""Whether a response has the wanted form, from its first character to its last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.errors import ConfigError
from flux_rewards.rewards.text.regex import compiled
from flux_rewards.rewards.text.visible import has_content
from flux_rewards.validation import one_of, texts

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["FormatReward", "ThinkAnswerFormat", "ThinkFormat", "checked_tags"]

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
        allow_empty: A block may hold nothing, or whitespace only. Of `tags` only. Characters that print nothing, such
            as a zero width space, and control tokens such as ``<|im_end|>`` are nothing.
        text_after: What may follow the last block: ``"none"``: whitespace; ``"allowed"``: anything but these tags;
            ``"required"``: something that is not whitespace, and prints. Of `tags` only.
        opened_by_prompt: The prompt ends with the first opening tag, as many chat templates have it, so that the
            response begins inside the first block. Of `tags` only.
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
        *,
        text_after: str = "none",
        opened_by_prompt: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        if (tags is None) == (pattern is None):
            raise ConfigError(
                f"give exactly one of tags and pattern, found tags={tags!r} and pattern={pattern!r}", reward=self.name
            )
        self.tags = None if tags is None else checked_tags(tags, self.name)
        self.pattern = pattern
        self.allow_empty = allow_empty
        self.text_after = one_of(text_after, "text_after", self.name, ("none", "allowed", "required"))
        self.opened_by_prompt = opened_by_prompt
        self._compiled = None if pattern is None else compiled(pattern, self.name, re.DOTALL)

    def compute_reward(self, sample: Sample) -> float:
        """1.0 or 0.0."""
        text = sample.response_text
        if self._compiled is not None:
            return float(self._compiled.fullmatch(text) is not None)
        tags = self.tags or []
        return float(self._has_blocks(f"<{tags[0]}>{text}" if self.opened_by_prompt else text, tags))

    def _has_blocks(self, text: str, tags: Sequence[str]) -> bool:
        rest = text
        for tag in tags:
            opening, closing = f"<{tag}>", f"</{tag}>"
            if text.count(opening) != 1 or text.count(closing) != 1:
                return False
            before, _, after = rest.partition(opening)
            content, closed, rest = after.partition(closing)
            # Each tag occurs once, so a block that is not closed here was closed before it began.
            if before.strip() or not closed or not (self.allow_empty or has_content(content)):
                return False
        if self.text_after == "required":
            return has_content(rest)
        return self.text_after == "allowed" or not rest.strip()


class ThinkFormat(FormatReward):
    """1.0 where the response is ``<think>...</think>`` and then the answer: TRL's ``think_format_reward``.

    Args:
        allow_empty: There may be nothing in the block.
        text_after: Whether an answer may, or must, follow; see `FormatReward`.
        opened_by_prompt: The prompt ends with ``<think>``, so that the response begins inside the block.
        **options: Of every reward; see `RewardFunction`.

    As in TRL, the response begins with the block, ``<think>`` occurs once, and the answer is anything. Unlike there,
    ``</think>`` occurs once too, and whitespace may stand before the block.

    Bounds: (0, 1); only these two values. An empty response scores 0.0.

    Raises:
        ConfigError: `text_after` is none of its words.

    Does not ask for an answer, unless ``text_after="required"``.

    Examples:
        >>> ThinkFormat()(response=["<think>7?</think>7", "<think>7?", "7 <think>7?</think>"]).rewards
        array([1., 0., 0.])
    """

    example_config = {"text_after": "required"}

    def __init__(
        self,
        allow_empty: bool = True,
        text_after: str = "allowed",
        opened_by_prompt: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(
            ["think"],
            allow_empty=allow_empty,
            text_after=text_after,
            opened_by_prompt=opened_by_prompt,
            **options,
        )


class ThinkAnswerFormat(FormatReward):
    r"""1.0 where the response is ``<think>...</think><answer>...</answer>`` and nothing else: DeepSeek-R1's form.

    Args:
        allow_empty: A block may hold nothing.
        opened_by_prompt: The prompt ends with ``<think>``, so that the response begins inside that block.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1); only these two values. An empty response scores 0.0.

    Does not accept text behind the blocks on a line of its own, as open-r1's ``format_reward`` does, and does not ask
    for newlines beside the tags.

    Examples:
        >>> ThinkAnswerFormat()(response=["<think>a</think>\n<answer>7</answer>"]).rewards
        array([1.])
    """

    example_config = {"allow_empty": False}

    def __init__(
        self,
        allow_empty: bool = False,
        opened_by_prompt: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(["think", "answer"], allow_empty=allow_empty, opened_by_prompt=opened_by_prompt, **options)


def checked_tags(tags: Any, reward: str) -> list[str]:
    """Names of tags, without brackets, each once; or a `ConfigError`.

    Examples:
        >>> checked_tags(["think", "answer"], "format")
        ['think', 'answer']
    """
    names = texts(tags, "tags", reward)
    for name in names:
        if not _TAG_NAME.fullmatch(name):
            raise ConfigError(
                f"tags must be names such as 'think', without brackets and spaces, found {name!r}", reward=reward
            )
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"tags must be one or more different names, found {names!r}", reward=reward)
    return names
