"""How many steps a response reasons in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.rewards.text.visible import printing
from flux_rewards.validation import whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ReasoningSteps"]

_STEP = re.compile(
    r"""
      \b (?i:step) [ ]{0,3} \#? \d{1,3} \b
    | ^ [ \t]{0,16} (?: \d{1,3} [.)] | [-*+•] ) [ \t]
    | \b (?: [Ff]irst(?:ly)? | [Ss]econd(?:ly)? | [Tt]hird(?:ly)? | [Nn]ext | [Tt]hen | [Ff]inally | [Ll]astly ) ,
    | 第 [0-9一二三四五六七八九十]{1,3} 步 | 步骤 \s? [0-9一二三四五六七八九十]{1,3}
    | (?: 首先 | 其次 | 然后 | 最后 ) [,\uff0c]
    """,
    re.VERBOSE | re.MULTILINE,
)


class ReasoningSteps(RewardFunction):
    r"""min(1, steps / min_steps).

    A step begins with ``Step 1`` (any number), with a number and ``.`` or ``)`` or a bullet (``-``, ``*``, ``+``,
    ``•``) at the start of a line, with ``First,``, ``Second,``, ``Third,``, ``Next,``, ``Then,``, ``Finally,`` or
    ``Lastly,`` (``Firstly,`` too), or with 第一步, 步骤 1, or 首先 and a comma. It counts if it says something
    before the next one begins, so that ``1. First, add them`` is one step, and ``Step 1 Step 2 Step 3`` is none.

    Args:
        min_steps: As many steps earn 1.0. At least 1.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). An empty response scores 0.0. Metadata: ``steps``, how many there are.

    Raises:
        ConfigError: `min_steps` is no whole number of at least 1.

    Does not judge the steps: a list of anything earns it. Give it a small weight beside a reward of correctness.
    Source: the ``reasoning_steps_reward`` of open-r1, where a numbered list counts only in the first line.

    Examples:
        >>> steps = ReasoningSteps()
        >>> steps(response=["1. Add.\n2. Halve.\n3. Round.", "First, add. Then, halve.", "It is 7."]).rewards.round(3)
        array([1.   , 0.667, 0.   ])
    """

    required_fields = ("response",)
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"min_steps": 3}

    def __init__(self, min_steps: int = 3, **options: Unpack[RewardOptions]) -> None:
        super().__init__(**options)
        self.min_steps = whole_number(min_steps, "min_steps", self.name, low=1)

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """The share of the wanted steps, and their number."""
        text = sample.response_text
        begun = list(_STEP.finditer(text))
        ends = [*(step.start() for step in begun), len(text)][1:]
        steps = sum(
            any(map(str.isalnum, printing(text[step.end() : end]))) for step, end in zip(begun, ends, strict=True)
        )
        return RewardOutput(min(1.0, steps / self.min_steps), metadata={"steps": steps})
