"""Scores that are known already."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.chunks import Recalled
from flux_rewards.data import FIELDS
from flux_rewards.errors import ComputeError, ConfigError, brief, close_match
from flux_rewards.store import MemoryStore, SQLiteStore, Store
from flux_rewards.validation import texts, whole_number
from flux_rewards.wrappers.cache_keys import (
    deciding_fields,
    deciding_parameters,
    keys_of_units,
    reward_digest,
    settings_digest,
)
from flux_rewards.wrappers.cache_rows import packed_rows, unpacked_rows
from flux_rewards.wrappers.wrapper import CallWrapper

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.chunks import Chunk, Proceed
    from flux_rewards.contract import Scored

__all__ = ["Cached"]

_log = logging.getLogger(__name__)
MEMORY_BYTES = 256 * 2**20
WRITE_SECONDS = 0.05
"""Scores that come quicker than this are written together; a crash loses no more."""
PAUSE_SECONDS = 60
"""How long a file that failed is left alone."""


class Cached(CallWrapper):
    """Keeps the scores of a reward, by the content of what it read; of a composite, those of each leaf.

    A score is known by the reward (class and code, parameters, `RewardFunction.revision`) and by the content of the
    sample's fields that the reward reads: pixels, not file names. Those are its `required_fields` and
    `optional_fields`; a reward that does not say the latter may read any, and then all fields count. A group-scoped
    reward's scores are known by the whole group. Equal samples of one batch are computed once. Known scores need no
    lane, no time limit and no working service. Failures are not kept.

    Args:
        reward: The reward. It must give the same score for the same content.
        path: An SQLite file, made where it is missing; many processes and threads may use it at once, and a process
            that is killed leaves no wrong value behind. None keeps the scores in this object's memory.
        max_bytes: Size of what is kept; what was used least recently goes first. None: 256 MiB in memory, no limit in
            a file.
        fields: The fields that the reward reads, in place of those that it declares.
        name: What it is called.

    Raises:
        ConfigError: A bad size or field; on a call, a file that is no cache or comes from a newer version, or a
            parameter of a reward that cannot be told from another.
        InputError: On a call, a field holds something that cannot be told apart by its content.
        ContractError: On a call, metadata that would not come back as they were.

    A file that cannot be read or written at the moment costs scores, not the run: it is left alone for a minute, with a
    warning in the log. Another process that writes is waited for, up to 30 seconds.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> asked = []
        >>> slow = FunctionReward(lambda s: asked.append(s.response) or float(len(s.response)), fields=["response"])
        >>> reward = Cached(slow)
        >>> reward(response=["a", "bb", "a"]).rewards, reward(response=["bb", "ccc"]).rewards, asked
        (array([1., 2., 1.]), array([2., 3.]), ['a', 'bb', 'ccc'])
    """

    remembers = True

    def __init__(
        self,
        reward: RewardFunction,
        path: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int | None = None,
        fields: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name=name)
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise ConfigError(f"path must be the path of a file, found {brief(path)}", reward=self.label)
        self.path = path
        self.max_bytes = max_bytes if max_bytes is None else whole_number(max_bytes, "max_bytes", self.label, low=1)
        self.fields = None if fields is None else tuple(texts(fields, "fields", self.label))
        for field in self.fields or ():
            if field not in FIELDS:
                raise ConfigError(f"{field!r} is not a field of Sample{close_match(field, FIELDS)}", reward=self.label)
        self.store: Store = (
            MemoryStore(self.max_bytes or MEMORY_BYTES) if path is None else SQLiteStore(path, self.max_bytes)
        )
        self._usable_from = -math.inf
        self._known: dict[int, tuple[bytes, dict[str, Any]]] = {}  # leaves, by id

    def recall(self, chunk: Chunk, units: Sequence[Sequence[int]]) -> Recalled:
        """Look the units up; of equal ones that are not known, one is to be computed."""
        keys = self._keys(chunk, units)
        found: dict[bytes, bytes] = {}
        try:
            if time.monotonic() >= self._usable_from:
                found = self.store.get(list({key for unit in keys for key in unit or ()}))
        except ComputeError as error:
            self._leave_alone("read", error)
        known: list[int] = []
        values: list[bytes] = []
        twins: dict[int, int] = {}
        first: dict[tuple[bytes, ...], int] = {}
        for number, unit in enumerate(keys):
            if unit is None:
                continue
            if all(key in found for key in unit):
                known.append(number)
                values.extend(found[key] for key in unit)
            elif (same := first.setdefault(tuple(unit), number)) != number:
                twins[number] = same
        return Recalled(known, unpacked_rows(values), twins)

    def around(self, chunk: Chunk, proceed: Proceed) -> Scored:
        """Compute, and keep."""
        gathered: dict[bytes, bytes] = {}
        written = time.monotonic()

        def keep(call: Chunk) -> Scored:
            nonlocal written
            scored = proceed(call)
            gathered.update(self._packed(call, scored))
            if time.monotonic() - written >= WRITE_SECONDS:
                self._write(gathered)
                written = time.monotonic()
            return scored

        try:
            return chunk.each_call(keep)
        finally:
            self._write(gathered)

    def remember(self, chunk: Chunk, scored: Scored) -> None:
        """Keep what was computed elsewhere."""
        self._write(self._packed(chunk, scored))

    def clear(self) -> int:
        """Forget every score that the file, or this object, holds; returns how many."""
        return self.store.clear()

    def close(self) -> None:
        """Let go of the file, and of what the reward holds; the next call opens it again."""
        self.store.close()
        super().close()

    def _keys(self, chunk: Chunk, units: Sequence[Sequence[int]]) -> list[list[bytes] | None]:
        reward = chunk.reward
        if id(reward) not in self._known:
            self._known[id(reward)] = (reward_digest(reward), deciding_parameters(reward))
        # What the code closes over is looked at once: it may count its own calls there.
        digest, parameters = self._known[id(reward)]
        settings = settings_digest(reward, parameters)
        keys = keys_of_units(digest + settings, deciding_fields(reward, self.fields), chunk, units)
        notes = chunk.notes.setdefault(id(self), {})
        for unit, unit_keys in zip(units, keys, strict=True):
            if unit_keys is not None:
                notes.update((chunk.positions[row], (key, settings)) for row, key in zip(unit, unit_keys, strict=True))
        return keys

    def _packed(self, chunk: Chunk, scored: Scored) -> dict[bytes, bytes]:
        """What is worth keeping, by its key."""
        if chunk.reward.scope == "group" and scored.causes:
            return {}  # what a group lacks may decide the rest of it
        notes = chunk.notes.get(id(self), {})
        # A setting that has changed meanwhile may have decided the score.
        settings = settings_digest(chunk.reward, self._known[id(chunk.reward)][1]) if notes else b""
        found = [notes.get(position, (None, None)) for position in chunk.positions]
        keys = [key if of == settings else None for key, of in found]
        if chunk.stop_at_failure and scored.causes:  # rows that were not computed look like rows that do not apply
            keys = [
                key if applies else None for key, applies in zip(keys, ~np.isnan(scored.batch.rewards), strict=True)
            ]
        packed = packed_rows(scored.batch, self.name, chunk.positions)
        return {key: value for key, value in zip(keys, packed, strict=True) if key and value}

    def _write(self, gathered: dict[bytes, bytes]) -> None:
        try:
            if gathered and time.monotonic() >= self._usable_from:
                self.store.put(gathered)
        except ComputeError as error:
            self._leave_alone("written", error)
        gathered.clear()

    def _leave_alone(self, what: str, error: ComputeError) -> None:
        """Whoever holds the file may hold it for long; to wait again and again would be worse than to compute."""
        self._usable_from = time.monotonic() + PAUSE_SECONDS
        text = "reward %r: the cache cannot be %s, and is left alone for %d s: %s"
        _log.warning(text, self.name, what, PAUSE_SECONDS, error)
