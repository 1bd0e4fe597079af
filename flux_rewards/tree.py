"""A tree of rewards, taken apart: the leaves that compute, the wrappers of their calls, and the folds above them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from flux_rewards.chunks import Chunk, Proceed, Recalled, compute
from flux_rewards.data import RewardBatch, Sample
from flux_rewards.errors import ComputeError, ContractError, FluxRewardsError
from flux_rewards.naming import distinct
from flux_rewards.stats import RewardStats

if TYPE_CHECKING:
    from flux_rewards.contract import Scored

__all__ = ["CallWrapping", "FieldsRead", "Leaf", "Node", "Tree", "fields_read"]


class Node(Protocol):
    """What the executor knows of a reward: a fold over `children`, or a leaf where there are none."""

    @property
    def name(self) -> str: ...
    @property
    def num_workers(self) -> int: ...
    @property
    def async_reward(self) -> bool | None: ...
    @property
    def scope(self) -> str: ...
    @property
    def scores_by_sample(self) -> bool: ...
    @property
    def reading_form(self) -> str: ...
    @property
    def differentiable(self) -> bool: ...
    @property
    def reference_is_media(self) -> bool: ...
    @property
    def required_fields(self) -> Sequence[str]: ...
    @property
    def optional_fields(self) -> Sequence[str] | None: ...
    @property
    def masks_failures(self) -> bool: ...
    @property
    def wraps_calls(self) -> bool: ...
    @property
    def leaf_batch_size(self) -> int | None: ...
    @property
    def children(self) -> Sequence[Node]: ...
    @property
    def chunk_size(self) -> int | None: ...
    def check_samples(self, samples: Sequence[Sample]) -> None: ...
    def score_chunk(self, samples: Sequence[Sample], indices: Sequence[int], *, stop_at_failure: bool) -> Scored: ...
    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch: ...


class CallWrapping(Node, Protocol):
    """A node that stands around every call of the leaves beneath it."""

    @property
    def patience(self) -> float | None: ...
    @property
    def remembers(self) -> bool: ...
    @property
    def skips_missing(self) -> bool: ...
    def around(self, chunk: Chunk, proceed: Proceed) -> Scored: ...
    def recall(self, chunk: Chunk, units: Sequence[Sequence[int]]) -> Recalled: ...
    def remember(self, chunk: Chunk, scored: Scored) -> None: ...


class Leaf:
    """One leaf of a tree during one call: how it is cut, what stands around it, and the pieces that are done."""

    def __init__(self, reward: Node, wrappers: Sequence[CallWrapping] = ()) -> None:
        self.reward = reward
        self.wrappers = wrappers  # outermost first
        self.masked = True  # until a path from the root without a mask reaches it
        self.batch_size: int | None = None  # asked for by a wrapper above; the smallest wins
        self.pieces: list[tuple[Sequence[int], RewardBatch]] = []
        self.stats = RewardStats()
        self.notes: dict[int, dict[int, Any]] = {}
        self.twins: dict[int, list[int]] = {}  # positions to others of the same content, which get the same rows
        self.left_out: set[int] = set()  # positions to which the reward does not apply, for want of a field
        self.recalling = 0
        self._uncut: list[int] = []

    @functools.cached_property
    def score(self) -> Proceed:
        """From a chunk to its rows, through all wrappers."""
        proceed: Proceed = compute
        for wrapper in reversed(self.wrappers):
            proceed = functools.partial(wrapper.around, proceed=proceed)
        return proceed

    @functools.cached_property
    def memories(self) -> list[CallWrapping]:
        """The wrappers that may know a score already."""
        return [wrapper for wrapper in self.wrappers if wrapper.remembers]

    @functools.cached_property
    def patience(self) -> float | None:
        """How long to wait for a lane where all are held by calls that are over their time."""
        return min((wrapper.patience for wrapper in self.wrappers if wrapper.patience is not None), default=None)

    @functools.cached_property
    def skips_missing(self) -> bool:
        """Whether samples that lack a required field are left out, where they would be an error."""
        return any(wrapper.skips_missing for wrapper in self.wrappers)

    def check(self, samples: Sequence[Sample]) -> list[int]:
        """Raise unless the reward can take the samples; the rows that it is to leave out.

        Raises:
            InputError: A sample lacks a required field, and is not to be left out.
        """
        absent = self._rows_lacking(samples) if self.skips_missing else []
        if not absent:
            self.reward.check_samples(samples)
            return []
        given = sorted(set(range(len(samples))).difference(absent))
        try:
            self.reward.check_samples([samples[row] for row in given])
        except FluxRewardsError as error:
            error.index = None if error.index is None else given[error.index]
            raise
        return absent

    def _rows_lacking(self, samples: Any) -> list[int]:
        if not isinstance(samples, Sequence):  # an error, as is an entry that is no sample
            return []
        fields = tuple(self.reward.required_fields)
        return [
            row
            for row, sample in enumerate(samples)
            if isinstance(sample, Sample) and any(getattr(sample, field) is None for field in fields)
        ]

    def leave_out(self, positions: Sequence[int]) -> None:
        """Settle positions to which the reward does not apply."""
        if positions:
            self.left_out.update(positions)
            self.pieces.append((positions, RewardBatch(np.full(len(positions), np.nan))))
            self.stats.add(RewardStats(samples=len(positions)))

    def taken(self, positions: Sequence[int]) -> Sequence[int]:
        """The positions that are not left out."""
        return [position for position in positions if position not in self.left_out] if self.left_out else positions

    def cut(self, positions: Sequence[int], *, last: bool) -> list[list[int]]:
        """Cut samples into batches; those too few for one wait for more, unless these are the last."""
        if self._uncut:
            self._uncut.extend(positions)
        else:
            self._uncut = list(positions)
        count = len(self._uncut)
        size = self.batch_size or self.reward.chunk_size or max(count, 1)
        end = count if last else count - count % size
        chunks = [self._uncut[start : min(start + size, end)] for start in range(0, end, size)]
        self._uncut = self._uncut[end:]
        return chunks

    def gather(self, count: int) -> RewardBatch:
        """Put the pieces back in order."""
        if len(self.pieces) == 1 and list(self.pieces[0][0]) == list(range(count)):
            return self.pieces[0][1]
        return RewardBatch.scatter(count, self.pieces)


def _check_finite(batch: RewardBatch, name: str) -> None:
    for position in np.flatnonzero(np.isinf(batch.rewards)).tolist():
        raise ComputeError("the result is too large for a number", reward=name, index=position)
    for position, tokens in enumerate(batch.token_rewards or ()):
        if tokens is not None and not np.isfinite(tokens).all():
            raise ComputeError("a token reward is too large for a number", reward=name, index=position)


class FieldsRead(NamedTuple):
    """What a tree of rewards reads of a sample.

    Attributes:
        required: What every sample must have.
        needed: These, and those without which a part does not apply: what is required beneath a `WhenGiven`.
        named: These, and what is read where it is there: all that some reward of the tree names.
        anything: Whether some reward of the tree does not say what it reads, so that any field may decide its score.
    """

    required: tuple[str, ...]
    needed: tuple[str, ...]
    named: tuple[str, ...]
    anything: bool

    @property
    def optional(self) -> tuple[str, ...] | None:
        """What is read where it is there; None for any field."""
        return None if self.anything else tuple(field for field in self.named if field not in self.required)


def fields_read(reward: Node) -> FieldsRead:
    """What a reward, and everything beneath it, reads of a sample.

    Examples:
        >>> from flux_rewards import CompositeReward, ExactMatch, LengthReward, WhenGiven
        >>> read = fields_read(CompositeReward([(WhenGiven(ExactMatch()), 1.0), (LengthReward(target=40), 0.1)]))
        >>> read.required, read.optional
        (('response',), ('reference', 'token_ids'))
    """
    return Tree(reward).fields_read()


class _Place(NamedTuple):
    """A node beneath certain wrappers: the same reward with and without a retry is computed for each."""

    node: int
    wrappers: tuple[int, ...]


class _Path(NamedTuple):
    """How the walk came to a node."""

    node: Node
    masked: bool = False
    batch_size: int | None = None
    wrappers: tuple[CallWrapping, ...] = ()

    @property
    def place(self) -> _Place:
        return _Place(id(self.node), tuple(map(id, self.wrappers)))

    def below(self, child: Node) -> _Path:
        node: Any = self.node
        return _Path(
            child,
            self.masked or node.masks_failures,
            node.leaf_batch_size or self.batch_size,
            (*self.wrappers, node) if node.wraps_calls else self.wrappers,
        )


class Tree:
    """The leaves and folds of a tree, for one call.

    A node that is reached twice counts once, by identity; failures beneath it are masked only if every path has a mask.
    """

    def __init__(self, root: Node) -> None:
        self.leaves: dict[_Place, Leaf] = {}
        self._root = _Path(root).place
        self._folds: dict[_Place, tuple[Node, list[_Place]]] = {}  # children before parents
        self._fatal: set[_Place] = set()  # nodes whose failures nothing above them masks
        self._walk(root)

    def _walk(self, root: Node) -> None:
        seen: set[tuple[_Place, bool, int | None]] = set()
        stack: list[tuple[_Path, bool]] = [(_Path(root), False)]
        while stack:
            path, expanded = stack.pop()
            place, node = path.place, path.node
            below = [path.below(child) for child in node.children]
            if expanded:
                self._folds.setdefault(place, (node, [child.place for child in below]))
                continue
            if (place, path.masked, path.batch_size) in seen:
                continue
            seen.add((place, path.masked, path.batch_size))
            if not path.masked:
                self._fatal.add(place)
            if not below:
                leaf = self.leaves.setdefault(place, Leaf(node, path.wrappers))
                leaf.masked = leaf.masked and path.masked
                if path.batch_size is not None:
                    leaf.batch_size = min(path.batch_size, leaf.batch_size or path.batch_size)
                continue
            stack.append((path, True))
            stack.extend((child, False) for child in reversed(below))

    def check(self, samples: Sequence[Sample]) -> None:
        """Raise unless every leaf can take the samples, or leave them out.

        Raises:
            InputError: A sample lacks a field that a leaf requires.
        """
        for leaf in self.leaves.values():
            leaf.check(samples)

    def fields_read(self) -> FieldsRead:
        """What its leaves read of a sample, and folds that are somebody's own."""
        leaves = list(self.leaves.values())
        required = [field for leaf in leaves if not leaf.skips_missing for field in leaf.reward.required_fields]
        needed = [*required, *(field for leaf in leaves for field in leaf.reward.required_fields)]
        # Folds of this library look at groups only; another one is given the samples, too.
        folds = [node for node, _ in self._folds.values() if not type(node).__module__.startswith("flux_rewards.")]
        told = [reader.optional_fields for reader in [*(leaf.reward for leaf in leaves), *folds]]
        named = [*needed, *(field for fields in told for field in fields or ())]
        return FieldsRead(
            tuple(dict.fromkeys(required)), tuple(dict.fromkeys(needed)), tuple(dict.fromkeys(named)), None in told
        )

    def fold(self, samples: Sequence[Sample], positions: Sequence[int] | None = None) -> RewardBatch:
        """Fold the leaves' pieces up to the root; of some positions only, where whole groups of them are done."""
        count = len(samples)
        results = {place: leaf.gather(count) for place, leaf in self.leaves.items()}
        if positions is not None:
            results = {place: batch.select(positions) for place, batch in results.items()}
            samples, count = [samples[position] for position in positions], len(positions)
        for place, leaf in self.leaves.items():
            _check_finite(results[place], leaf.reward.name)  # its own scale may overflow
        for place, (node, children) in self._folds.items():
            batches = [results[child] for child in children]
            try:
                with np.errstate(over="ignore"):  # the result is checked below
                    batch = node.combine(batches, samples)
            except FluxRewardsError as error:
                error.reward = error.reward or node.name
                raise
            if len(batch) != count:
                raise ContractError(f"combine returned {len(batch)} rows for {count} samples", reward=node.name)
            _check_finite(batch, node.name)
            known = set().union(*(below.errors for below in batches))
            new = [position for position in batch.errors if position not in known]
            if new and place in self._fatal:
                raise ComputeError(batch.errors[new[0]], reward=node.name, index=new[0])
            results[place] = batch
        return results[self._root].with_stats(self._stats())

    def _stats(self) -> dict[str, RewardStats]:
        leaves = list(self.leaves.values())
        names = distinct(leaf.reward.name for leaf in leaves)
        return {name: leaf.stats for name, leaf in zip(names, leaves, strict=True)}
