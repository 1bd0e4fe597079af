"""How well a reward agrees with preferences."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flux_rewards import (
    Cached,
    CompositeReward,
    ComputeError,
    FunctionReward,
    GroupRank,
    InputError,
    MaskErrors,
    Product,
    Retry,
    RewardBatch,
    RewardFunction,
    RewardOutput,
    Sample,
    Scale,
)
from flux_rewards.combinator import UnaryCombinator
from flux_rewards.errors import ConfigError
from flux_rewards.rewards.learned.ensemble import EnsembleReward
from flux_rewards.training.calibrated import Calibrated
from flux_rewards.training.evaluate import evaluate_preferences
from flux_rewards.training.evaluate_report import PreferenceReport, section_scores
from flux_rewards.training.evaluate_scores import score_pairs
from flux_rewards.training.evaluate_statistics import Accuracy, Resampling, accuracy_of
from flux_rewards.training.preferences import PreferencePair


class Stated(RewardFunction):
    """The number that a response begins with; none for "n/a", and a failure for anything else."""

    required_fields = ("response",)
    optional_fields = ()
    calls = 0

    def compute_reward(self, sample: Sample) -> float | None:
        type(self).calls += 1
        first = sample.response_text.split()[0]
        return None if first == "n/a" else float(first)


class Fewer(Stated):
    """Less is better."""

    higher_is_better = False

    def compute_reward(self, sample: Sample) -> float | None:
        return -float(sample.response_text.split()[0])


def pair(prompt: str, chosen: str, rejected: str, subset: str = "easy") -> PreferencePair:
    return PreferencePair(prompt, chosen, rejected, metadata={"subset": subset})


# Margins 2, 0, -1, 4, 1: three wins, a tie and a loss, of three prompts.
TABLE = [
    pair("p1", "3 a longer one", "1"),
    pair("p1", "2", "2 a longer one", "hard"),
    pair("p2", "0", "1", "hard"),
    pair("p2", "5 long", "1"),
    pair("p3", "1", "0 longer", "hard"),
]


def test_a_table_worked_by_hand() -> None:
    """Accuracy under both tie rules, subsets, calibration, margins and the bias of length."""
    report = evaluate_preferences(Stated(), TABLE, by="metadata.subset", bins=5)
    found = report.accuracy
    assert (report.pairs, found.pairs, found.prompts) == (5, 5, 3)
    assert (found.wins, found.ties, found.losses) == (3, 1, 1)
    assert (found.strict, found.half) == (0.6, 0.7)
    assert {name: (part.pairs, part.strict, part.half) for name, part in report.subsets.items()} == {
        "easy": (2, 1.0, 1.0),
        "hard": (3, pytest.approx(1 / 3), 0.5),
    }
    assert report.macro_strict == pytest.approx(2 / 3)
    # sigmoid of the margins: 0.880797, 0.5, 0.268941, 0.982014, 0.731059
    assert report.calibration is not None
    assert report.calibration.brier == pytest.approx((0.014209 + 0.25 + 0.534447 + 0.000323 + 0.072330) / 5, abs=1e-6)
    # by bins: 0.119203; the tie 0; 0.731059 twice, right once: 0.462117; 0.017986
    assert report.calibration.ece == pytest.approx((0.119203 + 0.462117 + 0.017986) / 5, abs=1e-6)
    assert report.margins is not None
    assert [report.margins.mean, report.margins.std] == pytest.approx([1.2, math.sqrt(2.96)])
    assert (report.margins.counts, report.margins.edges) == ((1, 1, 1, 1, 1), (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0))
    assert report.longer_wins is not None
    assert (report.longer_wins.wins, report.longer_wins.ties, report.longer_wins.losses) == (2, 1, 2)
    lengths = [len(str(one.chosen)) - len(str(one.rejected)) for one in TABLE]
    margins = [2, 0, -1, 4, 1]
    both = [[*values, *(-value for value in values)] for values in (margins, lengths)]  # either order of each pair
    assert report.length_correlation == pytest.approx(np.corrcoef(np.array(both))[0, 1])


def test_the_interval_of_few_prompts_is_that_of_all_draws() -> None:
    """Quantiles over all 27 draws of three prompts: a draw without the third has 1/2, three times the third has 1."""
    found = accuracy_of(np.array([2.0, 0.0, -1.0, 4.0, 1.0]), ["a", "a", "b", "b", "c"], Resampling(5000))
    assert found.strict_interval == (0.5, 1.0)


def test_the_interval_of_many_prompts_is_that_of_the_normal_distribution() -> None:
    """With one pair a prompt, the interval is nearly the textbook's; with four alike, as wide as for a quarter."""
    wins = np.where(np.arange(1000) % 10 < 7, 1.0, -1.0)
    for copies in (1, 4):
        found = accuracy_of(np.repeat(wins, copies), np.repeat(np.arange(1000), copies).tolist(), Resampling(2000))
        assert found.strict_interval is not None
        reach = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
        assert found.strict_interval == pytest.approx((0.7 - reach, 0.7 + reach), abs=0.004)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_interval_of_a_sure_thing(sign: float) -> None:
    """Where all prompts agree, the interval is the exact one, and not a point."""
    found = accuracy_of(np.full(8, sign), [0, 0, 1, 1, 2, 2, 3, 3], Resampling())
    assert found.strict_interval is not None
    low, high = found.strict_interval
    # Clopper and Pearson: the chance of four in four is 2.5 % at the bound.
    bound, end = (low, high) if sign > 0 else (1 - high, 1 - low)
    assert [bound**4, end] == pytest.approx([0.025, 1.0])


