"""PairwiseJudge: win rates by hand, orders, ties, budgets of pairs, and what a failure takes along."""

from __future__ import annotations

import collections
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, ChatServer, Request, first_token, said, status
from impatient_judges import IMPATIENT
from PIL import Image

from flux_rewards import ComputeError, ConfigError, InputError, JudgeError, MaskErrors, PairwiseJudge, Sample
from flux_rewards.config import load_rewards, to_config
from flux_rewards.rewards.judges.pairwise import chosen_pairs, wins_of


def judge(url: str, **options: Any) -> PairwiseJudge:
    """Asks once."""
    return PairwiseJudge("m", "Which is clearer?", api_base_url=url, **{**IMPATIENT, **options})


def group(*names: str, prompt: str = "q") -> list[Sample]:
    """A response each."""
    return [Sample(prompt, f"text {name}.") for name in names]


def compared(request: Request) -> tuple[str, str]:
    """The names of the two, A first, each from its own fence."""
    first, second = (
        re.search(rf"<<<response {place} \S+\ntext (\w+)\.\nresponse {place}", request.text) for place in "AB"
    )
    assert first is not None
    assert second is not None
    return first[1], second[1]


def by_strength(strength: dict[str, float]) -> Callable[[Request], Answer]:
    """The stronger one wins; equals tie."""

    def answer(request: Request) -> Answer:
        one, other = (strength[name] for name in compared(request))
        return said(f"Reasons.\nVerdict: {'tie' if one == other else 'A' if one > other else 'B'}")

    return answer


def alphabet(request: Request) -> Answer:
    """The earlier name wins."""
    one, other = compared(request)
    return said("Verdict: A" if one < other else "Verdict: B")


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        ({"a": 2, "b": 1}, [1, 0]),
        ({"a": 1, "b": 1}, [1 / 2, 1 / 2]),
        ({"a": 3, "b": 1, "c": 2}, [1, 0, 1 / 2]),
        ({"a": 1, "b": 2, "c": 2, "d": 3}, [0, 1 / 2, 1 / 2, 1]),  # b: won a, tied c, lost d: 1.5 of 3
        ({name: 5 - at for at, name in enumerate("abcde")}, [1, 3 / 4, 1 / 2, 1 / 4, 0]),
    ],
)
def test_win_rates(strength: dict[str, float], expected: list[float]) -> None:
    """The share of its comparisons that each wins, by hand; each pair is asked about in both orders."""
    with ChatServer(by_strength(strength)) as server:
        batch = judge(server.url)(group(*strength))
        asked = [compared(request) for request in server.requests]
    assert batch.rewards.tolist() == pytest.approx(expected)
    assert sorted(asked) == sorted(itertools.permutations(strength, 2))
    for row, rate in zip(batch.metadata, expected, strict=True):
        others = len(strength) - 1
        assert (row["comparisons"], row["disagreements"], row["attempts"]) == (others, 0, 2 * others)
        assert row["wins"] == pytest.approx(rate * others)
        assert row["tokens"] == {"prompt": 20 * others, "completion": 10 * others}


def test_a_preference_that_goes_in_circles() -> None:
    """Where a beats b, b beats c, and c beats a, nobody is better."""
    beats = [("a", "b"), ("b", "c"), ("c", "a")]
    with ChatServer(lambda request: said(f"Verdict: {'A' if compared(request) in beats else 'B'}")) as server:
        assert judge(server.url)(group("a", "b", "c")).rewards.tolist() == [0.5] * 3


@pytest.mark.parametrize("place", ["A", "B"])
def test_a_judge_that_favours_a_place_says_nothing(place: str) -> None:
    """All win half; the disagreements show it."""
    with ChatServer(said(f"Verdict: {place}")) as server:
        batch = judge(server.url)(group(*"abcd"))
    assert batch.rewards.tolist() == [0.5] * 4
    assert [row["disagreements"] for row in batch.metadata] == [3] * 4


def test_a_tie_in_one_order_is_half_a_tie() -> None:
    """One says A, the other order says tie: (1 + 1/2) / 2; which is no disagreement about who wins."""
    with ChatServer(lambda request: said(f"Verdict: {'A' if compared(request)[0] == 'a' else 'tie'}")) as server:
        batch = judge(server.url)(group("a", "b"))
    assert batch.rewards.tolist() == [0.75, 0.25]
    assert [row["disagreements"] for row in batch.metadata] == [0, 0]


def test_equal_texts_tie_without_a_question() -> None:
    """They still count as a comparison, and so often for others: a wins 1 and ties 1 of 2."""
    with ChatServer(alphabet) as server:
        batch = judge(server.url)(group("a", "b", "a"))
        assert len(server.requests) == 2
    assert batch.rewards.tolist() == [0.75, 0.0, 0.75]
    assert [row["wins"] / row["comparisons"] for row in batch.metadata] == [0.75, 0.0, 0.75]
    with ChatServer(alphabet) as server:
        assert judge(server.url)(group("a", "a", "a")).rewards.tolist() == [0.5] * 3
        assert server.requests == []


