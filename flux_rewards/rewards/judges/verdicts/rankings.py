"""Scores by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import JudgeError, brief
from flux_rewards.rewards.judges.verdicts.objects import entry_of, find_object, folded, score_of

if TYPE_CHECKING:
    from flux_rewards.rewards.judges.verdicts.scale import Scale

__all__ = ["read_ranking"]


_TWICE = object()


def read_ranking(text: str, ids: Sequence[str], scale: Scale) -> dict[str, float | JudgeError]:
    """The score of each id, or why it has none.

    Args:
        text: What was said, see `spoken`: ``{"scores": [{"id": "R1", "score": 7}, ...]}`` or ``{"R1": 7, ...}``.
        ids: Those that were asked about.
        scale: Where the scores must lie.

    Raises:
        JudgeError: There is no such JSON, or it has an id that nobody gave.

    Examples:
        >>> from flux_rewards.rewards.judges.verdicts.scale import Scale
        >>> read_ranking('{"scores": [{"id": "R2", "score": 3}, {"id": "R1", "score": 9}]}', ["R1", "R2"], Scale(0, 10))
        {'R1': 9.0, 'R2': 3.0}
    """
    known = {folded(name): name for name in ids}
    found = find_object(text, ["scores", *ids])
    given: dict[str, list[Any]] = {name: [] for name in ids}
    for name, value in _entries(found, known):
        if folded(str(name)) not in known:
            raise JudgeError(f"it scores {brief(name)}, an id that nobody gave", "unknown_id")
        given[known[folded(str(name))]].append(value)
    return {name: _score(name, values, scale) for name, values in given.items()}


def _entries(found: Mapping[str, Any], known: Mapping[str, str]) -> list[tuple[Any, Any]]:
    if "scores" not in map(folded, found):
        return [(name, value) for name, value in _pairs(found) if folded(name) in known or _looks_like_id(name)]
    listed = entry_of(found, "scores")
    if isinstance(listed, Mapping):
        return _pairs(listed)
    if not isinstance(listed, list) or not all(isinstance(entry, Mapping) for entry in listed):
        raise JudgeError(f"'scores' is {brief(listed)}, not a list of ids and scores")
    entries = []
    for entry in listed:
        if "id" not in map(folded, entry):
            raise JudgeError(f"an entry of 'scores' is {brief(dict(entry))}, without an id")
        if "score" in map(folded, entry):
            entries.append((entry_of(entry, "id"), entry_of(entry, "score")))
    return entries


def _pairs(found: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Ids and scores, where a key that comes twice has two that differ."""
    twice: frozenset[str] = getattr(found, "twice", frozenset())
    pairs = list(found.items())
    return pairs + [(name, _TWICE) for name in found if folded(name) in twice]


def _looks_like_id(name: str) -> bool:
    """Other keys, such as the reasoning, are passed over; R9 is not."""
    return folded(name)[:1] == "r" and folded(name)[1:].isdigit()


def _score(name: str, values: Sequence[Any], scale: Scale) -> float | JudgeError:
    if not values:
        return JudgeError(f"the score of {name} is missing", "missing")
    if any(value != values[0] for value in values):
        return JudgeError(f"{name} has several scores", "ambiguous")
    try:
        score = score_of(values[0], scale, name)
    except JudgeError as error:
        return error
    assert score is not None  # noqa: S101  # for the type checker: "N/A" is not allowed
    return score
