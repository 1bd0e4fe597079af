"""A set of preference pairs: cleaned, balanced, and split without a prompt on both sides."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from flux_rewards.data import FIELDS, MEDIA_FIELDS, Sample
from flux_rewards.errors import ConfigError, InputError, brief, close_match
from flux_rewards.fingerprint import fingerprint
from flux_rewards.training.preferences import PreferencePair, prompt_key
from flux_rewards.training.prompts import count_of_prompts
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from typing_extensions import Self

    from flux_rewards.training.checks import PreferenceCheck

__all__ = ["Key", "PreferenceData", "key_of"]

Key = str | Callable[[PreferencePair], Any]
"""How pairs are told apart: ``"metadata.subset"``, ``"margin"``, or a function of a pair."""


class PreferenceData(Sequence[PreferencePair]):
    """Preference pairs in order. A slice is one too; every method leaves it as it is and returns another.

    Args:
        pairs: The pairs.
        source: Where they come from, for messages and model cards.
        notes: What was left out on the way here: reason to count.
        no_prompts: That pairs have no prompt is known, and meant: `train_reward_model` refuses them otherwise, since a
            prompt that was not found is learned without, and cannot be kept out of the held-out pairs.

    Raises:
        InputError: Something is no `PreferencePair`.

    Examples:
        >>> data = PreferenceData([PreferencePair(f"{n} + 1?", str(n + 1), "0") for n in range(10)])
        >>> train, test = data.split(test=0.2)
        >>> len(train), len(test), train.shared_prompts(test)
        (8, 2, 0)
    """

    def __init__(
        self,
        pairs: Iterable[PreferencePair],
        *,
        source: str = "",
        notes: Mapping[str, int] | None = None,
        no_prompts: bool = False,
    ) -> None:
        self._pairs = tuple(pairs)
        self.source = source
        self.notes = dict(notes or {})
        self.no_prompts = no_prompts
        for index, pair in enumerate(self._pairs):
            if not isinstance(pair, PreferencePair):
                raise InputError(f"pair {index}: expected a PreferencePair, found {brief(pair)}")

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[PreferencePair]:
        return iter(self._pairs)

    @overload
    def __getitem__(self, position: int) -> PreferencePair: ...
    @overload
    def __getitem__(self, position: slice) -> Self: ...
    def __getitem__(self, position: int | slice) -> PreferencePair | Self:
        return self._like(self._pairs[position]) if isinstance(position, slice) else self._pairs[position]

    def __eq__(self, other: object) -> bool:
        return self._pairs == other._pairs if isinstance(other, PreferenceData) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # pairs have none

    def __repr__(self) -> str:
        source = f" from {self.source}" if self.source else ""
        notes = f"; {', '.join(f'{count} {reason}' for reason, count in self.notes.items())}" if self.notes else ""
        told = count_of_prompts(self.prompts, self.without_prompt)
        joint = ", " if told == "prompts unknown" else " of "
        return f"<PreferenceData: {len(self)} pairs{joint}{told}{source}{notes}>"

    @property
    def prompts(self) -> int:
        """The number of different prompts that are known; see `prompt_key` for what counts as different."""
        return len({prompt_key(pair) for pair in self if pair.says_what_was_asked})

    @property
    def without_prompt(self) -> int:
        """The number of pairs that do not say what was asked: nothing can keep their prompts out of a test."""
        return sum(not pair.says_what_was_asked for pair in self)

    def check(self, **options: Any) -> PreferenceCheck:
        """Look for what makes pairs bad to learn from; see `check_preferences`, which takes the same options."""
        from flux_rewards.training.checks import check_preferences  # noqa: PLC0415  # builds on this file

        return check_preferences(self, **options)

    def cleaned(self) -> Self:
        """Without identical pairs, without repetitions (the first stays), and without both sides of a contradiction.

        Examples:
            >>> pair, swapped = PreferencePair("q", "a", "b"), PreferencePair("q", "b", "a")
            >>> PreferenceData([pair, swapped, PreferencePair("q", "a", "a"), PreferencePair("r", "a", "b")]).cleaned()
            <PreferenceData: 1 pairs of 1 prompts; 1 identical pairs, 2 contradicting pairs>
        """
        found = self.check()
        contradicting = {position for both in found.contradictions for position in both}
        repeated = set(found.duplicates) - contradicting
        left_out = {
            "identical pairs": set(found.identical),
            "repeated pairs": repeated,
            "contradicting pairs": contradicting,
        }
        gone = set().union(*left_out.values())
        kept = [pair for position, pair in enumerate(self) if position not in gone]
        return self._like(kept, {reason: len(positions) for reason, positions in left_out.items()})

    def filter(self, keep: Callable[[PreferencePair], Any], reason: str = "filtered pairs") -> Self:
        """The pairs for which `keep` is true; `reason` says in `notes` what the others were.

        Examples:
            >>> data = PreferenceData([PreferencePair("q", "long answer", "b"), PreferencePair("r", "a", "b")])
            >>> data.filter(lambda pair: len(pair.chosen) > 1, "short ones")
            <PreferenceData: 1 pairs of 1 prompts; 1 short ones>
        """
        kept = [pair for pair in self if keep(pair)]
        return self._like(kept, {reason: len(self) - len(kept)})

    def balance(self, by: Key, *, limit: int | None = None, seed: int = 0) -> Self:
        """As many pairs of each kind: those of the rarest, or at most `limit`; drawn by lot, the order kept.

        Args:
            by: What tells the kinds apart, such as ``"metadata.subset"``, or a function of a pair.
            limit: Pairs of a kind; a kind that has fewer keeps them all. None: as many as the rarest kind has.
            seed: Of the lots.

        Raises:
            ConfigError: `limit` is no positive number.
            InputError: A pair has no such key.

        Examples:
            >>> pairs = [PreferencePair(f"{n}?", "a", "b", metadata={"hard": n > 6}) for n in range(10)]
            >>> Counter(pair.metadata["hard"] for pair in PreferenceData(pairs).balance("metadata.hard"))
            Counter({False: 3, True: 3})
        """
        if limit is not None:
            whole_number(limit, "limit", "", low=1)
        kinds: dict[bytes, list[int]] = {}
        for position, pair in enumerate(self):
            kinds.setdefault(fingerprint(key_of(pair, by, position)), []).append(position)
        size = limit or min(map(len, kinds.values()), default=0)
        kept: set[int] = set()
        for positions in kinds.values():
            kept.update(sorted(positions, key=lambda position: _lot(str(position).encode(), seed))[:size])
        return self._like([self[position] for position in sorted(kept)], {"pairs balanced away": len(self) - len(kept)})

    def split(self, test: float = 0.1, *, seed: int = 0, by: Key | None = None) -> tuple[Self, Self]:
        """Split into (train, test) by prompt, so that no prompt is on both sides. The order is kept.

        Pairs without a prompt are told apart by their answers, and one unknown prompt may be on both sides.

        Each prompt's lot is drawn from its own text, so the split does not depend on the order of the pairs, and one
        more pair moves at most one prompt.

        Args:
            test: Share of the prompts in the test part, in (0, 1): at least one prompt, and not all.
            seed: Of the lots.
            by: Keep together what has the same key, beside what has the same prompt: ``"metadata.problem"``, say.

        Raises:
            ConfigError: `test` is out of its range.
            InputError: There are fewer than two prompts.
        """
        number(test, "test", "", above=0.0)
        if test >= 1:
            raise ConfigError(f"test must be a share of the prompts in (0, 1), found {brief(test)}")
        clusters = _clusters(self, by)
        names = sorted(set(clusters), key=lambda name: _lot(name, seed))
        if len(names) < 2:
            raise InputError(f"{self.source or 'the data'} has {len(names)} prompts; a split by prompt needs two")
        count = min(max(round(test * len(names)), 1), len(names) - 1)
        chosen = set(names[:count])
        parts = [
            self._like(pair for pair, name in zip(self, clusters, strict=True) if (name in chosen) is wanted)
            for wanted in (False, True)
        ]
        return parts[0], parts[1]

    def shared_prompts(self, other: Iterable[PreferencePair]) -> int:
        """The number of prompts that are in both: what would leak from training into a test."""
        return len(set(map(prompt_key, self)) & set(map(prompt_key, other)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.jsonl`` file that `load_preferences` reads back. Paths of media become absolute.

        Raises:
            InputError: A pair holds what JSON cannot, such as an image that is no path.
        """
        rows = []
        for index, pair in enumerate(self):
            try:
                rows.append(json.dumps(_row(pair), ensure_ascii=False, allow_nan=False))
            except (TypeError, ValueError) as error:
                raise InputError(f"pair {index} cannot be written as JSON: {error}") from error
        Path(path).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")

    def _like(self, pairs: Iterable[PreferencePair], notes: Mapping[str, int] | None = None) -> Self:
        merged = Counter(self.notes)
        merged.update({reason: count for reason, count in (notes or {}).items() if count})
        return type(self)(pairs, source=self.source, notes=merged, no_prompts=self.no_prompts)


