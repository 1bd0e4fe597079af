"""Preference pairs from answers that were rated one by one, and from answers that were compared."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flux_rewards.data import FIELDS, Sample
from flux_rewards.errors import InputError, brief
from flux_rewards.fingerprint import fingerprint, same
from flux_rewards.grouping import has_group, split_groups
from flux_rewards.records.fields import sample_of
from flux_rewards.training.preferences import PreferencePair, content_of
from flux_rewards.training.preferences_data import PreferenceData
from flux_rewards.training.prompts import says_no_prompts
from flux_rewards.training.sources import pair_of_row
from flux_rewards.training.sources_rows import Source, read_rows
from flux_rewards.validation import number, one_of, whole_number

__all__ = ["from_ab_tests", "from_ratings", "pairs_of_group"]

Rating = str | Callable[[Sample], Any]
Rated = tuple[Sample, float]
_OF_ONE_ANSWER = ("token_ids", "token_offsets", "image", "video")


def from_ratings(
    samples: Sequence[Sample] | Source,
    rating: Rating,
    *,
    mode: str = "best_worst",
    min_gap: float = 0.0,
    max_pairs: int | None = None,
    margin: float | None = None,
    seed: int = 0,
) -> PreferenceData:
    """Make pairs of answers to the same prompt that were rated differently.

    Samples are a group by `group_id`, or else by prompt and condition media. Answers without a rating, and pairs of
    the same answer, are left out and counted in `PreferenceData.notes`, as are groups that give no pair.

    Args:
        samples: Samples, or a file or table of them.
        rating: Where the rating is, such as ``"metadata.is_correct"``, or a function of a sample. A number or a
            boolean, more is better; None for an answer without a rating.
        mode: ``"best_worst"``: one pair a group; among answers with the same rating lots decide, not their order.
            ``"all_pairs"``: all pairs whose ratings differ.
        min_gap: Ratings of a pair differ by at least this; equal ones never make a pair.
        max_pairs: With ``"all_pairs"``, at most this many of a group, drawn by lot.
        margin: Give each pair a margin of this times the gap of its ratings; None for no margins.
        seed: Of the lots.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: A sample without a response or media, without a group, or with a rating that is no number.

    Examples:
        >>> stars = {"4": 5, "5": 1, "?": 2}
        >>> rated = [Sample("2 + 2?", text, metadata={"stars": stars[text]}) for text in stars]
        >>> pair = from_ratings(rated, "metadata.stars")[0]
        >>> pair.chosen, pair.rejected, pair.metadata["ratings"]
        ('4', '5', [5.0, 1.0])
        >>> len(from_ratings(rated, "metadata.stars", mode="all_pairs", min_gap=2))
        2
    """
    one_of(mode, "mode", "from_ratings", ("best_worst", "all_pairs"))
    number(min_gap, "min_gap", "", low=0.0)
    if max_pairs is not None:
        whole_number(max_pairs, "max_pairs", "", low=1)
    if margin is not None:
        number(margin, "margin", "", low=0.0)
    notes: Counter[str] = Counter()
    label, rated = _rated(samples, rating, notes)
    pairs: list[PreferencePair] = []
    for group in split_groups([sample for sample, _ in rated]):
        found = _choose([rated[position] for position in group], mode, min_gap, seed, notes)
        if not found:
            notes["groups without a pair"] += 1
        if max_pairs is not None and len(found) > max_pairs:
            notes["pairs over max_pairs"] += len(found) - max_pairs
            found = sorted(found, key=lambda both: _lot_of_pair(both, seed))[:max_pairs]
        for (better, high), (worse, low) in found:
            extra = {"ratings": [high, low]}
            pairs.append(_pair(better, worse, extra, None if margin is None else margin * (high - low)))
    return PreferenceData(pairs, source=label, notes=notes)


def _rated(samples: Any, rating: Rating, notes: Counter[str]) -> tuple[str, list[Rated]]:
    """The label of a source, and its samples that have a rating, each with it."""
    label, given = _samples(samples)
    found: list[Rated] = []
    for where, sample in given:
        value = _rating(sample, rating, where)
        if value is None:
            notes["answers without a rating"] += 1
            continue
        if not has_group(sample):
            raise InputError(f"{where}: has neither a group_id nor a prompt; give it one of them")
        found.append((sample, value))
    if not found and not notes:
        raise InputError(f"{label}: holds no samples")
    return label, found


def _samples(samples: Any) -> tuple[str, Iterator[tuple[str, Sample]]]:
    """The label of a source, and its samples, each with its place."""
    if not isinstance(samples, (str, os.PathLike)) and isinstance(samples, Sequence):
        kinds = {isinstance(entry, Sample) for entry in samples}
        if kinds == {True}:
            return "samples", ((f"sample {index}", sample) for index, sample in enumerate(samples))
        if kinds == {True, False}:
            raise InputError("expected samples or mappings, found some of both")
    rows = read_rows(samples, "samples", None, (), names=(), required=())

    def read() -> Iterator[tuple[str, Sample]]:
        for where, values in rows:
            with rows.naming(where):
                sample = sample_of(values, rows.folder or Path())
            yield f"{rows.label}, {where}", sample

    return rows.label, read()


_WORDS = {"true": True, "false": False}


def _rating(sample: Sample, rating: Rating, where: str) -> float | None:
    value: Any = rating(sample) if callable(rating) else _at(sample, rating, where)
    if value is None:
        return None
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, str):  # all that a CSV file has
        if not value.strip():
            return None
        value = _WORDS.get(value.strip().lower(), value)
        with contextlib.suppress(ValueError):
            value = float(value)
    if not isinstance(value, (bool, int, float)):
        raise InputError(f"{where}: the rating must be a number, a boolean or None, found {brief(value)}")
    if not math.isfinite(value):
        raise InputError(f"{where}: the rating is {value}; write None for an answer without a rating")
    return float(value)


def _at(sample: Sample, path: str, where: str) -> Any:
    first, *names = path.split(".")
    if first not in FIELDS:
        first, names = "metadata", path.split(".")
    value = getattr(sample, first)
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            known = ", ".join(f"metadata.{key}" for key in sample.metadata) or "no metadata"
            raise InputError(f"{where}: there is no {path!r}; the sample has {known}")
        value = value[name]
    return value


def _choose(
    group: Sequence[Rated], mode: str, min_gap: float, seed: int, notes: Counter[str]
) -> list[tuple[Rated, Rated]]:
    """Pairs of a group, better first, in an order drawn by lot."""
    # Lots by content: neither the order of the file nor who wrote an answer decides.
    shuffled = sorted(group, key=lambda rated: _lot(rated[0], seed))
    if mode == "best_worst":
        best = max(shuffled, key=lambda rated: rated[1])
        worst = min(reversed(shuffled), key=lambda rated: rated[1])
        candidates = [(best, worst)]
    else:
        candidates = [
            (one, other) if one[1] > other[1] else (other, one) for one, other in itertools.combinations(shuffled, 2)
        ]
    better = [(one, other) for one, other in candidates if one[1] > other[1]]
    gaps = [one[1] - other[1] for one, other in better]
    far = [gap >= min_gap or math.isclose(gap, min_gap) for gap in gaps]  # 0.3 - 0.2 is less than 0.1 by rounding
    apart = list(itertools.compress(better, far))
    if len(apart) < len(better):
        notes["pairs closer than min_gap"] += len(better) - len(apart)
    different = [(one, other) for one, other in apart if not same(content_of(one[0]), content_of(other[0]))]
    if len(different) < len(apart):
        notes["pairs of the same answer"] += len(apart) - len(different)
    return different


def _lot(sample: Sample, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:".encode() + fingerprint(content_of(sample))).digest()


def _lot_of_pair(both: tuple[Rated, Rated], seed: int) -> bytes:
    """Of the pair, for lots of answers would have one lucky answer in all pairs."""
    return hashlib.sha256(b"".join(_lot(sample, seed) for sample, _ in both)).digest()


def _pair(one: Sample, other: Sample, extra: Mapping[str, Any], margin: float | None = None) -> PreferencePair:
    """A pair of samples; of texts where nothing else is needed to score them."""
    if not same(one.prompt, other.prompt):
        prompts = f"{brief(one.prompt)} and {brief(other.prompt)}"
        raise InputError(f"the group {one.group_id!r} holds answers to different prompts: {prompts}")
    metadata = _shared_metadata(one, other, extra)
    shared = {
        name: getattr(one, name)
        for name in ("reference", "condition_images", "condition_videos", "group_id")
        if getattr(one, name) is not None and same(getattr(one, name), getattr(other, name))
    }
    alone = any(getattr(sample, name) is not None for sample in (one, other) for name in _OF_ONE_ANSWER)
    apart = any(not same(getattr(one, name), getattr(other, name)) for name in ("reference", "condition_images"))
    if alone or apart or one.response is None or other.response is None:
        return PreferencePair(one.prompt, one, other, margin, extra)
    return PreferencePair(one.prompt, one.response, other.response, margin, metadata, shared)


def _shared_metadata(one: Sample, other: Sample, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of both answers by its own name, and what differs as a pair of values."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys((*one.metadata, *other.metadata)):
        values = (one.metadata.get(name), other.metadata.get(name))
        found.update(
            {name: values[0]} if same(*values) else {f"chosen_{name}": values[0], f"rejected_{name}": values[1]}
        )
    return {**found, **extra}


def pairs_of_group(samples: Sequence[Sample]) -> list[PreferencePair]:
    """All pairs of answers within each group, as they come: `chosen` is the earlier one, and nobody's choice.

    Examples:
        >>> [pair.chosen + pair.rejected for pair in pairs_of_group([Sample("q", text) for text in "abc"])]
        ['ab', 'ac', 'bc']
    """
    return [
        _pair(samples[one], samples[other], {})
        for group in split_groups(samples)
        for one, other in itertools.combinations(group, 2)
        if not same(content_of(samples[one]), content_of(samples[other]))
    ]


_WINNERS = {
    **dict.fromkeys(("a", "model_a", "response_a", "answer_a", "left"), "a"),
    **dict.fromkeys(("b", "model_b", "response_b", "answer_b", "right"), "b"),
    **dict.fromkeys(("tie", "draw", "both", "neither", "both_good", "both_bad", "tie (bothbad)"), "tie"),
}


def from_ab_tests(
    source: Source,
    *,
    columns: Mapping[str, str | None] | None = None,
    winners: Mapping[Any, str] | None = None,
    ties: str = "drop",
    json_columns: Collection[str] | None = None,
) -> PreferenceData:
    """Make pairs of comparisons: rows with ``a``, ``b``, and which of them won.

    Answers are texts, messages or objects, with or without a ``prompt``, as `load_preferences` reads them. The pair's
    metadata keep the side that won, ``winner``, so that `PreferenceData.check` can tell whether one side wins more.

    Args:
        source: A file, a list of mappings, or a split of a `datasets.Dataset`.
        columns: Which column holds ``prompt``, ``a``, ``b`` and ``winner``, where they are called otherwise.
        winners: What the column of winners says to ``"a"``, ``"b"`` or ``"tie"``, such as ``{0: "a", 1: "b"}``. By
            default ``a``, ``b``, ``model_a``, ``model_b``, ``tie``, ``both_bad`` and the like.
        ties: ``"drop"`` leaves ties out and counts them in `PreferenceData.notes`; ``"error"`` refuses them.
        json_columns: As for `load_preferences`.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: A row that cannot be read, with its place.

    Does not count votes: rows that contradict each other make pairs that do; see `PreferenceData.check`.

    Examples:
        >>> votes = [{"prompt": "2 + 2?", "a": "5", "b": "4", "winner": "model_b"},
        ...          {"prompt": "1 + 1?", "a": "2", "b": "two", "winner": "tie"}]
        >>> from_ab_tests(votes)[0]
        PreferencePair(prompt='2 + 2?', chosen='4', rejected='5', metadata={'winner': 'b'})
    """
    one_of(ties, "ties", "from_ab_tests", ("drop", "error"))
    for said, side in (winners or {}).items():
        one_of(side, f"winners[{said!r}]", "from_ab_tests", ("a", "b", "tie"))
    names = ("prompt", "a", "b", "winner")
    rows = read_rows(source, "comparisons", columns, json_columns, names=names, required=("a", "b", "winner"))
    pairs: list[PreferencePair] = []
    notes: Counter[str] = Counter()
    read = 0
    for where, values in rows:
        read += 1
        with rows.naming(where):
            side = _winner(values["winner"], winners)
            if side == "tie" and ties == "error":
                raise InputError("is a tie; say ties='drop' to leave ties out", field="winner")
            if side == "tie":
                notes["ties"] += 1
                continue
            row = {name: value for name, value in values.items() if name not in ("a", "b", "winner")}
            row.update(chosen=values[side], rejected=values["b" if side == "a" else "a"], winner=side)
            pairs.append(pair_of_row(row, rows.folder))
    if not read:
        raise InputError(f"{rows.label}: holds no comparisons")
    return PreferenceData(pairs, source=rows.label, notes=notes, no_prompts=says_no_prompts(columns))


def _winner(said: Any, winners: Mapping[Any, str] | None) -> str:
    if winners is not None:
        if said in winners:
            return winners[said]
        known = ", ".join(map(repr, winners))
    else:
        side = _WINNERS.get(said.strip().casefold()) if isinstance(said, str) else None
        if side is not None:
            return side
        known = "'a', 'b' or 'tie'"
    raise InputError(f"expected {known}, found {brief(said)}; say winners={{{said!r}: 'a', ...}}", field="winner")
