from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from flux_rewards.cli.score import Progress, ScoredFile, score_file
from flux_rewards.errors import ComputeError, ConfigError, FluxRewardsError, InputError

Score = Callable[..., tuple[list[dict[str, Any]], ScoredFile]]

SCORERS = """
from flux_rewards import RewardBatch

def half(sample):
    if "boom" in sample.response:
        raise RuntimeError("the judge is away")
    return None if sample.response == "" else 0.5

def width(sample):
    return sample.image.width

def first_of_call(samples):
    return [float(position == 0) for position in range(len(samples))]

def away(samples):
    raise RuntimeError("the server is away")

def overflow(samples):
    return RewardBatch([float("inf")] * len(samples))
"""

LENGTH = {"name": "brief", "reward_model": "length", "weight": 0.2, "target": 40}
ANSWER = {"reward_model": "numeric_answer"}


@pytest.fixture(autouse=True)
def scorers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scoring functions that a configuration can name."""
    (tmp_path / "scorers_of_this_test.py").write_text(SCORERS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("scorers_of_this_test", None)


def function(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "reward_model": "function", "function": f"scorers_of_this_test.{name}", **options}


@pytest.fixture
def score(tmp_path: Path, jsonl: Callable[..., Path]) -> Score:
    """Score rows with entries; answer the rows that were written, and the result."""

    def run(
        entries: Any, rows: Any, out_name: str = "out.jsonl", **options: Any
    ) -> tuple[list[dict[str, Any]], ScoredFile]:
        config = tmp_path / "rewards.yaml"
        config.write_text(
            yaml.safe_dump(entries if isinstance(entries, dict) else {"rewards": entries}), encoding="utf-8"
        )
        out = tmp_path / out_name
        result = score_file(config, jsonl(rows), out, **options)
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()], result

    return run


def test_rewards_of_a_configuration_score_a_file(score: Score) -> None:
    """The answer 18 is right and 17 wrong; the length of 2 words is 1 - 38/40 = 0.05 for a target of 40."""
    rows, result = score(
        [ANSWER, LENGTH],
        [
            {"prompt": "9 * 2?", "response": "A: 18", "reference": "#### 18"},
            {"prompt": "9 * 2?", "response": "A: 17", "reference": "#### 18"},
        ],
    )
    name = next(iter(result.weights))
    assert [row["parts"][name] for row in rows] == [1.0, 0.0]
    assert [row["parts"]["brief"] for row in rows] == pytest.approx([0.05, 0.05])
    assert [row["reward"] for row in rows] == pytest.approx([1.01, 0.01])
    assert [row["metadata"][name]["answer"] for row in rows] == ["18", "17"]
    assert result.weights == {name: 1.0, "brief": 0.2}
    assert result.has_groups
    assert result.summary.parts[name].mean == 0.5
    assert result.summary.parts["brief"].flat_groups == 1.0


def test_the_section_for_evaluation_is_used_on_demand(score: Score) -> None:
    """With use_eval the rewards of eval_rewards score."""
    sections = {"rewards": [ANSWER], "eval_rewards": [LENGTH]}
    rows, _ = score(sections, [{"response": "a b"}], use_eval=True)
    assert list(rows[0]["parts"]) == ["brief"]


@pytest.mark.parametrize("groups", ["aabb", "abab", "abba"])
def test_a_reward_of_the_group_sees_whole_groups(score: Score, groups: Any) -> None:
    """Ranks within the group are right whatever the batch size and however the groups lie in the file."""
    rank = {"name": "rank", "reward_model": "group_rank", "reward": {"reward_model": "length", "target": 4}}
    lengths = {"a": iter(["x", "x x"]), "b": iter(["x x x", "x"])}
    samples = [{"prompt": group, "response": next(lengths[group])} for group in groups]
    rows, _ = score([rank], samples, batch_size=1)
    expected = {("a", "x"): 0.0, ("a", "x x"): 1.0, ("b", "x x x"): 1.0, ("b", "x"): 0.0}
    assert [row["reward"] for row in rows] == [expected[s["prompt"], s["response"]] for s in samples]


def test_batches_are_about_as_large_as_asked_for(score: Score) -> None:
    """Ten groups of one in batches of four: the first of each call is the 1st, 5th and 9th."""
    rows, _ = score(
        [function("first_of_call", call="batch")],
        [{"prompt": str(index), "response": ""} for index in range(10)],
        batch_size=4,
    )
    assert [row["index"] for row in rows if row["reward"] == 1.0] == [0, 4, 8]
    assert [row["index"] for row in rows] == list(range(10))


def samples_with(*responses: str) -> list[dict[str, str]]:
    return [{"prompt": str(index), "response": response} for index, response in enumerate(responses)]


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_a_failure_is_named_by_its_line(score: Score, tmp_path: Path, batch_size: int) -> None:
    """The error names the file's line and not the position in the batch, and nothing is written."""
    with pytest.raises(ComputeError) as caught:
        score([function("half")], samples_with("a", "b", "c", "boom"), batch_size=batch_size)
    expected = f"{tmp_path / 'samples.jsonl'}, line 4: reward 'half': RuntimeError: the judge is away"
    assert str(caught.value) == expected
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_a_failure_midway_leaves_no_file_of_any_format(score: Score, tmp_path: Path, suffix: str) -> None:
    """A failure after some rows were written leaves neither the output nor a part of it."""
    with pytest.raises(ComputeError):
        score([function("half")], samples_with("a", "boom"), out_name=f"out.{suffix}", batch_size=1)
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"rewards.yaml", "samples.jsonl", "scorers_of_this_test.py"}


