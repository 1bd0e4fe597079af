"""The contract of verifiers 0.3 and 0.4, their call sites written out; with the packages: `peers/test_verifiers*`."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from flux_rewards import CompositeReward, ExactMatch, GroupRank, LengthReward, RewardFunction, RewardOutput, Sample
from flux_rewards.errors import ComputeError, ConfigError, ContractError, MissingDependencyError
from flux_rewards.integrations import verifiers

PLURALS = {"states", "prompts", "completions", "answers", "tasks", "infos"}


class Moody(RewardFunction):
    """Fails on some samples, and does not apply to others."""

    required_fields = ("response",)

    def compute_reward(self, sample: Sample) -> float | None:
        if sample.response_text == "fail":
            raise RuntimeError("out of order")
        return None if sample.response_text == "skip" else 1.0


class Seen(RewardFunction):
    """Keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.samples: list[Sample] = []

    def compute_rewards(self, samples: Any) -> list[RewardOutput]:
        self.samples += samples
        return [RewardOutput(0.0) for _ in samples]


def composite() -> CompositeReward:
    return CompositeReward({"right": (ExactMatch(), 1.0), "brief": (LengthReward(target=2, unit="words"), 0.5)})


def state(said: str, answer: str = "42", **more: Any) -> dict[str, Any]:
    """A state of 0.3 as its environments make it."""
    row = {"prompt": [{"role": "user", "content": "6 * 7?"}], "answer": answer, "example_id": 3, **more}
    return {**row, "input": row, "completion": [{"role": "assistant", "content": said}], "trajectory": []}


def score_rollout(funcs: list[Any], weights: list[float], row: dict[str, Any]) -> dict[str, Any]:
    """What 0.3.1's Rubric does with functions of one rollout: by name of parameter, one after the other."""

    async def scored() -> dict[str, float]:
        metrics: dict[str, float] = {}
        for func in funcs:
            assert PLURALS.isdisjoint(inspect.signature(func).parameters)
            objects = {"state": row, **row}
            given = {name: objects[name] for name in inspect.signature(func).parameters}
            metrics[func.__name__] = float(await func(**given))
        return metrics

    metrics = asyncio.run(scored())
    return {"reward": sum(weight * value for weight, value in zip(weights, metrics.values(), strict=True)), **metrics}


def test_functions_and_weights_of_a_rubric() -> None:
    """The reward has weight 1, its parts are metrics; one call of the reward serves them all."""
    row = state("42")
    told = score_rollout(*verifiers.reward_funcs(composite()), row)
    assert told == {"reward": 1.25, "CompositeReward": 1.25, "right": 1.0, "brief": 0.5}


def test_one_call_of_the_reward_serves_all_functions() -> None:
    """And a rollout that is scored again is computed again."""
    seen = Seen()
    funcs, weights = verifiers.reward_funcs(CompositeReward({"seen": (seen, 1.0)}))
    row = state("42")
    for times in (1, 2):
        score_rollout(funcs, weights, row)
        assert len(seen.samples) == times


def test_each_reward_tells_its_own_parts() -> None:
    """Two rewards with a part of one name, asked in turn: two words are all of 2, and 2/9 of 9."""
    near = verifiers.reward_funcs(CompositeReward({"words": (LengthReward(target=2, unit="words"), 1.0)}, name="near"))
    far = verifiers.reward_funcs(CompositeReward({"words": (LengthReward(target=9, unit="words"), 1.0)}, name="far"))
    row = state("two words")
    told = [asyncio.run(func(row)) for func in (near.funcs[0], far.funcs[0], near.funcs[1], far.funcs[1])]
    assert told == pytest.approx([1.0, 2 / 9, 1.0, 2 / 9])
    assert "flux_rewards" not in row


