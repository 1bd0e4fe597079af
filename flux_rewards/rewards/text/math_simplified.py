r"""Whether an answer is worked out: ``\boxed{3+4}`` is the question, 7 is the answer."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache

from flux_rewards.rewards.text.math_limits import MOST_CHARACTERS

__all__ = ["unsimplified"]

_FUNCTION = r"(?:arc|ar)?(?:sin|cos|tan|cot|sec|csc)h?|log|ln|lg|arg|Re|Im|Gamma|zeta"
_D = r"(?:\\mathrm\s?\{d\}|d|\\partial)"
_ALWAYS = {
    "a sum": r"\\(?:sum|bigoplus)(?![A-Za-z])|\u2211",
    "a product": r"\\prod(?![A-Za-z])|\u220f",
    "an integral": r"\\(?:i{1,4}nt|oint)(?![A-Za-z])|\u222b",
    "a limit": r"\\lim(?:sup|inf)?(?![A-Za-z])",
    "a derivative": rf"\\[dt]?frac\s*\{{\s*{_D}[^{{}}]*\}}\s*\{{\s*{_D}\s*[A-Za-z]",
    "a rounding": r"\\l(?:floor|ceil)(?![A-Za-z])|[\u230a\u2308]|(?<![A-Za-z])(?:floor|ceil|round)\s*\(",
    "a divisor or multiple": r"\\(?:gcd|lcm)(?![A-Za-z])|(?<![A-Za-z])(?:gcd|lcm)\}?\s*(?:\\left)?\s*\(",
    "a remainder": r"\\(?:bmod|mod)(?![A-Za-z])|(?<![A-Za-z])mod(?![A-Za-z])",
    "an extremum": r"\\(?:max|min|sup|inf)(?![A-Za-z])|(?<![A-Za-z])(?:max|min)\}?\s*(?:\\left)?\s*(?:\(|\\\{)",
    "a determinant": r"\\det(?![A-Za-z])|\{[vV]matrix\}",
    "a function": rf"\\(?:{_FUNCTION})(?![A-Za-z])|(?<![A-Za-z\\])(?:{_FUNCTION})\}}?\s*(?:\\left)?\s*\(",
}
"""What a reference must have for an answer to have it."""
_KINDS = {name: re.compile(pattern) for name, pattern in _ALWAYS.items()}

_NUMERAL = r"\d+(?:\.\d+)?|\.\d+"
_CLEANED = (
    (re.compile(r"\\(?:left|right|displaystyle|textstyle|[bB]igg?[lr]?|limits)(?![A-Za-z])|\\[!]"), ""),
    (re.compile(r"\\(?:mathbf|boldsymbol|bm|textbf|underline)\s?(?=\{)"), ""),
    (re.compile(r"\\(?:text|mbox|textrm|mathrm)\s?\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z])(?:and|or)(?![A-Za-z])"), ";"),
    (re.compile(r"\\(?:text|mbox|textrm|mathrm|textit|operatorname\*?)\s?\{[^{}\d]*\}"), r"\\unit "),
    (re.compile(r"\\(?:text|mbox|textrm|mathrm|textit|operatorname\*?)\s?(?=\{)"), ""),
    (re.compile(r"\\(?:begin|end)\s?\{[^{}]*\}|\\\\|&"), ";"),
    (re.compile(r"\^\s?(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree(?![A-Za-z])|\\?[%$\u20ac\u00a3\u00a5]"), " "),
    (re.compile(r"\\[,;: ]|~|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"(?<=\d)(?:\{,\}|,)(?=\d{3}(?!\d))|(?<=\d)\s(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\[{]"), "["),
    (re.compile(r"\\[}]"), "]"),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])|[\u00d7\u00b7]"), "*"),
    (re.compile(r"\\div(?![A-Za-z])|\u00f7|(?<=\d)\s*:\s*(?=\d)"), "/"),
    (re.compile(r"\\(?:pm|mp)(?![A-Za-z])|\u00b1"), "+"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*(?=\{)"), r"\\frac{\1}"),
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d)"), r"\1{\2}"),
    (re.compile(r"\\[lr]?vert(?![A-Za-z])"), "|"),
    # Powers of ten are a way to write a number.
    (re.compile(r"(?<=\d)\s*\*\s*10\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d+)"), ""),
    (re.compile(r"(?<![\d.])10\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d+)"), "10"),
    (re.compile(r"_\s*(?:\{[^{}]*\}|\\[A-Za-z]+|.)"), " "),
    # A number in brackets is that number.
    (re.compile(rf"(?<![A-Za-z])\(\s*([-+]?(?:{_NUMERAL}))\s*\)"), r" \1 "),
    (re.compile(rf"(?<![A-Za-z^}}])\{{\s*([-+]?(?:{_NUMERAL}))\s*\}}"), r" \1 "),
)
_TOKEN = re.compile(rf"\\[A-Za-z]+|\\.|{_NUMERAL}|\S")
_BETWEEN = re.compile(
    r"\\(?:cup|cap|in|notin|l[et]q?|g[et]q?|neq?|leqslant|geqslant|to|approx|equiv|sim|setminus|mid|land|lor|wedge|vee|"
    r"frac|sqrt|binom|implies|Rightarrow|rightarrow|colon|text|log|ln|lg|(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?)"
)
"""Commands after which a sign belongs to what follows."""
_RELATION = re.compile(r"[=<>\u2248]|\\(?:approx|equiv|in|l[et]q?|g[et]q?|neq?|leqslant|geqslant|sim)(?![A-Za-z])")
_UNIT = re.compile(r"(?<=\d)\s*[A-Za-z]{2,}\s*$")
_FRACTION = re.compile(rf"\\frac\s*(?:\{{\s*([-+]?(?:{_NUMERAL}))\s*\}}\s*\{{\s*([-+]?(?:{_NUMERAL}))\s*\}})")
_QUOTIENT = re.compile(rf"(?<![\d.^])({_NUMERAL})\s*/\s*[-+]?\s*({_NUMERAL})")
_NESTED = re.compile(r"\\frac\s*\{[-+\d\s.*/()]*\\frac|\\frac\s*\{[-+\d\s.*/()]*\}\s*\{[-+\d\s.*/()]*\\frac")
_SIGNS_TOGETHER = re.compile(r"[-+][\s({]*[-+]")
_MULTIPLIED = re.compile(r"\d[\s)}\]]*\*[\s({\[]*(?:[-+]\s*)?(?:\\frac\s*\{\s*[-+]?)?[\s({]*[\d.]")
_SIDE_BY_SIDE = re.compile(rf"(?:{_NUMERAL})\s+(?=\.?\d)|\d\s*\}}\s*(?:\\frac\s*\{{\s*)?(?=\d)")
_MIXED = re.compile(r"(?<![\d.])\d+\s*(?=\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\})")
_BEFORE_FRACTION = re.compile(r"\d\s*\\frac\s*\{\s*[-+]?\d")


def unsimplified(answer: tuple[str, ...], reference: tuple[str, ...]) -> str | None:
    r"""What an answer leaves to be computed that the reference doesn't, in a few words; None where it leaves nothing.

    `MathReward` tells the rules. Judges the texts alone, in time that grows with their length.

    Args:
        answer: LaTeX formulas, as `formulas_of` gives them.
        reference: LaTeX formulas, too.

    Examples:
        >>> unsimplified(("3+4",), ("7",)), unsimplified((r"\int_0^7 1 dx",), ("7",)), unsimplified(("14/2",), ("7",))
        ('addition', 'an integral', 'a quotient that is not in lowest terms')
        >>> [unsimplified((text,), ("x+1",)) for text in (r"3\frac{1}{2}", r"-2\sqrt{3}", "1+x")]
        [None, None, None]
    """
    length = sum(map(len, answer))
    if length > max(MOST_CHARACTERS, sum(map(len, reference))):
        return f"{length} characters"
    wanted, numeric = _asked(reference)
    given = _operations(answer)
    for kind in given:
        if (kind in _KINDS and not wanted[kind]) or (numeric and kind not in _KINDS and given[kind] > wanted[kind]):
            return kind
    return None


@lru_cache(maxsize=1024)
def _asked(reference: tuple[str, ...]) -> tuple[Counter[str], bool]:
    """The operations in a reference, and whether it is made of numbers; a group of responses shares it."""
    return _operations(reference), not any(_has_letters(part) for formula in reference for part in _sides(formula))


def _operations(formulas: tuple[str, ...]) -> Counter[str]:
    found: Counter[str] = Counter()
    for formula in formulas:
        for name, pattern in _KINDS.items():
            found[name] += len(pattern.findall(_last_sides(formula)))
        for side in _sides(formula):
            found += _arithmetic(side)
    return +found


def _arithmetic(side: str) -> Counter[str]:
    """The operations on numbers in one side of a formula that is cleaned."""
    found: Counter[str] = Counter()
    operand, before = False, ""
    for sign in _TOKEN.findall(side):
        if sign in ("+", "-") and operand:
            found["addition"] += 1
        elif sign == "!" and operand:
            found["a factorial"] += 1
        elif sign == "^" and not (before.isalpha() and before not in ("e", "i")) and before != r"\unit":
            found["a power or root"] += not _BETWEEN.fullmatch(before)  # \sin^2 x is a function
        elif sign in ("\\sqrt", "\u221a", "\\exp"):
            found["a power or root"] += 1
        elif sign in ("\\binom", "\\dbinom", "\\tbinom"):
            found["a factorial"] += 1
        operand = sign[-1] in ")]}!|" or sign[0].isalnum() or (sign[0] in "\\." and not _BETWEEN.fullmatch(sign))
        before = sign
    found["addition"] += len(_SIGNS_TOGETHER.findall(side))
    found["an absolute value"] += side.count("|") // 2
    quotients = [match.groups() for match in _FRACTION.finditer(side)]
    quotients += [match.groups() for match in _QUOTIENT.finditer(side)]
    loose = sum(not _lowest_terms(above, below) for above, below in quotients) + len(_NESTED.findall(side))
    found["a quotient that is not in lowest terms"] += loose
    mixed = sum(int(match[1]) < int(match[2]) for match in _MIXED.finditer(side) if len(match[0]) < 1000)
    found["multiplication"] += len(_MULTIPLIED.findall(side)) + len(_SIDE_BY_SIDE.findall(side))
    found["multiplication"] += max(0, len(_BEFORE_FRACTION.findall(side)) - mixed)
    return +found


def _lowest_terms(above: str, below: str) -> bool:
    if "." in above + below or len(above) + len(below) > 4000:
        return False
    return abs(int(below)) != 1 and math.gcd(int(above), int(below)) == 1


def _sides(formula: str) -> list[str]:
    """Of each part between commas what stands behind its last relation sign: ``x = 3+4 = 7`` says 7."""
    for pattern, cleaner in _CLEANED:
        formula = pattern.sub(cleaner, formula)
    return [_RELATION.split(part)[-1] for part in re.split(r"[,;]", formula)]


def _last_sides(formula: str) -> str:
    """Without the left sides of equations; an equals sign within brackets, as below a sum, is none."""
    kept, depth, start = [], 0, 0
    for place, sign in enumerate(formula):
        depth += (sign in "{([") - (sign in "})]")
        if depth <= 0 and sign == "=":
            start = place + 1
        elif depth <= 0 and sign in ",;":
            kept.append(formula[start:place])
            start = place + 1
    return " ; ".join([*kept, formula[start:]])


def _has_letters(side: str) -> bool:
    r"""Whether there are letters other than e, i and a unit at the end: what ``x+1`` has, and ``2\sqrt{3}`` has not."""
    return (
        re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+|(?<![A-Za-z])[ei](?![A-Za-z])", "", _UNIT.sub("", side)))
        is not None
    )
