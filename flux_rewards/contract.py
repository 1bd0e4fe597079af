"""What an author may return, read into a `RewardBatch`; nothing is guessed and nothing becomes a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flux_rewards.data import RewardBatch, RewardOutput, Sample
from flux_rewards.errors import (
    ComputeError,
    ConfigError,
    ContractError,
    FluxRewardsError,
    MissingDependencyError,
    WeightsError,
    brief,
)
from flux_rewards.transience import is_transient, retry_after

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SETUP_ERRORS", "Rows", "Scored", "copied", "locate", "read_rows", "reason"]

SETUP_ERRORS = (ConfigError, ContractError, MissingDependencyError, WeightsError)
"""Mistakes in how a reward was set up. They would fail every sample, so they are never masked."""

_PLAIN = {float, int, bool, type(None)}


class Rows(NamedTuple):
    """What an author returned, and for each failed row the exception as it was."""

    batch: RewardBatch
    causes: dict[int, Exception]


class Scored(NamedTuple):
    """A leaf's rows, and for each failed one the reason behind `RewardBatch.errors` as an error of the library."""

    batch: RewardBatch
    causes: Mapping[int, FluxRewardsError]

    @staticmethod
    def failure(error: Exception, *, reward: str, indices: Sequence[int]) -> Scored:
        """All rows failed for one reason; where they are several, none is to blame."""
        located = locate(error, reward=reward, index=indices[0] if len(indices) == 1 else None)
        rows = range(len(indices))
        batch = RewardBatch(np.full(len(indices), np.nan), errors=dict.fromkeys(rows, reason(error)))
        return Scored(batch, dict.fromkeys(rows, located))

    @staticmethod
    def scatter(count: int, pieces: Sequence[tuple[Sequence[int], Scored]]) -> Scored:
        """Put pieces back in order, as `RewardBatch.scatter` does."""
        causes = {rows[row]: cause for rows, piece in pieces for row, cause in piece.causes.items()}
        batch = RewardBatch.scatter(count, [(rows, piece.batch) for rows, piece in pieces])
        return Scored(batch, dict(sorted(causes.items())))

    def noting(self, rows: Sequence[int], note: str) -> Scored:
        """The same, with a note at the end of the reasons of some failed rows."""
        errors, causes = dict(self.batch.errors), dict(self.causes)
        copies: dict[int, FluxRewardsError] = {}  # what is one object stays one: a failure of the whole call
        for row in rows:
            errors[row] = f"{errors[row]} ({note})"
            if id(self.causes[row]) not in copies:
                noted = copies[id(self.causes[row])] = copied(self.causes[row])
                noted.args = (f"{noted.args[0] if noted.args else type(noted).__name__} ({note})", *noted.args[1:])
            causes[row] = copies[id(self.causes[row])]
        return Scored(replace(self.batch, errors=errors), causes)

    def select(self, rows: Sequence[int]) -> Scored:
        """Some of the rows, in that order."""
        causes = {place: self.causes[row] for place, row in enumerate(rows) if row in self.causes}
        return Scored(self.batch.select(rows), causes)


def copied(error: FluxRewardsError) -> FluxRewardsError:
    """Another object of the same content; an author's constructor is not called again."""
    other = type(error).__new__(type(error))
    other.args = error.args
    vars(other).update(vars(error))
    other.__cause__, other.__traceback__ = error.__cause__, error.__traceback__
    return other


def locate(error: Exception, *, reward: str, index: int | None) -> FluxRewardsError:
    """The same failure as an error of the library that names the reward and the sample."""
    if isinstance(error, FluxRewardsError):
        located = copied(error)  # the author may raise one and the same object twice
        if error.reward not in (None, reward) or (index is not None and error.index not in (None, index)):
            located.args = (str(error),)  # from a reward that this one calls: its place is its own
            located.field, located.index = None, None
        located.reward = reward
        located.index = located.index if located.index is not None else index
        return located
    failure = ComputeError(f"{type(error).__name__}: {error}", reward=reward, index=index)
    failure.__cause__ = error
    failure.retryable, failure.retry_after = is_transient(error), retry_after(error)
    return failure


