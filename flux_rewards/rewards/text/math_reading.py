r"""Where a text states its final answer, and that answer in LaTeX."""

from __future__ import annotations

import re
from fractions import Fraction

from flux_rewards.rewards.text.numbers import stated_number
from flux_rewards.rewards.text.parts import braced, part_of

__all__ = ["exact_value", "final_answer", "formulas_of", "stated_reference"]

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
_LONGEST_LIST = 2_000
"""Characters of several formulas with words between them."""
_LONGEST_TEXT = 20_000
"""Characters at the end of a text that are searched where nothing marks the answer."""
MOST_MARKERS = 64
"""Markers, from the last one on, behind which an answer is looked for."""

_NAMED = re.compile(
    r"\\(?:text|mbox|mathrm|textrm|mathbf|textbf|textit|operatorname\*?|begin|end)\s?\{[^{}]*\}|\\[A-Za-z]+|"
    r"(?<![A-Za-z])(?:sqrt|pi|sin|cos|tan|log|ln|exp)(?![A-Za-z])"
)
_SHORT = (
    r"(?i:am|an|as|at|be|by|do|go|he|hm+|if|in|is|it|me|my|no|of|ok|on|or|so|to|up|us|we|"
    r"all|and|any|are|but|for|get|has|her|him|his|its|not|one|out|per|she|the|too|try|two|was|why|who|yes|you)"
)
_UNITS = r"(?:[kcmdn]m|k?g|mg|[mcd]?[lL]|ft|lbs?|oz|mi|yd|hrs?|min|ms|[kM]?Hz|kW|kJ|mph|[ap]m)(?![A-Za-z])"
# Letters side by side are a product, 2xy, unless they make a word. In prose an edge of the text is as good as a space.
_WORD_INSIDE = re.compile(
    rf"(?<![^\W\d_])(?:(?<=\s)|(?=[^\W\d_]+\s))(?:{_SHORT}|(?=[A-Za-z]*[aeiou])[A-Za-z]{{4,}})(?![^\W\d_])"
    r"|[^\W\d_A-Za-z]{2,}"
)
_WORD = re.compile(
    rf"(?<![^\s(,.;:!?'\"])(?:{_SHORT}|(?=[A-Za-z]*[aeiou])[A-Za-z]{{3,}})(?![^\s),.;:!?'\"])"
    rf"|(?<![A-Za-z])(?=[A-Za-z]*[aeiou])[A-Za-z]{{4,}}|[^\W\d_A-Za-z]{{2,}}|\d\s?{_UNITS}"
)
_SENTENCE_END = re.compile(
    rf"[.,;!?:]?\s(?=(?:{_SHORT}(?![^\W\d_])|(?=[A-Za-z]*[aeiou])[A-Za-z]{{3,}}|[^\W\d_A-Za-z]{{2,}}))|\.\s"
)
_REASON = r"(?!(?:as|because|for|hence|if|since|so|that|then|thus|when|where|with)\b)"
_BETWEEN_FORMULAS = re.compile(
    rf"\s*(?:,\s*|(?:{_REASON}[^\W\d_]+\s*)?,?\s*\b(?:and|or)\s+(?:{_REASON}[^\W\d_]+\s+)?)(?=[$\\])"
)
"""Between formulas that are one answer: a comma, and, or, perhaps with a word that tells what they are."""
_ALTERNATIVE = re.compile(r",?\s+(?:and|or)\s+")
_DIGITS = re.compile(r"\d[\d.,]*")
_OPERATOR_BEFORE = re.compile(r"(?:[A-Za-z)}]\s?[+*/^]|(?<![A-Za-z])[A-Za-z]{1,2}\s?-|\})\s?[({]*$")
_LETTERS_BEHIND = re.compile(rf"(?!{_UNITS}|[sm](?![A-Za-z]))[A-Za-z]{{1,3}}(?![A-Za-z])")
_AMOUNT = re.compile(
    rf"[-+\u2212]?\\?[$\u20ac\u00a3\u00a5\u20b9]?\s?[-+\u2212]?[\d.,/]+\s?\\?%?(?:\s?{_UNITS}[A-Za-z\s/]*|\s(?!(?:and|or)\b)[A-Za-z][A-Za-z\s.'/-]*)"
)
"""A number with a unit or with words behind it."""

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
    (re.compile(r"(?<=\d)(?:\\[,;: ]|~|[\u2009\u202f])(?=\d{3}(?!\d))"), ""),
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
    alone = None if markers or require_marker else _formula(said)
    if alone is not None:
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


