"""RubricJudge: aspects as parts, their weighted mean by hand, and what becomes of them in other rewards."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, ChatServer, Request, in_turn, said
from impatient_judges import IMPATIENT

from flux_rewards import Cached, CompositeReward, ConfigError, InputError, JudgeError, MaskErrors, RubricJudge, Sample
from flux_rewards.config import load_rewards, to_config

ASPECTS: Any = [
    {"name": "clarity", "description": "Is it clear?"},
    {"name": "Is true", "description": "Is it true?", "score_range": (0, 10), "weight": 2},
    {"name": "charts", "description": "Are its charts right?", "weight": 0.5, "optional": True},
]
SAMPLES = [Sample("q", f"answer {number}") for number in range(4)]


def judge(url: str, aspects: Any = ASPECTS, **options: Any) -> RubricJudge:
    """Asks once."""
    return RubricJudge("m", aspects, api_base_url=url, **{**IMPATIENT, **options})


def scored(**scores: Any) -> Answer:
    """A reply with these scores; an underscore is a blank."""
    return said(json.dumps({"reasoning": "so", **{name.replace("_", " "): score for name, score in scores.items()}}))


def row(reply: Answer, /, aspects: Any = ASPECTS, **options: Any) -> Any:
    """What becomes of one reply."""
    with ChatServer(reply) as server:
        return judge(server.url, aspects, **options)(SAMPLES[:1])[0]


@pytest.mark.parametrize(
    ("scores", "parts", "mean"),
    [
        ({"clarity": 5, "Is_true": 10, "charts": 5}, [1.0, 1.0, 1.0], 1.0),
        ({"clarity": 4, "Is_true": 5, "charts": 2}, [0.75, 0.5, 0.25], (0.75 + 2 * 0.5 + 0.5 * 0.25) / 3.5),
        ({"clarity": 4, "Is_true": 5, "charts": None}, [0.75, 0.5, None], (0.75 + 2 * 0.5) / 3),
        ({"clarity": "4/5", "Is_true": "2.5", "charts": "N/A"}, [0.75, 0.25, None], (0.75 + 2 * 0.25) / 3),
    ],
)
def test_the_weighted_mean(scores: dict[str, Any], parts: list[float | None], mean: float) -> None:
    """sum(w s) / sum(w) over the aspects that apply, each moved to [0, 1] on its own scale."""
    found = row(scored(**scores))
    assert found.reward == pytest.approx(mean)
    assert found.parts == dict(zip(["clarity", "Is true", "charts"], parts, strict=True))
    given = [4.0 if score == "4/5" else None if score == "N/A" else score for score in scores.values()]
    given = [None if score is None else float(score) for score in given]
    assert list(found.metadata["scores"].values()) == given


def test_a_mapping_of_names_is_enough() -> None:
    """All weigh the same, on the judge's scale."""
    found = row(scored(a=1, b=4), {"a": "Is it a?", "b": {"description": "Is it b?"}}, score_range=(1, 4))
    assert (found.reward, found.parts) == (0.5, {"a": 0.0, "b": 1.0})


@pytest.mark.parametrize(("scaling", "expected"), [("unit", (0.75 + 0.2) / 2), ("/high", (0.8 + 0.2) / 2), ("raw", 3)])
def test_the_scaling_comes_before_the_mean(scaling: str, expected: float) -> None:
    """Of 4 on 1 to 5, and of 2 on 0 to 10."""
    aspects = {"a": "?", "b": {"description": "?", "score_range": [0, 10]}}
    assert row(scored(a=4, b=2), aspects, scaling=scaling).reward == pytest.approx(expected)


def test_what_does_not_apply_is_nan_in_its_part_only() -> None:
    """And where nothing applies, the reward does not; none of it is a failure."""
    aspects = {name: {"description": "?", "optional": True} for name in ("a", "b")}
    replies = [scored(a=5, b=None), scored(a=None, b=1), scored(a=None, b="n/a"), scored(a=3, b=5)]
    with ChatServer(in_turn(*replies)) as server:
        batch = judge(server.url, aspects, max_concurrent=1)(SAMPLES)
    np.testing.assert_array_equal(batch.rewards, [1.0, 0.0, np.nan, 0.75])
    np.testing.assert_array_equal(batch.parts["a"].rewards, [1.0, np.nan, np.nan, 0.5])
    np.testing.assert_array_equal(batch.parts["b"].rewards, [np.nan, 0.0, np.nan, 1.0])
    assert (batch.errors, batch.parts["a"].errors) == ({}, {})
    assert batch.not_applicable.tolist() == [False, False, True, False]


