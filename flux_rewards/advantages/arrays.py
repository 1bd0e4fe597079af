"""One arithmetic for NumPy arrays and PyTorch tensors: which of them came in, and how the result is given back."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from flux_rewards.data import RewardBatch
from flux_rewards.errors import InputError, brief

__all__ = ["Array", "Form", "check_finite", "indicator", "is_tensor", "lengths_of", "namespace", "values_of"]

Array = Any
"""A NumPy array, or a tensor where tensors came in."""


def is_tensor(value: Any) -> bool:
    """Whether a value is a PyTorch tensor; does not load torch to find out.

    Examples:
        >>> is_tensor([1.0])
        False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def namespace(array: Array) -> Any:
    """The module that computes with an array: numpy, or torch. What is used of them has the same name in both.

    Examples:
        >>> namespace(np.zeros(2)).__name__
        'numpy'
    """
    return sys.modules["torch"] if is_tensor(array) else np


def indicator(condition: Array, values: Array) -> Array:
    """1 where a condition holds, else 0, in the precision of the values.

    Examples:
        >>> indicator(np.array([True, False]), np.zeros(2))
        array([1., 0.])
    """
    xp = namespace(values)
    return xp.where(condition, xp.ones_like(values), xp.zeros_like(values))


@dataclass(frozen=True)
class Form:
    """How numbers came in, and so how results go out: float64 arrays, or tensors of a type on a device.

    Attributes:
        dtype: Of the tensors; None for NumPy.
        device: Of the tensors; None for NumPy.
    """

    dtype: Any = None
    device: Any = None

    @staticmethod
    def of(value: Any) -> Form:
        """The form of a value; whole numbers and booleans in tensors become the default type of floats."""
        if not is_tensor(value):
            return Form()
        torch = sys.modules["torch"]
        return Form(value.dtype if value.is_floating_point() else torch.get_default_dtype(), value.device)

    def take(self, value: Any, what: str) -> Array:
        """A value as numbers to compute with: float64 (float32 on devices without it), detached, on the device.

        Raises:
            InputError: The value does not consist of numbers.
        """
        if isinstance(value, (list, tuple)) and any(isinstance(entry, (str, bytes)) for entry in value):
            raise InputError(f"{what} must be numbers, found {brief(value)}")
        try:
            if self.dtype is None:
                return np.asarray(value.detach().cpu().double() if is_tensor(value) else value, dtype=np.float64)
            import torch  # noqa: PLC0415  # loaded already

            work = torch.float32 if self.device.type == "mps" else torch.float64
            tensor = value.detach() if is_tensor(value) else torch.as_tensor(np.asarray(value, dtype=np.float64))
            return tensor.to(device=self.device, dtype=work)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{what} must be numbers, found {brief(value)}: {error}") from None

    def give(self, array: Array) -> Array:
        """A result in the type that came in."""
        return array if self.dtype is None else array.to(self.dtype)


def values_of(values: Any, what: str = "rewards", form: Form | None = None) -> tuple[Array, Form]:
    """One number a sample, shape (N,), and the form that it came in. NaN and None mean no score.

    Raises:
        InputError: It is not one-dimensional, does not consist of numbers, or holds infinity.

    Examples:
        >>> values_of([1, None])[0]
        array([ 1., nan])
    """
    column = values.rewards if isinstance(values, RewardBatch) else values
    form = Form.of(column) if form is None else form
    array = form.take(column, what)
    if array.ndim != 1:
        raise InputError(f"{what} have the shape (N,), one a sample; found {tuple(array.shape)}")
    check_finite(array, what)
    return array, form


def check_finite(array: Array, what: str) -> None:
    """Refuse infinity: no baseline and no standard deviation stands beside it.

    Raises:
        InputError: There is some; the message names the first.
    """
    infinite = namespace(array).isinf(array)
    if bool(infinite.any()):
        row = int(infinite.reshape(infinite.shape[0], -1).any(1).nonzero()[0].reshape(-1)[0])
        raise InputError(f"{what} must be finite, or NaN for no score, found infinity; clip it first", index=row)


def lengths_of(lengths: Any, count: int, form: Form) -> Array:
    """The number of tokens of each sample, shape (N,), from numbers or from a mask of shape (N, T).

    Raises:
        InputError: A length is negative, NaN or infinite, or there are not as many as samples.

    Examples:
        >>> lengths_of([[1, 1, 0], [1, 1, 1]], 2, Form())
        array([2., 3.])
    """
    array = form.take(lengths, "lengths")
    if array.ndim == 2:
        array = (array != 0).sum(1) * 1.0
    if array.ndim != 1 or len(array) != count:
        raise InputError(f"lengths has the shape {tuple(array.shape)} for {count} rewards; each needs one")
    wrong = ~((array >= 0) & (array < math.inf))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0].reshape(-1)[0])
        raise InputError(f"a length is a number of tokens >= 0, found {float(array[row])}", index=row)
    return form.take(array, "lengths")
