"""Whether the number that a response ends with is the right one."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact
from fractions import Fraction
from functools import lru_cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import InputError, brief
from flux_rewards.rewards.text.numbers import stated_number
from flux_rewards.rewards.text.parts import part_of
from flux_rewards.validation import number

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NumericAnswerReward", "reference_text"]


class NumericAnswerReward(RewardFunction):
    r"""1.0 where the response's final number equals the reference, else 0.0. Numbers are exact fractions, never floats.

    Which number. Of a response with thinking, what follows ``</think>`` is read; thinking that never ends has no
    answer. The last of these markers in the text decides:

    - ``\boxed{...}`` holds one number, perhaps with a name and a unit: ``\boxed{x = 18\text{ km}}``. A box that
      holds several, holds none, or is never closed is no answer.
    - ``<answer>``, ``####``, ``A:`` at the start of a line, ``answer is``, ``answer:``, ``answer =``: the first
      number on that line (or on the next line with text); where a calculation is written out, as in
      ``A: 3 * 6 = 18``, its result.
      ``####`` before anything but a number is a heading, and ``the answer is`` without a number is prose: then the
      marker before it decides. A marker with nothing behind it, as where the response was cut off, is no answer,
      and so is an ``A:`` line without a number.

    Without any marker it is the last number in the text, unless that is an operand without a result (``so she pays
    5 * 1``).

    What a number is: ``1,234.50``, ``.5``, ``-3`` (also with the sign U+2212), ``+3``, ``$18``, ``-$18``, ``18
    dollars``, ``5km``, ``50%`` (50, not 0.5), ``3/4``, ``1 3/4``, ``1¾``, ``\frac{3}{4}``, ``1e3``, ``1.5 x 10^3``,
    ``10^6``, ``2 million``. Commas group digits by three; ``1,2`` and ``3,5`` are a list or a European decimal, and
    are no number, nor are ``1.2.3``, ``3:30``, ``10-12``, ``5^2``, ``\sqrt{2}`` and ``2\pi``. Nothing else is tried
    in the place of such a one.

    Args:
        tolerance: Greatest distance from the reference that is still right, in the reference's unit; 0 for
            equality. 0.01 means 1/100 exactly.
        require_marker: A response without a marker has no answer, whatever numbers are in it.
        **options: Of every reward; see `RewardFunction`.

    The reference is a number, or a text that is read in the same way, so that a whole GSM8K solution will do;
    markers are never required there. Where it holds no number the reward does not apply (None).

    Bounds: (0, 1); only these two values. A response without a number, an empty one too, scores 0.0. Metadata:
    ``answer``, the number that was found, such as ``"18"``, ``"3.5"`` or ``"1/3"``, or None.

    Raises:
        ConfigError: `tolerance` is negative.
        InputError: The reference is neither a number nor a text.

    Does not evaluate expressions, convert units, or read number words (``eighteen``) and abbreviations (``5k`` is 5
    with the unit k). Numbers of more than 1,000 characters, or with an exponent beyond 1,000, are no numbers.
    Source of the ``####`` and ``A:`` forms: Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021),
    GSM8K.

    Examples:
        >>> responses = ["9 * 2 = 18\nA: 18", "#### 1,800", r"so \boxed{\frac{1}{2}}"]
        >>> NumericAnswerReward()(response=responses, reference=["18", 18, 0.5]).rewards
        array([1., 0., 1.])
    """

    required_fields = ("response", "reference")
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"tolerance": 0}

    def __init__(
        self,
        tolerance: float = 0,
        require_marker: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        number(tolerance, "tolerance", self.name, low=0)
        self.tolerance = tolerance
        self.require_marker = require_marker
        # By way of its text: what the user wrote, not its nearest binary fraction.
        self._tolerance = Fraction(str(tolerance))

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        """1.0 or 0.0, and the number behind it; None where the reference has no number."""
        expected = _reference_number(reference_text(sample.reference))
        if expected is None:
            return None
        said = part_of(sample.response_text, "final")
        answer = None if said is None else stated_number(said, require_marker=self.require_marker)
        right = answer is not None and abs(answer - expected) <= self._tolerance
        return RewardOutput(float(right), metadata={"answer": None if answer is None else _written(answer)})


@lru_cache(maxsize=1024)
def _reference_number(text: str) -> Fraction | None:
    """Cached: a group of responses shares its reference."""
    said = part_of(text, "final")
    return None if said is None else stated_number(said)


def reference_text(reference: Any) -> str:
    """A reference, a text or a number, as the text that is read.

    Raises:
        InputError: It is something else.

    Examples:
        >>> reference_text(18)
        '18'
    """
    if isinstance(reference, str):
        return reference
    if isinstance(reference, bool) or not isinstance(reference, (Real, Decimal)):
        raise InputError(f"expected a number, or a text that holds one, found {brief(reference)}", field="reference")
    # Python refuses to print an integer of several thousand digits; as a number it is too long here anyway.
    return "" if isinstance(reference, Integral) and int(reference).bit_length() > 10_000 else str(reference)


def _written(value: Fraction) -> str:
    """As a decimal where it is a short one, else as a fraction."""
    context = Context(prec=60)
    decimal = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    return str(value) if context.flags[Inexact] else format(decimal, "f")
