"""Rewards by name: the library's own, registered ones, plugins, dotted paths."""

import json
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from rewards_of_our_own import Characters, QualityReward

from flux_rewards import (
    ConfigError,
    LengthReward,
    RewardFunction,
    UnknownRewardError,
    list_rewards,
    register_reward,
    register_reward_model,
    resolve_reward,
)
from flux_rewards.registry import _BUILTIN, name_of

PLUGIN = Path(__file__).parent / "plugin"


@pytest.mark.parametrize("name", sorted(_BUILTIN))
def test_the_librarys_own_names_resolve_and_invert(name: str) -> None:
    """In any case, and back."""
    found = resolve_reward(name.upper())
    assert isinstance(found, FunctionType) or (isinstance(found, type) and issubclass(found, RewardFunction))
    first = next(known for known, path in _BUILTIN.items() if path == _BUILTIN[name])  # the others are aliases
    assert name_of(found) == first
    assert name in list_rewards()


def test_a_registered_reward_is_found_by_its_name() -> None:
    """As a class, or as a function that builds one; both decorators are one."""
    assert register_reward_model is register_reward
    register_reward("Test_Registry_Quality")(QualityReward)
    assert resolve_reward("test_registry_quality") is QualityReward
    assert name_of(QualityReward) == "Test_Registry_Quality"
    assert "Test_Registry_Quality" in list_rewards()

    @register_reward("test_registry_factory")
    def brief(target: int = 3) -> RewardFunction:
        return LengthReward(target)

    assert resolve_reward("test_registry_factory") is brief


def test_a_name_is_taken_once() -> None:
    """Another reward of the name would silently change a run; the same definition again is a reload."""
    register_reward("test_registry_once")(Characters)
    register_reward("test_registry_once")(Characters)
    with pytest.raises(ConfigError, match="is taken by"):
        register_reward("TEST_REGISTRY_ONCE")(QualityReward)
    with pytest.raises(ConfigError, match="is taken"):
        register_reward("length")(QualityReward)


@pytest.mark.parametrize(
    ("name", "reward", "message"),
    [
        ("a.b", Characters, "without '.'"),
        ("", Characters, "without"),
        ("x1", int, "not a RewardFunction"),
        ("x2", 3, "only a"),
    ],
)
def test_bad_registrations_are_refused(name: str, reward: Any, message: str) -> None:
    """When they are made."""
    with pytest.raises(ConfigError, match=message):
        register_reward(name)(reward)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("lenght", UnknownRewardError, "did you mean 'length'"),
        ("no_such_reward_at_all", UnknownRewardError, "dotted path"),
        ("no_such_module.Reward", ConfigError, "no_such_module"),
        ("rewards_of_our_own.Qualty", ConfigError, "QualityReward"),
        ("rewards_of_our_own.told", None, ""),
        ("collections.OrderedDict", ConfigError, "not a RewardFunction"),
        ("math.pi", ConfigError, "not a reward class"),
        (3, ConfigError, "is text"),
    ],
)
def test_names_that_name_no_reward(name: Any, kind: type[Exception] | None, message: str) -> None:
    """The message lists close names, or says what was found."""
    if kind is None:
        assert callable(resolve_reward(name))  # a factory; what it returns is checked when it is called
        return
    with pytest.raises(kind, match=message):
        resolve_reward(name)


def test_an_unknown_name_is_a_lookup_error_too() -> None:
    """For those who catch builtins."""
    with pytest.raises(LookupError):
        resolve_reward("nope")


def test_dotted_paths_need_no_registration() -> None:
    """With a dot or a colon."""
    assert resolve_reward("rewards_of_our_own.Characters") is Characters
    assert resolve_reward("rewards_of_our_own:Characters") is Characters


@pytest.mark.slow
def test_an_installed_plugin_is_found(tmp_path: Path) -> None:
    """A real package, built and installed by pip; a broken neighbour and a name that is taken don't get in its way."""
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(PLUGIN)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    code = """
import json, sys
sys.path.insert(0, sys.argv[1])
import flux_rewards as fr
found = {"listed": "vowels" in fr.list_rewards() and "broken_plugin" in fr.list_rewards()}
loaded = fr.load_rewards({"rewards": {"reward_model": "Vowels", "vowels": "ao"}})
found["rewards"] = loaded.train(response=["abo", ""]).rewards.tolist()[0]
found["config"] = fr.to_config(loaded)
found["length"] = fr.resolve_reward("length").__module__
try:
    fr.resolve_reward("broken_plugin")
except fr.ConfigError as error:
    found["broken"] = str(error)
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], check=True, capture_output=True, text=True, timeout=300
    )
    found = json.loads(done.stdout)
    assert found["listed"]
    assert found["rewards"] == pytest.approx(2 / 3)
    assert found["config"]["rewards"][0]["reward_model"] == "vowels"
    assert found["length"] == "flux_rewards.rewards.text.length"
    assert "this plugin is broken" in found["broken"]
