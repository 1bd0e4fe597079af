"""What judges of groups have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_rewards.errors import ConfigError, InputError
from flux_rewards.fingerprint import Memo, fingerprint
from flux_rewards.rewards.judges.material import TEXTS, text_of

if TYPE_CHECKING:
    from flux_rewards.data import Sample

__all__ = ["SHARED", "Contents", "check_shared", "compared_fields", "contents_of"]

SHARED = ("prompt", "reference", "condition_images")
"""Fields that belong to the question, and are shown once."""


def compared_fields(fields: Sequence[str], reward: str) -> list[str]:
    """Those that differ within a group.

    Raises:
        ConfigError: There are none.

    Examples:
        >>> compared_fields(["prompt", "image"], "judge")
        ['image']
    """
    found = [field for field in fields if field not in SHARED]
    if not found:
        raise ConfigError(f"fields has nothing that differs within a group: {', '.join(fields)}", reward=reward)
    return found


class Contents(NamedTuple):
    """The distinct contents of a group.

    Attributes:
        order: A position for each, in an order that the seed and the content decide: not the place in the batch.
        like: For each position the one in `order` that has its content.
        unread: By position, why a text cannot be read; such a sample is in neither.
    """

    order: list[int]
    like: dict[int, int]
    unread: dict[int, InputError]


def contents_of(samples: Sequence[Sample], fields: Sequence[str], seed: int) -> Contents:
    """What there is to compare: samples of one content are judged once.

    Examples:
        >>> from flux_rewards import Sample
        >>> found = contents_of([Sample(response="a"), Sample(response="b"), Sample(response="a")], ["response"], 0)
        >>> sorted(found.order), found.like
        ([0, 1], {0: 0, 1: 1, 2: 0})
    """
    first: dict[bytes, int] = {}
    like: dict[int, int] = {}
    unread: dict[int, InputError] = {}
    memo: Memo = {}
    for row, sample in enumerate(samples):
        try:
            content = [text_of(sample, field) if field in TEXTS else getattr(sample, field) for field in fields]
        except InputError as error:
            unread[row] = error
        else:
            key = hashlib.sha256(str(seed).encode() + fingerprint(content, memo)).digest()
            like[row] = first.setdefault(key, row)
    return Contents([first[key] for key in sorted(first)], like, unread)


def check_shared(samples: Sequence[Sample], fields: Sequence[str], criteria_key: str | None = None) -> None:
    """Raise an `InputError` unless the samples of a group agree in the texts that are shown once, and in the criteria.

    Examples:
        >>> from flux_rewards import Sample
        >>> check_shared([Sample("a", "1"), Sample("a", "2")], ["prompt"])
    """
    for field in fields:
        if field == "condition_images":
            memo: Memo = {}  # a source that the whole group shares is read once
            found: list[Any] = [fingerprint(sample.condition_images, memo) for sample in samples]
        else:
            found = [text_of(sample, field) for sample in samples]
        _check_agree(found, field, field)
    if criteria_key is not None:
        _check_agree([sample.metadata.get(criteria_key) for sample in samples], "metadata", f"{criteria_key!r}")


def _check_agree(values: Sequence[Any], field: str, what: str) -> None:
    if any(value != values[0] for value in values):
        raise InputError(
            f"the samples of a group are compared with each other, and differ in {what}; give those that belong "
            "together a group_id of their own",
            field=field,
        )
