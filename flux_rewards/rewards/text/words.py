"""Whole words and phrases in a text: the one place that decides what counts as an occurrence."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from flux_rewards.errors import ConfigError
from flux_rewards.validation import texts

__all__ = ["UNSPACED", "Keywords", "good_and_bad"]

# Scripts that put no space between words: CJK with kana, Thai and Lao, Myanmar, Khmer, CJK extensions.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = re.compile(rf"[^\W{UNSPACED}]")
# Marks of these scripts, and the selectors that follow hearts and other signs: what is next to them is another word.
_NO_LETTERS_MARK = re.compile(f"[{UNSPACED}\ufe00-\ufe0f]")


class _Keyword(NamedTuple):
    text: str
    needle: str
    pattern: re.Pattern[str]
    begins: bool
    """Whether it begins with a part of a word, so that none may stand before it."""
    ends: bool

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Of each occurrence in the text."""
        for found in self.pattern.finditer(text):
            start, end = found.span(1)
            # Asked here: with all these characters in the pattern it would take long to compile.
            within = self.begins and start > 0 and _in_word(text[start - 1])
            if not within and not (self.ends and end < len(text) and _in_word(text[end])):
                yield start, end


class Keywords:
    """Words and phrases to be found as wholes.

    Where a keyword begins or ends with a letter, digit or underscore, the text must not go on with another one
    there: ``cat`` is not in ``concatenate``, but it is in ``cat's`` and ``cat-like``. Accents and vowel signs that
    combine with a letter go on with it. Where it begins or ends with anything else, such as ``C++`` or ``.NET``, any
    neighbour will do on that side. The same goes for scripts that put no space between words (Chinese, Japanese, Thai,
    Lao, Khmer, Burmese): there a keyword is found anywhere.
    Korean puts spaces, so a noun with a particle is another word. The words of a phrase may be separated by any
    whitespace.

    Does not stem, and does not normalise Unicode: ``cats`` is not ``cat``, and a composed accent is not a combining
    one.

    Examples:
        >>> Keywords(["cat", "C++"], ignore_case=True).present("Concatenate in c++.")
        ['C++']
    """

    def __init__(self, words: Sequence[str], *, ignore_case: bool) -> None:
        self.words = list(words)
        self.ignore_case = ignore_case
        self._keywords = [_keyword(word, ignore_case=ignore_case) for word in words]

    def present(self, text: str) -> list[str]:
        """The keywords that occur in the text."""
        folded = self._fold(text)
        return [
            keyword.text
            for keyword in self._keywords
            if keyword.needle in folded and next(keyword.spans(text), None) is not None
        ]

    def spans(self, text: str, *, first_only: bool = False) -> Iterator[tuple[int, int]]:
        """The (start, end) characters of every occurrence, of overlapping ones too; or of each keyword's first.

        Examples:
            >>> list(Keywords(["ha ha"], ignore_case=False).spans("ha ha ha"))
            [(0, 5), (3, 8)]
        """
        folded = self._fold(text)
        for keyword in self._keywords:
            if keyword.needle in folded:
                yield from itertools.islice(keyword.spans(text), 1 if first_only else None)

    def _fold(self, text: str) -> str:
        return text.casefold() if self.ignore_case else text


def good_and_bad(good: Any, bad: Any, reward: str, *, ignore_case: bool) -> tuple[Keywords, Keywords]:
    """Two lists of keywords, checked.

    Raises:
        ConfigError: Both lists are empty, a keyword is blank, or one is listed twice or in both.

    Examples:
        >>> good, bad = good_and_bad(["because"], [], "keyword", ignore_case=True)
        >>> good.words, bad.words
        (['because'], [])
    """
    lists = {"good": texts(good, "good", reward), "bad": texts(bad, "bad", reward)}
    if not lists["good"] and not lists["bad"]:
        raise ConfigError("needs at least one keyword in good or bad, found none", reward=reward)
    seen: dict[str, str] = {}
    for parameter, words in lists.items():
        for word in words:
            key = " ".join((word.casefold() if ignore_case else word).split())
            if not key:
                raise ConfigError(f"{parameter} must hold words, found the blank {word!r}", reward=reward)
            if key in seen:
                raise ConfigError(
                    f"{word!r} is in {seen[key]} and in {parameter}; list a keyword once"
                    if seen[key] != parameter
                    else f"{parameter} lists {word!r} twice",
                    reward=reward,
                )
            seen[key] = parameter
    return Keywords(lists["good"], ignore_case=ignore_case), Keywords(lists["bad"], ignore_case=ignore_case)


@lru_cache(maxsize=65536)
def _in_word(character: str) -> bool:
    """Whether it is part of a word: a letter, a digit, or what combines with one, such as an accent or a vowel sign."""
    if _LETTER.match(character):
        return True
    combines = unicodedata.category(character) in ("Mn", "Mc")
    return combines and not _NO_LETTERS_MARK.match(character)


def _keyword(word: str, *, ignore_case: bool) -> _Keyword:
    parts = word.split()
    # A lookahead consumes nothing, so that the next occurrence may begin inside this one.
    phrase = r"\s+".join(map(re.escape, parts))
    # A plain search for the longest part is far faster than the pattern, and most keywords are in few texts.
    needle = max(parts, key=len)
    return _Keyword(
        word,
        needle.casefold() if ignore_case else needle,
        re.compile(f"(?=({phrase}))", re.IGNORECASE if ignore_case else 0),
        _in_word(parts[0][0]),
        _in_word(parts[-1][-1]),
    )
