"""ms-swift: against how its trainer makes and calls reward models, as read at 20ec461, not against the package."""

import asyncio
import inspect
import sys
import types
from typing import Any

import pytest
from integrations import trainer_pages
from integrations.rewards_elsewhere import Picky, both
from PIL import Image

from flux_rewards import (
    ComputeError,
    ConfigError,
    ExactMatch,
    FunctionReward,
    GroupRank,
    MaskErrors,
    MissingDependencyError,
    Sample,
)
from flux_rewards.integrations import ms_swift

IMAGE = Image.new("RGB", (2, 2), "red")


class ORM:
    def __call__(self, **kwargs: Any) -> list[float]:
        raise NotImplementedError


class AsyncORM:
    async def __call__(self, **kwargs: Any) -> list[float]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _swift(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("swift", "swift.rewards"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    rewards: Any = sys.modules["swift.rewards"]
    rewards.ORM, rewards.AsyncORM = ORM, AsyncORM


def trained(orm: type, completions: list[str], **columns: Any) -> Any:
    """As the trainer: made with those of its settings that the constructor names, called with all columns."""
    settings = {"cosine_max_len": 100, "args": object()}
    named = inspect.signature(orm.__init__).parameters  # type: ignore[misc]
    made = orm(**{key: value for key, value in settings.items() if key in named})
    assert callable(made)
    answer = made(completions, trainer_state=object(), **columns)
    return asyncio.run(answer) if inspect.iscoroutine(answer) else answer


@pytest.mark.parametrize("make", [ms_swift.orm_class, ms_swift.async_orm_class], ids=["sync", "async"])
def test_scores_are_those_of_a_direct_call(make: Any) -> None:
    """Of either kind; it is logged under its class's name."""
    orm = make(both(), name="Both")
    assert trained(orm, ["4 4", "4"], solution=["4 4", "5"]) == [1.5, 0.25]
    assert orm.__name__ == "Both"
    assert issubclass(orm, AsyncORM if make is ms_swift.async_orm_class else ORM)
    assert inspect.iscoroutinefunction(orm.__call__) is (make is ms_swift.async_orm_class)


def test_the_fields_of_a_sample() -> None:
    """The messages before the completion are the prompt; tokens and images have fields of their own."""
    seen: list[Sample] = []

    def look(samples: Any) -> list[float]:
        seen.extend(samples)
        return [0.0] * len(samples)

    user = {"role": "user", "content": "What is it?"}
    trained(
        ms_swift.orm_class(FunctionReward(look, call="batch")),
        ["a cat"],
        messages=[[user, {"role": "assistant", "content": "a cat"}]],
        response_token_ids=[[1, 2]],
        images=[[IMAGE]],
        level=[3],
    )
    (got,) = seen
    assert got == Sample([user], "a cat", token_ids=[1, 2], condition_images=[IMAGE], metadata={"level": 3})


@pytest.mark.parametrize("make", [ms_swift.orm_class, ms_swift.async_orm_class], ids=["sync", "async"])
def test_no_score_is_none_or_a_number_by_name(make: Any) -> None:
    """ms-swift knows None."""
    said = ["good", "skip", "fail"]
    assert trained(make(Picky()), said[:2]) == [1.0, None]
    with pytest.raises(ComputeError, match="cannot be scored"):
        trained(make(Picky()), said)
    assert trained(make(MaskErrors(Picky())), said) == [1.0, None, None]
    assert trained(make(Picky(), not_applicable=0.5, on_error=-1.0), said) == [1.0, 0.5, -1.0]


def test_where_it_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 3.x the classes stand in swift.plugin."""
    monkeypatch.setitem(sys.modules, "swift.rewards", None)
    plugin: Any = types.ModuleType("swift.plugin")
    plugin.ORM = ORM
    monkeypatch.setitem(sys.modules, "swift.plugin", plugin)
    assert trained(ms_swift.orm_class(ExactMatch()), ["4"], solution=["4"]) == [1.0]
    with pytest.raises(MissingDependencyError, match="AsyncORM"):
        ms_swift.async_orm_class(ExactMatch())


def test_what_cannot_be_served_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward of groups, and a machine without ms-swift."""
    with pytest.raises(ConfigError, match="half a group"):
        ms_swift.orm_class(GroupRank(Picky()))
    for name in ("swift.rewards", "swift.plugin"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match="pip install ms-swift"):
        ms_swift.orm_class(Picky())


def test_the_page_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """As a program; both of its models score."""
    rewards: Any = sys.modules["swift.rewards"]
    rewards.orms = {}
    trainer_pages.ran("ms_swift.md", "plugin.py")
    assert capsys.readouterr().out == "[1.1]\n"
    assert trained(rewards.orms["beside"], ["<answer>4</answer>"], solution=["4"]) == [1.1]
