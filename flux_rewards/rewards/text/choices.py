"""Reads the option that a text chooses, by its letter or by its words: nothing is found inside other words."""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

from flux_rewards.rewards.text.normalization import NORMALIZERS
from flux_rewards.rewards.text.parts import braced, part_of

__all__ = ["Choice", "OptionReader"]

_MARKER = re.compile(
    r"""
      (?P<boxed> \\(?:boxed|fbox)\b\s? (?=\{) )
    | (?P<tag> <answer> )
    | (?P<said> \b(?i:answer|choice|option)\b [ \t*_]{0,4} (?: (?i:is)\b(?![ \t]+(?i:not)\b) | [:=\uff1a] ) [*_]{0,3} )
    | (?P<zh> 答案 \s? [是为為选選:\uff1a] \s? [:\uff1a]? )
    | (?P<taken> \b(?i:choose|chose|pick|picked|select|selected)\b [ \t*_:]{0,4} | [选選] [择擇]? \s? [:\uff1a]? )
    """,
    re.VERBOSE,
)
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s?\{([^{}]*)\}")
_MARKUP = str.maketrans("\uff08\uff09", "()", "*_`$")
_NARROW = {0xFF10 + at: 0x30 + at for at in (*range(10), *range(17, 43), *range(49, 75))}
"""Full-width digits and letters."""
_WORD_BEFORE = re.compile(r"(?i:option|choice)\s+")
_EDGES = string.whitespace + ".,;:!\"'。\uff0c\u2018\u2019\u201c\u201d"
# What follows these words is about the other options.
_REASON_WORD = re.compile(r"\b(?:because|since|as|not|rather|instead|while|whereas|but)\b")
_REASON = re.compile(rf"{_REASON_WORD.pattern}|[.;](?:\s|$)")
_DOUBT = re.compile(r"\b(?i:not|if|whether|neither|nor|unless|why|how)\b|n't\b")


class Choice(NamedTuple):
    """What a text chooses."""

    label: str | None
    """The letter of the option, or None."""
    why: str
    """Where there is none: ``"ambiguous"`` or ``"no answer"``; else empty."""


_NONE, _AMBIGUOUS = Choice(None, "no answer"), Choice(None, "ambiguous")


