"""A tree of rewards, taken apart: the leaves that compute, and the folds above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from flux_rewards.data import RewardBatch, Sample
from flux_rewards.errors import ComputeError, ContractError, FluxRewardsError, InputError
from flux_rewards.grouping import split_groups

__all__ = ["Leaf", "Node", "Tree"]


class Node(Protocol):
    """What the executor knows of a reward: a fold over `children`, or a leaf where there are none."""

    @property
    def name(self) -> str: ...
    @property
    def num_workers(self) -> int: ...
    @property
    def scope(self) -> str: ...
    @property
    def masks_failures(self) -> bool: ...
    @property
    def leaf_batch_size(self) -> int | None: ...
    @property
    def children(self) -> Sequence[Node]: ...
    @property
    def chunk_size(self) -> int | None: ...
    def check_samples(self, samples: Sequence[Sample]) -> None: ...
    def score_chunk(self, samples: Sequence[Sample], indices: Sequence[int], *, masked: bool) -> RewardBatch: ...
    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch: ...


class Leaf:
    """One leaf of a tree during one call: how it is cut, and the pieces that are done."""

    def __init__(self, reward: Node) -> None:
        self.reward = reward
        self.masked = True  # until a path from the root without a mask reaches it
        self.batch_size: int | None = None  # asked for by a wrapper above; the smallest wins
        self.chunks: list[list[int]] = []
        self.pieces: list[tuple[list[int], RewardBatch]] = []

    def cut(self, samples: Sequence[Sample]) -> None:
        """Cut the samples into chunks: whole groups, or batches."""
        if self.reward.scope == "group":
            try:
                self.chunks = split_groups(samples)
            except InputError as error:
                error.reward = self.reward.name
                raise
            return
        count = len(samples)
        size = self.batch_size or self.reward.chunk_size or count
        self.chunks = [list(range(start, min(start + size, count))) for start in range(0, count, max(size, 1))]

    def gather(self, count: int) -> RewardBatch:
        """Put the pieces back in order."""
        if len(self.pieces) == 1 and len(self.pieces[0][0]) == count:  # one chunk is in order
            return self.pieces[0][1]
        return RewardBatch.scatter(count, self.pieces)


def _check_finite(batch: RewardBatch, name: str) -> None:
    for position in np.flatnonzero(np.isinf(batch.rewards)).tolist():
        raise ComputeError("the result is too large for a number", reward=name, index=position)
    for position, tokens in enumerate(batch.token_rewards or ()):
        if tokens is not None and not np.isfinite(tokens).all():
            raise ComputeError("a token reward is too large for a number", reward=name, index=position)


class Tree:
    """The leaves and folds of a tree, for one call.

    A node that is reached twice counts once, by identity; failures beneath it are masked only if every path has a mask.
    """

    def __init__(self, root: Node) -> None:
        self.root = root
        self.leaves: dict[int, Leaf] = {}
        self._folds: list[Node] = []  # children before parents
        self._fatal: set[int] = set()  # nodes whose failures nothing above them masks
        self._walk(root)

    def _walk(self, root: Node) -> None:
        seen: set[tuple[int, bool, int | None]] = set()
        placed: set[int] = set()
        stack: list[tuple[Node, bool, int | None, bool]] = [(root, False, None, False)]
        while stack:
            node, masked, batch_size, expanded = stack.pop()
            if expanded:
                if id(node) not in placed:
                    placed.add(id(node))
                    self._folds.append(node)
                continue
            if (id(node), masked, batch_size) in seen:
                continue
            seen.add((id(node), masked, batch_size))
            if not masked:
                self._fatal.add(id(node))
            if not node.children:
                leaf = self.leaves.setdefault(id(node), Leaf(node))
                leaf.masked = leaf.masked and masked
                if batch_size is not None:
                    leaf.batch_size = min(batch_size, leaf.batch_size or batch_size)
                continue
            stack.append((node, masked, batch_size, True))
            below = (masked or node.masks_failures, node.leaf_batch_size or batch_size)
            stack.extend((child, *below, False) for child in reversed(node.children))

    def fold(self, samples: Sequence[Sample]) -> RewardBatch:
        """Fold the leaves' pieces up to the root."""
        count = len(samples)
        results = {key: leaf.gather(count) for key, leaf in self.leaves.items()}
        for key, leaf in self.leaves.items():
            _check_finite(results[key], leaf.reward.name)  # its own scale may overflow
        for node in self._folds:
            batches = [results[id(child)] for child in node.children]
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
            if new and id(node) in self._fatal:
                raise ComputeError(batch.errors[new[0]], reward=node.name, index=new[0])
            results[id(node)] = batch
        return results[id(self.root)]
