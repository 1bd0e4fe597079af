"""Which samples answer one prompt together, so that they may be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flux_rewards.errors import InputError, brief
from flux_rewards.fingerprint import Memo, fingerprint

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from flux_rewards.data import Sample

__all__ = ["group_keys", "has_group", "known_group_keys", "split_groups"]


def group_keys(samples: Sequence[Sample]) -> list[Hashable]:
    """The key of each sample's group, by `group_id` where there is one, never by position.

    Samples without a `group_id` are a group when they have the same prompt and the same condition media,
    compared by content, so that copies in another process agree.

    Examples:
        >>> from flux_rewards.data import Sample
        >>> a, b, c = group_keys([Sample("x"), Sample("x", group_id=3), Sample("x")])
        >>> a == c, a == b
        (True, False)
    """
    memo: Memo = {}
    keys: list[Hashable] = []
    for sample in samples:
        if sample.group_id is not None:
            keys.append(("group_id", _plain_id(sample.group_id, len(keys))))
            continue
        prompt = sample.prompt if isinstance(sample.prompt, str) else fingerprint(sample.prompt, memo)
        media = tuple(
            fingerprint(value, memo) if value is not None else None
            for value in (sample.condition_images, sample.condition_videos)
        )
        keys.append(("prompt", prompt, media))
    return keys


def _plain_id(group_id: Any, index: int) -> Hashable:
    """An id that equals its equals: elements of tensors are each their own, and NaN is never itself."""
    plain = group_id.item() if hasattr(group_id, "item") and getattr(group_id, "ndim", 1) == 0 else group_id
    try:
        hash(plain)
        usable = not hasattr(plain, "shape") and plain == plain  # noqa: PLR0124  # not NaN
    except TypeError:
        usable = False
    if not usable:
        raise InputError(f"a group_id is text or a number, found {brief(group_id)}", field="group_id", index=index)
    return plain  # type: ignore[no-any-return]


def has_group(sample: Sample) -> bool:
    """Whether anything says which group the sample belongs to: an id, a prompt, or condition media.

    Examples:
        >>> from flux_rewards.data import Sample
        >>> has_group(Sample(response="x")), has_group(Sample("q", "x"))
        (False, True)
    """
    return any(
        known is not None
        for known in (sample.group_id, sample.prompt, sample.condition_images, sample.condition_videos)
    )


def split_groups(samples: Sequence[Sample]) -> list[list[int]]:
    """The positions of each group's samples, groups in order of first appearance.

    Raises:
        InputError: A sample has neither a `group_id` nor a prompt nor condition media.

    Examples:
        >>> from flux_rewards.data import Sample
        >>> split_groups([Sample("x"), Sample("y"), Sample("x")])
        [[0, 2], [1]]
    """
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(known_group_keys(samples)):
        groups.setdefault(key, []).append(position)
    return list(groups.values())


def known_group_keys(samples: Sequence[Sample]) -> list[Hashable]:
    """As `group_keys`, for samples that must have a group.

    Raises:
        InputError: A sample has neither a `group_id` nor a prompt nor condition media.

    Examples:
        >>> from flux_rewards.data import Sample
        >>> known_group_keys([Sample("x", group_id=3)])
        [('group_id', 3)]
    """
    for position, sample in enumerate(samples):
        if not has_group(sample):
            raise InputError(
                "the sample has neither a group_id nor a prompt, so its group is not known; give it one of them",
                field="group_id",
                index=position,
            )
    return group_keys(samples)
