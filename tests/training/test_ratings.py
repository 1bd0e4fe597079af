"""Pairs from ratings and from comparisons."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flux_rewards import InputError, Sample
from flux_rewards.errors import ConfigError
from flux_rewards.training.ratings import from_ab_tests, from_ratings, pairs_of_group

GSM8K = Path(__file__).parents[2] / "examples" / "gsm8k" / "samples.jsonl"


def rated(*stars: Any, prompt: str = "q") -> list[Sample]:
    return [Sample(prompt, f"{prompt}{number}", metadata={"stars": value}) for number, value in enumerate(stars)]


def test_best_against_worst() -> None:
    """One pair a group, of its highest and its lowest; groups without a difference give none."""
    data = from_ratings([*rated(2, 5, 1, 3), *rated(4, 4, prompt="r"), *rated(1, 0, prompt="s")], "metadata.stars")
    assert [(pair.chosen, pair.rejected) for pair in data] == [("q1", "q2"), ("s0", "s1")]
    assert data[0].metadata == {"chosen_stars": 5, "rejected_stars": 1, "ratings": [5.0, 1.0]}
    assert data.notes == {"groups without a pair": 1}
    assert data[0].margin is None


def test_all_pairs_above_a_gap() -> None:
    """Every pair whose ratings differ by at least the gap, and no tie; margins by the gap."""
    stars = [2, 5, 1, 3, 5]
    data = from_ratings(rated(*stars), "stars", mode="all_pairs", min_gap=2, margin=0.25)
    wanted = {
        (f"q{one}", f"q{other}"): 0.25 * (stars[one] - stars[other])
        for one, other in itertools.permutations(range(5), 2)
        if stars[one] - stars[other] >= 2
    }
    assert {(pair.chosen, pair.rejected): pair.margin for pair in data} == wanted
    assert len(from_ratings(rated(1, 1, 2), "stars", mode="all_pairs", min_gap=0)) == 2
    few = from_ratings(rated(*stars), "stars", mode="all_pairs", max_pairs=3)
    assert (len(few), few.notes) == (3, {"pairs over max_pairs": 6})


def test_a_gap_of_just_the_limit_counts() -> None:
    """0.3 - 0.2 is less than 0.1 by rounding; pairs that are closer are counted."""
    samples = [Sample("q", str(value), metadata={"value": value}) for value in (0.3, 0.2, 0.15)]
    found = from_ratings(samples, "metadata.value", mode="all_pairs", min_gap=0.1)
    assert sorted((pair.chosen, pair.rejected) for pair in found) == [("0.3", "0.15"), ("0.3", "0.2")]
    assert found.notes == {"pairs closer than min_gap": 1}


def test_lots_of_pairs_are_not_lots_of_answers() -> None:
    """Of all pairs of an answer's group, those that are kept teach about more than one answer."""
    samples = [Sample("q", f"a{value}", metadata={"value": value}) for value in range(8)]
    for seed in range(5):
        found = from_ratings(samples, "metadata.value", mode="all_pairs", max_pairs=5, seed=seed)
        assert len(set.intersection(*({pair.chosen, pair.rejected} for pair in found))) == 0
        again = from_ratings(samples[::-1], "metadata.value", mode="all_pairs", max_pairs=5, seed=seed)
        assert [pair.chosen for pair in again] == [pair.chosen for pair in found]


def test_ratings_of_a_csv_file(tmp_path: Path) -> None:
    """All cells are text: numbers, true and false are read, and an empty one is no rating."""
    file = tmp_path / "rated.csv"
    file.write_text("prompt,response,stars,right\nq,a,4.5,True\nq,b,1,false\nq,c,,true\n")
    stars = from_ratings(file, "stars")
    assert [(pair.chosen, pair.rejected) for pair in stars] == [("a", "b")]
    assert stars.notes == {"answers without a rating": 1}
    assert {pair.rejected for pair in from_ratings(file, "right", mode="all_pairs")} == {"b"}