class Outage(RewardFunction):
    """Answers once, and then no more."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def compute_reward(self, sample: Sample) -> float:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("down")
        return 0.75


@pytest.mark.parametrize("groups", [False, True])
def test_parts_of_an_earlier_scoring_are_not_told(groups: bool) -> None:
    """A rollout scored again while the reward is down: the score and all parts fail, with one call between them."""
    outage = Outage()
    reward = CompositeReward({"a": (outage, 1.0), "b": (LengthReward(target=2), 1.0)})
    if groups:
        reward = CompositeReward({"a": (outage, 1.0), "b": (GroupRank(LengthReward(target=2)), 1.0)})
    funcs = verifiers.reward_funcs(reward).funcs
    row: Any = [state("42")] if groups else state("42")
    first = [asyncio.run(func(row)) for func in funcs]
    assert first[1] == ([0.75] if groups else 0.75)
    for func in funcs:
        with pytest.raises(ComputeError, match="down"):
            asyncio.run(func(row))
    assert outage.calls == 2


def test_parts_without_the_score() -> None:
    """A rubric of parts only: one call a scoring, and another for the next."""
    seen = Seen()
    parts = verifiers.reward_funcs(CompositeReward({"a": (seen, 1.0), "b": (LengthReward(target=2), 1.0)})).funcs[1:]
    row = state("42")
    for times in (1, 2):
        score_rollout(parts, [1.0, 1.0], row)
        assert len(seen.samples) == times


def test_what_a_reward_is_shown() -> None:
    """Messages, the answer, the example as the group, and the rest as metadata; an empty answer is none."""
    seen = Seen()
    funcs, weights = verifiers.reward_funcs(seen)
    score_rollout(funcs, weights, {**state("42", level=2), "info": {"source": "mine"}})
    score_rollout(funcs, weights, state("42", answer=""))
    first, second = seen.samples
    assert (first.prompt_text, first.response_text, first.reference, first.group_id) == ("6 * 7?", "42", "42", 3)
    assert first.metadata == {"level": 2, "source": "mine"}
    assert second.reference is None


def test_a_model_without_a_chat_template() -> None:
    """0.3 keeps its texts as messages of the role text; a reward sees text."""
    seen = Seen()
    row = state("42")
    row["prompt"] = row["input"]["prompt"] = [{"role": "text", "content": "6 * 7 ="}]
    row["completion"] = [{"role": "text", "content": " 42"}]
    funcs, weights = verifiers.reward_funcs(seen)
    score_rollout(funcs, weights, row)
    assert (seen.samples[0].prompt, seen.samples[0].response) == ("6 * 7 =", " 42")


def test_the_group_form() -> None:
    """A reward of groups has functions that name plurals, and sees all rollouts of an example."""
    reward = CompositeReward({"rank": (GroupRank(LengthReward(target=9, unit="words")), 2.0)})
    funcs, weights = verifiers.reward_funcs(reward)
    assert all(not PLURALS.isdisjoint(inspect.signature(func).parameters) for func in funcs)
    states = [state("a b c"), state("a"), state("a b")]

    async def scored() -> list[list[float]]:
        return [await func(states=states) for func in funcs]

    assert asyncio.run(scored()) == [[2.0, 0.0, 1.0], [1.0, 0.0, 0.5]]
    assert weights == [1.0, 0.0]


def test_no_number_without_being_asked() -> None:
    """The functions raise; with numbers given, failures are told beside them."""
    funcs, _ = verifiers.reward_funcs(Moody())
    with pytest.raises(ComputeError, match="out of order"):
        asyncio.run(funcs[0](state("fail")))
    with pytest.raises(ComputeError, match="verifiers has no word"):
        asyncio.run(funcs[0](state("skip")))
    asked, _ = verifiers.reward_funcs(Moody(), not_applicable=0.5, on_error=-1.0)
    assert [asyncio.run(asked[0](state(said))) for said in ("fail", "skip", "yes")] == [-1.0, 0.5, 1.0]


def test_functions_pickle() -> None:
    """Names included."""
    funcs, weights = pickle.loads(pickle.dumps(verifiers.reward_funcs(composite())))
    assert score_rollout(funcs, weights, state("42"))["right"] == 1.0


@pytest.mark.skipif(importlib.util.find_spec("verifiers") is not None, reason="it is installed")
def test_a_missing_package_is_named() -> None:
    """With the line that installs it."""
    with pytest.raises(MissingDependencyError, match=r"verifiers==0\.3\.1"):
        verifiers.rubric(composite())


# Tasks of 0.4


class Trace:
    """What a reward of a task reads of a trace of 0.4, and writes to it."""

    def __init__(self, said: str, root_reply: str | None = None) -> None:
        fields: dict[str, Any] = {"prompt": "6 * 7?", "answer": "42", "name": "seven", "image": None}
        base = type("TaskData", (), {"model_fields": {"prompt": None, "name": None, "image": None}})
        kind = type("MyData", (base,), {"model_fields": dict.fromkeys(fields), "model_extra": None})
        data = kind()
        vars(data).update(fields)
        self.task = SimpleNamespace(data=data)
        self.root_reply = root_reply
        nodes = [
            SimpleNamespace(sampled=False, message={"role": "user", "content": "6 * 7?"}),
            SimpleNamespace(sampled=True, message={"role": "assistant", "content": said}),
        ]
        self.branches = [SimpleNamespace(nodes=nodes)]
        self.metrics: dict[str, float] = {}

    def record_metrics(self, values: dict[str, float]) -> None:
        self.metrics.update(values)


class Task:
    """The names that a task's reward has in a class."""

    quality = verifiers.task_reward(composite(), weight=0.5, priority=2)
    moody = verifiers.task_reward(Moody())


def test_a_reward_of_a_task() -> None:
    """It has the attributes that ``@vf.reward`` gives, names what it wants, and records its parts as metrics."""
    quality: Any = Task.quality
    assert (quality.__name__, quality.reward, quality._vf_weight, quality.reward_priority) == ("quality", True, 0.5, 2)
    assert list(inspect.signature(quality).parameters) == ["trace"]
    trace = Trace("42")
    assert asyncio.run(quality(trace=trace)) == 1.25
    assert trace.metrics == {"right": 1.0, "brief": 0.5}
    with pytest.raises(ComputeError, match="out of order"):
        asyncio.run(Task.moody(Trace("fail")))


