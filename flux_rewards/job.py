"""One call of a tree of rewards: samples come, tasks are cut from them, and their results are put together.

It knows what is to be done, and not where: the executor runs the tasks, in this thread or in others.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flux_rewards.chunks import Chunk, Run
from flux_rewards.errors import FluxRewardsError, InputError, brief
from flux_rewards.grouping import known_group_keys
from flux_rewards.stats import RewardStats
from flux_rewards.threads import Stop
from flux_rewards.tree import Leaf, Node, Tree

if TYPE_CHECKING:
    from flux_rewards.contract import Scored
    from flux_rewards.data import RewardBatch, Sample

__all__ = ["Job", "Task"]


class Task(NamedTuple):
    """Something to run for a leaf: a chunk to score, or, before that, units of samples to look up."""

    leaf: Leaf
    positions: list[int]
    units: list[list[int]] | None = None
    """Rows of `positions` that are looked up together: single samples, or whole groups. None: score the chunk."""


class Job:
    """One tree over samples that may come little by little.

    Args:
        root: The tree.
        group_size: Samples of a group; a group of so many is complete.
    """

    def __init__(self, root: Node, group_size: int | None = None) -> None:
        self.samples: list[Sample] = []
        self.tree = Tree(root)
        self.leaves = list(self.tree.leaves.values())
        self.finished: Future[None] = Future()
        self.stopped = Stop()
        self.deadline: float | None = None
        self.causes: dict[int, FluxRewardsError] = {}
        """By position, the first failure of a leaf there, masked or not."""
        self.on_progress: Callable[[], Any] = lambda: None
        """Called whenever rows of a leaf are done, in the thread that did them."""
        self._group_size = group_size
        self._by_group = [leaf for leaf in self.leaves if leaf.reward.scope == "group"]
        self._has_groups = bool(self._by_group) or group_size is not None
        self._groups: dict[Hashable, list[int]] = {}
        self._complete: set[Hashable] = set()
        self._lock = threading.Lock()
        self._open = True
        self._shared: dict[Any, Any] = {}
        self._outstanding = 0
        self._unstarted: dict[int, Task] = {}  # handed to a pool, and not begun there

    # What is to be done

    def add(self, samples: Sequence[Sample]) -> list[Task]:
        """Take samples in, and return the tasks that are ready.

        Raises:
            InputError: A sample lacks a field that a leaf requires, or its group; by its index in the whole job. Then
                none of the samples is taken in.
        """
        first = len(self.samples)
        try:
            absent = [leaf.check(samples) for leaf in self.leaves]
            keys = self._keys(samples) if self._has_groups else []
        except FluxRewardsError as error:
            error.index = None if error.index is None else error.index + first
            raise
        self.samples.extend(samples)
        positions = range(first, len(self.samples))
        with self._lock:
            for leaf, rows in zip(self.leaves, absent, strict=True):
                leaf.leave_out([first + row for row in rows])
        complete: list[Hashable] = []
        for position, key in zip(positions, keys, strict=False):
            members = self._groups.setdefault(key, [])
            members.append(position)
            if len(members) == self._group_size:
                complete.append(key)
        tasks = self._group_tasks(complete)
        for leaf in self.leaves:
            if leaf.reward.scope != "group" and (taken := leaf.taken(positions)):
                tasks += self._sample_tasks(leaf, taken)
        return self._counted(tasks)

    def close_group(self, member: Sample) -> list[Task]:
        """No more samples of this one's group will come."""
        (key,) = known_group_keys([member])
        if not self._has_groups:
            return []
        if key not in self._groups:
            raise InputError(f"no sample of {_label(key)} has been added", field="group_id")
        return self._counted(self._group_tasks([key]))

    def close(self) -> list[Task]:
        """No more samples will come.

        Raises:
            InputError: A group is incomplete; add the rest of it, and close again.
        """
        for key, members in self._groups.items() if self._group_size is not None else ():
            if key not in self._complete:
                raise InputError(
                    f"{_label(key)} is incomplete: {len(members)} of group_size={self._group_size} samples; add the "
                    "rest, or close the group",
                    field="group_id",
                    index=members[0],
                )
        tasks = self._group_tasks([key for key in self._groups if key not in self._complete])
        with self._lock:
            self._open = False
            flushed = [leaf for leaf in self.leaves if leaf.recalling == 0]
            tasks += [Task(leaf, chunk) for leaf in flushed for chunk in leaf.cut((), last=True)]
        tasks = self._counted(tasks)
        self._end_if_done()
        return tasks

    def _keys(self, samples: Sequence[Sample]) -> list[Hashable]:
        try:
            keys = known_group_keys(samples)
        except InputError as error:
            error.reward = self._by_group[0].reward.name if self._by_group else None
            raise
        counts: dict[Hashable, int] = {}
        for index, key in enumerate(keys):
            counts[key] = 1 + (counts[key] if key in counts else len(self._groups.get(key, ())))
            if key in self._complete or (self._group_size is not None and counts[key] > self._group_size):
                raise InputError(
                    f"{_label(key)} was complete with {counts[key] - 1} samples, and here is one more; where several "
                    "groups have one prompt, give each a group_id",
                    field="group_id",
                    index=index,
                )
        return keys

    def _group_tasks(self, keys: Iterable[Hashable]) -> list[Task]:
        fresh = [key for key in keys if key not in self._complete]
        self._complete.update(fresh)
        whole = [self._groups[key] for key in fresh]
        tasks: list[Task] = []
        for leaf in self._by_group:
            groups = [taken for group in whole if (taken := list(leaf.taken(group)))]
            if leaf.memories and groups:
                positions = [position for group in groups for position in group]
                starts = range(len(positions))
                rows = iter(starts)
                tasks.append(self._lookup(leaf, positions, [[next(rows) for _ in group] for group in groups]))
            else:
                tasks += [Task(leaf, group) for group in groups]
        return tasks

    def _sample_tasks(self, leaf: Leaf, positions: Sequence[int]) -> list[Task]:
        if leaf.memories:
            return [self._lookup(leaf, list(positions), [[row] for row in range(len(positions))])]
        with self._lock:
            return [Task(leaf, chunk) for chunk in leaf.cut(positions, last=False)]

    def _lookup(self, leaf: Leaf, positions: list[int], units: list[list[int]]) -> Task:
        with self._lock:
            leaf.recalling += 1
        return Task(leaf, positions, units)

    def _counted(self, tasks: list[Task]) -> list[Task]:
        with self._lock:
            self._outstanding += len(tasks)
        return tasks

    # What is done

    def new_run(self) -> Run:
        """What the parts of one chunk share."""
        return Run(self.stopped, shared=self._shared)

    def run(self, task: Task, run: Run | None = None) -> Sequence[Task]:
        """Run one task in this thread, and return those that follow from it."""
        if self.finished.done() or self.late():  # failed, cancelled or over its time: start nothing more
            return ()
        run = run or self.new_run()
        try:
            if task.units is not None:
                return self._look_up(task, run)
            scored = task.leaf.score(self.chunk(task, run))
        except CancelledError:
            if not self.finished.done():  # an author's own, from a future of theirs
                self.end(CancelledError(f"the reward {task.leaf.reward.name!r} was cancelled"))
        except BaseException as error:
            self.end(error)
            if not isinstance(error, Exception):
                raise
        else:
            self.record(task, scored, run.stats)
        return ()

    def chunk(self, task: Task, run: Run) -> Chunk:
        """The samples of a task, on their way."""
        leaf, positions = task.leaf, task.positions
        count = len(self.samples)
        whole = not self._open and len(positions) == count and positions == list(range(count))  # no need of a copy
        return Chunk(
            leaf.reward,
            self.samples if whole else [self.samples[position] for position in positions],
            positions,
            run,
            stop_at_failure=not leaf.masked,
            notes=leaf.notes,
        )

    def record(self, task: Task, scored: Scored, stats: RewardStats) -> None:
        """Keep a chunk's rows; the first failure that nothing masks ends the job."""
        leaf = task.leaf
        if scored.causes and not leaf.masked:  # before the last task is counted as done
            self.end(scored.causes[min(scored.causes)])
        stats.samples += len(task.positions)
        stats.failures += len(scored.causes)
        if leaf.twins:
            self._settle_twins(leaf, task.positions, scored.batch)
        with self._lock:
            for row, cause in scored.causes.items():
                self.causes.setdefault(task.positions[row], cause)
            leaf.stats.add(stats)
            leaf.pieces.append((task.positions, scored.batch))
            self._outstanding -= 1
        self._tell()
        self._end_if_done()

    def _look_up(self, task: Task, run: Run) -> list[Task]:
        """Take the rows that are known, and cut the rest into chunks."""
        leaf = task.leaf
        left = [[task.positions[row] for row in unit] for unit in task.units or ()]
        for memory in leaf.memories:
            rows = {position: row for row, position in enumerate(task.positions)}
            recalled = memory.recall(self.chunk(task, run), [[rows[position] for position in unit] for unit in left])
            known = [position for number in recalled.known for position in left[number]]
            self._settle(leaf, known, recalled.batch)
            with self._lock:
                for number, same in recalled.twins.items():
                    for position, other in zip(left[same], left[number], strict=True):
                        leaf.twins.setdefault(position, []).append(other)
            gone = {*recalled.known, *recalled.twins}
            left = [unit for number, unit in enumerate(left) if number not in gone]
        self._tell()
        with self._lock:
            leaf.recalling -= 1
            if leaf.reward.scope == "group":
                chunks = left
            else:
                last = not self._open and leaf.recalling == 0
                chunks = leaf.cut([position for unit in left for position in unit], last=last)
            self._outstanding += len(chunks) - 1
        self._end_if_done()
        return [Task(leaf, positions) for positions in chunks]

    def _settle(self, leaf: Leaf, positions: list[int], batch: RewardBatch) -> None:
        """Keep rows that no call was needed for."""
        if not positions:
            return
        missing = len(batch.errors)
        with self._lock:
            leaf.pieces.append((positions, batch))
            stats = RewardStats(samples=len(positions), failures=missing, cache_hits=len(positions) - missing)
            leaf.stats.add(stats)
        self._settle_twins(leaf, positions, batch)

    def _settle_twins(self, leaf: Leaf, positions: list[int], batch: RewardBatch) -> None:
        pairs = [(row, twin) for row, place in enumerate(positions) for twin in leaf.twins.get(place, ())]
        self._settle(leaf, [twin for _, twin in pairs], batch.select([row for row, _ in pairs]))

    # Who does it

    def hand_out(self, task: Task) -> None:
        """It waits for a worker now."""
        with self._lock:
            self._unstarted[id(task)] = task

    def claim(self, task: Task) -> bool:
        """Whether whoever asks may run it: the first one may."""
        with self._lock:
            return self._unstarted.pop(id(task), None) is not None

    def unstarted(self) -> list[Task]:
        """What waits for a worker."""
        with self._lock:
            return list(self._unstarted.values())

    # How it ends

    def _tell(self) -> None:
        """Whoever watches must not keep the job from ending."""
        try:
            self.on_progress()
        except BaseException as error:  # noqa: BLE001  # whoever waits for the job hears of it
            self.end(error)

    def _end_if_done(self) -> None:
        with self._lock:
            done = not self._open and self._outstanding == 0
        if done:
            self.end()

    def end(self, error: BaseException | None = None) -> None:
        """The leaves are computed, or one has failed; the first outcome stands."""
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self.finished.set_result(None)
            else:
                self.finished.set_exception(error)
        self.stopped.set()

    def cancel(self) -> None:
        """Start nothing more; what runs ends by itself."""
        self.finished.cancel()
        self.stopped.set()

    def late(self) -> bool:
        """Whether the deadline has passed; then the job has ended."""
        if self.deadline is None or time.monotonic() < self.deadline:
            return False
        if not self.finished.done():
            self.end(TimeoutError(f"the call was not done by its deadline: still waiting for {self.waiting_for()}"))
        return True

    def waiting_for(self) -> str:
        """The names of the leaves that are not done."""
        count = len(self.samples)
        with self._lock:
            late = [leaf.reward.name for leaf in self.leaves if leaf.stats.samples < count]
        return ", ".join(late)

    def progress(self) -> tuple[int, int]:
        """Rows that are done, over all leaves, and rows in all."""
        with self._lock:
            return sum(leaf.stats.samples for leaf in self.leaves), len(self.samples) * len(self.leaves)

    def fold(self) -> RewardBatch:
        """The result, once the job has finished."""
        return self.tree.fold(self.samples)

    def done_rows(self) -> set[int]:
        """The positions that every leaf has computed, or has failed to."""
        with self._lock:
            done = [{position for positions, _ in leaf.pieces for position in positions} for leaf in self.leaves]
        return set.intersection(*done)

    def fold_rows(self, positions: Sequence[int]) -> RewardBatch:
        """The result of some of the rows that are done; whole groups, where something looks at groups."""
        return self.tree.fold(self.samples, positions)


def _label(key: Hashable) -> str:
    kind, what, *_ = cast("tuple[Any, ...]", key)  # as grouping makes it
    if kind == "group_id":
        return f"group {what!r}"
    return f"the group of the prompt {brief(what)}" if isinstance(what, str) else "a group without a group_id"
