"""Groups whose samples lie on several processes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction
from flux_rewards.batching import leaves_of
from flux_rewards.buffer import RewardBuffer
from flux_rewards.contract import Scored
from flux_rewards.data import FIELDS, RewardBatch, Sample
from flux_rewards.errors import ConfigError, FluxRewardsError, InputError, brief
from flux_rewards.fingerprint import fingerprint
from flux_rewards.grouping import known_group_keys
from flux_rewards.integrations.distributed.exchange import Exchange, FailedAt, Place
from flux_rewards.tree import Tree, fields_read
from flux_rewards.validation import number, whole_number
from flux_rewards.wire.answers import pack_answer, unpack_answer
from flux_rewards.wire.samples import pack_readable, unpack_samples

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["DistributedGroups"]


class DistributedGroups:
    """Scores samples that lie on several processes, so that every group is scored whole, and on one of them.

    Call it on every process of the group with that process's own samples, as you would call the reward; it answers with
    their rewards, which are those that one process with all samples would have found. A group goes to the process that
    holds the most of it, as long as the samples stay spread evenly; only what has to move does. A failure on one
    process is raised on all of them.

    Of a sample that moves, the fields go that the reward reads (`required_fields` and `optional_fields`; all of them
    where a reward may read anything), and `group_id` and `token_ids`: as bytes, pixels as they are, without pickle.

    Args:
        reward: The reward. One that compares no samples is scored where they are, without a word to the others.
        process_group: A group of `torch.distributed`; all processes by default.
        group_size: Samples of every group; None for groups of any size.
        timeout: Seconds for the scoring on one process; then all processes fail with a `TimeoutError`. How long a
            process waits for the others is the timeout of the process group, which must be longer.

    Raises:
        ConfigError: `reward` is no reward; on a call, a group has not `group_size` samples.
        InputError: On a call, a field that has to move has no form as bytes, or a sample has no group.
        FluxRewardsError: On a call, whatever failed, on whatever process: where the sample is with its index, and on
            the others with its place in the message.

    Without a process group, or with one process, it is the plain call. Calls are collective: all processes make them in
    one order, so make them in one thread. ``max_failure_rate`` of a `MaskErrors` is counted for the samples that one
    process scored. `RewardBatch.stats` are of what was scored on this process.

    Examples:
        >>> from flux_rewards import GroupRank, LengthReward, Sample
        >>> score = DistributedGroups(GroupRank(LengthReward(target=3)))
        >>> score([Sample("Say it.", "so be it"), Sample("Say it.", "no")]).rewards
        array([1., 0.])
    """

    def __init__(
        self,
        reward: RewardFunction,
        process_group: ProcessGroup | None = None,
        *,
        group_size: int | None = None,
        timeout: float | None = None,
    ) -> None:
        if not isinstance(reward, RewardFunction):
            raise ConfigError(f"DistributedGroups: expected a reward, found {brief(reward)}")
        self.reward = reward
        self.process_group = process_group
        self.group_size = None if group_size is None else whole_number(group_size, "group_size", reward.name, low=1)
        self.timeout = timeout if timeout is None else number(timeout, "timeout", reward.name, above=0.0)

    def __repr__(self) -> str:
        return f"DistributedGroups({self.reward!r})"

    @property
    def rank(self) -> int:
        """The number of this process in the group, from 0."""
        return Exchange(self.process_group).rank

    @property
    def ranks(self) -> int:
        """The processes in the group."""
        return Exchange(self.process_group).ranks

    def __call__(self, samples: Sequence[Sample]) -> RewardBatch:
        """The rewards of this process's samples."""
        return self.score(lambda: samples)

    def score(self, make_samples: Callable[[], Sequence[Sample]]) -> RewardBatch:
        """The rewards of samples that are yet to be made.

        Args:
            make_samples: Makes this process's samples. What it raises is raised on all processes.
        """
        exchange = Exchange(self.process_group)
        rank, ranks = exchange.rank, exchange.ranks
        if ranks == 1 or self.reward.scope != "group":
            return self._score(make_samples())
        samples: Sequence[Sample] = ()

        def own_keys() -> list[bytes]:
            nonlocal samples
            samples = make_samples()
            return [self._keys(samples, rank)] * ranks

        keys = [json.loads(body) for body in exchange(own_keys)]
        self._check_sizes(keys)
        plan = _Plan(keys)
        moved = exchange(lambda: self._packed(samples, plan, rank))
        scored: list[RewardBatch] = []

        def answers() -> list[bytes]:
            arrived: list[Sample] = []
            places: list[Place] = []
            for origin, body in enumerate(moved):  # in the order of the processes, as one with all samples has them
                rows = plan.rows(origin, rank)
                places += [Place(origin, row) for row in rows]
                came = [samples[row] for row in rows] if origin == rank else unpack_samples(body) if rows else []
                arrived += [_with_group(one, keys[origin][row]) for one, row in zip(came, rows, strict=True)]
            scored.append(self._scored(arrived, places))
            by_origin = [[at for at, place in enumerate(places) if place.rank == origin] for origin in range(ranks)]
            scored.append(scored[0].select(by_origin[rank]))
            return [
                pack_answer(Scored(scored[0].select(rows), {})) if rows and origin != rank else b""
                for origin, rows in enumerate(by_origin)
            ]

        pieces: list[tuple[Sequence[int], RewardBatch]] = []
        for scorer, body in enumerate(exchange(answers)):
            rows = plan.rows(rank, scorer)
            if rows:
                pieces.append((rows, scored[1] if scorer == rank else unpack_answer(body).batch))
        return RewardBatch.scatter(len(samples), pieces).with_stats(scored[0].stats)

    def _check_sizes(self, keys: Sequence[Sequence[str]]) -> None:
        """The same on every process, since all know all keys."""
        sizes = Counter(key for of_rank in keys for key in of_rank)
        wrong = sum(size != self.group_size for size in sizes.values())
        if self.group_size is not None and wrong:
            found = sorted(set(sizes.values()))
            raise ConfigError(
                f"{wrong} of {len(sizes)} groups over {len(keys)} processes have not {self.group_size} samples (groups "
                f"of {', '.join(map(str, found))}); does every process hold as many samples, in the trainer's order?",
                reward=self.reward.name,
            )

    def _score(self, samples: Sequence[Sample]) -> RewardBatch:
        with RewardBuffer(self.reward) as buffer:
            buffer.add(samples)
            return buffer.finalize(timeout=self.timeout)

    def _scored(self, samples: Sequence[Sample], places: Sequence[Place]) -> RewardBatch:
        try:
            return self._score(samples)
        except FluxRewardsError as error:
            if error.index is None:
                raise
            raise FailedAt(error, places[error.index]) from error

    def _keys(self, samples: Sequence[Sample], rank: int) -> bytes:
        try:
            Tree(self.reward).check(samples)
            keys = known_group_keys(samples)
        except FluxRewardsError as error:
            error.reward = error.reward or self.reward.name
            raise error if error.index is None else FailedAt(error, Place(rank, error.index)) from error
        return json.dumps([fingerprint(key).hex() for key in keys]).encode()

    def _packed(self, samples: Sequence[Sample], plan: _Plan, rank: int) -> list[bytes]:
        return [
            self._pack(samples, rows, rank) if scorer != rank and (rows := plan.rows(rank, scorer)) else b""
            for scorer in range(plan.ranks)
        ]

    def _pack(self, samples: Sequence[Sample], rows: Sequence[int], rank: int) -> bytes:
        read = fields_read(self.reward)
        fields = FIELDS if read.anything else list(dict.fromkeys([*read.named, "group_id", "token_ids"]))
        body, unsent = pack_readable(
            [samples[row] for row in rows],
            fields,
            reference_is_media=any(leaf.reference_is_media for leaf in leaves_of(self.reward)),
        )
        for at, error in unsent.items():
            message = (
                f"{error.args[0]}. Its group lies on several processes, so the sample has to move: leave the field "
                "out, say in the reward's optional_fields what it reads, or keep groups on one process (in TRL, "
                "per_device_train_batch_size * steps_per_generation a multiple of num_generations)"
            )
            refused = InputError(message, reward=self.reward.name, field=error.field)
            raise FailedAt(refused, Place(rank, rows[at])) from error
        return body