def test_what_is_nothing_but_length() -> None:
    """Correlates with length though all chosen answers are longer by the same; and all ties have no interval."""
    pairs = [pair(f"p{number}", "x" * (number + 6), "x" * number) for number in range(1, 9)]
    report = evaluate_preferences(FunctionReward(lambda sample: len(sample.response)), pairs)
    assert report.length_correlation == pytest.approx(1.0)
    ties = evaluate_preferences(FunctionReward(lambda _: 1.0), pairs)
    assert (ties.accuracy.half, ties.accuracy.half_interval, ties.length_correlation) == (0.5, None, None)


def test_one_prompt_has_no_interval() -> None:
    """Nothing can be said about other prompts."""
    report = evaluate_preferences(Stated(), TABLE[:2])
    assert report.accuracy.strict_interval is None
    assert evaluate_preferences(Stated(), TABLE, resamples=0).accuracy.half_interval is None


def test_where_less_is_better() -> None:
    """The sign of a reward is turned, in a part of a composite too."""
    plain = evaluate_preferences(Stated(), TABLE)
    assert evaluate_preferences(Fewer(), TABLE).accuracy == plain.accuracy
    composite = CompositeReward({"fewer": (Fewer(), -1.0), "stated": (Stated(), 1.0)})
    report = evaluate_preferences(composite, TABLE)
    assert report.accuracy == plain.accuracy
    assert {part.accuracy for part in report.parts.values()} == {plain.accuracy}
    scaled = evaluate_preferences(Scale(Stated(), factor=-1.0), TABLE)
    assert scaled.accuracy == plain.accuracy


def test_what_has_no_score_is_left_out_and_said() -> None:
    """Pairs that fail or to which the reward does not apply are counted, and nothing else."""
    pairs = [*TABLE, pair("p4", "n/a", "1"), pair("p5", "1", "n/a"), pair("p6", "x", "1")]
    report = evaluate_preferences(Stated(), pairs, max_failure_rate=0.5)
    assert (report.pairs, report.accuracy.pairs) == (8, 5)
    assert (report.not_applicable, report.failed) == (2, 1)
    assert list(report.reasons.values()) == [1]
    assert "ValueError" in next(iter(report.reasons))
    assert report.accuracy == evaluate_preferences(Stated(), TABLE).accuracy
    with pytest.raises(ComputeError, match=r"pair 7, chosen: .*could not convert") as caught:
        evaluate_preferences(Stated(), pairs)
    assert caught.value.reward == "Stated"
    assert "Stated: 5 of 8 pairs, 3 prompts (2 not applicable, 1 failed)" in str(report)


def test_nothing_scored_is_no_number() -> None:
    """Where the reward never applies there is no accuracy, and the table says so."""
    report = evaluate_preferences(Stated(), [pair("p", "n/a", "1")])
    assert (report.accuracy.strict, report.margins, report.calibration) == (None, None, None)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["accuracy"]["half"] is None
    assert "-" in str(report)


