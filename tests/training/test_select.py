"""Ranks of responses, and pairs worth a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flux_rewards import CompositeReward, FunctionReward, GroupRank, InputError, RewardFunction, Sample
from flux_rewards.errors import ConfigError
from flux_rewards.training.preferences import PreferencePair
from flux_rewards.training.select import rank_responses, select_uncertain


class Stated(RewardFunction):
    """The number at a place of a response, such as "0.5 1"; none for "n/a"."""

    required_fields = ("response",)
    optional_fields = ()

    def __init__(self, place: int = 0, *, lower: bool = False, name: str | None = None) -> None:
        super().__init__(name=name)
        self.place = place
        self.higher_is_better = not lower

    def compute_reward(self, sample: Sample) -> float | None:
        said = sample.response_text.split()[self.place]
        return None if said == "n/a" else float(said)


def test_responses_in_order() -> None:
    """The best first, ties as they stood with one rank, and last what has no score."""
    ranked = rank_responses(Stated(), "q", ["1", "3", "n/a", "2", "3"])
    assert [(one.rank, one.position, one.score) for one in ranked] == [
        (1, 1, 3.0),
        (1, 4, 3.0),
        (3, 3, 2.0),
        (4, 0, 1.0),
        (None, 2, None),
    ]
    assert [one.position for one in rank_responses(Stated(lower=True), "q", ["1", "3", "2"])] == [0, 2, 1]


def test_responses_are_one_group() -> None:
    """A reward that compares them sees all, samples and texts, with or without a prompt."""
    given: list[str | Sample] = ["1", Sample(response="3"), "2"]
    assert [one.score for one in rank_responses(GroupRank(Stated()), None, given)] == [1.0, 0.5, 0.0]
    assert rank_responses(Stated(), "q", given)[0].response is given[1]


@pytest.mark.parametrize("responses", [[], "text"])
def test_what_is_no_list_of_responses(responses: Any) -> None:
    """A lone text is a list of letters too."""
    with pytest.raises(InputError, match="expected a list of responses"):
        rank_responses(Stated(), "q", responses)


PAIRS = [
    PreferencePair("a", "5 0", "1 1"),
    PreferencePair("a", "1 2", "2 0"),
    PreferencePair("b", "3 4", "3.5 0"),
    PreferencePair("b", "0 1", "n/a 1"),
    PreferencePair("c", "1 0", "3 8"),
]


def test_small_margins() -> None:
    """The smallest difference first, whichever side is called chosen; at most `per_prompt` of a prompt."""
    found = select_uncertain(Stated(), PAIRS, 3)
    assert [(one.position, one.value) for one in found] == [(2, 0.5), (1, 1.0), (4, 2.0)]
    assert found[0].pair is PAIRS[2]
    assert [one.position for one in select_uncertain(Stated(), PAIRS, 9)] == [2, 1, 4, 0]
    assert [one.position for one in select_uncertain(Stated(), PAIRS, 3, per_prompt=1)] == [2, 1, 4]
    assert [one.position for one in select_uncertain(Stated(), PAIRS[:3], 3, per_prompt=1)] == [2, 1]


@pytest.mark.parametrize("as_one", [False, True])
def test_disagreement(as_one: bool) -> None:
    """The largest spread of margins, each member's divided by its root mean square."""
    members = [Stated(0, name="one"), Stated(1, name="two")]
    reward = CompositeReward([(member, 1.0) for member in members]) if as_one else members
    found = select_uncertain(reward, PAIRS, 2, by="disagreement")
    margins = np.array([[4, -1, -0.5, np.nan, -2], [-1, 2, 4, 0, -8]])
    scaled = margins / np.sqrt([[np.mean([16, 1, 0.25, 4])], [np.mean([1, 4, 16, 0, 64])]])
    spread = np.abs(scaled[0] - scaled[1]) / 2  # the standard deviation of two numbers
    order = [position for position in np.argsort(-spread).tolist() if position != 3]
    assert [one.position for one in found] == order[:2]
    assert [one.value for one in found] == pytest.approx(spread[order[:2]].tolist())


def test_margins_of_several() -> None:
    """Of several rewards, the margin is that of their mean on one scale: a member in other units does not rule."""
    members = [Stated(0), Stated(1)]

    def enlarged(answer: object) -> str:
        first, second = str(answer).split()
        return f"{first} {1000 * float(second)}"

    large = [PreferencePair(pair.prompt, enlarged(pair.chosen), enlarged(pair.rejected)) for pair in PAIRS]
    assert [one.position for one in select_uncertain(members, large, 4)] == [
        one.position for one in select_uncertain(members, PAIRS, 4)
    ]


def test_samples_as_candidates() -> None:
    """All pairs within each group, without those of the same answer."""
    samples = [Sample("a", "1"), Sample("b", "9"), Sample("a", "4"), Sample("a", "2"), Sample("b", "9")]
    found = select_uncertain(Stated(), samples, 9)
    assert [(one.pair.chosen, one.pair.rejected) for one in found] == [("1", "2"), ("4", "2"), ("1", "4")]


@pytest.mark.parametrize(
    ("reward", "candidates", "options", "error", "message"),
    [
        (Stated(), PAIRS, {"k": 0}, ConfigError, "k must be a whole number"),
        (Stated(), PAIRS, {"by": "entropy"}, ConfigError, "by must be one of"),
        (Stated(), PAIRS, {"by": "disagreement"}, ConfigError, "needs two rewards at least, found 0"),
        ([], PAIRS, {}, ConfigError, "needs a reward at least"),
        (Stated(), [], {}, InputError, "found 0 candidates"),
        (Stated(), [Sample("a", "1"), Sample("b", "2")], {}, InputError, "found 2 candidates"),
        ([Stated(), Stated()], [PreferencePair("a", "1", "1.0")], {}, InputError, "the same score, or none"),
    ],
)
def test_bad_requests(reward: Any, candidates: Any, options: Any, error: type[Exception], message: str) -> None:
    """Each is an error that says what is missing."""
    with pytest.raises(error, match=message):
        select_uncertain(reward, candidates, **{"k": 1, **options})


def test_one_label_is_enough() -> None:
    """Samples that repeat make pairs that do: one of them is selected, in whichever order."""
    samples = [Sample("q", text) for text in ("one", "one two", "one two three")]
    reward = FunctionReward(lambda sample: len(sample.response.split()) ** 2)
    once = select_uncertain(reward, samples, 9)
    twice = select_uncertain(reward, [*samples, *samples[::-1]], 9)
    assert [found.value for found in twice] == [found.value for found in once]
    assert len(once) == 3
