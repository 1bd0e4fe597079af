"""Bytes between the processes of a group, and failures that all of them hear of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_rewards.contract import locate
from flux_rewards.errors import ComputeError, FluxRewardsError
from flux_rewards.wire.answers import described, restored

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

__all__ = ["Exchange", "FailedAt", "Place"]


class Place(NamedTuple):
    """Where a sample is: the process, and the row there."""

    rank: int
    row: int


class FailedAt(Exception):  # noqa: N818  # an error, and its place
    """A failure that one sample is to blame for."""

    def __init__(self, error: FluxRewardsError, place: Place) -> None:
        super().__init__(str(error))
        self.error = error
        self.place = place


class Exchange:
    """Sends bytes from every process of a group to every other.

    Calls are collective. What fails on one process before it sends is raised on all of them, so that none waits for
    what will not come.

    Args:
        process_group: A group of `torch.distributed`; all processes by default.

    Examples:
        >>> Exchange().ranks  # where torch.distributed was not set up
        1
    """

    def __init__(self, process_group: ProcessGroup | None = None) -> None:
        from torch import distributed  # noqa: PLC0415  # only those who run several processes pay for it

        self._group = process_group
        self._is_set_up = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank(process_group) if self._is_set_up else 0
        self.ranks = distributed.get_world_size(process_group) if self._is_set_up else 1

    def __call__(self, make: Callable[[], Sequence[bytes]]) -> list[bytes]:
        """What the others sent to this process, by rank.

        Args:
            make: Makes what goes to each rank. What it raises is raised everywhere.

        Raises:
            FluxRewardsError: `make` failed, here or elsewhere.
            TimeoutError: `make` was not done in time, here or elsewhere.
        """
        failure: BaseException | None = None
        outgoing: Sequence[bytes] = ()
        try:
            outgoing = make()
            sizes = [len(body) for body in outgoing]
        except BaseException as error:  # noqa: BLE001  # the others must hear of it before it is raised
            failure = error
            outgoing = [self._told(error)] * self.ranks
            sizes = [-len(body) for body in outgoing]
        table = self._sizes(sizes)
        incoming = self._bytes(outgoing, [abs(row[self.rank]) for row in table])
        failed = [rank for rank, row in enumerate(table) if min(row) < 0]
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        if failed:
            heard = failed[0] if failure is None else self.rank
            raise self._restored(json.loads(incoming[heard]), heard) from failure
        return incoming

    def _sizes(self, sizes: Sequence[int]) -> list[list[int]]:
        import torch  # noqa: PLC0415  # loaded already

        own = torch.tensor(sizes, dtype=torch.int64, device=self._device)
        table = [torch.empty_like(own) for _ in range(self.ranks)]
        torch.distributed.all_gather(table, own, group=self._group)
        return [row.tolist() for row in table]

    def _bytes(self, outgoing: Sequence[bytes], sizes: Sequence[int]) -> list[bytes]:
        import torch  # noqa: PLC0415  # loaded already

        body = bytearray(b"".join(outgoing))
        sent = torch.frombuffer(body, dtype=torch.uint8) if body else torch.empty(0, dtype=torch.uint8)
        received = torch.empty(sum(sizes), dtype=torch.uint8, device=self._device)
        torch.distributed.all_to_all_single(
            received, sent.to(self._device), list(sizes), [len(part) for part in outgoing], group=self._group
        )
        found = received.cpu().numpy().tobytes()
        starts = [sum(sizes[:rank]) for rank in range(self.ranks)]
        return [found[start : start + size] for start, size in zip(starts, sizes, strict=True)]

    @property
    def _device(self) -> torch.device:
        """Where the group's tensors must be: on the CPU where the backend can, else on this process's device."""
        import torch  # noqa: PLC0415  # loaded already

        kinds = [pair.partition(":")[0] for pair in torch.distributed.get_backend_config(self._group).split(",")]
        if "cpu" in kinds:
            return torch.device("cpu")
        return torch.device(kinds[0], torch.get_device_module(kinds[0]).current_device())

    def _told(self, error: BaseException) -> bytes:
        place = error.place if isinstance(error, FailedAt) else None
        cause = error.error if isinstance(error, FailedAt) else error
        late = isinstance(cause, TimeoutError)
        if not isinstance(cause, Exception):  # an author's sys.exit
            cause = ComputeError(f"the process ended with {type(cause).__name__}")
        located = cause if isinstance(cause, FluxRewardsError) else locate(cause, reward="", index=None)
        told = {"error": described(located), "reward": located.reward, "place": place, "late": late}
        return json.dumps(told).encode()

    def _restored(self, told: dict[str, Any], rank: int) -> Exception:
        """The error as this process raises it: with the index of its own sample, or with the place of another's."""
        error = restored(told["error"])
        error.reward, error.index = told["reward"] or None, None
        place = None if told["place"] is None else Place(*told["place"])
        if place is not None and place.rank == self.rank:
            error.index = place.row
            return error
        where = "" if rank == self.rank else f" (on process {rank})"
        if place is not None:
            where = f" (sample {place.row} of process {place.rank})"
        message = f"{error.args[0]}{where}"
        if told["late"]:
            return TimeoutError(message.removeprefix("TimeoutError: "))
        error.args = (message,)
        return error