def test_what_a_reward_of_a_task_is_shown() -> None:
    """The data's own fields; what was said after the prompt, or the root agent's reply."""
    seen = Seen()
    method = verifiers.task_reward(seen)
    asyncio.run(method(Trace("42")))
    asyncio.run(method(Trace("inner", root_reply=" outer ")))
    first, second = seen.samples
    assert (first.prompt, first.response_text, first.reference) == ("6 * 7?", "42", "42")
    assert first.metadata == {"name": "seven"}
    assert second.response == "outer"


def test_a_reward_of_groups_is_refused_for_a_task() -> None:
    """A task's reward sees one trace."""
    with pytest.raises(ConfigError, match="sees one trace"):
        verifiers.task_reward(GroupRank(LengthReward(target=2)))
    with pytest.raises(ConfigError, match="verifiers: expected a reward, found 3"):
        verifiers.task_reward(3)  # type: ignore[arg-type]


# The other way round


def right(completion: Any, answer: str) -> float:
    """A function of 0.3."""
    return float(completion[-1]["content"] == answer)


async def everything(prompt: Any, state: Any, info: Any, level: int, **others: Any) -> float:
    """A coroutine function that takes all there is."""
    await asyncio.sleep(0)
    assert state["prompt"] == prompt == state["input"]["prompt"]
    assert others["answer"] == ""
    assert info == {"level": level}
    return float(level)


def longest(completions: Any, **_: Any) -> list[float]:
    """A function of a group."""
    lengths = [len(completion[-1]["content"]) for completion in completions]
    return [float(length == max(lengths)) for length in lengths]


def broken(completion: Any) -> Any:
    """Returns what its input names."""
    return {"none": None, "nan": float("nan"), "text": "1"}[completion[-1]["content"]]


def test_functions_of_verifiers() -> None:
    """By the names of their parameters; text becomes messages."""
    batch = verifiers.from_verifiers(right)(response=["42", "41"], reference=["42", "42"])
    assert batch.rewards.tolist() == [1.0, 0.0]
    batch = verifiers.from_verifiers(everything)(
        prompt=["a", "b"], response=["x", "y"], metadata=[{"level": 1}, {"level": 2}]
    )
    assert batch.rewards.tolist() == [1.0, 2.0]


def test_group_functions_of_verifiers() -> None:
    """They are given one group at a time."""
    reward = verifiers.from_verifiers(longest)
    assert reward.scope == "group"
    assert reward(prompt=["a", "b", "a"], response=["x", "y", "xx"]).rewards.tolist() == [0.0, 1.0, 1.0]


def test_foreign_answers_that_are_no_score() -> None:
    """None does not apply; a NaN and an exception are failures, which verifiers would have scored NaN and 0.0."""
    reward = verifiers.from_verifiers(broken)
    assert reward(response=["none"]).not_applicable.tolist() == [True]
    with pytest.raises(ComputeError, match="nan"):
        reward(response=["nan"])
    with pytest.raises(ComputeError, match="KeyError"):
        reward(response=["other"])
    with pytest.raises(ContractError, match="expected a number"):
        reward(response=["text"])


class Rubric:
    """The attributes of 0.3.1's Rubric."""

    def __init__(self, funcs: list[Any], weights: list[float], **class_objects: Any) -> None:
        self.funcs, self.weights, self.class_objects = funcs, weights, class_objects


def test_a_rubric_becomes_a_composite() -> None:
    """A part for each function, its weight, and the rubric's objects; a group of rubrics is the sum of them."""

    def judged(completion: Any, judge: str) -> float:
        return float(len(judge))

    group = SimpleNamespace(funcs=[], weights=[], class_objects={}, rubrics=[])
    group.rubrics = [Rubric([right, judged], [1.0, 0.0], judge="me"), Rubric([right], [0.5])]
    reward: Any = verifiers.from_verifiers(group, name="all")
    assert (reward.name, reward.weights) == ("all", {"right": 1.0, "judged": 0.0, "right_2": 0.5})
    batch = reward(response=["42", "41"], reference=["42", "42"])
    assert batch.rewards.tolist() == [1.5, 0.0]
    assert batch.parts["judged"].rewards.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(("source", "message"), [(Rubric([], []), "no reward functions"), (3, "must be callable")])
def test_what_cannot_be_wrapped(source: Any, message: str) -> None:
    """Said at once."""
    with pytest.raises(ConfigError, match=message):
        verifiers.from_verifiers(source)


def test_there_and_back() -> None:
    """A reward as a function of verifiers as a reward says the same."""
    function = verifiers.reward_funcs(composite()).funcs[0]
    samples = [Sample(response="42", reference="42"), Sample(response="4 2", reference="42")]
    assert verifiers.from_verifiers(function)(samples).rewards.tolist() == composite()(samples).rewards.tolist()