def test_of_a_group_of_one_there_is_nothing_to_say() -> None:
    """The reward does not apply, and nothing is asked; nobody gets a half for being alone."""
    with ChatServer(alphabet) as server:
        batch = judge(server.url)(group("a") + group("a", "b", prompt="other"))
        assert len(server.requests) == 2
    np.testing.assert_array_equal(batch.rewards, [np.nan, 1.0, 0.0])
    assert batch.errors == {}


def test_groups_are_kept_apart() -> None:
    """By prompt or id, however they are mixed in the batch."""
    samples = [
        sample for pair in zip(group(*"abc"), group(*"xyz", prompt="other"), strict=True) for sample in reversed(pair)
    ]
    with ChatServer(alphabet) as server:
        batch = judge(server.url)(samples)
        asked = {frozenset(compared(request)) for request in server.requests}
    assert batch.rewards.tolist() == [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]
    assert asked == {frozenset(pair) for names in ("abc", "xyz") for pair in itertools.combinations(names, 2)}


def test_a_group_of_several_prompts_is_an_error() -> None:
    """They would be judged by the prompt of one of them; the field is named."""
    samples = [Sample("one", "r", group_id=1), Sample("two", "s", group_id=1)]
    with ChatServer(alphabet) as server, pytest.raises(InputError, match="prompt") as caught:
        judge(server.url)(samples)
    assert caught.value.field == "prompt"
    with ChatServer(said("Verdict: A")) as server:  # where the prompt is not shown, they may differ
        assert judge(server.url, fields=("response",))(samples).rewards.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("count", range(2, 13))
def test_a_budget_is_spread_evenly(count: int) -> None:
    """Each in as many pairs as any other, or in one more; no pair twice; for all budgets and several seeds."""
    everyone = list(itertools.combinations(range(count), 2))
    for budget, seed in itertools.product(range(1, len(everyone) + 3), range(3)):
        pairs = chosen_pairs(count, budget, seed)
        assert len(pairs) == len(set(pairs)) == min(budget, len(everyone))
        assert set(pairs) <= set(everyone)
        times = collections.Counter(itertools.chain.from_iterable(pairs))
        found = [times[player] for player in range(count)]
        assert max(found) - min(found) <= 1, (budget, seed, found)


def test_the_seed_chooses_the_pairs() -> None:
    """The same for the same, and others for others."""
    assert chosen_pairs(10, 5, 3) == chosen_pairs(10, 5, 3)
    assert len({tuple(chosen_pairs(10, 5, seed)) for seed in range(20)}) > 10


def test_win_rates_of_some_pairs() -> None:
    """Over the pairs that were asked; None for what was in none; what is there thrice counts thrice."""
    once = dict.fromkeys(range(4), 1)
    assert wins_of(once, {(0, 1): 1.0, (1, 2): 0.25}) == {0: (1.0, 1), 1: (0.25, 2), 2: (0.75, 1), 3: (0.0, 0)}
    assert wins_of({0: 3, 1: 1, 2: 1}, {(0, 1): 1.0, (1, 2): 1.0}) == {0: (2 * 0.5 + 1, 3), 1: (1.0, 4), 2: (0.0, 1)}


@pytest.mark.parametrize(
    ("options", "requests"),
    [({}, 30), ({"max_pairs": 7}, 14), ({"both_orders": False}, 15), ({"max_pairs": 4, "seed": 9}, 8)],
)
def test_the_order_of_the_batch_makes_no_difference(options: Any, requests: int) -> None:
    """The same pairs are asked about in the same words, and each gets its own rate."""
    names = "abcdef"
    found: list[tuple[Any, ...]] = []
    with ChatServer(alphabet) as server:
        for order in (names, names[::-1], "cafebd"):
            before = len(server.requests)
            batch = judge(server.url, **options)(group(*order))
            asked = sorted(json.dumps(request.body) for request in server.requests[before:])
            found.append((sorted(zip(order, batch.rewards.tolist(), strict=True)), asked))
    assert found[0] == found[1] == found[2]
    assert len(found[0][1]) == requests


def test_in_one_order_each_is_first_about_as_often_as_second() -> None:
    """At half the price: one request a pair."""
    with ChatServer(said("Verdict: A")) as server:
        batch = judge(server.url, both_orders=False)(group(*"abcdefgh"))
        asked = [compared(request) for request in server.requests]
    assert len({frozenset(pair) for pair in asked}) == len(asked) == 28
    first = collections.Counter(one for one, _ in asked)
    assert all(3 <= first[name] <= 4 for name in "abcdefgh")
    assert batch.rewards.tolist() == pytest.approx([first[name] / 7 for name in "abcdefgh"])
    assert [row["disagreements"] for row in batch.metadata] == [0] * 8


