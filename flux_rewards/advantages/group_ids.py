"""From what the caller knows about groups (ids, samples, a group size) to numbered groups."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from flux_rewards.advantages.arrays import Array, Form, is_tensor
from flux_rewards.advantages.segments import Segments
from flux_rewards.data import Sample
from flux_rewards.errors import InputError, brief
from flux_rewards.grouping import known_group_keys

__all__ = ["segments_of"]

_WANTED = "pass one id a reward, the list of samples, or a whole number for consecutive groups of that size"


def segments_of(groups: Any, count: int, form: Form) -> Segments:
    """The group of each of `count` rewards.

    Args:
        groups: A group size, when groups follow one another; whole numbers in an array or a tensor; any hashables, one
            a reward; or the samples, whose groups go by `group_id`, or by equal prompt and condition media.
        count: How many rewards there are.
        form: Where the rewards are; the numbers go there.

    Raises:
        InputError: There are not as many groups as rewards, the rewards are not a multiple of the group size, or an id
            cannot be compared with others.

    Examples:
        >>> segments_of(["b", "a", "b"], 3, Form()).codes
        array([0, 1, 0])
        >>> segments_of(2, 4, Form()).codes
        array([0, 0, 1, 1])
    """
    if isinstance(groups, (int, np.integer)) and not isinstance(groups, (bool, np.bool_)):
        return _runs(int(groups), count, form)
    unordered = isinstance(groups, (Mapping, AbstractSet))  # whose order is not that of the rewards
    if groups is None or isinstance(groups, (str, bytes, bool)) or unordered or not isinstance(groups, Iterable):
        raise InputError(f"groups cannot be {brief(groups)}; {_WANTED}")
    codes, number = _codes(groups, form) if hasattr(groups, "dtype") else _by_key(list(groups))
    if len(codes) != count:
        raise InputError(f"{count} rewards, but {len(codes)} groups; {_WANTED}")
    return Segments(_placed(codes, form), number)


def _runs(size: int, count: int, form: Form) -> Segments:
    if size < 1 or count % size:
        raise InputError(f"{count} rewards do not divide into consecutive groups of {size}; {_WANTED}")
    return Segments(_placed(np.arange(count) // size, form), count // size)


def _placed(codes: Array, form: Form) -> Array:
    if form.dtype is None or is_tensor(codes):
        return codes
    import torch  # noqa: PLC0415  # the rewards are tensors

    return torch.as_tensor(codes, device=form.device)


def _codes(groups: Array, form: Form) -> tuple[Array, int]:
    """The numbers of groups in an array or a tensor, and how many there are."""
    if groups.ndim != 1:
        raise InputError(f"groups have the shape (N,), one a reward; found {tuple(groups.shape)}")
    if is_tensor(groups):
        if form.dtype is not None and not (groups.is_floating_point() or groups.is_complex()):
            import torch  # noqa: PLC0415  # loaded already

            known, codes = torch.unique(groups.detach().to(form.device), return_inverse=True)
            return codes, len(known)
        groups = groups.detach().cpu().numpy()
    if not isinstance(groups, np.ndarray):  # a column of a table
        groups = np.asarray(groups)
    if groups.dtype.kind in "iu":
        return _whole_numbers(groups)
    if groups.dtype.kind in "OUST":
        return _by_key(groups.tolist())
    raise InputError(f"group ids are whole numbers, text or other hashables, found {brief(groups)}; {_WANTED}")


def _whole_numbers(ids: Array) -> tuple[Array, int]:
    if len(ids) == 0:
        return ids.astype(np.intp), 0
    low, high = int(ids.min()), int(ids.max())
    if high - low < 4 * len(ids):  # as good as numbered: sorting would cost more than all that follows
        wide = ids if ids.dtype.kind == "u" else ids.astype(np.int64)  # a difference may not fit into eight bits
        return (wide - wide.dtype.type(low)).astype(np.intp), high - low + 1
    known, codes = np.unique(ids, return_inverse=True)
    return codes, len(known)


def _by_key(keys: Sequence[Any]) -> tuple[Array, int]:
    """Number hashables in order of first appearance."""
    if any(isinstance(key, Sample) for key in keys[:1]):
        keys = known_group_keys(keys)
    numbers: defaultdict[Hashable, int] = defaultdict(itertools.count().__next__)
    try:
        codes = np.fromiter(map(numbers.__getitem__, keys), dtype=np.intp, count=len(keys))
    except TypeError as error:
        raise InputError(f"group ids must be hashable: {error}; {_WANTED}") from None
    if not set(map(type, numbers)) <= {str, int, tuple}:
        plain = [key.item() if hasattr(key, "item") and getattr(key, "ndim", 1) == 0 else key for key in numbers]
        for key in plain:
            if key is None or key != key or hasattr(key, "shape"):  # noqa: PLR0124  # NaN
                index = codes.tolist().index(plain.index(key))
                raise InputError(f"a group id is text or a number, found {brief(key)}", index=index)
        if len(set(plain)) < len(plain):  # elements of tensors equal only themselves
            codes, count = _by_key(plain)[0][codes], len(set(plain))
            return codes, count
    return codes, len(numbers)
