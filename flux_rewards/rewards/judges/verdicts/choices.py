"""Which of two is better, as judges say it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flux_rewards.errors import JudgeError
from flux_rewards.rewards.judges.verdicts.labelled import the_only_one, values_behind
from flux_rewards.rewards.judges.verdicts.numbers import DECORATION
from flux_rewards.rewards.judges.verdicts.spoken import tidy

__all__ = ["TIE", "read_better_image", "read_choice"]

TIE = "tie"

_D = DECORATION
_CHOICE = re.compile(
    rf"(?:(?:response|answer|option|candidate|image|video|assistant){_D}+)?(?P<name>[AB])(?!\w)", re.IGNORECASE
)
_TIE = re.compile(
    r"(?:(?:it(?:'s| is) )?an? )?"
    r"(?:tie[ds]?|draw|equal|both(?: responses| images| videos)? are (?:equal|equally|tied))(?!\w)",
    re.IGNORECASE,
)
_GOES_ON = re.compile(rf"{_D}*(?:$|[.,;:!\-–—]|(?:is|wins?|because|since|as|over)(?!\w))", re.IGNORECASE)
_OTHER_TOO = re.compile(
    rf"{_D}*(?:or|and|/|&|,){_D}*(?:(?:response|answer|option|image){_D}+)?[AB](?!\w)", re.IGNORECASE
)
_END = re.compile(rf"(?:\s+(?:is (?:the )?better|wins|is the winner))?(?:{_D}|[.!])*", re.IGNORECASE)
_BRACKETS = re.compile(r"\[\[\s*(A|B|C|tie)\s*\]\]", re.IGNORECASE)


def read_choice(text: str, label: str = "Verdict") -> str:
    r"""``"A"``, ``"B"`` or ``"tie"``: behind the label, in double brackets, or alone.

    Args:
        text: What was said, see `spoken`.
        label: What stands before the verdict.

    Raises:
        JudgeError: There is none, or there are several.

    Examples:
        >>> read_choice("A is short, B is right.\n**Verdict:** Response B"), read_choice("[[C]]")
        ('B', 'tie')
    """
    text = tidy(text)
    values = values_behind(text, label, _choice) or list(_unlabelled(text))
    if not values:
        raise JudgeError(f"there is no line '{label}: A', '{label}: B' or '{label}: tie'")
    return str(the_only_one(values))


def read_tie(text: str) -> bool:
    """Whether a text says no more than that it is a tie.

    Examples:
        >>> read_tie("**Tie.**"), read_tie("The man wears a tie")
        (True, False)
    """
    text = re.sub(rf"^{_D}+", "", text)
    tie = _TIE.match(text)
    return tie is not None and _END.fullmatch(text, tie.end()) is not None


def _unlabelled(text: str) -> Iterator[str]:
    for name in _BRACKETS.findall(text):
        yield TIE if name.upper() in ("C", "TIE") else name.upper()
    alone = _choice(re.sub(rf"^{_D}+", "", text), alone=True)
    if alone is not None:
        yield alone


def _choice(text: str, *, alone: bool, aside: str = "") -> str | None:  # noqa: ARG001  # see `Reader`
    if _TIE.match(text):
        return TIE if not alone or read_tie(text) else None
    found = _CHOICE.match(text)
    if found is None:
        return None
    if _OTHER_TOO.match(text, found.end()):
        raise JudgeError("both are named", "ambiguous")
    goes_on = _END.fullmatch if alone else _GOES_ON.match
    return found["name"].upper() if goes_on(text, found.end()) else None


_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_BETTER = re.compile(rf"(?<!\w)image{_D}+([12]){_D}+is{_D}+(?:the{_D}+)?better(?!\w)", re.IGNORECASE)
_EQUAL = re.compile(rf"(?<!\w)both{_D}+images{_D}+are{_D}+equally{_D}+good(?!\w)", re.IGNORECASE)


def read_better_image(text: str) -> str:
    """``"A"`` for "Image 1 is better", ``"B"`` for "Image 2 is better", ``"tie"`` for "Both images are equally good".

    Args:
        text: What was said; where there is an ``<answer>``, that decides.

    Raises:
        JudgeError: It says neither, or more than one.

    Examples:
        >>> read_better_image("Image 1 is blurred. <answer>Image 2 is better</answer>")
        'B'
    """
    answers = [tidy(answer) for answer in _ANSWER.findall(text)] or [tidy(text)]
    values = ["AB"[int(number) - 1] for answer in answers for number in _BETTER.findall(answer)]
    values += [TIE for answer in answers if _EQUAL.search(answer) or read_tie(answer)]
    if not values:
        raise JudgeError("it says neither 'Image 1 is better' nor 'Image 2 is better'")
    return str(the_only_one(values))
