"""Whether a response ends in one fenced code block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError
from flux_rewards.rewards.text.code_blocks import code_blocks
from flux_rewards.rewards.text.format import checked_tags
from flux_rewards.rewards.text.parts import part_of
from flux_rewards.rewards.text.visible import has_content
from flux_rewards.validation import one_of, texts

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CodeFormat"]


class CodeFormat(RewardFunction):
    r"""1.0 where the response has exactly one fenced code block, of the wanted language, at its end; else 0.0.

    The block is closed, holds something that prints, and nothing but whitespace follows it. Fences are those of
    CommonMark: lines of three or more backticks or tildes.

    Args:
        language: What stands behind the opening fence, such as ``"python"``, or several names that will do, such as
            ``["python", "py"]``; case doesn't matter. None: anything, or nothing.
        inside: The name of a tag that holds the block, and nothing else: with ``"answer"`` the response ends in
            ``<answer>``, the block and ``</answer>``. The tags occur once. Blocks before the tag are not looked at.
        text_before: Whether text may stand before the block, or before the tag.
        part: ``"response"``: the form is that of all of it; ``"final"``: of what follows the last ``</think>``.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1); only these two values. An empty response scores 0.0. Metadata: ``why`` it is 0.0, where it is.

    Raises:
        ConfigError: `language` is empty, `inside` is no name, or `part` is neither of these.

    Does not run or parse the code.

    Examples:
        >>> code = CodeFormat("python")
        >>> code(response=["So:\n```python\nprint(7)\n```", "```python\nprint(7)\n```\nHope this helps!"]).rewards
        array([1., 0.])
    """

    required_fields = ("response",)
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"language": ["python", "py"]}

    def __init__(
        self,
        language: str | Sequence[str] | None = None,
        inside: str | None = None,
        *,
        text_before: bool = True,
        part: str = "response",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        names = [language] if isinstance(language, str) else language
        if names is not None and (not names or not all(name.strip() for name in texts(names, "language", self.name))):
            raise ConfigError(f"language must be one or more names, found {language!r}", reward=self.name)
        self._languages = None if names is None else {name.strip().lower() for name in names}
        if inside is not None:
            checked_tags([inside], self.name)
        self.language = language
        self.inside = inside
        self.text_before = text_before
        self.part = one_of(part, "part", self.name, ("response", "final"))

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """1.0 or 0.0, and why."""
        text = part_of(sample.response_text, self.part)
        why = "the thinking never ends" if text is None else self._fault(text)
        return RewardOutput(float(not why), metadata={"why": why} if why else {})

    def _fault(self, text: str) -> str:
        """What is wrong, or nothing."""
        if self.inside is None:
            return self._fault_of_block(text, alone=not self.text_before)
        opening, closing = f"<{self.inside}>", f"</{self.inside}>"
        before, _, held = text.partition(opening)
        if text.count(opening) != 1 or text.count(closing) != 1 or not held.rstrip().endswith(closing):
            return f"expected {opening}...{closing} once, at the end"
        if before.strip() and not self.text_before:
            return f"text stands before {opening}"
        return self._fault_of_block(held.rstrip().removesuffix(closing).strip(" \n"), alone=True)

    def _fault_of_block(self, text: str, *, alone: bool) -> str:
        blocks = code_blocks(text)
        if len(blocks) != 1:
            return f"expected one code block, found {len(blocks)}"
        block = blocks[0]
        faults = {
            "the code block is never closed": not block.closed,
            "the code block is empty": not has_content(block.content),
            "text follows the code block": bool(text[block.end :].strip()),
            "text stands before the code block": alone and bool(text[: block.start].strip()),
            f"the code block is marked {block.language[:40]!r}": self._languages is not None
            and block.language not in self._languages,
        }
        return next((fault for fault, there in faults.items() if there), "")
