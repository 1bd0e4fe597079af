"""What a cached score is known by: nothing that decides it may be left out, and nothing else may count."""

from __future__ import annotations

import cmath
import collections
import dataclasses
import enum
import functools
import importlib
import math
import operator
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rewards_of_our_own import Counted, CountedAll, Told

from flux_rewards import ConfigError, FunctionReward, RewardFunction, Sample
from flux_rewards.meaning import meaning_of
from flux_rewards.wrappers.cache_keys import reward_digest


def helper(text: str) -> int:
    """What a reward may use of its module."""
    return len(text)


LIMIT = 10
PATTERN = re.compile("a+")


class Short(RewardFunction):
    limit = 5

    def compute_reward(self, sample: Sample) -> float:
        return float(len(str(sample.response)) < self.limit)


class Shorter(Short):
    limit = 4


class Same(RewardFunction):
    def compute_reward(self, sample: Sample) -> float:
        return float(helper(str(sample.response)))


class Limited(RewardFunction):
    def compute_reward(self, sample: Sample) -> float:
        return float(LIMIT)


class Held(RewardFunction):
    def __init__(self, inner: RewardFunction) -> None:
        self.inner = inner

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        return self.inner(samples)


class Revised(Short):
    revision = "2"


class Judge:
    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, sample: Sample) -> float:
        return self.value


class SlottedJudge(Judge):
    __slots__ = ("bonus",)

    def __init__(self, value: float, bonus: float) -> None:
        super().__init__(value)
        self.bonus = bonus


@dataclasses.dataclass
class Settings:
    value: float

    def __call__(self, sample: Sample) -> float:
        return self.value


@dataclasses.dataclass
class OtherSettings(Settings):
    def __call__(self, sample: Sample) -> float:
        return -self.value


def closing(*over: Any) -> Callable[[Sample], float]:
    return lambda sample: float(len(over))


def one(sample: Sample) -> float:
    return 1.0


def two(sample: Sample) -> float:
    return 2.0


class WithJudge(RewardFunction):
    judge = Judge(1.0)

    def compute_reward(self, sample: Sample) -> float:
        return self.judge(sample)


class WithOther(WithJudge):
    judge = Judge(2.0)


class Rule(enum.Enum):
    """A member does something."""

    LONG = 1

    def judge(self, sample: Sample) -> float:
        return 1.0


class OtherRule(enum.Enum):
    """The same name and value, and another deed."""

    LONG = 1

    def judge(self, sample: Sample) -> float:
        return 2.0


OtherRule.__qualname__ = "Rule"


class Weights(dict[str, float]):
    """A mapping with an attribute."""

    def __init__(self, bonus: float) -> None:
        super().__init__(a=1.0)
        self.bonus = bonus


class Private:
    """A slot whose name is mangled."""

    __slots__ = ("__k",)

    def __init__(self, k: float) -> None:
        self.__k = k


class Guarded(RewardFunction):
    """As a local model's author writes it."""

    @torch.no_grad()
    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        return [1.0] * len(samples)


class OtherwiseGuarded(RewardFunction):
    """The same, with another score."""

    @torch.no_grad()
    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        return [2.0] * len(samples)


