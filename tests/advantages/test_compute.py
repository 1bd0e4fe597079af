"""The front door: methods by name, parts and their weights, what importing costs."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from flux_rewards import RewardBatch
from flux_rewards.advantages import METHODS, compute_advantages, grpo
from flux_rewards.errors import ConfigError, InputError

NAN = math.nan


def test_every_method_has_a_name() -> None:
    """And goes through the front door."""
    for name, function in METHODS.items():
        options: dict[str, Any] = {"lengths": [1, 2, 3]} if name == "opo" else {}
        rewards: Any = {"only": [1.0, 2.0, 3.0]} if name == "gdpo" else [1.0, 2.0, 3.0]
        np.testing.assert_array_equal(
            compute_advantages(rewards, 3, name, **options), function(rewards, 3, **options), err_msg=name
        )
    np.testing.assert_array_equal(compute_advantages([1.0, 2.0, 4.0], 3, "sum"), grpo([1.0, 2.0, 4.0], 3))


def test_parts_are_added_up_first() -> None:
    """By name or in order; what does not apply is left out, and what failed takes the sample along."""
    parts = {"correct": [1.0, 0.0, NAN, NAN], "short": [0.5, NAN, 0.25, NAN]}
    found = compute_advantages(parts, 4, "dr_grpo", weights={"short": 2.0, "correct": 1.0})
    np.testing.assert_allclose(found, [2.0 - 2.5 / 3, -2.5 / 3, 0.5 - 2.5 / 3, NAN])
    columns = np.array(list(parts.values())).T
    np.testing.assert_array_equal(compute_advantages(columns, 4, "dr_grpo", weights=[1.0, 2.0]), found)
    tensor = compute_advantages(torch.tensor(columns, dtype=torch.float32), 4, "dr_grpo", weights=[1.0, 2.0])
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), found, atol=1e-6)

    of_parts = {name: RewardBatch(np.array(column)) for name, column in {"a": [1.0, 0.0], "b": [NAN, 0.0]}.items()}
    failed = RewardBatch(np.array([NAN, 0.0]), errors={0: "late"}, parts=of_parts)
    assert np.isnan(compute_advantages(failed, 2, "dr_grpo", weights=[1.0, 1.0])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"correct": 1.0}, r"none for \['short'\]"),
        ({"correct": 1.0, "short": 1.0, "shrt": 1.0}, "did you mean 'short'"),
        ([1.0], "1 weights for 2 parts"),
        ({"correct": 1.0, "short": NAN}, "weight of 'short'"),
    ],
)
def test_weights_must_fit_the_parts(weights: Any, message: str) -> None:
    """None is forgotten silently."""
    with pytest.raises(ConfigError, match=message):
        compute_advantages({"correct": [1.0], "short": [1.0]}, 1, weights=weights)


def test_importing_loads_no_torch() -> None:
    """And neither does computing with arrays."""
    code = (
        "import sys\nfrom flux_rewards.advantages import compute_advantages\n"
        "compute_advantages([1.0, 2.0], 2)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("groups", [{"b": 1, "a": 2}, {"a", "b"}])
def test_groups_without_an_order_are_refused(groups: Any) -> None:
    """Their ids would be taken in an order that is nobody's."""
    with pytest.raises(InputError, match="groups cannot be"):
        compute_advantages([1.0, 2.0], groups)


def test_text_is_no_number() -> None:
    """Not even where it reads like one."""
    with pytest.raises(InputError, match="must be numbers"):
        compute_advantages(["1", "2"], 2)