def key_of(pair: PreferencePair, by: Key, position: int | None = None) -> Any:
    """What a pair says under a key.

    Raises:
        InputError: The pair has nothing there; lists what its metadata have.

    Examples:
        >>> key_of(PreferencePair("q", "a", "b", metadata={"subset": "easy"}), "metadata.subset")
        'easy'
    """
    if callable(by):
        return by(pair)
    if by == "margin":
        return pair.margin
    value: Any = pair.metadata
    for name in by.removeprefix("metadata.").split("."):
        if not isinstance(value, Mapping) or name not in value:
            where = "a pair" if position is None else f"pair {position}"
            known = [f"metadata.{key}" for key in pair.metadata]
            raise InputError(
                f"{where} has no {by!r}{close_match(by, known)}; it has {', '.join(known) or 'no metadata'}"
            )
        value = value[name]
    return value


def _lot(name: bytes, seed: int) -> bytes:
    """A number drawn for a name: the same on every machine and with every version of NumPy."""
    return hashlib.sha256(f"{seed}:".encode() + name).digest()


def _clusters(pairs: Sequence[PreferencePair], by: Key | None) -> list[bytes]:
    """Each pair's cluster, named after its first prompt: pairs with one prompt, or one key, are in one cluster."""
    prompts = list(map(prompt_key, pairs))
    if by is None:
        return prompts
    parent: dict[bytes, bytes] = {}

    def root(name: bytes) -> bytes:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for position, (pair, prompt) in enumerate(zip(pairs, prompts, strict=True)):
        first, second = root(prompt), root(b"key" + fingerprint(key_of(pair, by, position)))
        parent[max(first, second)] = min(first, second)
    return [root(prompt) for prompt in prompts]


def _row(pair: PreferencePair) -> dict[str, Any]:
    asked = {} if pair.prompt is None else {"prompt": pair.prompt}
    row = {**asked, "chosen": _plain(pair.chosen), "rejected": _plain(pair.rejected)}
    if pair.margin is not None:
        row["margin"] = pair.margin
    shared = {name: _path(value) if name in MEDIA_FIELDS else value for name, value in pair.shared.items()}
    return {**row, **shared, **({"metadata": dict(pair.metadata)} if pair.metadata else {})}


def _plain(answer: Any) -> Any:
    if not isinstance(answer, Sample):
        return answer
    given = {name: getattr(answer, name) for name in FIELDS if getattr(answer, name) is not None}
    return {name: _path(value) if name in MEDIA_FIELDS else value for name, value in given.items()}


def _path(value: Any) -> Any:
    """Relative paths would be read relative to the new file's folder."""
    if isinstance(value, (str, os.PathLike)):
        return str(Path(value).absolute())
    return [_path(item) for item in value] if isinstance(value, (list, tuple)) else value