class First(RewardFunction):
    """A judge that prefers what it sees first, and counts what it sees."""

    required_fields = ("response",)
    scope = "group"

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float]:
        assert len(samples) == 2
        return [1.0, 0.0]


def test_each_pair_is_a_group_in_an_order_by_lot() -> None:
    """A judge that likes the first answer is right half of the time; the same seed gives the same order."""
    pairs = [pair("the same prompt", f"{number} a", f"{number} b") for number in range(400)]
    report = evaluate_preferences(First(), pairs, batch_size=7)
    assert report.accuracy.strict == pytest.approx(0.5, abs=0.08)
    assert evaluate_preferences(First(), pairs).accuracy.wins == report.accuracy.wins
    assert evaluate_preferences(First(), pairs, seed=1).accuracy.wins != report.accuracy.wins


def test_ranks_within_a_pair() -> None:
    """A rank within the group keeps what is preferred, ties included."""
    ranked = evaluate_preferences(GroupRank(Stated()), TABLE).accuracy
    assert ranked == evaluate_preferences(Stated(), TABLE).accuracy


def test_an_answer_of_several_pairs_is_scored_once() -> None:
    """What differs only in fields that the reward does not read is one answer."""
    answers = [f"{number}" for number in range(4)]
    pairs = [
        PreferencePair("q", answers[one], answers[other], metadata={"pair": [one, other]})
        for one in range(4)
        for other in range(one)
    ]
    Stated.calls = 0
    margins = score_pairs(Stated(), pairs).margins
    assert Stated.calls == 4
    assert margins.tolist() == [1.0, 2.0, 1.0, 3.0, 2.0, 1.0]


def test_images_and_references() -> None:
    """A reward of images sees the images of both answers, with the prompt and what they share."""

    def whiter(sample: Sample) -> float:
        assert sample.prompt == "white"
        return float(np.asarray(sample.image).mean()) - float(sample.reference)

    images = [Sample(image=np.full((4, 4, 3), value, dtype=np.uint8)) for value in (200, 100)]
    pairs = [PreferencePair("white", images[0], images[1], shared={"reference": 3.0})]
    report = evaluate_preferences(FunctionReward(whiter, name="whiter"), pairs)
    assert report.margins is not None
    assert (report.accuracy.wins, report.margins.mean) == (1, 100.0)
    assert (report.longer_wins, report.length_correlation) == (None, None)


def test_parts_cost_no_calls() -> None:
    """Aspects that a reward tells, and the parts of a composite, are evaluated on the same scores."""

    class Aspects(RewardFunction):
        required_fields = ("response",)

        def compute_reward(self, sample: Sample) -> RewardOutput:
            value = float(sample.response_text.split()[0])
            return RewardOutput(value, parts={"same": value, "other": -value})

    report = evaluate_preferences(Aspects(), TABLE, by="subset")
    assert report.parts["same"].accuracy == report.accuracy
    assert (report.parts["other"].accuracy.wins, report.parts["other"].accuracy.losses) == (1, 3)
    assert set(report.parts["other"].subsets) == {"easy", "hard"}


class Ours(UnaryCombinator):
    """A fold of somebody's own, with a name of its own for its part."""

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:
        return replace(batches[0], parts={"mine": batches[0]})


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda cost: CompositeReward([(cost, -1.0)]),
        lambda cost: MaskErrors(CompositeReward([(cost, -1.0)])),
        lambda cost: Cached(CompositeReward({"named": (cost, -1.0)})),
        lambda cost: EnsembleReward([cost, Fewer(name="again")]),
        lambda cost: MaskErrors(EnsembleReward({"one": cost, "other": cost})),
        lambda cost: Product({"minus": FunctionReward(lambda _: -1.0), "cost": cost}),
        lambda cost: Calibrated(cost, slope=-1.0),
        lambda cost: Scale(cost, factor=-2.0),
        lambda cost: Scale(MaskErrors(CompositeReward([(Retry(cost), 1.0)])), factor=-2.0),
        Ours,
    ],
)
def test_parts_of_which_less_is_better(wrapped: Callable[[RewardFunction], RewardFunction]) -> None:
    """Whatever folds or wraps a cost, the cost's own part is right where the cost alone is."""
    expected = evaluate_preferences(Fewer(), TABLE).accuracy
    assert (expected.wins, expected.losses) == (3, 1)

    def of_leaves(report: PreferenceReport) -> list[Accuracy]:
        below = [found for part in report.parts.values() for found in of_leaves(part)]
        return below or ([] if report.reward == "minus" else [report.accuracy])

    report = evaluate_preferences(wrapped(Fewer()), TABLE)
    assert report.parts
    assert {*of_leaves(report)} == {expected}


