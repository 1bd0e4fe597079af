"""Reads the number that a text states as its answer, exactly: no floats."""

from __future__ import annotations

import re
from fractions import Fraction

from flux_rewards.rewards.text.parts import braced

__all__ = ["only_number", "stated_number"]

# Longer numbers are no answers, and 1e999999999 must not fill the memory.
_MAX_CHARACTERS = 1000
_MAX_EXPONENT = 1000

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_VULGAR = {
    "½": "1/2",
    "⅓": "1/3",
    "⅔": "2/3",
    "¼": "1/4",
    "¾": "3/4",
    "⅕": "1/5",
    "⅛": "1/8",
    "⅜": "3/8",
    "⅝": "5/8",
    "⅞": "7/8",
}
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_PLAINER = (
    (re.compile(r"\\(?:text|mbox|mathrm|textrm|mathbf|textbf|textit)\s?\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:left|right|displaystyle)\b|\\[,!;: ()\[\]]|\^\s?\{?\\circ\}?|°"), ""),
    (re.compile(r"(?<=\d)\s?(?=\\[dt]?frac)"), " "),
    (re.compile(r"\\[dt]?frac\s?\{([-+\u2212]?[\d.,]+)\}\s?\{([\d.,]+)\}"), r"\1/\2"),
    (re.compile(r"\\[dt]?frac\s?(\d)(\d)"), r"\1/\2"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([$%€£])"), r"\1"),
    (re.compile(r"\\(?:times|cdot)\b"), "\u00d7"),
    (re.compile(r"([\^_])\{([^{}]*)\}"), r"\1\2"),
    (re.compile(r"(?<=\d) ?/ ?(?=\d)"), "/"),
)
_SUPERSCRIPT = re.compile(r"(?<=\d)[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_FRACTION_SIGN = re.compile(f"(\\d?)([{''.join(_VULGAR)}])")

# The longest run that looks like a number; whether it is one is decided afterwards, so that a part of 1.2.3, of 3,5 or
# of 12/25/2024 is never taken for the number.
_RUN = re.compile(
    r"""
    (?P<function> \\(?:sqrt(?:\[\d+\])?|(?:log|ln|sin|cos|tan|exp|[dt]?frac)\b)\s?[{(]? | √ )?
    (?P<sign> (?: (?<![A-Za-z\d_)\]}%]) [-+\u2212] )? (?: [$€£¥₹][ ]? [-+\u2212]? )? )
    (?<![A-Za-z\d_^]) (?<!\d[.,:/])
    (?P<run> \d[\d,]*[ ]\d+/\d+(?![/:.,]?\d) | \d(?:[\d.,:/]*\d)? | (?<!\.)\.\d+ )
    (?: [eE](?P<e>[-+\u2212]?\d+)
      | [ ]?[\u00d7x*·][ ]?10[ ]?\^[ ]?\(?(?P<ten>[-+\u2212]?\d+)\)?
      | \^(?P<power>[-+\u2212]?\d+) )?
    (?: [ ]{0,2}(?P<scale>(?i:hundred|thousand|million|billion|trillion))\b )?
    (?P<after> [ ]?(?:\\pi\b|π|\\sqrt\b|√) | \^ )?
    """,
    re.VERBOSE,
)
_DECIMAL = re.compile(r"(?:\d+|(?!0)\d{1,3}(?:,\d{3})+)(?:\.\d+)?|\.\d+")

_OPERATORS = r"-+\u2212*\u00d7÷·x/"
_CALCULATED = re.compile(rf"[\s)%]*(?:[{_OPERATORS}][\s\d.,()$€£¥₹%<>]*)+=")
_OPERATION = re.compile(rf"[\s)%]*[{_OPERATORS}][\s($€£¥₹]*\d")
_OPERAND = re.compile(rf"[\d)%][ ]?[{_OPERATORS}][ ]?[$€£¥₹(]?$")

_MARKER = re.compile(
    r"""
      (?P<boxed> \\(?:boxed|fbox)\b\s? )
    | (?P<label> ^[ \t>*_]{0,8} A [*_]{0,3} : )
    | \#\#\#\# (?= \s*[-+\u2212$€£*_\\(]{0,4}\.?\d (?!\d*[.)]\s+\S) | \s*\Z )
    | <answer>
    | \b(?i:answer) [ \t*_]{0,4} (?: is\b(?!\s+not\b) | [:=] )
    """,
    re.VERBOSE | re.MULTILINE,
)


def stated_number(text: str, *, require_marker: bool = False) -> Fraction | None:
    """The number that a text states as its answer, or None where it states none.

    `NumericAnswerReward` tells the rules.

    Examples:
        >>> stated_number("She pays 3 x 6.15 = $18.45.")
        Fraction(369, 20)
    """
    markers = list(_MARKER.finditer(text))
    end = len(text)
    for marker in reversed(markers):
        if marker["boxed"]:
            return _boxed_number(text, marker.end())
        line = text[marker.end() : end].lstrip().partition("\n")[0]
        if not line and end == len(text):
            return None  # cut off before the answer
        number = _result(_plain(line))
        if number is not None or marker["label"]:
            return _value(number)
        end = marker.start()  # "the answer is obvious": no marker, but prose
    return None if require_marker else _last_number(_plain(text))


def _boxed_number(text: str, start: int) -> Fraction | None:
    if not text.startswith("{", start):
        return _value(_result(_plain(text[start:].partition("\n")[0])))
    boxed = braced(text, start)
    return None if boxed is None else only_number(boxed)  # cut off inside


def only_number(text: str) -> Fraction | None:
    """The one number that a box or an item of a list holds, None where it holds several: no answer, but a choice.

    Examples:
        >>> only_number("x = 3 km"), only_number("1 or 2 or 3")
        (Fraction(3, 1), None)
    """
    content = _plain(text)
    number = _result(content)
    alone = number is not None and _RUN.search(content, number.end()) is None
    return _value(number) if alone else None


def _result(line: str) -> re.Match[str] | None:
    """The first number of a line; of a calculation written out, what stands behind its last equals sign."""
    number = _RUN.search(line)
    while number is not None and (calculated := _CALCULATED.match(line, number.end())):
        number = _RUN.search(line, calculated.end())
    return number


def _last_number(text: str) -> Fraction | None:
    last = max(_RUN.finditer(text), key=re.Match.end, default=None)
    if last is None or _OPERAND.search(text, max(0, last.start() - 8), last.start()):
        return None  # "5 * 1" and no more: an operand is not a result
    return _value(last)


def _plain(text: str) -> str:
    if any(sign in text for sign in "\\^/{°"):
        for pattern, plainer in _PLAINER:
            text = pattern.sub(plainer, text)
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
        text = _FRACTION_SIGN.sub(lambda found: f"{found[1]} {_VULGAR[found[2]]}".strip(), text)
    return text


def _value(found: re.Match[str] | None) -> Fraction | None:
    if found is None or found["function"] or found["after"] or len(found[0]) > _MAX_CHARACTERS:
        return None
    if _OPERATION.match(found.string, found.end()):
        return None  # 5 * 4, or 10-12: nothing is evaluated here
    exponent = int((found["e"] or found["ten"] or found["power"] or "0").replace("\u2212", "-"))
    value = Fraction(1) if found["power"] and found["run"] == "10" else _fraction(found["run"])
    if value is None or abs(exponent) > _MAX_EXPONENT or (found["power"] and found["run"] != "10"):
        return None
    value *= Fraction(10) ** exponent * _SCALES.get((found["scale"] or "").lower(), 1)
    return -value if set(found["sign"]) & {"-", "\u2212"} else value


def _fraction(run: str) -> Fraction | None:
    whole, _, part = run.rpartition(" ")
    top, slash, bottom = part.partition("/")
    numbers = [_decimal(number) for number in (whole or "0", top, bottom if slash else "1")]
    units, numerator, denominator = numbers
    if units is None or numerator is None or not denominator:
        return None
    value = numerator / denominator
    return None if whole and value >= 1 else units + value


def _decimal(number: str) -> Fraction | None:
    return Fraction(number.replace(",", "")) if _DECIMAL.fullmatch(number) else None