class _Plan:
    """Which process scores which rows: whole groups, spread evenly, and where most of a group lies if that is even.

    Args:
        keys: Of each process, the key of each sample's group.
    """

    def __init__(self, keys: Sequence[Sequence[str]]) -> None:
        self.ranks = len(keys)
        held: dict[str, list[int]] = {}
        for rank, of_rank in enumerate(keys):
            for key in of_rank:
                held.setdefault(key, [0] * self.ranks)[rank] += 1
        even = -(-sum(map(len, keys)) // self.ranks)
        load = [0] * self.ranks
        scorers: dict[str, int] = {}
        for key, counts in sorted(held.items(), key=lambda item: -sum(item[1])):  # stable: the same everywhere
            size = sum(counts)
            fits = [rank for rank in range(self.ranks) if load[rank] + size <= even]
            lightest = min(load)
            among = fits or [rank for rank in range(self.ranks) if load[rank] == lightest]
            scorer = min(among, key=lambda rank: (-counts[rank], load[rank], rank))
            load[scorer] += size
            scorers[key] = scorer
        self._scorers = [[scorers[key] for key in of_rank] for of_rank in keys]

    def rows(self, origin: int, scorer: int) -> list[int]:
        """The rows of one process that another one scores, in order."""
        return [row for row, found in enumerate(self._scorers[origin]) if found == scorer]


def _with_group(sample: Sample, key: str) -> Sample:
    """A sample whose group was told by fields that may not have moved."""
    return sample if sample.group_id is not None else replace(sample, group_id=key)
