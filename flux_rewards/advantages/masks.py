"""Which tokens count, as booleans where the values are."""

from __future__ import annotations

from typing import Any

import numpy as np

from flux_rewards.advantages.arrays import Array, Form, is_tensor, lengths_of, namespace
from flux_rewards.errors import InputError

__all__ = ["form_of", "mask_of", "right_padded"]


def form_of(values: Any, mask: Any) -> Form:
    """How values a token go out: as the mask, with the values' own type where both are tensors.

    Examples:
        >>> form_of([0.5], [[1, 1]])
        Form(dtype=None, device=None)
    """
    form = Form.of(mask)
    if form.dtype is None:
        return Form.of(values)
    if is_tensor(values):
        return Form(Form.of(values).dtype, form.device)
    return Form(namespace(mask).get_default_dtype(), form.device)


def mask_of(mask: Any, form: Form, shape: tuple[int | None, ...]) -> Array:
    """A mask as booleans, where the values are.

    Args:
        mask: Nonzero where a token counts.
        form: Of the values.
        shape: That it must have; None for any length.

    Raises:
        InputError: It has another shape.

    Examples:
        >>> mask_of([[0, 1]], Form(), (1, None))
        array([[False,  True]])
    """
    array = form.take(mask, "mask") != 0
    found = tuple(array.shape)
    if len(found) != 2 or any(want not in (None, size) for want, size in zip(shape, found, strict=True)):
        wanted = ", ".join("T" if size is None else str(size) for size in shape)
        raise InputError(f"the mask has the shape ({wanted}), found {found}")
    return array


def right_padded(lengths: Any, count: int, form: Form) -> Array:
    """The mask of responses of some lengths, right-padded to the longest.

    Examples:
        >>> right_padded([1, 2], 2, Form())
        array([[ True, False],
               [ True,  True]])
    """
    each = lengths_of(lengths, count, form)
    longest = int(each.max()) if count else 0
    return form.take(np.arange(longest), "positions")[None, :] < each[:, None]
