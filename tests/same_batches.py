"""Whether two batches hold the same, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from served import served

from flux_rewards import (
    MaskErrors,
    RewardBatch,
    RewardFunction,
    Sample,
)
from flux_rewards.remote.remote_reward import RemoteReward


def assert_same(local: RewardBatch, remote: RewardBatch, where: str = "the reward") -> None:
    """All that a batch holds, but what the call took."""
    for row, (one, other) in enumerate(zip(remote.metadata, local.metadata, strict=True)):
        assert exactly(one) == exactly(other), f"metadata of {where}, sample {row}"
    np.testing.assert_array_equal(remote.rewards, local.rewards, err_msg=f"rewards of {where}")
    scored = ~np.isnan(local.rewards)
    assert remote.rewards[scored].tobytes() == local.rewards[scored].tobytes(), where  # -0.0 is not 0.0
    assert remote.errors == local.errors, where
    assert (remote.token_rewards is None) == (local.token_rewards is None), where
    for row, (found, given) in enumerate(zip(remote.token_rewards or (), local.token_rewards or (), strict=True)):
        assert (found is None) == (given is None), f"{where}, sample {row}"
        if found is not None and given is not None:
            assert found.tobytes() == given.tobytes(), f"token rewards of {where}, sample {row}"
    assert list(remote.parts) == list(local.parts), where
    for name, part in local.parts.items():
        assert_same(part, remote.parts[name], f"{where}, part {name!r}")


def exactly(value: Any) -> Any:
    """A value and the kinds of all that it holds; NaN equals itself, and a judge is never equally fast."""
    if isinstance(value, dict):
        return "dict", [(exactly(key), exactly(item)) for key, item in value.items() if key != "latency"]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [exactly(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return type(value).__name__, value.dtype.str, value.shape, value.tobytes()
    return type(value).__name__, repr(value)


def compare(reward: RewardFunction, samples: Sequence[Sample], **options: Any) -> None:
    """Here and behind a server, as a whole and failures masked."""
    expected = MaskErrors(reward, max_failure_rate=1.0)(samples)
    with served(reward) as url:
        assert_same(expected, MaskErrors(RemoteReward(url, **options), max_failure_rate=1.0)(samples))
