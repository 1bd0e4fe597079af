r"""What of a text is in a language: all but code, formulas, tags and addresses, and the sentences within those."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Prose", "letters_in", "prose_of"]

# What goes up to a closing delimiter, over several lines; where none follows, the delimiter hides itself alone.
_LONG = r"`{3,}|~{3,}|\$\$|\\\[|\\\(|\\begin\{\w+\*?\}"
_CLOSING = re.compile(r"`{3,}|~{3,}|\$\$|\\\]|\\\)|\\end\{\w+\*?\}")
_STRETCH = re.compile(
    rf"(?P<opening>{_LONG})"
    r"|`[^`\n]*`"
    # One line, and no space inside the signs, as for pandoc: "$5 and $6" are prices.
    r"|(?<![\\$])\$(?![\s$])[^$\n]*?(?<![\s\\])\$(?!\d)"
    r"|\\boxed\{[^{}]*\}|\\[a-zA-Z]+"
    # ASCII alone, so that no text without spaces goes along with an address.
    r"|(?:https?://|www\.)[!-~]+|(?<![\w.+-])[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}"
    # <think>, </p>, <|end|>, <a href="...">: words that are no attribute are a sentence in angle brackets.
    r"|</?[A-Za-z_|][\w:.|-]{0,60}(?:\s{1,4}[\w:-]{1,40}=(?:\"[^\"<>\n]{0,200}\"|'[^'<>\n]{0,200}'|[^\s\"'<>]{1,200})){0,20}\s?/?>",
)
_LETTERS = re.compile(r"[^\W\d_]+")
# Two letters or more of a script that neither formulas nor programs are written in (they are in Latin and Greek).
_OTHER_SCRIPT = re.compile(r"[^\W\d_\u0000-\u03ff\u1e00-\u214f\U0001d400-\U0001d7ff][^\s!-~]+")
# Five words or more with nothing but spaces between them: a program and a formula have signs there.
_WORD = r"[^\W\d_](?:[^\W\d_]|['\u2019])*"
_SENTENCE = re.compile(rf"(?<![^\W_])(?<!\\){_WORD}(?:[,.!?]?[ \t]+{_WORD}){{4,}}")
_CODE_SIGN = re.compile(r"[=(){}\[\];<>_#\"$&|@/\\+*:\d]")

_FREE = 150
"""So many letters of different words may be left out of any text, such as in an address or a list of commands."""


class Prose(NamedTuple):
    """The part of a text that is judged."""

    text: str
    left_out: int
    """How many letters are not in it."""


def letters_in(text: str) -> int:
    """How many letters there are; digits, marks and signs are none.

    Examples:
        >>> letters_in("24 hours, 365 días")
        9
    """
    return sum(map(len, _LETTERS.findall(text)))


def prose_of(text: str) -> Prose:
    r"""A text without code, formulas, tags and addresses: what stands between their delimiters.

    What a policy could hide there stays: sentences (five words in a row), and words in a script that is not that of
    code and formulas. What goes is bounded: where its different words outside of code have more letters than all that
    stays, and more than 150, nothing goes. A delimiter without its counterpart hides nothing but itself.

    Examples:
        >>> prose_of("Add $x + y$ and `z`.")
        Prose(text='Add   and  .', left_out=3)
        >>> prose_of("Add $$ these numbers.").left_out, prose_of(r"So \[ \text{答案} = x \]").text
        (0, 'So  答案 ')
    """
    kept: list[str] = []
    hidden: set[str] = set()  # different words, as a formula may have one command a hundred times
    end = 0
    for start, stop, is_code in _stretches(text):
        kept.append(text[end:start])
        end = stop
        stretch = text[start:stop]
        if is_code:  # has many words; but not in lines that have no sign of a program
            hidden.update(*(_LETTERS.findall(line) for line in stretch.split("\n") if not _CODE_SIGN.search(line)))
        else:
            hidden.update(_LETTERS.findall(stretch))
        kept.extend([" ", *_sentences(stretch)])
    judged = "".join([*kept, text[end:]])
    if sum(map(len, hidden)) > max(_FREE, letters_in(judged)):
        judged = text
    return Prose(judged, max(0, letters_in(text) - letters_in(judged)))


def _sentences(stretch: str) -> Iterator[str]:
    """What is said within code, a formula, a tag or an address."""
    for found in _SENTENCE.finditer(stretch):
        yield f"{found[0]}\n"
    for found in _OTHER_SCRIPT.finditer(_SENTENCE.sub("\n", stretch)):
        yield f"{found[0]} "


def _stretches(text: str) -> Iterator[tuple[int, int, bool]]:
    """Start, end, and whether it is a block of code."""
    # Where each closing delimiter stands last, so that none is looked for in vain, again and again.
    last = {found[0]: found.start() for found in _CLOSING.finditer(text)}
    position = 0
    while (found := _STRETCH.search(text, position)) is not None:
        start, position = found.span()
        opening = found["opening"]
        if opening:
            closing = _closing(opening)
            if last.get(closing, -1) >= position:
                position = text.index(closing, position) + len(closing)
        yield start, position, opening is not None and opening[0] in "`~"


def _closing(opening: str) -> str:
    if opening.startswith("\\begin"):
        return "\\end" + opening.removeprefix("\\begin")
    return {"\\[": "\\]", "\\(": "\\)"}.get(opening, opening)