def test_prompts_that_are_unknown_are_not_counted() -> None:
    """Answers are no prompts: the report says how many pairs have none."""
    pairs = [PreferencePair(None, "2", f"1 {number}") for number in range(3)]
    report = evaluate_preferences(Stated(), pairs)
    assert (report.prompts, report.without_prompt) == (0, 3)
    assert str(report).startswith("Stated: 3 of 3 pairs, prompts unknown (")
    assert report.to_dict()["prompts"] is None
    mixed = evaluate_preferences(Stated(), [*pairs, *TABLE])
    assert "8 of 8 pairs, 3 prompts and 3 unknown (" in str(mixed)


def test_batches_make_no_difference() -> None:
    """However the answers are cut, the report is the same; the progress goes up to all of them."""
    told: list[tuple[int, int]] = []
    report = evaluate_preferences(Stated(), TABLE, batch_size=2, advance=lambda *done: told.append(done))
    assert report == evaluate_preferences(Stated(), TABLE)
    assert told[0] == (0, told[-1][1])
    assert told[-1][0] == told[-1][1] == len({answer for one in TABLE for answer in (one.chosen, one.rejected)})


def test_the_table() -> None:
    """Accuracy with intervals, baselines, measures and the histogram of margins, in text."""
    text = str(evaluate_preferences(Stated(), TABLE, by="metadata.subset", bins=5))
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines() if line.strip()}
    assert rows["all"][1:4] == ["5", "1", "0.600"]
    assert rows["longer answer"][2:5] == ["5", "1", "0.400"]
    assert rows["chance"][1:] == ["0.500"]
    assert rows["Brier"][1] == "0.174"
    assert "-1.00 ..  0.00  1  ##############################" in text.splitlines()


def test_sections_as_rewardbench_has_them() -> None:
    """Subsets weigh as many pairs as they have, or as they are said to have."""
    report = evaluate_preferences(Stated(), TABLE, by="subset")
    assert section_scores(report, {"all": ["easy", "hard"]})["all"] == pytest.approx((2 * 1 + 3 / 3) / 5)
    counted = section_scores(report, {"all": ["easy", "hard"], "one": ["hard"]}, {"hard": 984, "easy": 164})
    assert counted == pytest.approx({"all": (164 + 984 / 3) / 1148, "one": 1 / 3})
    with pytest.raises(ConfigError, match=r"section 'x': no subset 'esay' .*did you mean 'easy'"):
        section_scores(report, {"x": ["esay"]})


@pytest.mark.parametrize(
    "options",
    [
        {"confidence": 1.0},
        {"confidence": 0},
        {"resamples": -1},
        {"bins": 0},
        {"batch_size": 0},
        {"max_failure_rate": 2},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    """Parameters are checked before anything is scored."""
    with pytest.raises(ConfigError):
        evaluate_preferences(Stated(), TABLE, **options)


def test_no_pairs_and_missing_fields() -> None:
    """Nothing to evaluate, and what the reward needs and a pair has not, are errors that say so."""
    with pytest.raises(InputError, match="there are no pairs"):
        evaluate_preferences(Stated(), [])
    image = Sample(image="a.png")
    with pytest.raises(InputError, match="pair 0, chosen: the reward needs this field") as caught:
        evaluate_preferences(Stated(), [PreferencePair("q", image, image)])
    assert (caught.value.reward, caught.value.field, caught.value.index) == ("Stated", "response", None)
    with pytest.raises(InputError, match=r"pair 0 has no 'metadata\.level'.*; it has metadata\.subset"):
        evaluate_preferences(Stated(), TABLE, by="metadata.level")
