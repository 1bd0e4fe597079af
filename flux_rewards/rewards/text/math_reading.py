r"""Where a text states its final answer, and that answer in LaTeX."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from flux_rewards.rewards.text.numbers import stated_number
from flux_rewards.rewards.text.parts import braced, part_of

__all__ = ["exact_value", "final_answer", "formulas_of"]

MOST_BOXES = 6
"""Boxes that may stand side by side as one answer; math-verify joins so many."""

_BOX = re.compile(r"\\(?:boxed|fbox)\b\s?")
_BETWEEN_BOXES = re.compile(r"[\s$]*(?:(?:,|;|,?\s*(?:and|or)\b|,?\s*\\text\s?\{\s*(?:and|or)\s*\})[\s$]*)")
_MARKER = re.compile(
    r"<answer>|####|^[ \t>*_]{0,8}A[*_]{0,3}:|\b(?i:answer)[ \t*_]{0,4}(?:is\b(?!\s+not\b)|[:=])", re.MULTILINE
)
_AFTER_MARKER = re.compile(r"[\s:=*_]*")
_ENVIRONMENT = re.compile(
    r"\$\$(.{1,2000}?)\$\$|\\\[(.{1,2000}?)\\\]|\\\((.{1,2000}?)\\\)|(?<![\\$])\$((?:\\\$|[^$\n]){1,2000}?)(?<!\\)\$(?!\$)",
    re.DOTALL,
)
_LONGEST_TEXT = 20_000
"""Characters at the end of a text that are searched where nothing marks the answer."""
MOST_MARKERS = 64
"""Markers, from the last one on, behind which an answer is looked for."""

_NAMED = re.compile(
    r"\\(?:text|mbox|mathrm|textrm|mathbf|textbf|textit|operatorname\*?|begin|end)\s?\{[^{}]*\}|\\[A-Za-z]+|"
    r"(?<![A-Za-z])(?:sqrt|pi|sin|cos|tan|log|ln|exp)(?![A-Za-z])"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_SENTENCE_END = re.compile(r"[.,;!?:]?\s(?=[^\W\d_]{2,})|\.\s")

_ZEROS = "\u0660\u06f0\u0966\uff10"
"""Of the Arabic, Persian, Devanagari and full-width digits."""
_LATEX_OF = {
    "\u2212": "-",
    "\u2013": "-",
    "\u00d7": r"\times ",
    "\u00f7": r"\div ",
    "\u00b7": r"\cdot ",
    "\u03c0": r"\pi ",
    "\u221e": r"\infty ",
    "\u2264": r"\le ",
    "\u2265": r"\ge ",
    "\u2260": r"\ne ",
    "\u2205": r"\emptyset ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2208": r"\in ",
    "\u00b0": r"^\circ ",
    "\u00bd": r"\frac{1}{2}",
    "\u00bc": r"\frac{1}{4}",
    "\u00be": r"\frac{3}{4}",
    "\u2153": r"\frac{1}{3}",
    "\u2154": r"\frac{2}{3}",
}
_SIGNS = str.maketrans(_LATEX_OF | {chr(ord(zero) + value): str(value) for zero in _ZEROS for value in range(10)})
_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
_PLAIN = (
    (re.compile(r"^([-+]?\d+(?:\.\d+)?)[eE]([-+]?\d+)$"), r"\1\\times 10^{\2}"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\^\s?(-?\d{2,}|-\d)"), r"^{\1}"),
    (re.compile(r"\^\s?\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"(?<![A-Za-z\\])sqrt\s?\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile("\u221a\\s?\\(([^()]*)\\)|\u221a\\s?(\\d+|[A-Za-z])"), r"\\sqrt{\1\2}"),
    (re.compile(r"(?<![A-Za-z\\])(pi|sin|cos|tan|log|ln|exp)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<=\d)\s?x\s?(?=10\b)"), r"\\times "),
    (re.compile(r"(?<![\w.,/^])(\d+) (\d+)/(\d+)(?![\w.,/^])"), r"\1\\frac{\2}{\3}"),
    (re.compile(r"(?<!\\)\*"), r"\\cdot "),
    (re.compile(r"(?<!\\)%"), r"\\%"),
    (re.compile(r"(?<![\w\\])\\?[$\u20ac\u00a3\u00a5\u20b9]\s?(?=[-.\d])"), ""),
)

# Python reads whole numbers of up to 4,300 digits.
_WHOLE_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3}){1,1000}|\d{1,4000})")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\s?\{(-?\d{1,4000})\}\s?\{(\d{1,4000})\}")
_QUOTIENT = re.compile(r"()(-?\d{1,4000})/(\d{1,4000})")


def final_answer(text: str, *, require_marker: bool = False) -> str | None:
    r"""The final answer that a text states, as it stands there; None where it states none.

    `MathReward` tells the rules. Several boxes side by side are joined by ``" and "``, each still in its box.

    Examples:
        >>> final_answer(r"so $x = \boxed{\frac{1}{2}}$.")
        '\\frac{1}{2}'
        >>> final_answer("First 3, and so the answer is 2x+1.\nBye.")
        '2x+1'
        >>> final_answer("She pays 3 x 6.15 = $18.45.")
        '369/20'
    """
    said = part_of(text, "final")
    if said is None:
        return None  # cut off while it was thinking
    boxes = list(_BOX.finditer(said))
    if boxes:
        return _boxed(said, boxes)
    markers = list(_MARKER.finditer(said))
    alone = None if markers or require_marker else _bare(said)
    if alone is not None and _is_formula(alone):
        return alone
    end = len(said)
    for marker in reversed(markers[-MOST_MARKERS:]):
        start = _AFTER_MARKER.match(said, marker.end()).end()  # type: ignore[union-attr]  # it matches nothing, too
        if start >= end and end == len(said):
            return None  # cut off before the answer
        found = _stated(said, start, min(end, len(said)))
        if found is not None:
            return found
        end = marker.start()
    return None if require_marker else _last(said[-_LONGEST_TEXT:])


def _boxed(text: str, boxes: list[re.Match[str]]) -> str | None:
    """The last box; where others stand directly before it, separated by commas or words such as and, all of them."""
    contents: list[str] = []
    begin = len(text)
    for box in reversed(boxes):
        content = braced(text, box.end()) if text.startswith("{", box.end()) else None
        if content is None:
            break
        end = box.end() + len(content) + 2
        if contents and (end > begin or not _BETWEEN_BOXES.fullmatch(text, end, begin)):
            break
        contents.append(content.strip().strip("$").strip())
        begin = box.start()
        if len(contents) == MOST_BOXES:
            break
    if not contents or not all(contents):
        return None  # empty, or cut off inside
    contents.reverse()
    return contents[0] if len(contents) == 1 else " and ".join(f"\\boxed{{{content}}}" for content in contents)


def _stated(text: str, start: int, end: int) -> str | None:
    """What stands behind a marker: in an environment, else on the line."""
    environment = _ENVIRONMENT.match(text, start, end)
    if environment:
        return _inside(environment)
    line = text[start:end].partition("\n")[0].partition("</answer>")[0]
    bare = _bare(line)
    if bare is not None and _is_formula(bare):
        return bare
    first = _bare(_SENTENCE_END.split(line)[0])
    if first is not None and _is_formula(first):
        return first
    environment = next((one for one in _ENVIRONMENT.finditer(line) if _is_formula(_inside(one))), None)
    if environment and not re.search(r"\d", line[: environment.start()]):
        return _inside(environment)
    number = stated_number(f"answer: {line}")
    return None if number is None else str(number)


def _last(text: str) -> str | None:
    """The last formula or number of a text that marks nothing."""
    formulas = [one for one in _ENVIRONMENT.finditer(text) if _is_formula(_inside(one))]
    if formulas and not re.search(r"\d", text[formulas[-1].end() :]):
        return _inside(formulas[-1])
    number = stated_number(text)
    return None if number is None else str(number)


def _inside(environment: re.Match[str]) -> str:
    return next(content for content in environment.groups() if content is not None).strip()


def _bare(text: str) -> str | None:
    """Without emphasis, the stop of a sentence and the signs of an environment around all of it."""
    text = text.strip().strip("*_`").strip()
    text = text[:-1].rstrip() if text.endswith((".", ",", ";")) else text
    text = text.strip("*_`").strip()
    environment = _ENVIRONMENT.fullmatch(text)
    text = _inside(environment) if environment else text
    return text or None


def _is_formula(text: str) -> bool:
    """Whether a text is mathematics and no prose: but for names that LaTeX knows there is no word in it."""
    if "\n\n" in text or not any(map(str.isalnum, text.translate(_SIGNS))):
        return False
    return _WORD.search(_NAMED.sub(" ", _SUPERSCRIPT.sub(" ", text))) is None


@lru_cache(maxsize=4096)
def formulas_of(answer: str) -> tuple[str, ...]:
    r"""An answer as LaTeX formulas: several where several boxes stand side by side.

    Examples:
        >>> formulas_of("x**10 + 2*pi")
        ('x^{10} + 2\\cdot \\pi ',)
        >>> formulas_of(r"\boxed{1} and \boxed{2}")
        ('1', '2')
    """
    boxes = list(_BOX.finditer(answer))
    if boxes:
        return tuple(_latex(braced(answer, box.end()) or "") for box in boxes)
    return (_latex(answer),)


def _latex(formula: str) -> str:
    formula = formula.strip().rstrip(".").rstrip() if not formula.rstrip().endswith(r"\right.") else formula
    formula = _SUPERSCRIPT.sub(lambda found: f"^{{{found[0].translate(_RAISED)}}}", formula)
    for pattern, plainer in _PLAIN:
        formula = pattern.sub(plainer, formula)
    return formula.translate(_SIGNS)


def exact_value(formula: str) -> Fraction | None:
    r"""The value of a whole number or a fraction of two; None for anything else, whatever it is.

    Examples:
        >>> exact_value("1,234"), exact_value(r"-\dfrac{2}{4}"), exact_value("0.5")
        (Fraction(1234, 1), Fraction(-1, 2), None)
    """
    if not formula.isascii():
        return None
    if _WHOLE_NUMBER.fullmatch(formula):
        return Fraction(int(formula.replace(",", "")))
    found = _FRACTION.fullmatch(formula) or _QUOTIENT.fullmatch(formula)
    if not found or int(found[3]) == 0:
        return None
    value = Fraction(int(found[2]), int(found[3]))
    return -value if found[1] else value