def test_only_what_weighs_something_counts() -> None:
    """An aspect of weight 0 is a part; where it alone applies, there is no mean."""
    aspects = {"a": {"description": "?", "weight": 0}, "b": {"description": "?", "optional": True}}
    assert row(scored(a=1, b=5), aspects).reward == 1.0
    found = row(scored(a=1, b=None), aspects)
    assert math.isnan(found.reward)
    assert found.parts == {"a": 0.0, "b": None}


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (scored(clarity=4, Is_true=5), "missing"),  # optional is not absent
        (scored(clarity=4, charts=5), "missing"),
        (scored(clarity=None, Is_true=5, charts=5), "unreadable"),
        (scored(clarity=6, Is_true=5, charts=5), "out_of_range"),
        (scored(clarity=4, Is_true=-1, charts=5), "out_of_range"),
        (scored(clarity=4, Is_true=True, charts=5), "unreadable"),
        (said("clarity: 4, Is true: 5, charts: 3"), "unreadable"),
        (said('{"clarity": 4, "Is true": 5, "charts": 3', finish_reason="length"), "truncated"),
    ],
)
def test_what_is_missing_or_wrong_is_an_error(reply: Answer, problem: str) -> None:
    """Of one aspect is of all: a mean of the rest would be another reward."""
    with ChatServer(reply) as server:
        batch = MaskErrors(judge(server.url), 1.0)(SAMPLES[:1])
        with pytest.raises(JudgeError) as caught:
            judge(server.url)(SAMPLES[:1])
    assert caught.value.problem == problem
    assert np.isnan(batch.rewards[0])
    assert list(batch.errors) == [0]
    assert all(np.isnan(part.rewards[0]) for part in batch.parts.values())


def test_the_request() -> None:
    """Every aspect with its words and its scale; the endpoint is held to the keys."""
    with ChatServer(scored(clarity=4, Is_true=5, charts=None)) as server:
        judge(server.url)([Sample("What is this?", "It is fine.")])
        [request] = server.requests
    for text in ("clarity", "Is it clear?", "1 to 5", "Is true", "Is it true?", "0 to 10", "What is this?", "fine"):
        assert text in request.text
    schema = request.body["response_format"]["json_schema"]["schema"]
    kinds = {name: entry["type"] for name, entry in schema["properties"].items()}
    assert kinds == {"reasoning": "string", "clarity": "number", "Is true": "number", "charts": ["number", "null"]}
    assert schema["required"] == ["reasoning", "clarity", "Is true", "charts"]
    assert schema["additionalProperties"] is False


def by_its_schema(request: Request) -> Answer:
    """The worst for each key that is asked for, 3 for one that is called "best"."""
    keys = request.body["response_format"]["json_schema"]["schema"]["required"][1:]
    return said(json.dumps({key: 3 if key == "best" else 1 for key in keys}))


