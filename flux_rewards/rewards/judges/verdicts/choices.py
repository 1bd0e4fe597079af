"""Which of two is better, as judges say it."""

from __future__ import annotations

import re

from flux_rewards.errors import JudgeError
from flux_rewards.rewards.judges.verdicts.labelled import bracketed, the_only_one, values_behind
from flux_rewards.rewards.judges.verdicts.numbers import DECORATION, undecorated
from flux_rewards.rewards.judges.verdicts.spoken import tidy

__all__ = ["TIE", "read_better_image", "read_choice"]

TIE = "tie"

_D = DECORATION
_NOUN = rf"(?:(?:response|answer|option|candidate|image|video|assistant){_D}+)?"
_CHOICE = re.compile(rf"{_NOUN}([AB])(?![\w-])", re.IGNORECASE)
_TIE = re.compile(
    r"(?:(?:it(?:'s| is) )?an? )?"
    r"(?:tie[ds]?|draw|equal|both(?: responses| images| videos)? are (?:equal|equally good|tied))(?![\w-])",
    re.IGNORECASE,
)
_WINS = re.compile(
    rf"{_D}*(?:is{_D}+(?:the{_D}+)?(?:better|winner)(?:{_D}+than{_D}+{_NOUN}[AB](?!\w))?"
    rf"|wins(?:{_D}+(?:over|against){_D}+{_NOUN}[AB](?!\w))?|over{_D}+{_NOUN}[AB](?!\w))",
    re.IGNORECASE,
)
_END = re.compile(rf"(?:{_D}|[.!])*")
_REASON = re.compile(rf"{_D}*(?:[.,;:–—]|-(?!>)|(?=\()|(?:because|since|as)\b)", re.IGNORECASE)
_SEVERAL = re.compile(rf"{_D}*(?:or|and|/|&){_D}*{_NOUN}[AB](?!\w)", re.IGNORECASE)
_TAKES_BACK = re.compile(
    r"\b(?:no|not|never|but|however|though|although|actually|rather|instead|otherwise|if|unless|worse|loses?|loser|tie|"
    r"tied|draw|equal|equally)\b|n't\b|\b[AB]\b"
)


def read_choice(text: str, label: str = "Verdict") -> str:
    r"""``"A"``, ``"B"`` or ``"tie"``: behind the label; without any label, in double brackets as last line, or alone.

    A reason may follow that names neither of the two and takes nothing back.

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
    values = values_behind(text, label, _choice, last=True)
    if not values:
        inside = (bracketed(text) or "").upper()
        lines = [line for line in text.split("\n") if undecorated(line)]
        if inside in ("A", "B", "C", "TIE"):
            values = [inside if inside in ("A", "B") else TIE]
        elif len(lines) == 1:
            values = [value for value in [_choice(lines[0], alone=True)] if value is not None]
    if not values:
        raise JudgeError(f"there is no line '{label}: A', '{label}: B' or '{label}: tie'")
    return str(the_only_one(values))


def _choice(text: str, *, alone: bool, aside: str = "") -> str | None:  # noqa: ARG001  # see `Reader`
    text = undecorated(text)
    tie = _TIE.match(text)
    found = tie or _CHOICE.match(text)
    if found is None:
        return None
    rest = text[found.end() :]
    wins = None if tie else _WINS.match(rest)
    rest = rest[wins.end() :] if wins else rest
    if not _END.fullmatch(rest):
        if _SEVERAL.match(rest):
            raise JudgeError("both are named", "ambiguous")
        if alone or not _REASON.match(rest):
            return None
        if _TAKES_BACK.search(rest):
            raise JudgeError("it names both, or takes its verdict back", "ambiguous")
    return TIE if tie else found[1].upper()


_ANSWER_OPENS, _ANSWER_CLOSES = re.compile("<answer>", re.IGNORECASE), re.compile("</answer>", re.IGNORECASE)
_OPENING = re.compile(rf"{_D}*(?:(?:overall|therefore|thus|so|hence|in conclusion|finally),?{_D}+)?", re.IGNORECASE)
_BETTER = re.compile(
    rf"image{_D}+([12]){_D}+is{_D}+(?:the{_D}+)?better(?:{_D}+(?:than{_D}+image{_D}+[12]|one|image))?", re.IGNORECASE
)
_EQUAL = re.compile(rf"both{_D}+images{_D}+are{_D}+equally{_D}+good", re.IGNORECASE)


def read_better_image(text: str) -> str:
    """``"A"`` for "Image 1 is better", ``"B"`` for "Image 2 is better", ``"tie"`` for "Both images are equally good".

    The sentence stands by itself, or with a reason that takes nothing back.

    Args:
        text: What was said; where there is an ``<answer>``, that decides.

    Raises:
        JudgeError: It says neither, or more than one.

    Examples:
        >>> read_better_image("Image 1 is blurred. <answer>Image 2 is better</answer>")
        'B'
    """
    answers = [_ANSWER_CLOSES.split(part)[0] for part in _ANSWER_OPENS.split(text)[1:]] or [text]
    values = [value for answer in answers for value in map(_better, _sentences(tidy(answer))) if value is not None]
    values += [TIE for answer in answers if read_tie(tidy(answer))]
    if not values:
        raise JudgeError("it says neither 'Image 1 is better' nor 'Image 2 is better'")
    return str(the_only_one(values))


def read_tie(text: str) -> bool:
    """Whether a text says no more than that it is a tie.

    Examples:
        >>> read_tie("**Tie.**"), read_tie("The man wears a tie")
        (True, False)
    """
    text = undecorated(text)
    tie = _TIE.match(text)
    return tie is not None and _END.fullmatch(text, tie.end()) is not None


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?:])\s|\n", text)


def _better(sentence: str) -> str | None:
    opening = _OPENING.match(sentence)
    begin = opening.end() if opening else 0
    found, equal = _BETTER.match(sentence, begin), _EQUAL.match(sentence, begin)
    match = found or equal
    if match is None:
        return None
    rest = sentence[match.end() :]
    if not _END.fullmatch(rest):
        if not _REASON.match(rest):
            return None
        if _TAKES_BACK.search(rest):
            raise JudgeError("it takes its verdict back", "ambiguous")
    return "AB"[int(found[1]) - 1] if found else TIE
