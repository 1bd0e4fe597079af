"""A file of samples, read twice: once to find what is wrong with it, once to score it by whole groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flux_rewards.errors import InputError
from flux_rewards.fingerprint import fingerprint
from flux_rewards.grouping import group_keys, has_group
from flux_rewards.records.fields import near_misses, sample_of
from flux_rewards.records.reading import read_records

if TYPE_CHECKING:
    from flux_rewards.data import Sample

__all__ = ["SampleBatch", "SampleFile"]


@dataclass
class SampleBatch:
    """Samples that are scored together.

    Attributes:
        start: Position of the first one in the file, from 0.
        samples: The samples, in the file's order.
        groups: The key of each one's group; equal keys are one group in the whole file.
        where: Where each one stands in the file, such as ``"line 3"``.
    """

    start: int
    samples: list[Sample] = field(default_factory=list)
    groups: list[Hashable] = field(default_factory=list)
    where: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)


class _Row(NamedTuple):
    where: str
    sample: Sample
    group: Hashable


class SampleFile:
    """The samples of a file, in memory only batch by batch.

    `check` reads the whole file; then `batches` reads it again. Paths of media are relative to the file's folder.

    Args:
        path: A ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file.
        warn: Called once with each warning about the file.

    Raises:
        InputError: Not a file that can be read twice.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda _text: None) -> None:
        if not path.exists():
            raise InputError(f"{path}: there is no such file of samples")
        if not path.is_file():
            raise InputError(f"{path}: samples are read twice, from a plain file; this is a folder or a device")
        self.path = path
        self._warn = warn
        self._seen_names: set[str] = set()
        self._stamp = self._current_stamp()
        self._group_sizes: Counter[Hashable] = Counter()
        self.whole_group_ids = True
        """After `check`: whether every group_id that is there is a whole number of at most 64 bits."""

    def __len__(self) -> int:
        """Samples, after `check`."""
        return self._group_sizes.total()

    @property
    def has_groups(self) -> bool:
        """After `check`: whether any group has several samples."""
        return len(self) > len(self._group_sizes)

    def check(self, check_sample: Callable[[Sample], None] = lambda _sample: None) -> None:
        """Read every line, and keep nothing but the size of each group.

        Args:
            check_sample: Raises a ValueError for a sample that cannot be scored.

        Raises:
            InputError: The first bad line, or no sample at all.
        """
        self._stamp = self._current_stamp()
        self._group_sizes = Counter()
        for row in self._rows(check_sample):
            self._group_sizes[row.group] += 1
            self.whole_group_ids &= _fits_integer_column(row.sample.group_id)
        if not self._group_sizes:
            raise InputError(f"{self.path}: holds no samples")

    def batches(self, size: int) -> Iterator[SampleBatch]:
        """The samples after `check`, in the file's order, no group in two batches.

        A batch ends at the first sample from the `size`-th on after which every group that has begun is complete.
        Where the samples of each group follow one another, that bounds the memory.

        Raises:
            InputError: The file has changed since `check`.
        """
        remaining = self._group_sizes.copy()
        incomplete: set[Hashable] = set()
        batch = SampleBatch(0)
        rows = self._rows()
        while (row := self._next(rows)) is not None:
            if not remaining[row.group]:
                raise self._changed()
            remaining[row.group] -= 1
            if remaining[row.group]:
                incomplete.add(row.group)
            else:
                incomplete.discard(row.group)
            batch.samples.append(row.sample)
            batch.groups.append(row.group)
            batch.where.append(row.where)
            if len(batch) >= size and not incomplete:
                self._check_unchanged()
                yield batch
                batch = SampleBatch(batch.start + len(batch))
        self._check_unchanged()
        if incomplete or batch.start + len(batch) != len(self):
            raise self._changed()
        if batch.samples:
            yield batch

    def _rows(self, check_sample: Callable[[Sample], None] = lambda _sample: None) -> Iterator[_Row]:
        folder = self.path.parent
        for where, values in read_records(self.path):
            self._warn_of(values)
            try:
                sample = sample_of(values, folder)
                check_sample(sample)
            except ValueError as error:
                raise InputError(f"{self.path}, {where}: {error}") from error
            yield _Row(where, sample, _group_of(sample, where))

    def _warn_of(self, values: Mapping[str, object]) -> None:
        new = values.keys() - self._seen_names
        if not new:
            return
        self._seen_names |= new
        for name, hint in near_misses(values).items():
            if name in new:
                self._warn(f"{self.path}: {name!r} is not a field of a sample{hint}; it goes into the metadata")

    def _next(self, rows: Iterator[_Row]) -> _Row | None:
        try:
            return next(rows, None)
        except (InputError, OSError):
            self._check_unchanged()  # every line was good a moment ago
            raise

    def _current_stamp(self) -> tuple[int, int, int]:
        status = self.path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _check_unchanged(self) -> None:
        try:
            if self._current_stamp() == self._stamp:
                return
        except FileNotFoundError:
            pass
        raise self._changed()

    def _changed(self) -> InputError:
        return InputError(f"{self.path}: has changed while it was read; score it again when nobody writes to it")


def _group_of(sample: Sample, where: str) -> Hashable:
    if not has_group(sample):
        return ("alone", where)
    (key,) = group_keys([sample])
    # A digest in place of a prompt: one key of every group is in memory.
    return key if sample.group_id is not None else fingerprint(key)


def _fits_integer_column(group_id: Hashable) -> bool:
    return group_id is None or (isinstance(group_id, int) and -(2**63) <= group_id < 2**63)
