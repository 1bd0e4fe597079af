"""Scores as JSON: exactly, for a client of this library, and plainly, for any other."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards import errors
from flux_rewards.contract import Scored
from flux_rewards.data import RewardBatch
from flux_rewards.errors import ComputeError, ContractError, FluxRewardsError, brief
from flux_rewards.plain import NotPlain, from_plain, to_plain
from flux_rewards.wire.samples import MalformedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ANSWER_TYPE",
    "described",
    "nulls",
    "pack_answer",
    "plain_answer",
    "plain_errors",
    "restored",
    "unpack_answer",
]

ANSWER_TYPE = "application/vnd.flux-rewards.answer+json"


def described(error: FluxRewardsError, message: str | None = None) -> dict[str, Any]:
    """An error as JSON.

    Examples:
        >>> from flux_rewards import InputError
        >>> described(InputError("expected text", field="response", index=2))["field"]
        'response'
    """
    return {
        "type": type(error).__name__,
        "message": str(error.args[0] if error.args else error) if message is None else message,
        "field": error.field,
        "index": error.index,
        "retryable": error.retryable,
        "retry_after": error.retry_after,
        **{name: getattr(error, name) for name in ("status", "problem") if hasattr(error, name)},
    }


def restored(told: Any) -> FluxRewardsError:
    """The error that `described` was given; one of a class that this version has not is a `ComputeError`.

    Examples:
        >>> restored({"type": "InputError", "message": "expected text", "field": "response"}).field
        'response'
    """
    told = told if isinstance(told, Mapping) else {}
    kind = getattr(errors, str(told.get("type")), None)
    known = isinstance(kind, type) and issubclass(kind, FluxRewardsError)
    error: FluxRewardsError = (kind if known and kind is not None else ComputeError)(str(told.get("message")))
    error.field = told.get("field") if isinstance(told.get("field"), str) else None
    index = told.get("index")
    error.index = index if isinstance(index, int) and not isinstance(index, bool) else None
    error.retryable = told.get("retryable") is True
    after = told.get("retry_after")
    error.retry_after = float(after) if isinstance(after, (int, float)) and 0 <= after < 1e9 else None
    for name in ("status", "problem"):
        if hasattr(error, name) and told.get(name) is not None:
            setattr(error, name, told[name])
    return error


def pack_answer(answer: Scored, hide: Any = str) -> bytes:
    """An answer as bytes: numbers to the last bit, NaN as null, metadata with their types.

    Args:
        answer: The answer.
        hide: Takes out of a text what is nobody's business.

    Raises:
        ContractError: Metadata that have no form here; by the sample's index.

    Examples:
        >>> batch = RewardBatch([0.1, float("nan")], metadata=[{"size": (1, 2)}, {}])
        >>> unpack_answer(pack_answer(Scored(batch, {}))).batch.metadata
        [{'size': (1, 2)}, {}]
    """
    causes = {str(row): described(cause, hide(str(cause.args[0]))) for row, cause in answer.causes.items()}
    return json.dumps({"batch": _packed(answer.batch, hide), "causes": causes}, allow_nan=True).encode()


def _packed(batch: RewardBatch, hide: Any) -> dict[str, Any]:
    return {
        "rewards": nulls(batch.rewards),
        "token_rewards": None
        if batch.token_rewards is None
        else [None if values is None else values.tolist() for values in batch.token_rewards],
        "metadata": _metadata(batch, to_plain) if any(batch.metadata) else None,
        "errors": {str(row): hide(why) for row, why in batch.errors.items()},
        "parts": {name: _packed(part, hide) for name, part in batch.parts.items()},
    }


def _metadata(batch: RewardBatch, write: Callable[[Any], Any]) -> list[Any]:
    rows = []
    for row, entry in enumerate(batch.metadata):
        try:
            rows.append(write(dict(entry)))
        except NotPlain as error:
            message = f"metadata that cannot be sent: {error}; give text, numbers, lists, mappings and arrays"
            raise ContractError(message, field="metadata", index=row) from None
    return rows


def unpack_answer(body: bytes) -> Scored:
    """The answer of `pack_answer`.

    Raises:
        MalformedError: The bytes are something else.
    """
    try:
        told = json.loads(body)
        batch = _unpacked(told["batch"])
        causes = {int(row): restored(cause) for row, cause in told["causes"].items()}
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
        ArithmeticError,
        FluxRewardsError,
    ) as error:
        raise MalformedError(f"not an answer: {type(error).__name__}: {error}") from None
    if not causes.keys() <= batch.errors.keys():
        raise MalformedError("not an answer: the error of a sample that has none")
    return Scored(batch, causes)


def _unpacked(told: Mapping[str, Any], count: int | None = None) -> RewardBatch:
    tokens = told["token_rewards"]
    metadata = told["metadata"]
    batch = RewardBatch(
        _numbers(told["rewards"]),
        None if tokens is None else [None if values is None else _numbers(values) for values in tokens],
        [] if metadata is None else [from_plain(entry) for entry in metadata],
        {int(row): str(why) for row, why in told["errors"].items()},
        {name: _unpacked(part, len(told["rewards"])) for name, part in told["parts"].items()},
    )
    if count is not None and len(batch) != count:
        raise ValueError(f"a part has {len(batch)} rows of {count}")
    if not all(isinstance(entry, Mapping) for entry in batch.metadata):
        raise ValueError("metadata that are no mapping")
    if any(not math.isnan(batch.rewards[row]) for row in batch.errors):
        raise ValueError("a score where there is an error")
    return batch


def plain_answer(answer: Scored, hide: Any = str) -> dict[str, Any]:
    """An answer for clients that are not this library: plain JSON.

    Raises:
        ContractError: Metadata that have no form in JSON; by the sample's index.

    Examples:
        >>> plain_answer(Scored(RewardBatch([0.5, float("nan")]), {}))["rewards"]
        [0.5, None]
    """
    return {**_plain_batch(answer.batch), "errors": plain_errors(answer, hide)}


def plain_errors(answer: Scored, hide: Any = str) -> list[dict[str, Any]]:
    """The failures of an answer as plain JSON, in the order of their samples.

    Examples:
        >>> from flux_rewards import InputError
        >>> batch = RewardBatch([float("nan")], errors={0: "InputError: expected text"})
        >>> plain_errors(Scored(batch, {0: InputError("expected text", field="response")}))[0]["field"]
        'response'
    """
    return [
        {**described(answer.causes[row], hide(str(answer.causes[row].args[0]))), "index": row}
        if row in answer.causes
        else {"type": why.partition(":")[0], "message": hide(why.partition(": ")[2]), "index": row}
        for row, why in sorted(answer.batch.errors.items())
    ]


def _plain_batch(batch: RewardBatch) -> dict[str, Any]:
    tokens = batch.token_rewards
    return {
        "rewards": nulls(batch.rewards),
        "token_rewards": None if tokens is None else [None if values is None else values.tolist() for values in tokens],
        "metadata": _metadata(batch, _plainly),
        "errors": [{"index": row} for row in batch.errors],
        "parts": {name: _plain_batch(part) for name, part in batch.parts.items()},
    }


def _plainly(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plainly(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plainly(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plainly(value.tolist())
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise NotPlain(f"{brief(value)} is a {type(value).__name__}")


def nulls(values: NDArray[np.float64]) -> list[float | None]:
    """Numbers as JSON has them: null for NaN.

    Examples:
        >>> nulls(np.array([0.5, np.nan]))
        [0.5, None]
    """
    return [None if math.isnan(value) else value for value in values.tolist()]


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    for value in values:
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
        ):
            raise TypeError(f"a score is a finite number or null, found {value!r}")
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
