"""NeMo-RL: against its interface, written out after reading 0b8a793, not against the package."""

import abc
import sys
import types
from typing import Any, NamedTuple

import pytest
import torch
from integrations import trainer_pages
from integrations.rewards_elsewhere import Picky, both

from flux_rewards import (
    CompositeReward,
    ComputeError,
    ConfigError,
    ExactMatch,
    FunctionReward,
    GroupRank,
    InputError,
    MissingDependencyError,
    Sample,
)
from flux_rewards.integrations import nemo_rl


class EnvironmentReturn(NamedTuple):
    observations: list[dict[str, str]]
    metadata: list[Any]
    next_stop_strings: list[Any]
    rewards: Any
    terminateds: torch.Tensor
    answers: list[Any] | None = None


class EnvironmentInterface(abc.ABC):
    @abc.abstractmethod
    def step(self, message_log_batch: Any, metadata: Any) -> Any: ...

    @abc.abstractmethod
    def global_post_process_and_metrics(self, batch: Any) -> Any: ...


@pytest.fixture(autouse=True)
def _nemo_rl(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nemo_rl", "nemo_rl.environments", "nemo_rl.environments.interfaces"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    interfaces: Any = sys.modules["nemo_rl.environments.interfaces"]
    interfaces.EnvironmentReturn, interfaces.EnvironmentInterface = EnvironmentReturn, EnvironmentInterface


def log(*said: str, tokens: int = 1) -> list[dict[str, Any]]:
    """A conversation that the user begins."""
    roles = ("user", "assistant")
    return [
        {"role": roles[turn % 2], "content": text, "token_ids": torch.arange(tokens)} for turn, text in enumerate(said)
    ]


def step(environment: type, logs: list[Any], notes: list[Any]) -> EnvironmentReturn:
    """What the rollout does with an actor, without Ray."""
    made = environment({"num_workers": 8})
    assert isinstance(made, EnvironmentInterface)
    returned = made.step(logs, notes)
    assert isinstance(returned, EnvironmentReturn)
    return returned


def test_a_step_scores_and_ends_every_episode() -> None:
    """All columns as long as the batch."""
    notes = [{"ground_truth": "4"}, {"ground_truth": "5"}]
    returned = step(nemo_rl.environment_class(ExactMatch()), [log("2 + 2?", "4")] * 2, notes)
    assert returned.rewards.dtype == torch.float32
    assert returned.rewards.tolist() == [1.0, 0.0]
    assert returned.terminateds.tolist() == [1.0, 1.0]
    assert returned.metadata == notes
    assert [len(column) for column in returned[:5]] == [2] * 5
    assert returned.observations[0]["role"] == "environment"


def test_components_are_the_columns_of_gdpo() -> None:
    """Each part on its own, before its weight."""
    environment = nemo_rl.environment_class(both(), components=True)
    returned = step(environment, [log("q", "4 4"), log("q", "4")], [{"answer": "4"}] * 2)
    assert {name: values.tolist() for name, values in returned.rewards.items()} == {
        "right": [0.0, 1.0],
        "short": [1.0, 0.5],
    }


def test_the_fields_of_a_sample() -> None:
    """One answer is text with its tokens, several turns are messages; metadata may be None."""
    seen: list[Sample] = []

    def look(samples: Any) -> list[float]:
        seen.extend(samples)
        return [0.0] * len(samples)

    environment = nemo_rl.environment_class(FunctionReward(look, call="batch"), fields={"reference": "expected"})
    step(environment, [log("q", "a", tokens=3)], [{"expected": "b", "level": 2}])
    one = seen.pop()
    assert (one.response, one.token_ids, one.reference, one.metadata) == ("a", [0, 1, 2], "b", {"level": 2})
    assert one.prompt_text == "q"
    environment = nemo_rl.environment_class(FunctionReward(look, call="batch"))
    step(environment, [log("q", "a", "more", "b")], [None])
    (several,) = seen
    assert (several.prompt, several.response_text) == ([{"role": "user", "content": "q"}], "b")
    assert [message["role"] for message in several.response] == ["assistant", "user", "assistant"]  # type: ignore[union-attr,index]


def test_no_score_is_a_number_only_by_name() -> None:
    """NeMo-RL has no word for it, of parts neither."""
    logs = [log("q", said) for said in ("good", "skip", "fail")]
    with pytest.raises(ComputeError, match=r"sample 1.*does not apply"):
        step(nemo_rl.environment_class(Picky()), logs[:2], [None] * 2)
    with pytest.raises(ComputeError, match="cannot be scored"):
        step(nemo_rl.environment_class(Picky()), logs, [None] * 3)
    environment = nemo_rl.environment_class(Picky(), not_applicable=0.5, on_error=-1.0)
    assert step(environment, logs, [None] * 3).rewards.tolist() == [1.0, 0.5, -1.0]
    parts = CompositeReward([(Picky(), 1.0)])
    environment = nemo_rl.environment_class(parts, components=True, not_applicable=0.5, on_error=-1.0)
    assert step(environment, logs, [None] * 3).rewards["Picky"].tolist() == [1.0, 0.5, -1.0]


def test_metrics_of_the_batch() -> None:
    """The batch comes back as it is."""
    environment = nemo_rl.environment_class(Picky())()
    batch = {"rewards": torch.tensor([1.0, 0.0])}
    assert environment.global_post_process_and_metrics(batch) == (batch, {"mean_reward": 0.5})
    assert environment.global_post_process_and_metrics({}) == ({}, {})


def test_the_class_is_made_an_actor_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is imported for that only, and restarts it as NeMo-RL's own."""
    asked: list[Any] = []
    ray: Any = types.ModuleType("ray")

    def remote(**options: Any) -> Any:
        asked.append(options)
        return lambda kind: kind

    ray.remote = remote
    monkeypatch.setitem(sys.modules, "ray", ray)
    environment = nemo_rl.environment_class(Picky(), name="Mine")
    assert nemo_rl.ray_environment(environment, num_cpus=2) is environment
    assert asked == [{"max_restarts": -1, "max_task_retries": -1, "num_cpus": 2}]
    assert (environment.__name__, environment.__module__) == ("Mine", __name__)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nemo_rl.environment_class(GroupRank(Picky())), ConfigError, "samples one by one"),
        (lambda: nemo_rl.environment_class(Picky(), components=True), ConfigError, "a reward with parts"),
        (
            lambda: step(nemo_rl.environment_class(Picky()), [log("q")], [None]),
            InputError,
            "without an assistant",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(call: Any, error: type[Exception], message: str) -> None:
    """With the setting to change."""
    with pytest.raises(error, match=message):
        call()


def test_without_nemo_rl_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported late, and only here."""
    monkeypatch.setitem(sys.modules, "nemo_rl.environments.interfaces", None)
    with pytest.raises(MissingDependencyError, match=r"github\.com/NVIDIA-NeMo/RL"):
        nemo_rl.environment_class(Picky())


def test_the_page_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """As a program; both of its environments score."""
    found = trainer_pages.ran("nemo_rl.md", "my_environments.py")
    assert "1.1" in capsys.readouterr().out
    returned = step(found["Columns"], [log("q", "4")], [{"ground_truth": "4"}])
    assert sorted(returned.rewards) == ["correct", "format"]