def test_lots_break_ties_and_not_the_order_of_the_file() -> None:
    """Among equal ratings each answer has its turn over seeds, whatever stands first."""
    group = rated(1, 1, 1, 0)
    chosen = Counter(from_ratings(group, "stars", seed=seed)[0].chosen for seed in range(60))
    assert set(chosen) == {"q0", "q1", "q2"}
    assert min(chosen.values()) > 5
    for seed in range(5):
        assert from_ratings(group[::-1], "stars", seed=seed)[0] == from_ratings(group, "stars", seed=seed)[0]


def test_groups_go_by_their_id() -> None:
    """Samples of one group_id are compared, wherever they stand; of the same prompt with other ids, not."""
    samples = [
        Sample("q", f"{group}{stars}", group_id=group, metadata={"stars": stars})
        for stars in (0, 1)
        for group in ("a", "b")
    ]
    pairs = [(pair.chosen, pair.rejected) for pair in from_ratings(samples, "stars")]
    assert pairs == [("a1", "a0"), ("b1", "b0")]


def test_what_is_left_out_is_counted() -> None:
    """Answers without a rating, and pairs of the same answer."""
    samples = [
        *rated(None, 3, 1),
        Sample("r", "same", metadata={"stars": 1}),
        Sample("r", "same", metadata={"stars": 2}),
    ]
    data = from_ratings(samples, lambda sample: sample.metadata["stars"])
    assert len(data) == 1
    assert data.notes == {"answers without a rating": 1, "pairs of the same answer": 1, "groups without a pair": 1}


def test_media_and_tokens_stay_samples() -> None:
    """What a text cannot hold is kept; a reference that both have is shared."""
    samples = [Sample("a cat", image=f"{stars}.png", reference="cat", metadata={"stars": stars}) for stars in (1, 2)]
    (pair,) = from_ratings(samples, "stars")
    assert isinstance(pair.chosen, Sample)
    assert pair.chosen_sample.image == "2.png"
    assert pair.chosen_sample.reference == "cat"
    (text,) = from_ratings([Sample("q", str(stars), reference="x", metadata={"s": stars}) for stars in (1, 2)], "s")
    assert (text.chosen, text.shared) == ("2", {"reference": "x"})


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "holds no samples"),
        (rated("five"), {}, "sample 0: the rating must be a number"),
        (rated(1, float("nan")), {}, "sample 1: the rating is nan"),
        (
            rated(1),
            {"rating": "metadata.star"},
            r"sample 0: there is no 'metadata.star'; the sample has metadata.stars",
        ),
        ([Sample(response="x", metadata={"stars": 1})], {}, "sample 0: has neither a group_id nor a prompt"),
        ([*rated(1), {"prompt": "q"}], {}, "some of both"),
        (
            [Sample(prompt, prompt, group_id=1, metadata={"stars": stars}) for stars, prompt in enumerate("ab")],
            {},
            "the group 1 holds answers to different prompts: 'b' and 'a'",
        ),
    ],
)
def test_bad_ratings(samples: Any, options: dict[str, Any], message: str) -> None:
    """A rating is a number, in a group of one prompt."""
    with pytest.raises(InputError, match=message):
        from_ratings(samples, **{"rating": "metadata.stars", **options})


@pytest.mark.parametrize("options", [{"mode": "best"}, {"min_gap": -1}, {"max_pairs": 0}, {"margin": -1.0}])
def test_bad_options(options: dict[str, Any]) -> None:
    """Parameters are checked before anything is read."""
    with pytest.raises(ConfigError):
        from_ratings(rated(1, 2), "stars", **options)


