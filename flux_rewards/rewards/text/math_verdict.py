"""What a worker process does for `MathReward`: reads formulas with math-verify, and compares them."""

from __future__ import annotations

import logging
from functools import lru_cache
from itertools import product
from typing import Any, Literal, NamedTuple

__all__ = ["Verdict", "compare", "prepare"]

Formulas = tuple[str, ...]


class Verdict(NamedTuple):
    """What came of a comparison.

    Args:
        status: ``"right"``, ``"wrong"``, ``"unreadable_answer"`` or ``"unreadable_reference"``; and where nothing was
            compared, ``"no_answer"``, ``"unsimplified"`` or ``"over_limit"``.
        why: A few words about the last two.
    """

    status: Literal[
        "right", "wrong", "unreadable_answer", "unreadable_reference", "no_answer", "unsimplified", "over_limit"
    ]
    why: str | None = None


# One of each kind of formula: the parser builds its tables as it meets them, which takes a new worker half a second.
_EXERCISES = (
    "12", "-3", "0.5", r"\frac{1}{2}", r"2\sqrt{3}", "x=3", "(1,2)", "[0,1)", r"\{1,2\}", "1,2", r"x\le 3", "50\\%",
    r"\frac{x+1}{x-1}", r"x^2+2x+1", r"e^{x}", r"\sin x", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\text{yes}",
    r"2+3i", r"3\pi", r"5!", r"\binom{5}{2}", r"(-\infty,2)\cup(3,4]", r"1:2", "90^\\circ", r"\log_2 3",
)  # fmt: skip


def prepare() -> None:
    """Import math-verify and let it read one formula of each kind: once, before workers are forked."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own limit is off; ours holds
    for formula in _EXERCISES:
        compare((formula,), (formula,), 6)
    compare((r"(x+1)^2",), (r"x^2+2x+1",), 6)


def compare(reference: Formulas, answer: Formulas | None, float_rounding: int) -> Verdict:
    """Whether an answer is the reference, by math-verify; in the order that it wants, which is not symmetric.

    Args:
        reference: LaTeX formulas.
        answer: LaTeX formulas; None where only the reference is to be read.
        float_rounding: Decimal places to which a number with a decimal point is compared.
    """
    from math_verify import verify  # noqa: PLC0415

    expected = _parsed(reference)
    if not any(not isinstance(one, str) for one in expected):
        return Verdict("unreadable_reference")
    found = [] if answer is None else _parsed(answer)
    if not found:
        return Verdict("unreadable_answer")
    for one, other in product(expected, found):
        try:
            right = verify(one, other, float_rounding=float_rounding, timeout_seconds=None, raise_on_error=True)
        except (MemoryError, RecursionError):
            raise  # not an answer
        except Exception:  # noqa: BLE001, S112  # what cannot be compared is not equal, as for math-verify
            continue
        if right:
            return Verdict("right")
    return Verdict("unreadable_answer" if all(isinstance(one, str) for one in found) else "wrong")


@lru_cache(maxsize=256)
def _parsed(formulas: Formulas) -> list[Any]:
    """Kept: the answers of a group share their reference."""
    from math_verify import LatexExtractionConfig, parse  # noqa: PLC0415

    sign = "" if len(formulas) == 1 else "$"  # what stands side by side is joined only within these
    text = " and ".join(f"{sign}\\boxed{{{formula}}}{sign}" for formula in formulas)
    found: list[Any] = parse(text, [LatexExtractionConfig(boxed_match_priority=0)], parsing_timeout=None)
    return found
