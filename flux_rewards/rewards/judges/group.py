"""What judges of groups have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, InputError
from flux_rewards.fingerprint import fingerprint
from flux_rewards.rewards.judges.material import TEXTS, text_of

if TYPE_CHECKING:
    from flux_rewards.data import Sample

__all__ = ["SHARED", "check_shared", "compared_fields", "in_content_order"]

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


def in_content_order(
    samples: Sequence[Sample], fields: Sequence[str], seed: int
) -> tuple[list[int], dict[int, InputError]]:
    """Positions in an order that the seed and the content decide, and not where a sample stood in the batch.

    Returns:
        The order, and by position why a text cannot be read: such a sample is not in the order.

    Examples:
        >>> from flux_rewards import Sample
        >>> one, other = Sample(response="one"), Sample(response="other")
        >>> there, back = ([one, other], [other, one])
        >>> in_content_order(there, ["response"], 0)[0] == in_content_order(back, ["response"], 0)[0][::-1]
        True
    """
    keys: dict[int, bytes] = {}
    unread: dict[int, InputError] = {}
    for row, sample in enumerate(samples):
        try:
            content = [text_of(sample, field) if field in TEXTS else getattr(sample, field) for field in fields]
        except InputError as error:
            unread[row] = error
        else:
            keys[row] = hashlib.sha256(str(seed).encode() + fingerprint(content)).digest()
    return sorted(keys, key=keys.__getitem__), unread


def check_shared(samples: Sequence[Sample], fields: Sequence[str], criteria_key: str | None = None) -> None:
    """Raise an `InputError` unless the samples of a group agree in the texts that are shown once, and in the criteria.

    Examples:
        >>> from flux_rewards import Sample
        >>> check_shared([Sample("a", "1"), Sample("a", "2")], ["prompt"])
    """
    for field in fields:
        if field == "condition_images":
            continue  # what a group is goes by them; comparing pixels again would cost more than it finds
        _check_agree([text_of(sample, field) for sample in samples], field, field)
    if criteria_key is not None:
        _check_agree([sample.metadata.get(criteria_key) for sample in samples], "metadata", f"{criteria_key!r}")


def _check_agree(values: Sequence[Any], field: str, what: str) -> None:
    if any(value != values[0] for value in values):
        raise InputError(
            f"the samples of a group are compared with each other, and differ in {what}; give those that belong "
            "together a group_id of their own",
            field=field,
        )