def test_gsm8k() -> None:
    """Real solutions: every chosen one is correct, every rejected one is not, by the file's own labels."""
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    truth = {(row["group_id"], row["response"]): row["metadata"]["is_correct"] for row in rows}
    groups = Counter(row["group_id"] for row in rows)
    correct = Counter(row["group_id"] for row in rows if row["metadata"]["is_correct"])
    best = from_ratings(GSM8K, "metadata.is_correct")
    every = from_ratings(GSM8K, "metadata.is_correct", mode="all_pairs")
    assert len(best) == sum(0 < correct[group] < groups[group] for group in groups)
    assert len(every) == sum(correct[group] * (groups[group] - correct[group]) for group in groups)
    for pair in [*best, *every]:
        group = pair.shared["group_id"]
        assert truth[group, pair.chosen]
        assert not truth[group, pair.rejected]
    assert best.source == str(GSM8K)


def test_a_bad_line_of_samples_is_named(tmp_path: Path) -> None:
    """A file of samples is read as everywhere."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": 3, "response": "x"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: 'prompt' must be text"):
        from_ratings(path, "stars")


def test_all_pairs_of_unrated_samples() -> None:
    """Within each group, without those that are the same."""
    samples = [Sample("q", "a"), Sample("r", "b"), Sample("q", "c"), Sample("q", "a")]
    assert [(pair.chosen, pair.rejected) for pair in pairs_of_group(samples)] == [("a", "c"), ("c", "a")]


VOTE = {"prompt": "q", "a": "first", "b": "second"}


@pytest.mark.parametrize(
    ("winner", "chosen"),
    [("a", "first"), ("B", "second"), ("model_a", "first"), ("model_b", "second"), ("right", "second")],
)
def test_the_winner_is_chosen(winner: str, chosen: str) -> None:
    """Words of public sets of comparisons are known."""
    (pair,) = from_ab_tests([{**VOTE, "winner": winner, "judge": 3}])
    assert pair.chosen == chosen
    assert pair.metadata == {"judge": 3, "winner": "a" if chosen == "first" else "b"}


def test_ties_are_counted_or_refused() -> None:
    """A tie makes no pair."""
    votes = [{**VOTE, "winner": said} for said in ("a", "tie", "both_bad", "tie (bothbad)")]
    assert from_ab_tests(votes).notes == {"ties": 3}
    with pytest.raises(InputError, match="index 1, column 'winner': is a tie"):
        from_ab_tests(votes, ties="error")


def test_own_words_and_columns(tmp_path: Path) -> None:
    """Columns and winners by any name; whole conversations share their prompt."""
    user = {"role": "user", "content": "q"}
    path = tmp_path / "votes.jsonl"
    row = {f"conv_{side}": [user, {"role": "assistant", "content": side}] for side in "ab"}
    path.write_text(json.dumps({**row, "label": 1}) + "\n", encoding="utf-8")
    columns = {"a": "conv_a", "b": "conv_b", "winner": "label"}
    (pair,) = from_ab_tests(path, columns=columns, winners={0: "a", 1: "b"})
    assert (pair.prompt, pair.chosen) == ([user], [{"role": "assistant", "content": "b"}])
    with pytest.raises(InputError, match=r"votes\.jsonl, line 1, column 'label': expected 'a', 'b' or 'tie', found 1"):
        from_ab_tests(path, columns=columns)
    with pytest.raises(ConfigError, match=r"winners\[1\] must be one of a, b, tie"):
        from_ab_tests(path, columns=columns, winners={1: "c"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no comparisons"),
        ([{**VOTE, "winner": "c"}], "index 0, column 'winner': expected 'a', 'b' or 'tie', found 'c'"),
        ([{**VOTE, "winner": None}], "index 0, column 'winner': is missing"),
        ([VOTE], "index 0: there is no column 'winner'"),
        ([{**VOTE, "a": "", "winner": "a"}], "index 0, column 'chosen': is empty"),
    ],
)
def test_bad_comparisons(rows: Any, message: str) -> None:
    """Each is an error with its row."""
    with pytest.raises(InputError, match=message):
        from_ab_tests(rows)