REWARDS: list[Callable[[], RewardFunction]] = [
    Counted,
    CountedAll,
    lambda: Counted(2.0),
    lambda: Counted(scale=2.0),
    lambda: Counted(clip=2.0),
    lambda: Counted(clip=(0.0, 2.0)),
    Short,
    Shorter,
    Revised,
    Same,
    Limited,
    lambda: Held(Counted()),
    lambda: Held(Counted(2.0)),
    lambda: Told("told"),
    lambda: Told("other"),
    lambda: FunctionReward(lambda sample: 1.0),
    lambda: FunctionReward(lambda sample: 2.0),
    lambda: FunctionReward(lambda sample: [1.0], call="batch"),
    lambda: FunctionReward(closing(1)),
    lambda: FunctionReward(closing(2)),
    lambda: FunctionReward(closing(one, two, one)),
    lambda: FunctionReward(closing(one, two, two)),
    lambda: FunctionReward(closing({"x": one, "y": two, "z": one})),
    lambda: FunctionReward(closing({"x": one, "y": two, "z": two})),
    lambda: FunctionReward(closing(types.SimpleNamespace(k=1))),
    lambda: FunctionReward(closing(types.SimpleNamespace(k=2))),
    lambda: FunctionReward(closing(Settings(1.0))),
    lambda: FunctionReward(closing(Settings(2.0))),
    lambda: FunctionReward(Settings(1.0)),
    lambda: FunctionReward(OtherSettings(1.0)),
    lambda: FunctionReward(Judge(1.0)),
    lambda: FunctionReward(Judge(2.0)),
    lambda: FunctionReward(SlottedJudge(1.0, 1.0)),
    lambda: FunctionReward(SlottedJudge(1.0, 2.0)),
    lambda: FunctionReward(Judge(1.0).__call__),
    lambda: FunctionReward(Judge(2.0).__call__),
    lambda: FunctionReward(functools.partial(Judge(1.0).__call__)),
    lambda: FunctionReward(functools.partial(Judge(2.0).__call__)),
    lambda: FunctionReward({"a": 1.0}.get),
    lambda: FunctionReward({"a": 2.0}.get),
    lambda: FunctionReward(math.sqrt),
    lambda: FunctionReward(cmath.sqrt),
    lambda: FunctionReward(operator.itemgetter(1)),
    lambda: FunctionReward(operator.itemgetter(2)),
    WithJudge,
    WithOther,
    lambda: FunctionReward(closing({"a": 1, "b": 2})),
    lambda: FunctionReward(closing({"b": 2, "a": 1})),
    lambda: FunctionReward(closing(collections.defaultdict(int))),
    lambda: FunctionReward(closing(collections.defaultdict(lambda: 5))),
    lambda: FunctionReward(closing(collections.deque([1]))),
    lambda: FunctionReward(closing(collections.deque([2]))),
    lambda: FunctionReward(closing(random.Random(1))),
    lambda: FunctionReward(closing(random.Random(2))),
    lambda: FunctionReward(closing(np.random.default_rng(1))),
    lambda: FunctionReward(closing(np.random.default_rng(2))),
    lambda: FunctionReward(closing(np.zeros(1, [("x", "<i4")]))),
    lambda: FunctionReward(closing(np.zeros(1, [("y", "<i4")]))),
    lambda: FunctionReward(Rule.LONG.judge),
    lambda: FunctionReward(OtherRule.LONG.judge),
    lambda: FunctionReward(closing(Weights(1.0))),
    lambda: FunctionReward(closing(Weights(2.0))),
    lambda: FunctionReward(closing(Private(1.0))),
    lambda: FunctionReward(closing(Private(2.0))),
    lambda: FunctionReward(closing(ValueError("a"))),
    lambda: FunctionReward(closing(ValueError("b"))),
    Guarded,
    OtherwiseGuarded,
    lambda: FunctionReward(functools.partial(max, 1.0)),
    lambda: FunctionReward(functools.partial(max, 2.0)),
    lambda: FunctionReward(lambda sample: float(bool(PATTERN.match(str(sample.response))))),
    lambda: FunctionReward("flux_rewards.testing.characters"),
    lambda: FunctionReward("flux_rewards.testing.example_samples"),
]


def test_different_rewards_have_different_keys() -> None:
    """Class, code, closure, constants, parameters, options and revision; and the same one made twice has the same."""
    first = [reward_digest(make()) for make in REWARDS]
    second = [reward_digest(make()) for make in REWARDS]
    assert len(set(first)) == len(first)
    assert first == second


def test_neutral_parameters_decide_nothing() -> None:
    """Those that change how a reward runs."""
    expected = reward_digest(Counted(2.0))
    assert reward_digest(Counted(2.0, name="x", batch_size=4, num_workers=9, async_reward=False)) == expected


