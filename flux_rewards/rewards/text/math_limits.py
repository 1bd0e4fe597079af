r"""What a formula may hold before it is given to computer algebra: sizes alone say that some would never end."""

from __future__ import annotations

import math
import re

__all__ = ["over_limit"]

MOST_CHARACTERS = 4096
MOST_NESTING = 20
"""The parser's time grows with a high power of it."""
MOST_DIGITS = 256
"""Of one literal."""
MOST_TERMS = 512
"""Numbers, letters, commands and operators."""
MOST_POWER_DIGITS = 4096
"""Of the value of a power of numbers."""
HIGHEST_POWER = 128
"""Of a sum with letters in it, which may be multiplied out."""
HIGHEST_FACTORIAL = 5_000
HIGHEST_INDEX = 10_000
"""Of a sum, a product or a binomial coefficient."""

_TERM = re.compile(r"\\[A-Za-z]+|\d+(?:\.\d+)?|[^\W\d_]|[-+*/^=<>!|]")
_LITERAL = re.compile(r"\d+")
_OPEN, _CLOSE = "({[", ")}]"
_POWER = re.compile(r"(?P<base>\d+(?:\.\d+)?|[)\]}]|[A-Za-z])\s*\^\s*")
_FACTORIAL = re.compile(r"(\d+|[)\]}])\s*!(\s*!)?")
_INDEXED = re.compile(r"\\(?:sum|prod|binom|dbinom|tbinom|bigcup|bigcap)(?![A-Za-z])")


def over_limit(formula: str) -> str | None:
    r"""Why a formula is not to be computed, or None where nothing speaks against it.

    Judges the text alone, in time that grows with its length; what passes may still take for ever.

    Examples:
        >>> over_limit(r"9^{9^{9}}")
        'a tower of powers with the exponent 9^{9}'
        >>> over_limit(r"e^{x^2} + 2^{2024}")
    """
    if len(formula) > MOST_CHARACTERS:
        return f"{len(formula)} characters, at most {MOST_CHARACTERS}"
    depth = deepest = 0
    for sign in formula:
        depth += (sign in _OPEN) - (sign in _CLOSE)
        deepest = max(deepest, depth)
    if deepest > MOST_NESTING:
        return f"brackets {deepest} deep, at most {MOST_NESTING}"
    digits = max((len(literal) for literal in _LITERAL.findall(formula)), default=0)
    if digits > MOST_DIGITS:
        return f"a number of {digits} digits, at most {MOST_DIGITS}"
    terms = len(_TERM.findall(formula))
    if terms > MOST_TERMS:
        return f"{terms} terms, at most {MOST_TERMS}"
    plain = formula.replace(r"\left", "").replace(r"\right", "").replace("{,}", "").replace(r"\!", "")
    return _powers(plain) or _factorials(plain) or _indices(plain)


def _powers(formula: str) -> str | None:
    for power in _POWER.finditer(formula):
        exponent = _argument(formula, power.end())
        value = _whole(exponent)
        if "^" in exponent and not re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", exponent)):
            value = _tower(exponent)
            if value is None:
                return f"a tower of powers with the exponent {exponent[:40]}"
        if value is None:
            continue
        base = power["base"]
        group = _group_before(formula, power.start()) if base in _CLOSE else base
        if formula[: power.start() + 1 - len(group)].rstrip().endswith("_"):
            continue  # the upper end of a sum
        if base[0].isdigit() or not re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", group)):
            longest = max((len(literal) for literal in _LITERAL.findall(group)), default=1)
            if abs(value) * longest > MOST_POWER_DIGITS:
                return f"the power {value} of a number: more than {MOST_POWER_DIGITS} digits"
        elif base in _CLOSE and abs(value) > HIGHEST_POWER:
            return f"the power {value} of an expression, at most {HIGHEST_POWER}"
        elif abs(value) > MOST_POWER_DIGITS:
            return f"the power {value}, at most {MOST_POWER_DIGITS}"
    return None


def _tower(text: str) -> int | None:
    """The value of powers of plain numbers, taken from the right; None where it is too large, or anything else."""
    numbers = re.split(r"\^", re.sub(r"[{}()\s]", "", text))
    if not all(number.isdigit() and len(number) <= 4 for number in numbers):
        return None
    value = 1
    for number in reversed(numbers):
        base = int(number)
        if base > 1 and value * math.log10(base) > 4:
            return None
        value = base**value
    return value


def _factorials(formula: str) -> str | None:
    for factorial in _FACTORIAL.finditer(formula):
        of = factorial[1]
        group = _group_before(formula, factorial.start()) if of in _CLOSE else of
        if "!" in group:
            return "the factorial of a factorial"
        highest = max((int(literal) for literal in _LITERAL.findall(group)), default=0)
        if highest > HIGHEST_FACTORIAL or ("^" in group and highest > 1):
            return f"the factorial of {group[:40]}, at most of {HIGHEST_FACTORIAL}"
    return None


def _indices(formula: str) -> str | None:
    if _INDEXED.search(formula):
        highest = max((int(literal) for literal in _LITERAL.findall(formula)), default=0)
        if highest > HIGHEST_INDEX:
            return f"a sum, product or binomial up to {highest}, at most {HIGHEST_INDEX}"
    return None


def _argument(formula: str, start: int) -> str:
    """What an exponent is: a group in braces, else the next sign; a plain number as a whole, as people mean it."""
    if start < len(formula) and formula[start] in "{(":
        depth = 0
        for place in range(start, len(formula)):
            depth += (formula[place] in _OPEN) - (formula[place] in _CLOSE)
            if depth == 0:
                return formula[start + 1 : place]
        return formula[start + 1 :]
    number = re.compile(r"-?\d+").match(formula, start)
    return number[0] if number else formula[start : start + 1]


def _group_before(formula: str, end: int) -> str:
    """The group that closes at `end`."""
    depth = 0
    for place in range(end, -1, -1):
        depth += (formula[place] in _CLOSE) - (formula[place] in _OPEN)
        if depth == 0:
            return formula[place : end + 1]
    return formula[: end + 1]


def _whole(text: str) -> int | None:
    text = text.strip().replace(",", "")
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else None
