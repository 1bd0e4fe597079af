"""``flux-rewards score``: from a file of samples to a file of rewards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flux_rewards.cli.output import check_output, complete_or_absent
from flux_rewards.cli.rows import ROW_FORMATS, row_writer, rows_of, without_position
from flux_rewards.cli.samples import SampleBatch, SampleFile
from flux_rewards.config import load_rewards
from flux_rewards.errors import ComputeError, ConfigError, FluxRewardsError, InputError
from flux_rewards.grouping import split_groups
from flux_rewards.records.reading import check_suffix
from flux_rewards.report.summary import RewardSummary
from flux_rewards.tree import Tree
from flux_rewards.wrappers.cached import Cached
from flux_rewards.wrappers.mask_errors import MaskErrors

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample

__all__ = ["Progress", "ScoredFile", "score_file"]


class Progress:
    """What is told while a file is scored; says nothing by itself."""

    def warn(self, text: str) -> None:
        """Something is odd, and goes on."""

    def scoring(self, total: int) -> None:
        """All samples have been checked, and scoring begins."""

    def advance(self, samples: int) -> None:
        """So many more samples have been scored."""


@dataclass(frozen=True)
class ScoredFile:
    """What scoring a file came to.

    Attributes:
        summary: Statistics of the total and of its parts.
        weights: Part to its weight in the total.
        has_groups: Whether any group has several samples.
        known: Scores that came from the cache, over all rewards.
    """

    summary: RewardSummary
    weights: Mapping[str, float]
    has_groups: bool
    known: int = 0


def score_file(
    rewards: Path,
    samples: Path,
    out: Path,
    *,
    use_eval: bool = False,
    batch_size: int = 256,
    max_failure_rate: float = 0.0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> ScoredFile:
    """Score a file of samples and write a row for each, in the file's order.

    What is wrong with the files is found before the first sample is scored.

    Args:
        rewards: A configuration of rewards; see `load_rewards`.
        samples: A ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file; see `SampleFile`.
        out: Where the rows go; its suffix says how. Replaced when everything is scored, and untouched until then.
        use_eval: Score with ``eval_rewards``.
        batch_size: Samples scored at once, about: a group is never split.
        max_failure_rate: If positive, failed samples have no reward but a reason, until more than this share of a
            batch has failed. At 0 the first failure raises.
        cache: A file that keeps the scores, so that a run that was broken off goes on where it stopped; see `Cached`.
        progress: Is told how far it is.

    Raises:
        ConfigError: The rewards cannot be built, or `cache` is no cache.
        InputError: A bad path, or a bad line of the samples, by file and line.
        ComputeError: A sample could not be scored, by file and line.
    """
    progress = progress or Progress()
    suffix = check_suffix(out, ROW_FORMATS, "rows")
    check_output(out, [samples, rewards, *([] if cache is None else [cache])])
    loaded = load_rewards(rewards)
    composite = loaded.eval if use_eval else loaded.train
    for name in ("reward", "total"):
        if name in composite.weights:
            raise ConfigError(f"{rewards}: a part cannot be called {name!r}, which is the name of the sum; rename it")
    # Wrappers leave the composite's parts and names as they are.
    reward: RewardFunction = composite if cache is None else Cached(composite, cache)
    reward = MaskErrors(reward, max_failure_rate) if max_failure_rate > 0 else reward
    file = SampleFile(samples, progress.warn)
    file.check(_field_check(reward))
    progress.scoring(len(file))

    summary = RewardSummary()
    known = 0
    with (
        complete_or_absent(out) as rows_file,
        contextlib.closing(
            row_writer(suffix, rows_file, list(composite.weights), whole_group_ids=file.whole_group_ids)
        ) as writer,
    ):
        for batch in file.batches(batch_size):
            with _naming_lines(file.path, batch):
                scored = reward(batch.samples)
                summary.add(scored, batch.groups)
            known += sum(stats.cache_hits for stats in scored.stats.values())
            writer.write(rows_of(batch, scored))
            progress.advance(len(batch))
    return ScoredFile(summary, composite.weights, file.has_groups, known)


def _field_check(reward: RewardFunction) -> Callable[[Sample], None]:
    """The executor's own check of required fields, for all samples before any is scored."""
    leaves = [leaf for leaf in Tree(reward).leaves.values() if not leaf.skips_missing]
    readers = {field: leaf.reward.name for leaf in leaves for field in leaf.reward.required_fields}
    by_group = reward.scope == "group"

    def check(sample: Sample) -> None:
        for field, name in readers.items():
            if getattr(sample, field) is None:
                others = f"; its other keys are {', '.join(map(str, sample.metadata))}" if sample.metadata else ""
                raise InputError(
                    f"the reward needs this field, and the sample has none{others}", reward=name, field=field
                )
        if by_group:
            split_groups([sample])

    return check


@contextlib.contextmanager
def _naming_lines(path: Path, batch: SampleBatch) -> Iterator[None]:
    """An error at "sample 7" of a batch says nothing; the line of the file does."""
    try:
        yield
    except FluxRewardsError as error:
        index, error.index = error.index, None
        if index is not None:
            message = without_position(str(error), index)
            raise ComputeError(f"{path}, {batch.where[index]}: {message}") from error
        if isinstance(error, ComputeError):
            raise ComputeError(f"{path}, {batch.where[0]} to {batch.where[-1]}: {error}") from error
        raise