def test_aspects_of_a_sample() -> None:
    """Above those of the judge; a batch has all their parts, NaN where a sample has no such aspect."""
    own = [{"name": "best", "description": 'Is "{x}" best?', "score_range": [1, 3]}, {"name": "b", "description": "?"}]
    samples = [
        Sample("q", "r", metadata={"own": {"best": {"description": "?", "score_range": [1, 3]}}}),
        Sample("q", "r"),
        Sample("q", "r", metadata={"own": own}),
    ]
    with ChatServer(by_its_schema) as server:
        batch = judge(server.url, {"a": "?"}, aspects_key="own", max_concurrent=1)(samples)
        assert 'Is "{x}" best?' in server.requests[2].text
    assert batch.rewards.tolist() == [1.0, 0.0, 0.5]
    np.testing.assert_array_equal(batch.parts["best"].rewards, [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(batch.parts["a"].rewards, [np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(batch.parts["b"].rewards, [np.nan, np.nan, 0.0])


@pytest.mark.parametrize("own", [None, [], {}, "clear", {"a": ""}, {"a": {"weight": 1}}, [{"name": "a"}], {"a": 3}])
def test_aspects_of_a_sample_that_cannot_be_used(own: Any) -> None:
    """Sample and key are named."""
    with ChatServer(by_its_schema) as server:
        asking = judge(server.url, None, aspects_key="own")
        good = Sample("q", "r", metadata={"own": {"a": "?"}})
        with pytest.raises(InputError, match="'own'") as caught:
            asking([good, Sample("q", "r", metadata={} if own is None else {"own": own})])
    assert (caught.value.field, caught.value.index) == ("metadata", 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"aspects": None}, "aspects"),
        ({"aspects": {}}, "aspects"),
        ({"aspects": "clear"}, "aspects"),
        ({"aspects": [{"name": "a"}]}, "description"),
        ({"aspects": [{"description": "a"}]}, "name"),
        ({"aspects": {"a": {"description": "?", "wieght": 1}}}, "wieght.*weight"),
        ({"aspects": {"a": {"description": "?", "weight": -1}}}, "weight"),
        ({"aspects": {"a": {"description": "?", "weight": math.nan}}}, "weight"),
        ({"aspects": {"a": {"description": "?", "weight": 0}}}, "weight"),
        ({"aspects": {"a": {"description": "?", "optional": "yes"}}}, "optional"),
        ({"aspects": {"a": {"description": "?", "score_range": (5, 1)}}}, "score_range of 'a'"),
        ({"aspects": {"is clear": "?", "Is_Clear": "?"}}, "twice"),
        ({"score_range": (3, 3)}, "score_range"),
        ({"scaling": "z"}, "scaling"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: Any, says: str) -> None:
    """When it is made."""
    with pytest.raises(ConfigError, match=f"(?s){says}"):
        RubricJudge("m", **{"aspects": ASPECTS, **options})


def test_an_aspect_may_be_called_reasoning() -> None:
    """As the key of the judge's reasons is: it is not asked for as a text and a number in one object."""
    with ChatServer(said('{"reasoning": 4}')) as server:
        [found] = judge(server.url, {"reasoning": "Is its reasoning sound?"})(SAMPLES[:1])
        assert server.requests[0].text.count('"reasoning":') == 1
    assert found.parts == {"reasoning": 0.75}


def test_bounds_hold_for_all_scales() -> None:
    """The least and the greatest of them; none are known where samples bring theirs, unscaled."""
    aspects = {"a": "?", "b": {"description": "?", "score_range": (-2, 10)}}
    assert RubricJudge("m", aspects).bounds == (0.0, 1.0)
    assert RubricJudge("m", aspects, scaling="raw").bounds == (-2.0, 10.0)
    assert RubricJudge("m", aspects, scaling="raw", aspects_key="own").bounds is None


def mixed(request: Request) -> Answer:
    """Three scores, one that does not apply, and a failure."""
    number = int(request.text.split("answer ")[1][0])
    return [
        scored(clarity=5, Is_true=0, charts=3),
        scored(clarity=1, Is_true=1 / 3, charts=None),
        said("No idea."),
        scored(clarity=2, Is_true=7, charts=1),
    ][number]


def test_parts_go_through_other_rewards() -> None:
    """A cache, the first time and the second, a mask of errors, and a composite: to the last bit."""
    with ChatServer(mixed) as server:
        plain = MaskErrors(judge(server.url), 0.5)
        cached = MaskErrors(Cached(judge(server.url)), 0.5)
        batches = [plain(SAMPLES), cached(SAMPLES), cached(SAMPLES[:2] + SAMPLES[3:])]
        composite = CompositeReward([(cached, 0.5)])(SAMPLES)
    for name in ("clarity", "Is true", "charts"):
        first, second, third = (batch.parts[name].rewards for batch in batches)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first[[0, 1, 3]], third)
    np.testing.assert_array_equal(batches[0].parts["charts"].rewards, [0.5, np.nan, np.nan, 0.0])
    assert batches[0].parts["Is true"].rewards[1] == (1 / 3) / 10
    [part] = composite.parts.values()
    np.testing.assert_array_equal(part.parts["clarity"].rewards, batches[0].parts["clarity"].rewards)
    np.testing.assert_array_equal(composite.rewards, 0.5 * batches[0].rewards)
    assert [row["attempts"] for row in np.array(part.metadata)[[0, 1, 3]]] == [1, 1, 1]


def test_parts_come_back_from_a_cache_on_disk(tmp_path: Path) -> None:
    """To another judge of the same kind; nothing is asked again."""
    with ChatServer(scored(clarity=5, Is_true=1 / 3, charts=None)) as server:
        first, second = (Cached(judge(server.url), path=str(tmp_path / "scores"))(SAMPLES[:1])[0] for _ in range(2))
        assert len(server.requests) == 1
    assert (first.reward, first.parts, first.metadata) == (second.reward, second.parts, second.metadata)


def test_a_judge_comes_back_from_its_configuration() -> None:
    """With its aspects, and asks the same."""
    with ChatServer(scored(clarity=4, Is_true=5, charts=2)) as server:
        first = judge(server.url, scaling="/high", name="rubric")
        again = load_rewards(json.loads(json.dumps(to_config(first)))).train
        batches = [first(SAMPLES[:1]), again(SAMPLES[:1])]
        assert server.requests[0].body == server.requests[1].body
    assert batches[0].rewards.tolist() == batches[1].rewards.tolist()