def test_an_edit_is_another_reward() -> None:
    """Of the function itself, of a helper and of a constant in its module; a comment is none."""
    source = (
        "{comment}\nLIMIT = {limit}\ndef helper(text):\n    return {helper}\ndef score(sample):\n    return {score}\n"
    )
    plain = {"comment": "", "limit": 3, "helper": "len(text)", "score": "helper(sample.response) - LIMIT"}

    def digest(**changes: Any) -> bytes:
        scope: dict[str, Any] = {"__name__": "edited"}
        exec(source.format(**{**plain, **changes}), scope)  # noqa: S102
        return meaning_of(scope["score"])

    digests = [
        digest(),
        digest(limit=4),
        digest(helper="len(text) + 1"),
        digest(score="LIMIT - helper(sample.response)"),
    ]
    assert len(set(digests)) == 4
    assert digest(comment="# says nothing\n\n") == digest()


PROGRAM = """
import dataclasses
import numpy as np
from flux_rewards import ConfigError, FunctionReward, RewardFunction
from flux_rewards.wrappers.cache_keys import reward_digest

@dataclasses.dataclass(frozen=True)
class Rule:
    name: str

class Mine(RewardFunction):
    kinds = {"a", "b", "c"}
    table = {"x": len, "y": frozenset({1, 2})}
    rules = {Rule("a"), Rule("b"), Rule("c")}
    def compute_reward(self, sample):
        return float(np.zeros((2, 2))[..., 0].sum() + (sample.response in {"u", "v", "w"}))

print(reward_digest(Mine()).hex(), reward_digest(FunctionReward(max)).hex())
"""


def test_every_process_has_the_same_keys() -> None:
    """Whatever the seed of its hashes, and where its objects lie."""
    digests = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_helpers_in_a_module_of_ones_own_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are used as attributes of the module."""
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for value in ("1.0", "7.0"):
        (tmp_path / "own_helpers.py").write_text(f"def f():\n    return {value}\n")
        (tmp_path / "own_rewards.py").write_text("import own_helpers\ndef score(sample):\n    return own_helpers.f()\n")
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        for name in ("own_helpers", "own_rewards"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        digests.append(reward_digest(FunctionReward("own_rewards.score")))
    assert digests[0] != digests[1]


def test_what_moves_into_a_try_is_an_edit() -> None:
    """Its instructions may be the same."""

    def scope(body: str) -> Any:
        names: dict[str, Any] = {"__name__": "edited"}
        exec(body, names)  # noqa: S102
        return meaning_of(names["score"])

    lines = ["def score(s):", "    try:", "        x = s.a", "    except Exception:", "        return 0.0"]
    outside = "\n".join([*lines, "    else:", "        return f(x)", ""])
    inside = "\n".join([*lines[:3], "        return f(x)", *lines[3:], ""])
    assert scope(outside) != scope(inside)


def test_a_function_may_say_its_revision() -> None:
    """Where its code cannot be told."""
    lock = threading.Lock()

    def score(sample: Sample) -> float:
        with lock:
            return 1.0

    with pytest.raises(ConfigError, match="a function with an attribute revision"):
        reward_digest(FunctionReward(score))
    digests = []
    for revision in ("1", "2"):
        vars(score)["revision"] = revision
        digests.append(reward_digest(FunctionReward(score)))
    assert digests[0] != digests[1]


def test_code_that_names_its_own_reward_has_an_end() -> None:
    """As a global, or as an attribute of something else."""
    names: dict[str, Any] = {"__name__": "named", "RewardFunction": RewardFunction}
    code = (
        "class Mine(RewardFunction):\n    def compute_reward(self, sample):\n"
        "        return reward is self and sample.reward\n"
        "reward = Mine()\n"
    )
    exec(code, names)  # noqa: S102
    assert reward_digest(names["reward"]) == reward_digest(names["reward"])