@pytest.mark.parametrize("fault", [said("I prefer the first."), status(400), said("Verdict: A", "length")])
def test_a_comparison_that_fails_fails_its_two(fault: Answer) -> None:
    """And no other: their rates would be over fewer comparisons, in part by luck."""

    def answer(request: Request) -> Answer:
        return fault if compared(request) == ("c", "b") else alphabet(request)

    with ChatServer(answer) as server:
        batch = MaskErrors(judge(server.url), 1.0)(group(*"abcd"))
        with pytest.raises(ComputeError) as caught:
            judge(server.url)(group(*"abcd"))
    np.testing.assert_array_equal(batch.rewards, [1.0, np.nan, np.nan, 0.0])
    assert list(batch.errors) == [1, 2]
    assert caught.value.index in (1, 2)


def test_an_image_that_cannot_be_read_fails_alone() -> None:
    """The others are compared without it."""
    good = [Sample("q", image=Image.new("RGB", (2, 2), colour)) for colour in ("red", "blue")]
    bad = Sample("q", image="/nowhere/image.png")

    def answer(request: Request) -> Answer:
        return said(f"Verdict: {'A' if request.images[0].getpixel((0, 0)) == (255, 0, 0) else 'B'}")

    with ChatServer(answer) as server:
        batch = MaskErrors(judge(server.url, fields=("prompt", "image")), 1.0)([good[0], bad, good[1]])
        assert len(server.requests) == 2
    np.testing.assert_array_equal(batch.rewards, [1.0, np.nan, 0.0])
    assert "/nowhere/image.png" in batch.errors[1]
    assert batch.metadata[0]["comparisons"] == 1


def test_letters_by_their_probability() -> None:
    """P(A) / (P(A) + P(B)), the mean of both orders: (0.8 + (1 - 0.4)) / 2."""

    def answer(request: Request) -> Answer:
        share = 0.8 if compared(request) == ("a", "b") else 0.4
        half = share / 2
        return first_token({"A": math.log(half), " a": math.log(half), "B": math.log(1 - share)})

    with ChatServer(answer) as server:
        batch = judge(server.url, answer="logprobs")(group("a", "b"))
        body = server.requests[0].body
    assert batch.rewards.tolist() == pytest.approx([0.7, 0.3])
    assert (body["logprobs"], body["top_logprobs"], body["max_completion_tokens"]) == (True, 20, 1)
    with ChatServer(first_token({"Both": -0.01, "A": -8.0})) as server, pytest.raises(JudgeError, match="Both"):
        judge(server.url, answer="logprobs")(group("a", "b"))


def test_the_request() -> None:
    """The prompt once, then A, then B, then how to answer; the criteria know the prompt."""
    samples = [Sample("What {is} it?", "text a.", reference=7), Sample("What {is} it?", "text b.", reference=7)]
    with ChatServer(alphabet) as server:
        asking = judge(server.url, fields=("prompt", "response", "reference"), both_orders=False)
        asking = PairwiseJudge(**{**asking.all_parameters, "criteria": "Better for {prompt}, {reference}?"})
        asking(samples)
        [request] = server.requests
    text = request.text
    marks = ["Better for What {is} it?, 7?", "<<<prompt ", "<<<reference ", "<<<response A ", "<<<response B ", "tie"]
    places = [text.rindex(mark) for mark in marks]
    assert places == sorted(places)
    assert (text.count("<<<prompt "), text.count("<<<reference ")) == (1, 1)
    assert all(form in text for form in ("Verdict: A", "Verdict: B", "Verdict: tie"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fields": ("prompt", "reference")}, "fields"),
        ({"max_pairs": 0}, "max_pairs"),
        ({"seed": -1}, "seed"),
        ({"answer": "json"}, "answer"),
        ({"min_mass": 2}, "min_mass"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: Any, says: str) -> None:
    """When it is made."""
    with pytest.raises(ConfigError, match=says):
        judge("http://127.0.0.1:9/v1", **options)


def test_a_judge_comes_back_from_its_configuration() -> None:
    """With its seed and its budget, and asks the same."""

    def asked(asking: Any) -> Sequence[str]:
        before = len(server.requests)
        asking(group(*"abcdef"))
        return sorted(json.dumps(request.body) for request in server.requests[before:])

    with ChatServer(alphabet) as server:
        first = judge(server.url, max_pairs=5, seed=4, both_orders=False)
        assert asked(first) == asked(load_rewards(to_config(first)).train)
