"""A text in parts of which each is in one script, and long enough for its language to be told."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from flux_rewards.rewards.text.language_prose import letters_in

__all__ = ["parts_of"]

_SENTENCE_END = re.compile(r"(?<=[.!?…。！？؟।])\s*|\n+")  # noqa: RUF001  # full stops of several scripts

# Words without spaces between them, where a character says more than a letter does.
_DENSE = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}
# Japanese is written in three scripts at once.
_TOGETHER = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK", "IDEOGRAPHIC": "CJK"}
_MARK = "mark"  # belongs to the letter before
_APOSTROPHES = "'\u2019"
_ENOUGH = 24  # letters, to tell the language of a part
_ENOUGH_DENSE = 8


def parts_of(text: str) -> Iterator[str]:
    """The parts of a text whose languages are told one by one.

    Sentences come apart, and within them scripts: Chinese words in an English sentence are a part of Chinese. What is
    too short for itself goes along with the next of the same script. Left out are
    numbers, and a few letters in another alphabet than most, such as names.

    Examples:
        >>> list(parts_of("The answer is 五 因为二加三等于五 对吧。 Right?"))
        ['The answer is Right', '五 因为二加三等于五 对吧']
    """
    held: dict[str, list[str]] = {}
    letters: Counter[str] = Counter()
    told: dict[str, str] = {}  # the part before, for a rest that is too short
    for sentence in _SENTENCE_END.split(text):
        for script, words in _by_script(sentence).items():
            waiting = held.setdefault(script, [])
            waiting.append(words)
            letters[script] += letters_in(words)
            if letters_in(" ".join(waiting)) >= (_ENOUGH_DENSE if script in _DENSE else _ENOUGH):
                if script in told:
                    yield told[script]
                told[script] = " ".join(waiting)
                held[script] = []
    main = max(letters, key=letters.__getitem__, default="")
    for script, waiting in held.items():
        part = " ".join([*([told[script]] if script in told else []), *waiting])
        # A few words in another alphabet are names ("GPU" in a Chinese text), of no language that could be told.
        if script in told or script in _DENSE or script == main or letters_in(part) >= _ENOUGH:
            yield part


def _by_script(sentence: str) -> dict[str, str]:
    """The words of a sentence, by the script they are written in."""
    found: dict[str, list[str]] = {}
    current = ""
    for character in sentence:
        script = _script(character)
        if script == _MARK:
            if current:
                found[current].append(character)
            continue
        if script:
            letters = found.setdefault(script, [])
            letters.append(character if script == current else " " + character)
        current = script
    return {script: "".join(letters).strip() for script, letters in found.items()}


@lru_cache(maxsize=65536)
def _script(character: str) -> str:
    """The script of a letter, as its name in Unicode begins; nothing for what is no letter."""
    category = unicodedata.category(character)
    if category in ("Mn", "Mc", "Lm") or character in _APOSTROPHES:
        return _MARK
    if not category.startswith("L"):
        return ""
    script = unicodedata.name(character, "").partition(" ")[0]
    return _TOGETHER.get(script, script)