class OptionReader:
    """Knows how the options of one question are labelled; see `MultipleChoice` for the rules.

    Args:
        labels: The letters in use, such as ``"ABCD"``.
        texts: The options' texts in the order of the labels; empty where they are not known.

    Examples:
        >>> OptionReader("ABCD").read("Let me see... The answer is (B), not (A).").label
        'B'
    """

    def __init__(self, labels: str, texts: Sequence[str] = ()) -> None:
        self.labels = labels[: len(texts)] if texts else labels
        self._by_text: dict[str, set[str]] = {}
        for label, text in zip(self.labels, texts, strict=False):
            self._by_text.setdefault(_plain(text), set()).add(label)
        some = f"[{re.escape(self.labels)}]"
        self._alone = re.compile(rf"[(\[{{]?({some})[)\]}}.:]*", re.IGNORECASE)
        # A or I may be the first word of a sentence: "A dog" names no option.
        bare = f"[{re.escape(''.join(label for label in self.labels if label not in 'AI') or '-')}]"
        self._leading = re.compile(
            rf"[(\[]({some})[)\]]"
            rf"|({some})(?:[).:\uff0e\u3001](?!\w)|[.,;:!?]?\s*$|\s*,?\s(?=(?:or|and|because|since)\b)|\s*[,/&])"
            rf"|({bare})(?=\s)"
        )
        self._joined = re.compile(rf"(?:\b(?:or|and)\s+|[,/&]\s*)[(\[]?({some})(?![\w'])|[(\[]({some})[)\]]")
        self._line = re.compile(rf"[-\s]*(?:[(\[]({some})[)\]]|({some})[).:\uff0e\u3001](?=\s|$))")
        self._marked = re.compile(rf"(?:^|(?<=[\s,;/]))(?:[(\[]({some})[)\]]|({some})[).:\uff0e\u3001](?=\s))")
        self._labels_only = re.compile(rf"(?:[\s,;/&]*[(\[]?{some}[)\].:]*(?![\w'])){{2,}}[\s.]*")
        self._correct = re.compile(
            rf"(?<![\w'])[(\[]?({some})[)\]]?\s+is\s+(?:the\s+)?(?i:correct|right|best)(?![\w'])"
            rf"|(?<![\w'])[(\[]?({some})[)\]]?\s?(?:是|选项)?\s?(?:正确|正確)"
        )
        self._bracketed = re.compile(rf"[(\[]({some})[)\]](?!\w)")

    def label_of(self, text: str) -> str | None:
        """The label that a reference names: itself, or by the option's text; None where it names none.

        Examples:
            >>> OptionReader("ABCD", ["red", "blue"]).label_of("Blue")
            'B'
        """
        alone = self._alone.fullmatch(text.strip())
        if alone is not None:
            return self._known(alone[1])
        named = self._by_text.get(_plain(text), set())
        return min(named) if named else None

    def read(self, response: str) -> Choice:
        """The option that a response chooses in what follows its thinking."""
        said = part_of(response, "final")
        return _NONE if said is None else self._read(said.translate(_NARROW))

    def _read(self, text: str) -> Choice:
        end = len(text)
        for marker in reversed(list(_MARKER.finditer(text))):
            if marker["boxed"]:
                content = braced(text, marker.end())
                return _NONE if content is None else self._stated(content)
            if marker["tag"]:
                content, closed, _ = text[marker.end() :].partition("</answer>")
                return self._inside(content) if closed else _NONE
            line = text[marker.end() : end].lstrip().partition("\n")[0]
            if not line and end == len(text) and not marker["taken"]:
                return _NONE  # cut off before the answer
            said = self._stated(line)
            if said is not _NONE:
                return said
            end = marker.start()  # "the answer is obvious": prose
        return self._by_lines(text)

    def _inside(self, content: str) -> Choice:
        """What a tag holds is a statement, or a text with a marker of its own."""
        stated = self._stated(content)
        return stated if stated is not _NONE else self._read(content)

    def _stated(self, text: str) -> Choice:
        """A text that should begin with the answer."""
        plain = _WRAPPED.sub(r"\1", text).translate(_MARKUP).strip()
        plain = _WORD_BEFORE.sub("", plain, count=1) if _WORD_BEFORE.match(plain) else plain
        alone = self._alone.fullmatch(plain.strip(_EDGES))
        if alone is not None:
            return Choice(self._known(alone[1]), "")
        named = self._by_text.get(_plain(plain))
        if named is not None:
            return _only(named)
        if self._lists(plain):
            return _AMBIGUOUS
        leading = self._leading.match(plain)
        if leading is None:
            return _NONE
        label = leading[1] or leading[2] or leading[3]
        rest = plain[leading.end() - 1 :]  # with the separator, which may join the next
        reason = _REASON.search(rest, 1)
        rest = rest if reason is None else rest[: reason.start()]
        others = {first or second for first, second in self._joined.findall(rest)} - {label}
        return _AMBIGUOUS if others else Choice(label, "")

    def _lists(self, line: str) -> bool:
        """Whether the options themselves stand on a line, rather than one of them and a reason."""
        reason = _REASON_WORD.search(line)
        before = line if reason is None else line[: reason.start()]
        marked = [first or second for first, second in self._marked.findall(before)]
        if len(set(self._of_labels(line))) > 1:
            return True
        # An option's text may end in a letter, as in "A. Vitamin C. It ...": in a list they follow one another.
        return any(self.labels.find(one) + 1 == self.labels.find(next_) for one, next_ in pairwise(marked))

    def _of_labels(self, line: str) -> list[str]:
        return re.findall(f"[{re.escape(self.labels)}]", line) if self._labels_only.fullmatch(line) else []

    def _by_lines(self, text: str) -> Choice:
        lines = [line.translate(_MARKUP).strip() for line in text.split("\n") if line.strip()] or [""]
        last = self._named_alone(lines[-1], only=len(lines) == 1)
        if last is not None:
            # Under another option, or as the next one of a list, it is a part of the list.
            before = self._named_alone(lines[-2]) if len(lines) > 1 else None
            item = self._line.match(lines[-2]) if len(lines) > 1 else None
            follows = item is not None and self.labels.find(item[1] or item[2]) + 1 == self.labels.find(
                last.label or "-"
            )
            return _AMBIGUOUS if follows or (before is not None and before != last) else last
        if self._lists(lines[-1]):
            return _AMBIGUOUS
        found = {index: self._line.match(line) for index, line in enumerate(lines)}
        labelled = {index: match[1] or match[2] for index, match in found.items() if match}
        if len(set(labelled.values())) > 1:
            return _AMBIGUOUS  # the options are listed
        for index in (len(lines) - 1, 0):
            if index in labelled:
                return self._stated(lines[index])
        return self._called_correct(lines) or _only(set(self._bracketed.findall(lines[-1])))

    def _named_alone(self, line: str, *, only: bool = False) -> Choice | None:
        """What a line names that holds a label, or an option's text, and nothing else."""
        alone = self._alone.fullmatch(line.strip(_EDGES))
        if alone is not None and (alone[1] in self.labels or only):
            return Choice(self._known(alone[1]), "")
        named = self._by_text.get(_plain(line))
        return None if named is None else _only(named)

    def _called_correct(self, lines: Sequence[str]) -> Choice | None:
        """The option of which the last line that says so says that it is correct."""
        for line in reversed(lines):
            labels = {
                match[1] or match[2]
                for match in self._correct.finditer(line)
                if not _DOUBT.search(re.split(r"[.;,!?]", line[max(0, match.start() - 200) : match.start()])[-1])
            }
            if labels:
                return _only(labels)
        return None

    def _known(self, letter: str) -> str:
        return letter if letter in self.labels else letter.upper() if letter.upper() in self.labels else letter.lower()


def _only(labels: Collection[str]) -> Choice:
    """The label, where it is the only one."""
    return Choice(min(labels), "") if len(labels) == 1 else _AMBIGUOUS if labels else _NONE


def _plain(text: str) -> str:
    return NORMALIZERS["casefold"](text.translate(_MARKUP)).strip(_EDGES)
