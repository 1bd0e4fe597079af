"""With verifiers 0.4.0 itself: tasks score with our rewards, and tasks of theirs score here."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flux_rewards import CompositeReward, ExactMatch, LengthReward, RewardFunction, Sample
from flux_rewards.errors import ComputeError
from flux_rewards.integrations import verifiers as adapter

pytest.importorskip("verifiers.v1")
if importlib.util.find_spec("verifiers.legacy") is not None:
    pytest.skip("verifiers 0.3 has another v1", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("default")  # other people's

vf: Any = importlib.import_module("verifiers.v1")
ANSWERS = ["42", "it is 42", "41"]


def composite() -> CompositeReward:
    return CompositeReward({"right": (ExactMatch(), 1.0), "brief": (LengthReward(target=2, unit="words"), 0.5)})


class Moody(RewardFunction):
    """Fails on some samples."""

    required_fields = ("response",)

    def compute_reward(self, sample: Sample) -> float:
        if sample.response_text == "41":
            raise RuntimeError("out of order")
        return 1.0


class Data(vf.TaskData):  # type: ignore[misc]  # of a package that may be absent
    """A row with its answer."""

    answer: str
    level: int = 1


class Ours(vf.Task[Data]):  # type: ignore[misc]
    """A task that is scored by this library."""

    quality = adapter.task_reward(composite(), weight=0.5)


class Unlucky(vf.Task[Data]):  # type: ignore[misc]
    """A task whose reward fails."""

    moody = adapter.task_reward(Moody())


class Theirs(vf.Task[Data]):  # type: ignore[misc]
    """A task of somebody else's."""

    @vf.reward(weight=0.5)  # type: ignore[untyped-decorator]
    async def right(self, trace: Any) -> float:
        """Whether the answer is in the reply."""
        if trace.last_reply == "fail":
            raise RuntimeError("out of order")
        return float(self.data.answer in trace.last_reply)

    @vf.reward  # type: ignore[untyped-decorator]
    async def level(self, task: Any) -> dict[str, float]:
        """Keyed scores, from the data alone."""
        return {"low": float(task.level < 2), "high": float(task.level >= 2)}

    @vf.metric  # type: ignore[untyped-decorator]
    async def length(self, trace: Any) -> float:
        """Recorded, not summed."""
        return float(len(trace.last_reply))


def trace_of(task: Any, said: Sequence[str]) -> Any:
    """A trace of one conversation, as a rollout leaves it."""
    nodes = [vf.MessageNode(message=vf.UserMessage(content="6 * 7?"))]
    for text in said:
        nodes.append(vf.MessageNode(parent=len(nodes) - 1, message=vf.AssistantMessage(content=text), sampled=True))
    agent = vf.AgentInfo(config=vf.AgentConfig())
    return vf.Trace(task=vf.TraceTask(type=type(task).__name__, data=task.data), agent=agent, nodes=nodes)


def scored(task: Any, said: Sequence[str]) -> Any:
    """The trace after ``Task.score``."""
    trace = trace_of(task, said)
    asyncio.run(task.score(trace))
    return trace


@pytest.mark.parametrize("said", ANSWERS)
def test_a_task_says_what_a_direct_call_says(said: str) -> None:
    """The reward under its name in the class, with its weight; the parts as metrics."""
    direct = composite()(response=[said], reference=["42"])
    trace = scored(Ours(Data(prompt="6 * 7?", answer="42")), [said])
    assert {name: (entry.score, entry.weight) for name, entry in trace.rewards.items()} == {
        "quality": (direct.rewards[0], 0.5)
    }
    assert trace.reward == 0.5 * direct.rewards[0]
    assert trace.metrics == {name: part.rewards[0] for name, part in direct.parts.items()}


def test_a_reward_that_is_plugged_in_by_path(tmp_path: Path) -> None:
    """``--env.taskset.task.rewards``: a file and a name, under a name and a weight of the configuration's."""
    file = tmp_path / "plugged.py"
    file.write_text(
        "from flux_rewards import ExactMatch\n"
        "from flux_rewards.integrations import verifiers\n"
        "exact = verifiers.task_reward(ExactMatch())\n"
    )
    config = vf.TaskConfig(rewards={"plugged": {"fn": f"{file}:exact", "weight": 2.0}})
    trace = scored(vf.Task(Data(prompt="6 * 7?", answer="42"), config), ["42"])
    assert (trace.reward, trace.rewards["plugged"].weight) == (2.0, 2.0)


def test_many_traces_at_once() -> None:
    """As an environment scores them, on one event loop."""
    answers = [str(number) for number in range(40)]
    tasks = [Ours(Data(prompt="6 * 7?", answer="7")) for _ in answers]
    traces = [trace_of(task, [said]) for task, said in zip(tasks, answers, strict=True)]

    async def all_of_them() -> None:
        await asyncio.gather(*(task.score(trace) for task, trace in zip(tasks, traces, strict=True)))

    asyncio.run(all_of_them())
    assert [trace.metrics["right"] for trace in traces] == [float(said == "7") for said in answers]


def test_a_failure_is_an_error_of_the_trace() -> None:
    """TaskError, chained to ours; the reward stays unscored."""
    task = Unlucky(Data(prompt="6 * 7?", answer="42"))
    trace = trace_of(task, ["41"])
    with pytest.raises(vf.TaskError, match="out of order") as caught:
        asyncio.run(task.score(trace))
    assert isinstance(caught.value.__cause__, ComputeError)
    assert trace.rewards == {"moody": None}


# The other way round


def test_a_task_of_theirs_scores_here() -> None:
    """As its own score says: weighted rewards as parts, metrics as metadata, data from metadata."""
    reward = adapter.from_verifiers(Theirs)
    levels = [1, 2, 2]
    batch = reward(
        prompt=["6 * 7?"] * 3, response=ANSWERS, reference=["42"] * 3, metadata=[{"level": level} for level in levels]
    )
    theirs = [
        scored(Theirs(Data(prompt="6 * 7?", answer="42", level=level)), [said])
        for said, level in zip(ANSWERS, levels, strict=True)
    ]
    assert batch.rewards.tolist() == [trace.reward for trace in theirs] == [1.5, 1.5, 1.0]
    for name in ("right", "low", "high"):
        assert batch.parts[name].rewards.tolist() == [trace.rewards[name].value for trace in theirs]
    assert [entry["length"] for entry in batch.metadata] == [2.0, 8.0, 2.0]


def test_a_failure_of_a_task_of_theirs_is_a_failure() -> None:
    """Of its own sample."""
    with pytest.raises(ComputeError, match=r"sample 1.*out of order"):
        adapter.from_verifiers(Theirs)(response=["42", "fail"], reference=["42", "42"])


def test_conversations_become_traces() -> None:
    """Messages of several turns, a tool among them."""
    call = {"id": "1", "type": "function", "name": "times", "arguments": "{}"}
    said = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "assistant", "content": "It is 42."},
    ]
    asked = [{"role": "system", "content": "Count."}, {"role": "user", "content": "6 * 7?"}]
    batch = adapter.from_verifiers(Theirs)(prompt=[asked], response=[said], reference=["42"])
    assert batch.parts["right"].rewards.tolist() == [0.5]