def test_images_are_found_beside_the_samples(score: Score, tmp_path: Path) -> None:
    """Relative paths start at the samples' folder; a file that is not there fails its own line and no other."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (7, 5)).save(tmp_path / "images" / "a.png")
    images = ["images/a.png", "images/b.png", str(tmp_path / "images" / "a.png")]
    rows, result = score(
        [function("width", fields=["image"])],
        [{"prompt": "a", "image": image} for image in images],
        max_failure_rate=0.5,
    )
    assert [row["reward"] for row in rows] == [7.0, None, 7.0]
    assert "field 'image'" in rows[1]["errors"]["width"]
    assert "b.png" in rows[1]["errors"]["width"]
    assert "sample 1" not in str(rows[1]["errors"])
    assert result.summary.parts["width"].failed == pytest.approx(1 / 3)


def test_a_failure_of_a_whole_call_is_named_by_its_lines(score: Score) -> None:
    """Where no single sample is to blame, the error names the lines of the batch."""
    with pytest.raises(ComputeError, match=r"samples\.jsonl, line 1 to line 2: .*the server is away"):
        score(
            [function("first_of_call", call="batch"), function("away", call="batch")],
            samples_with("a", "b", "c", "d"),
            batch_size=2,
        )


def test_few_failures_are_let_through_and_stay_visible(score: Score) -> None:
    """A failing part has a reason in the row and a share in the summary; its neighbours are scored."""
    rows, result = score(
        [function("half"), {**LENGTH, "weight": 0.0}],
        samples_with("a", "boom", "c", ""),
        max_failure_rate=0.5,
    )
    assert [row["parts"]["half"] for row in rows] == [0.5, None, 0.5, None]
    assert [row["reward"] for row in rows] == [0.5, None, 0.5, 0.0]
    assert rows[1]["errors"] == {
        "reward": "half: RuntimeError: the judge is away",
        "half": "RuntimeError: the judge is away",
    }
    assert [row["errors"] for row in (rows[0], rows[2], rows[3])] == [{}, {}, {}]
    assert (result.summary.total.failed, result.summary.parts["half"].failed) == (0.25, 0.25)
    assert result.summary.parts["half"].not_applicable == 0.25
    assert (result.summary.parts["brief"].failed, result.weights["brief"]) == (0.0, 0.0)


def test_too_many_failures_end_it(score: Score, tmp_path: Path) -> None:
    """More than the allowed share of a batch is an error with the first line that failed."""
    with pytest.raises(ComputeError, match=r"line 2: .*2 of 3 samples failed, more than max_failure_rate=0.5"):
        score([function("half")], samples_with("a", "boom", "boom"), max_failure_rate=0.5)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_field_is_found_before_anything_is_scored(score: Score) -> None:
    """The last line lacks what a reward needs; the first would have failed if it had been scored."""
    rows = [{"response": "boom", "reference": "1"}, {"response": "2"}]
    with pytest.raises(InputError, match=r"line 2: reward '.*', field 'reference': the reward needs this field"):
        score([function("half"), ANSWER], rows, batch_size=1)


def test_an_infinite_total_is_an_error(score: Score) -> None:
    """Infinity is no score, whoever let it through."""
    with pytest.raises(FluxRewardsError, match=r"line 1: .*finite"):
        score([function("overflow", call="batch")], samples_with("a"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [([{"reward_model": "lenght"}], "did you mean 'length'"), ({"reward": []}, "rewards")],
)
def test_a_wrong_configuration_is_told(score: Score, entries: Any, message: str) -> None:
    """A configuration that cannot be built is an error before the samples are read."""
    with pytest.raises(ConfigError, match=message):
        score(entries, samples_with("a"))


def test_an_output_of_an_unknown_format_is_refused_first(tmp_path: Path) -> None:
    """The suffix is looked at before any file is."""
    with pytest.raises(InputError, match=r"the format '\.txt'; the known ones are"):
        score_file(tmp_path / "no.yaml", tmp_path / "no.jsonl", tmp_path / "out.txt")


def test_progress_is_told(score: Score) -> None:
    """The progress hears of the total, and of every sample."""
    told: list[Any] = []

    class Told(Progress):
        def scoring(self, total: int) -> None:
            told.append(("scoring", total))

        def advance(self, samples: int) -> None:
            told.append(samples)

    score([LENGTH], samples_with("a", "b", "c"), batch_size=2, progress=Told())
    assert told == [("scoring", 3), 2, 1]


@pytest.mark.parametrize("name", ["reward", "total"])
def test_a_part_cannot_have_the_name_of_the_sum(score: Score, name: str) -> None:
    """Its reasons, or its line in the table, could not be told from the total's."""
    with pytest.raises(ConfigError, match=f"cannot be called '{name}'"):
        score([{"name": name, "reward_model": "length", "target": 3}], samples_with("a"))