def reason(error: Exception) -> str:
    """A failure as `RewardBatch.errors` records it."""
    return f"{type(error).__name__}: {error}"


def read_rows(returned: Any, samples: Sequence[Sample], *, reward: str, indices: Sequence[int]) -> Rows:
    """Read what ``compute_rewards`` returned for `samples`.

    Rows are numbers, None (does not apply), `RewardOutput`, or an exception (failed). Arrays, tensors and
    a `RewardBatch` stand for all rows at once; so does a `Scored`, with the errors. A NaN or infinity is a failure: a
    model that overflowed must not pass for a reward that does not apply.

    Args:
        returned: The author's value.
        samples: The samples that were scored.
        reward: Name of the reward, for messages.
        indices: Position of each sample in the caller's batch, for messages.

    Raises:
        ContractError: Another number or kind of rows, or token rewards that don't match the tokens.
    """
    if isinstance(returned, Scored):
        rows = read_rows(returned.batch, samples, reward=reward, indices=indices)
        return Rows(rows.batch, {**rows.causes, **returned.causes})
    if isinstance(returned, RewardBatch):
        _check_count(len(returned), samples, reward)
        _check_finite(returned, reward, indices)
        if returned.token_rewards is not None:
            read = [
                None
                if values is None or np.isnan(returned.rewards[row])
                else _read_tokens(values, reward, indices[row])
                for row, values in enumerate(returned.token_rewards)
            ]
            returned = replace(returned, token_rewards=read)
        scored = Rows(returned, {row: ComputeError(why) for row, why in returned.errors.items()})
    elif hasattr(returned, "shape"):
        scored = _read_array(returned, samples, reward)
    elif isinstance(returned, (list, tuple)):
        _check_count(len(returned), samples, reward)
        scored = _read_list(returned, reward, indices)
    else:
        raise ContractError(
            f"compute_rewards returned {brief(returned)}; expected a list of {len(samples)} rows (numbers, None or "
            "RewardOutput), an array or tensor (N,), or a RewardBatch",
            reward=reward,
        )
    _check_tokens(scored.batch, samples, reward, indices)
    return scored


def _check_count(count: int, samples: Sequence[Sample], reward: str) -> None:
    if count != len(samples):
        raise ContractError(f"returned {count} rows for {len(samples)} samples; return one a sample", reward=reward)


def _check_finite(batch: RewardBatch, reward: str, indices: Sequence[int]) -> None:
    infinite = np.flatnonzero(np.isinf(batch.rewards)).tolist()
    scored = [row for row in batch.errors if not np.isnan(batch.rewards[row])]
    for row in infinite or scored:
        raise ContractError(
            f"returned a RewardBatch with {batch.rewards[row]} here; rewards are finite, NaN where there is an error",
            reward=reward,
            index=indices[row],
        )


def _read_array(returned: Any, samples: Sequence[Sample], reward: str) -> Rows:
    if hasattr(returned, "detach"):  # a tensor, perhaps on another device, in bfloat16, with a gradient
        returned = returned.detach().double().cpu().numpy()
    array = np.asarray(returned)
    if array.shape != (len(samples),) or array.dtype.kind not in "fiub":
        raise ContractError(
            f"returned an array of {array.dtype} {array.shape}; expected numbers of shape ({len(samples)},)",
            reward=reward,
        )
    return _without_overflow(array.astype(np.float64), [None] * len(array), np.isfinite(array))


def _read_numbers(rows: Sequence[Any], reward: str) -> Rows:
    """Numbers and None, the common case, at once."""
    try:
        array = np.array(rows, dtype=np.float64)  # None becomes NaN
    except OverflowError as error:
        raise ContractError("returned a whole number too large for a float", reward=reward) from error
    finite = np.isfinite(array)
    if not finite.all():
        finite |= np.fromiter((row is None for row in rows), dtype=np.bool_, count=len(rows))
    return _without_overflow(array, [None] * len(rows), finite)


