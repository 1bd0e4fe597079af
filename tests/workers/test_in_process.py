"""`InProcess`: a user's own reward behind a limit that holds."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from workers.jobs import Moody, Spread
from workers.processes import children_of, left_after

from flux_rewards import (
    CompositeReward,
    ComputeError,
    ConfigError,
    JPEGCompressibility,
    LengthReward,
    MaskErrors,
    Sample,
)
from flux_rewards.errors import WorkerCrashError
from flux_rewards.testing import reward_checks
from flux_rewards.workers.in_process import InProcess


@pytest.mark.parametrize("check", reward_checks(InProcess(LengthReward(4), timeout=60, num_workers=2)), ids=str)
def test_contract(check: object) -> None:
    """What every reward must keep."""
    assert callable(check)
    check()


def test_failures_have_their_reasons_and_neighbours_their_scores() -> None:
    """Killed, crashed, raised, not applicable: each as it is, none a number."""
    reward = MaskErrors(InProcess(Moody(), timeout=1, num_workers=2), max_failure_rate=1.0)
    batch = reward(response=["abc", "hang", "die", "raise", "none", "ab"])
    np.testing.assert_array_equal(batch.rewards, [3, np.nan, np.nan, np.nan, np.nan, 2])
    assert batch.not_applicable.tolist() == [False] * 4 + [True, False]
    assert {row: why.partition(":")[0] for row, why in batch.errors.items()} == {
        1: "TimeoutError",
        2: "WorkerCrashError",
        3: "ValueError",
    }
    assert batch.errors[3] == "ValueError: an odd text"


@pytest.mark.parametrize(
    ("response", "cause"), [("hang", TimeoutError), ("die", WorkerCrashError), ("raise", ValueError)]
)
def test_a_failure_raises_with_its_cause(response: str, cause: type[Exception]) -> None:
    """It names the reward and the sample."""
    with pytest.raises(ComputeError, match=r"'Moody', sample 1") as caught:
        InProcess(Moody(), timeout=0.5, num_workers=1)(response=["abc", response])
    assert isinstance(caught.value if cause is WorkerCrashError else caught.value.__cause__, cause)


def test_metadata_parts_and_scale_come_back() -> None:
    """All that a row has, after the wrapper's own scale."""
    batch = InProcess(Moody(), timeout=60, num_workers=2, scale=10.0, name="moody")(response=["abc"])
    assert batch.rewards.tolist() == [30.0]
    assert batch.metadata[0]["process"] != os.getpid()
    assert batch.parts["half"].rewards.tolist() == [1.5]


def test_a_group_goes_as_a_whole() -> None:
    """As a group-scoped reward needs it."""
    samples = [Sample("p", "x" * n, group_id=g) for n, g in [(1, "a"), (5, "b"), (3, "a"), (7, "b")]]
    batch = InProcess(Spread(), timeout=60, num_workers=2)(samples)
    assert batch.rewards.tolist() == [-1, -1, 1, 1]


def test_a_tree_of_rewards_runs_there() -> None:
    """With the same result as here."""
    tree = CompositeReward([(LengthReward(4), 1.0), (Moody(), 0.5)])
    samples = [Sample(response=text) for text in ("one two", "three", "four five six seven")]
    there, here = InProcess(tree, timeout=60, num_workers=2)(samples), tree(samples)
    assert there.rewards.tolist() == here.rewards.tolist()
    assert list(there.parts) == list(here.parts)


def test_images_are_read_there(tmp_path: Path) -> None:
    """As the caller gave them: a path stays a path."""
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    samples = [Sample(image=str(tmp_path / "one.png")), Sample(image=pixels), Sample(image=Image.fromarray(pixels))]
    reward = JPEGCompressibility()
    assert InProcess(reward, timeout=60, num_workers=2)(samples).rewards.tolist() == reward(samples).rewards.tolist()


def test_rewards_of_the_same_kind_share_workers() -> None:
    """Two such rewards start one server, and the last one that closes ends it."""
    before = children_of(os.getpid())
    first, second = (InProcess(Moody(), timeout=60, memory=1 << 33, num_workers=1) for _ in range(2))
    one, two = first(response=["a"]), second(response=["b"])
    assert one.metadata[0]["process"] == two.metadata[0]["process"]
    started = children_of(os.getpid()) - before
    first.close()
    assert second(response=["c"]).rewards.tolist() == [1]
    second.close()
    assert left_after(started) == set()


def test_many_threads() -> None:
    """Each call gets its own rows."""
    reward = InProcess(Moody(), timeout=60, num_workers=2)
    found: dict[int, list[float]] = {}

    def call(count: int) -> None:
        found[count] = reward(response=["x" * n for n in range(1, count)]).rewards.tolist()

    threads = [threading.Thread(target=call, args=(count,)) for count in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {count: [float(n) for n in range(1, count)] for count in range(2, 10)}


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": 1, "memory": 0}, {"timeout": 1, "num_workers": 0}])
def test_parameters_are_checked(options: dict[str, Any]) -> None:
    """When the object is made."""
    with pytest.raises(ConfigError):
        InProcess(Moody(), **options)


def test_only_a_reward_can_be_wrapped() -> None:
    """Not the class, for one."""
    with pytest.raises(ConfigError, match="must be a reward"):
        InProcess(Moody, timeout=1)  # type: ignore[arg-type]
