"""Which answers are best, and which pairs are worth a label."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.data import Messages, Sample
from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.fingerprint import fingerprint
from flux_rewards.training.evaluate_scores import score_pairs
from flux_rewards.training.preferences import PreferencePair, content_of, prompt_key
from flux_rewards.training.ratings import pairs_of_group
from flux_rewards.validation import one_of, whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux_rewards.base import RewardFunction

__all__ = ["RankedResponse", "UncertainPair", "rank_responses", "select_uncertain"]


@dataclass(frozen=True, eq=False)
class RankedResponse:
    """One answer among several to a prompt.

    Attributes:
        rank: 1 for the best; answers with the same score share the rank of the first of them. None without a score.
        score: What the reward said; None where it does not apply.
        position: Where the answer stood among those that were given, from 0.
        response: The answer, as it was given.
    """

    rank: int | None
    score: float | None
    position: int
    response: str | Messages | Sample


def rank_responses(
    reward: RewardFunction, prompt: str | Messages | None, responses: Sequence[str | Messages | Sample]
) -> list[RankedResponse]:
    """Answers to one prompt, the best first; those to which the reward does not apply last.

    They are one group, for rewards that compare the samples of a group. Ties keep the order that was given.

    Args:
        reward: Any reward; where less is better, the least comes first.
        prompt: What was asked for.
        responses: Texts, messages, or samples (for images, say, or with a reference); a sample's own prompt holds.

    Raises:
        InputError: There are no responses, or one cannot be scored.
        ComputeError: A response could not be scored.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> [ranked.response for ranked in rank_responses(LengthReward(2), "Say hello.", ["hello", "hello there"])]
        ['hello there', 'hello']
    """
    if isinstance(responses, str) or not len(responses):
        raise InputError(f"expected a list of responses, found {brief(responses)}", reward=reward.name)
    samples = [
        replace(given, prompt=prompt if given.prompt is None else given.prompt, group_id="ranked")
        if isinstance(given, Sample)
        else Sample(prompt, given, group_id="ranked")
        for given in responses
    ]
    scores = reward(samples).rewards
    turned = scores if reward.higher_is_better else -scores
    order = np.argsort(-turned, kind="stable").tolist()  # NaN is sorted to the end
    return [
        RankedResponse(
            None if math.isnan(scores[row]) else 1 + int((turned > turned[row]).sum()),
            None if math.isnan(scores[row]) else float(scores[row]),
            row,
            responses[row],
        )
        for row in order
    ]


@dataclass(frozen=True, eq=False)
class UncertainPair:
    """A pair worth a label.

    Attributes:
        pair: The pair; which answer is called chosen means nothing yet.
        position: Where it stood among the candidates, from 0.
        value: The margin without its sign, or the disagreement.
    """

    pair: PreferencePair
    position: int
    value: float


def select_uncertain(
    reward: RewardFunction | Sequence[RewardFunction],
    candidates: Sequence[PreferencePair] | Sequence[Sample],
    k: int,
    *,
    by: str = "margin",
    per_prompt: int | None = None,
    batch_size: int = 256,
    max_failure_rate: float = 0.0,
) -> list[UncertainPair]:
    """The pairs whose label would tell a reward model most, the most telling first.

    - ``"margin"``: the smallest difference of scores; of several rewards, of the mean of their margins.
    - ``"disagreement"``: the largest standard deviation (of the population) of the members' margins.

    With several rewards each one's margins are divided by their root mean square first: scores of a model that was
    trained on pairs have no scale of their own. Pairs without two scores of every member are not selected,
    and of pairs that repeat each other, in either order, one is.

    Args:
        reward: A reward, several, or one made of several (its children are the members) for ``"disagreement"``.
        candidates: Pairs, whose order of answers is not looked at; or samples, of which all pairs in each group.
        k: How many, at most.
        by: ``"margin"`` or ``"disagreement"``.
        per_prompt: At most this many of one prompt, since near neighbours tell the same.
        batch_size: Answers scored at once, about.
        max_failure_rate: As for `evaluate_preferences`.

    Raises:
        ConfigError: ``"disagreement"`` of a single reward, or a parameter out of its range.
        InputError: There are no candidates.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> pairs = [PreferencePair("q", "one two three", "one"), PreferencePair("r", "one two", "one two")]
        >>> [found.position for found in select_uncertain(LengthReward(4), pairs, 1)]
        [1]
    """
    one_of(by, "by", "select_uncertain", ("margin", "disagreement"))
    whole_number(k, "k", "", low=1)
    if per_prompt is not None:
        whole_number(per_prompt, "per_prompt", "", low=1)
    members = _members(reward, by)
    pairs = _pairs(candidates)
    how: dict[str, Any] = {"batch_size": batch_size, "max_failure_rate": max_failure_rate}
    margins = np.stack([score_pairs(member, pairs, **how).margins for member in members])
    if len(members) > 1:
        margins = _to_one_scale(margins, members)
    values = np.abs(margins.mean(axis=0)) if by == "margin" else margins.std(axis=0)
    telling = values if by == "margin" else -values
    taken: Counter[bytes] = Counter()
    found: list[UncertainPair] = []
    seen: set[bytes] = set()
    for position in np.argsort(telling, kind="stable").tolist():
        if len(found) == k or math.isnan(values[position]):  # NaN is sorted to the end
            break
        key = prompt_key(pairs[position])
        answers = sorted(
            fingerprint(content_of(answer)) for answer in (pairs[position].chosen, pairs[position].rejected)
        )
        if (same := fingerprint([key, *answers])) in seen:  # one label is enough
            continue
        seen.add(same)
        if per_prompt is not None:
            if taken[key] == per_prompt:
                continue
            taken[key] += 1
        found.append(UncertainPair(pairs[position], position, float(values[position])))
    return found


def _members(reward: RewardFunction | Sequence[RewardFunction], by: str) -> Sequence[RewardFunction]:
    if isinstance(reward, Sequence):
        members = list(reward)
    else:
        members = list(reward.children) if by == "disagreement" else [reward]
    if len(members) < (2 if by == "disagreement" else 1):
        raise ConfigError(
            f"by={by!r} needs {'two rewards' if by == 'disagreement' else 'a reward'} at least, found {len(members)}; "
            "pass a list of rewards, or one that is made of several"
        )
    return members


def _pairs(candidates: Sequence[PreferencePair] | Sequence[Sample]) -> Sequence[PreferencePair]:
    given: Sequence[Any] = candidates
    kinds = {type(entry) for entry in given}
    if kinds and all(issubclass(kind, PreferencePair) for kind in kinds):
        return given
    if kinds and all(issubclass(kind, Sample) for kind in kinds):
        pairs = pairs_of_group(given)
        if pairs:
            return pairs
    raise InputError(
        f"expected pairs, or samples of which two answer one prompt differently, found {len(given)} candidates"
    )


def _to_one_scale(margins: NDArray[np.float64], members: Sequence[RewardFunction]) -> NDArray[np.float64]:
    known = ~np.isnan(margins)
    squares = np.where(known, margins, 0.0) ** 2
    scales = np.sqrt(squares.sum(axis=1) / np.maximum(known.sum(axis=1), 1))
    for member, scale in zip(members, scales, strict=True):
        if not scale > 0:
            raise InputError("gives both answers of every pair the same score, or none", reward=member.name)
    scaled: NDArray[np.float64] = margins / scales[:, None]
    return scaled