def _read_list(rows: Sequence[Any], reward: str, indices: Sequence[int]) -> Rows:
    if set(map(type, rows)) <= _PLAIN:
        return _read_numbers(rows, reward)
    values = np.full(len(rows), np.nan)
    finite = np.ones(len(rows), dtype=np.bool_)
    causes: list[Exception | None] = [None] * len(rows)
    tokens: list[NDArray[np.float64] | None] = [None] * len(rows)
    metadata: list[Mapping[str, Any]] = [{} for _ in rows]
    parts: dict[int, Mapping[str, float | None]] = {}
    for row, value in enumerate(rows):
        if isinstance(value, Exception):
            causes[row] = value
        elif isinstance(value, RewardOutput):
            values[row], metadata[row] = value.reward, value.metadata
            finite[row] = not value.applies or math.isfinite(value.reward)
            if value.parts:
                parts[row] = value.parts
                finite[row] &= all(part is None or math.isfinite(part) for part in value.parts.values())
            if value.error is not None:
                causes[row] = ComputeError(value.error)
            elif value.token_rewards is not None and value.applies:
                tokens[row] = _read_tokens(value.token_rewards, reward, indices[row])
        elif value is not None:
            try:
                values[row] = RewardOutput(value).reward
            except (ContractError, TypeError, ValueError, OverflowError) as error:
                raise ContractError(
                    f"returned {brief(value)}; expected a number, None or a RewardOutput",
                    reward=reward,
                    index=indices[row],
                ) from error
            finite[row] = math.isfinite(values[row])
    has_tokens = any(entry is not None for entry in tokens)
    read = _without_overflow(values, causes, finite, tokens if has_tokens else None, metadata)
    return Rows(replace(read.batch, parts=_parts(parts, read.batch)), read.causes) if parts else read


def _parts(parts: Mapping[int, Mapping[str, float | None]], batch: RewardBatch) -> dict[str, RewardBatch]:
    """The rows' parts by column; where a row failed, all parts failed with it."""
    columns: dict[str, NDArray[np.float64]] = {}
    for row, of_row in parts.items():
        for name, value in of_row.items():
            column = columns.setdefault(name, np.full(len(batch), np.nan))
            if value is not None and row not in batch.errors:
                column[row] = value
    return {name: RewardBatch(column, errors=dict(batch.errors)) for name, column in columns.items()}


def _without_overflow(
    values: NDArray[np.float64],
    causes: list[Exception | None],
    finite: NDArray[np.bool_],
    tokens: list[NDArray[np.float64] | None] | None = None,
    metadata: list[Mapping[str, Any]] | None = None,
) -> Rows:
    """The batch, with every value that is not a finite number turned into a failure."""
    failures = {row: cause for row, cause in enumerate(causes) if cause is not None}
    for row in np.flatnonzero(~finite).tolist():
        failures.setdefault(
            row,
            ComputeError(f"computed {values[row]}, not a finite score; return None where the reward does not apply"),
        )
    if failures:
        values[list(failures)] = np.nan
        failures = dict(sorted(failures.items()))
    reasons = {row: reason(cause) for row, cause in failures.items()}
    return Rows(RewardBatch(values, tokens, metadata or [], reasons), failures)


def _read_tokens(values: Any, reward: str, index: int) -> NDArray[np.float64]:
    if hasattr(values, "detach"):
        values = values.detach().double().cpu().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ContractError(f"token_rewards are numbers, found {brief(values)}", reward=reward, index=index) from error
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ContractError(
            f"token_rewards are finite numbers of shape (tokens,), found {brief(values)}",
            reward=reward,
            index=index,
        )
    return array


def _check_tokens(batch: RewardBatch, samples: Sequence[Sample], reward: str, indices: Sequence[int]) -> None:
    for row, values in enumerate(batch.token_rewards or ()):
        ids = samples[row].token_ids
        if values is not None and ids is not None and len(values) != len(ids):
            raise ContractError(
                f"returned {len(values)} token_rewards for {len(ids)} token_ids; return one a token",
                reward=reward,
                index=indices[row],
            )
