"""How well any reward agrees with preferences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.errors import InputError
from flux_rewards.training.checks import Measure, lengths_of
from flux_rewards.training.evaluate_report import Margins, PreferenceReport
from flux_rewards.training.evaluate_scores import PairScores, score_pairs
from flux_rewards.training.evaluate_statistics import (
    Resampling,
    accuracy_of,
    calibration_of,
    correlation,
)
from flux_rewards.training.preferences import prompt_key
from flux_rewards.training.preferences_data import Key, key_of
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux_rewards.base import RewardFunction
    from flux_rewards.training.preferences import PreferencePair

__all__ = ["evaluate_preferences", "report_of"]


def evaluate_preferences(
    reward: RewardFunction,
    pairs: Sequence[PreferencePair],
    *,
    by: Key | None = None,
    batch_size: int = 256,
    max_failure_rate: float = 0.0,
    resamples: int = 1000,
    confidence: float = 0.95,
    bins: int = 10,
    seed: int = 0,
    tokenizer: Measure | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> PreferenceReport:
    """Score both answers of every pair, and tell how often the chosen one scores higher.

    Works for any reward: of text or media, a judge, a composite (its parts are reported too, without more calls), one
    that compares the samples of a group (each pair is a group then, in an order drawn by lot), one where less is
    better.

    Args:
        reward: The reward.
        pairs: `PreferenceData`, or a list of pairs.
        by: Report subsets by this key too, such as ``"metadata.subset"``.
        batch_size: Answers scored at once, about.
        max_failure_rate: If positive, pairs that fail are left out and counted, until more than this share of a batch
            has failed. At 0 the first failure raises.
        resamples: Bootstrap samples for the intervals; 0 for no intervals.
        confidence: Of the intervals, in (0, 1).
        bins: Of the histogram of margins.
        seed: Of the resampling, and of the order of answers within a group.
        tokenizer: What measures lengths; see `check_preferences`. Characters by default.
        advance: Is told how many answers have been scored, and how many there are.

    Raises:
        InputError: There are no pairs, or an answer lacks what the reward needs.
        ComputeError: An answer could not be scored.

    Accuracy against an interval that holds 0.5, or below `PreferenceReport.longer_wins`, is no evidence of anything
    learned. Does not know whether pairs were also trained on; see `PreferenceData.shared_prompts`.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> from flux_rewards.training.preferences import PreferencePair
        >>> text = "four words are enough"
        >>> pairs = [PreferencePair("q", text, "no"), PreferencePair("r", "no", text)]
        >>> report = evaluate_preferences(LengthReward(4), pairs)
        >>> report.accuracy.strict, report.longer_wins.strict
        (0.5, 0.5)
    """
    if not len(pairs):
        raise InputError("there are no pairs to evaluate the reward on", reward=reward.name)
    number(confidence, "confidence", "", above=0.0)
    number(1.0 - confidence, "1 - confidence", "", above=0.0)
    whole_number(resamples, "resamples", "", low=0)
    whole_number(bins, "bins", "", low=1)
    keys = None if by is None else [str(key_of(pair, by, position)) for position, pair in enumerate(pairs)]
    scores = score_pairs(
        reward,
        pairs,
        batch_size=batch_size,
        max_failure_rate=max_failure_rate,
        seed=seed,
        advance=advance,
    )
    lengths = np.full(len(pairs), np.nan)
    for position, (chosen, rejected) in lengths_of(pairs, tokenizer).items():
        lengths[position] = chosen - rejected
    how = Resampling(resamples, confidence, seed)
    asked = [pair.says_what_was_asked for pair in pairs]
    prompts = list(map(prompt_key, pairs))
    return report_of(scores, reward.name, prompts, how, keys=keys, lengths=lengths, bins=bins, asked=asked)


def report_of(
    scores: PairScores,
    name: str,
    prompts: Sequence[Any],
    how: Resampling,
    *,
    keys: Sequence[str] | None = None,
    lengths: NDArray[np.float64] | None = None,
    bins: int = 10,
    asked: Sequence[bool] | None = None,
) -> PreferenceReport:
    """The report of scores that are there already.

    Args:
        scores: Of N pairs.
        name: What was scored.
        prompts: N keys of prompts.
        how: The intervals.
        keys: N names of subsets.
        lengths: float64, shape (N,): by how much the chosen answer is longer; NaN where it is no text.
        bins: Of the histogram of margins.
        asked: Of N pairs, whether the prompt is known; None where all are.

    Examples:
        >>> scores = PairScores(np.array([1.0, 2.0]), np.array([0.0, 2.0]))
        >>> report_of(scores, "any", ["a", "b"], Resampling(0)).accuracy.half
        0.75
    """
    kept = np.flatnonzero(scores.scored).tolist()
    margins = scores.margins[kept]
    names = [prompts[position] for position in kept]
    known = [asked is None or asked[position] for position in kept]
    reasons = Counter(scores.errors.values())
    rows_of: dict[str, list[int]] = {key: [] for key in keys or ()}
    for row, position in enumerate(kept if keys is not None else ()):
        rows_of[keys[position]].append(row)  # type: ignore[index]
    longer, related = None, None
    if lengths is not None:
        rows = np.flatnonzero(~np.isnan(lengths[kept])).tolist()
        if rows:
            ahead = lengths[kept][rows]
            longer = accuracy_of(ahead, [names[row] for row in rows], how)
            related = correlation(margins[rows], ahead)
    return PreferenceReport(
        reward=name,
        pairs=len(prompts),
        failed=len(scores.errors),
        not_applicable=scores.not_applicable,
        accuracy=accuracy_of(margins, names, how),
        reasons=dict(reasons.most_common()),
        subsets={key: accuracy_of(margins[rows], [names[row] for row in rows], how) for key, rows in rows_of.items()},
        margins=_histogram(margins, bins),
        calibration=calibration_of(margins),
        longer_wins=longer,
        length_correlation=related,
        parts={
            part: report_of(of_part, part, prompts, how, keys=keys, lengths=lengths, bins=bins, asked=asked)
            for part, of_part in scores.parts.items()
        },
        confidence=how.confidence,
        prompts=len({name for name, there in zip(names, known, strict=True) if there}),
        without_prompt=known.count(False),
    )


def _histogram(margins: NDArray[np.float64], bins: int) -> Margins | None:
    if not len(margins):
        return None
    counts, edges = np.histogram(margins, bins=bins)
    return Margins(float(margins.mean()), float(margins.std()), tuple(counts.tolist()), tuple(edges.tolist()))
