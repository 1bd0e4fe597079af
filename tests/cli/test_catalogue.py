from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flux_rewards.base import RewardFunction
from flux_rewards.cli.catalogue import example_yaml
from flux_rewards.config import load_rewards
from flux_rewards.registry import list_rewards, resolve_reward

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("name", list_rewards())
def test_the_configuration_that_is_shown_works(name: str) -> None:
    """What ``info`` shows for each registered reward is a configuration that loads as this reward."""
    factory = resolve_reward(name)
    loaded = load_rewards(yaml.safe_load(example_yaml(name, factory)))
    (reward,) = loaded.train.children
    assert isinstance(reward, RewardFunction)


def test_every_name_is_listed_whole_when_piped(flux_rewards_command: Command) -> None:
    """Behind a pipe no name is cut short, and no colour is in the text."""
    done = flux_rewards_command("list")
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split()[0] for line in done.stdout.splitlines()[2:] if line.strip()]
    assert listed == list_rewards()
    assert "…" not in done.stdout
    assert "\x1b" not in done.stdout
    assert "cannot be imported" not in done.stdout


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("length", ["response", "sample", "[0,", "1]"]),
        ("scale", ["of", "its", "parts", "of", "its", "parts", "-"]),
        ("group_rank", ["of", "its", "parts", "group", "-"]),
    ],
)
def test_a_line_of_the_list_says_what_a_reward_is(flux_rewards_command: Command, name: str, facts: list[str]) -> None:
    """A line has the required fields, the scope, the bounds and the docstring's first line."""
    (line,) = [line for line in flux_rewards_command("list").stdout.splitlines() if line.startswith(f"{name} ")]
    assert line.split()[1 : 1 + len(facts)] == facts
    assert line.rstrip().endswith((resolve_reward(name).__doc__ or "").strip().splitlines()[0])


def test_info_tells_all_about_a_reward(flux_rewards_command: Command) -> None:
    """The parameters with their defaults, the attributes, the whole docstring and a configuration are shown."""
    done = flux_rewards_command("info", "numeric_answer")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert rows["tolerance"] == ["0"]
    assert rows["num_workers"] == ["1"]
    assert rows["required_fields"] == ["response,", "reference"]
    assert all(line.strip() in done.stdout for line in (resolve_reward("numeric_answer").__doc__ or "").splitlines())
    snippet = done.stdout.partition("In a configuration:")[2]
    assert yaml.safe_load(snippet)["rewards"][0]["reward_model"] == "numeric_answer"


def test_required_parameters_are_marked(flux_rewards_command: Command) -> None:
    """A parameter without a default is marked as such."""
    rows = [line.split() for line in flux_rewards_command("info", "length").stdout.splitlines()]
    assert ["target", "(required)"] in rows


PLUGIN = '''
from flux_rewards import RewardFunction

class Mine(RewardFunction):
    """Something [bold]of[/bold] my own."""

    def compute_reward(self, sample):
        return 1.0

def make(size=3):
    """Make one."""
    return Mine()
'''


@pytest.mark.parametrize(("name", "shown"), [("Mine", "Something [bold]of[/bold] my own."), ("make", "Make one.")])
def test_a_reward_of_ones_own_is_described_by_its_path(
    tmp_path: Path, flux_rewards_command: Command, name: str, shown: str
) -> None:
    """A dotted path does for a class and for a function that makes a reward; brackets are not markup."""
    (tmp_path / "mine_of_this_test.py").write_text(PLUGIN, encoding="utf-8")
    done = flux_rewards_command("info", f"mine_of_this_test.{name}")
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout
    assert f"reward_model: mine_of_this_test.{name}" in done.stdout