def stated_reference(text: str) -> str | None:
    r"""The answer that a reference states: read as a whole where it is no solution with a box or another marker.

    Nothing is picked out of the middle: a number with a unit or words behind it is one, and a text with one formula in
    an environment and no other digits; of anything else, such as ``Case 2 has no solution``, it is None.

    Examples:
        >>> stated_reference("2 or 3"), stated_reference("18 eggs"), stated_reference("Case 2 has no solution")
        ('\\boxed{2} and \\boxed{3}', '18', None)
    """
    said = part_of(text, "final")
    if said is None or _BOX.search(said) or _MARKER.search(said):
        return final_answer(text)
    whole = _formula(said)
    if whole is not None:
        return whole
    if _AMOUNT.fullmatch(said.strip()):
        number = stated_number(said)
        return None if number is None else str(number)
    formulas = list(_ENVIRONMENT.finditer(said))
    if len(formulas) != 1 or re.search(r"[\d\\]", said[: formulas[0].start()] + said[formulas[0].end() :]):
        return None
    return _inside(formulas[0]) if _is_formula(_inside(formulas[0]), inside=True) else None


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
    return _together(contents)


def _stated(text: str, start: int, end: int) -> str | None:
    """What stands behind a marker: in an environment, else on the line."""
    environment = _ENVIRONMENT.match(text, start, end)
    if environment and _WORD_INSIDE.search(_inside(environment)) and environment[0].startswith("$"):
        environment = None  # two prices
    if environment:
        found = [_inside(environment)]
        while len(found) < MOST_BOXES and (between := _BETWEEN_FORMULAS.match(text, environment.end(), end)):
            environment = _ENVIRONMENT.match(text, between.end(), end)
            if environment is None:
                break
            found.append(_inside(environment))
        return _together(found)
    line = text[start:end].partition("\n")[0].partition("</answer>")[0]
    whole = _formula(line) or _formula(line.partition(". ")[0])
    if whole is not None:
        return whole
    first = _formula(_SENTENCE_END.split(line)[0])
    if first is not None:
        return first
    environment = next((one for one in _ENVIRONMENT.finditer(line) if _is_formula(_inside(one), inside=True)), None)
    if environment and not re.search(r"\d", line[: environment.start()]):
        return _inside(environment)
    digits = _DIGITS.search(line)
    number = None if digits is None or _attached(digits) else stated_number(f"answer: {line}")
    return None if number is None else str(number)


def _last(text: str) -> str | None:
    """The last formula or number of a text that marks nothing."""
    formulas = [one for one in _ENVIRONMENT.finditer(text) if _is_formula(_inside(one), inside=True)]
    if formulas and not re.search(r"\d", text[formulas[-1].end() :]):
        return _inside(formulas[-1])
    digits = max(_DIGITS.finditer(text), key=re.Match.end, default=None)
    number = stated_number(text) if digits is None or not _attached(digits) else None
    return None if number is None else str(number)


def _attached(digits: re.Match[str]) -> bool:
    """Whether a number is a part of a formula, as in 2xy and ab + 1, and so no answer of its own."""
    text = digits.string
    before = text[max(0, digits.start() - 12) : digits.start()]
    return bool(_OPERATOR_BEFORE.search(before) or _LETTERS_BEHIND.match(text, digits.end()))


def _inside(environment: re.Match[str]) -> str:
    return next(content for content in environment.groups() if content is not None).strip()


def _formula(text: str) -> str | None:
    """A text that is a formula, or several with "and" or "or" between them, which are one answer; else None."""
    bare, inside = _bare(text)
    if bare is None or _is_formula(bare, inside=inside):
        return bare
    parts = [_bare(part) for part in _ALTERNATIVE.split(bare[:_LONGEST_LIST])]
    if len(bare) > _LONGEST_LIST or not 1 < len(parts) <= MOST_BOXES:
        return None
    each = [part for part, within in parts if part is not None and _is_formula(part, inside=within)]
    return _together(each) if len(each) == len(parts) else None


def _together(formulas: list[str]) -> str:
    """Several formulas as one answer."""
    return formulas[0] if len(formulas) == 1 else " and ".join(f"\\boxed{{{formula}}}" for formula in formulas)


def _bare(text: str) -> tuple[str | None, bool]:
    """Without emphasis, the stop of a sentence and the signs of an environment around all of it; if it had these."""
    text = text.strip().strip("*_`").strip()
    text = text[:-1].rstrip() if text.endswith((".", ",", ";")) else text
    text = text.strip("*_`").strip()
    environment = _ENVIRONMENT.fullmatch(text)
    text = _inside(environment) if environment else text
    return text or None, environment is not None


def _is_formula(text: str, *, inside: bool = False) -> bool:
    """Whether a text is mathematics and no prose: but for names that LaTeX knows there is no word in it.

    Args:
        text: What is to be judged.
        inside: Whether it stands in the signs of an environment.
    """
    if "\n\n" in text or not any(map(str.isalnum, text.translate(_SIGNS))):
        return False
    return (_WORD_INSIDE if inside else _WORD).search(_NAMED.sub("#", _SUPERSCRIPT.sub("#", text))) is None


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
