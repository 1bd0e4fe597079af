"""Scoring in another process: what is sent there, what comes back, and what the process keeps."""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Executor as FuturesExecutor
from typing import TYPE_CHECKING

from flux_rewards.chunks import Chunk, Run
from flux_rewards.errors import ConfigError
from flux_rewards.lanes import Claim, lanes_of
from flux_rewards.threads import Stop, this_thread
from flux_rewards.tree import Leaf

if TYPE_CHECKING:
    from flux_rewards.contract import Scored
    from flux_rewards.data import Sample
    from flux_rewards.stats import RewardStats

__all__ = ["arrived_here", "packed", "score_elsewhere", "shares_memory"]

_SEPARATE = {"ProcessPoolExecutor", "InterpreterPoolExecutor", "MPIPoolExecutor", "ClusterExecutor", "ClientExecutor"}


def shares_memory(pool: FuturesExecutor) -> bool:
    """Whether a pool runs its calls in this process, on the very objects that it is given."""
    return _SEPARATE.isdisjoint(kind.__name__ for kind in type(pool).__mro__)


def packed(leaf: Leaf) -> bytes:
    """A leaf and its wrappers, to send; those that remember stay here.

    Raises:
        ConfigError: It does not pickle.
    """
    try:
        return pickle.dumps((leaf.reward, [wrapper for wrapper in leaf.wrappers if not wrapper.remembers]))
    except Exception as error:
        raise ConfigError(
            f"cannot be sent to another process ({type(error).__name__}: {error}); define its class and functions at "
            "the top of an importable module, or use a pool of threads",
            reward=leaf.reward.name,
        ) from error


def score_elsewhere(
    pickled: bytes, samples: Sequence[Sample], positions: Sequence[int], *, stop_at_failure: bool
) -> tuple[Scored, RewardStats]:
    """Score a chunk in this process; its rewards are kept, with their weights, for the next one."""
    _end_with_parent()
    leaf = _unpacked(pickled)
    run = Run(Stop())
    this_thread.in_pool = True
    lanes, limit = lanes_of(leaf.reward), leaf.reward.num_workers
    chunk = Chunk(leaf.reward, samples, positions, run, stop_at_failure=stop_at_failure)
    try:
        run.claim = Claim(lanes.wait(limit, leaf.patience), lanes, limit, leaf.patience)
    except TimeoutError as error:  # a failure of these samples, which may be masked
        return chunk.failure(error), run.stats
    try:
        scored = leaf.score(chunk)
    finally:
        run.claim.leave()
    for failure in scored.causes.values():
        if failure.__cause__ is not None:  # a pickle leaves it behind
            vars(failure)["_flux_traceback"] = "".join(traceback.format_exception(failure.__cause__))
    return scored, run.stats


class WorkerTraceback(Exception):  # noqa: N818  # as a cause, it shows what happened in the worker
    """An exception of another process, with its traceback, as text."""


def arrived_here(result: tuple[Scored, RewardStats]) -> tuple[Scored, RewardStats]:
    """A result from another process, with the causes of its failures."""
    for failure in result[0].causes.values():
        text = vars(failure).pop("_flux_traceback", None)
        if text is not None:
            failure.__cause__ = WorkerTraceback(f"\n{text}")
    return result


@functools.lru_cache(maxsize=64)
def _unpacked(pickled: bytes) -> Leaf:
    reward, wrappers = pickle.loads(pickled)  # noqa: S301  # our own parent sent it
    return Leaf(reward, wrappers)


@functools.cache
def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    born_of = os.getppid()

    def watch() -> None:
        # Where workers are forked, one holds the other's pipe to the parent: that alone tells nothing.
        while parent.is_alive() and os.getppid() == born_of:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="flux-rewards-parent", daemon=True).start()
