"""Samples that cannot be read or sent: each fails alone, as it does here."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from rewards_that_look import LOOKING, PIXELS

from flux_rewards import (
    InputError,
    MaskErrors,
    RewardFunction,
    Sample,
)
from flux_rewards.executor import Executor
from flux_rewards.remote.remote_reward import RemoteReward

BROKEN: dict[str, dict[str, Any]] = {
    "no image": {"image": "nowhere.png"},
    "an address": {"image": "https://example.org/a.png"},
    "out of range": {"image": np.full((4, 4, 3), 2.0)},
    "not finite": {"image": np.full((4, 4, 3), np.nan)},
    "a strange dtype": {"image": np.zeros((4, 4, 3), dtype=np.int64)},
    "objects": {"image": np.zeros((4, 4, 3), dtype=object)},
    "no shape of an image": {"image": np.zeros((5, 5, 7), dtype=np.uint8)},
    "no pixels": {"image": np.zeros((0, 4, 3), dtype=np.uint8)},
    "no frames": {"video": []},
    "frames that differ": {"video": [np.zeros((4, 4, 3)), np.zeros((5, 4, 3))]},
    "no list": {"condition_images": 5},
    "complex": {"image": torch.zeros(3, 4, 4, dtype=torch.complex64)},
    "sparse": {"image": torch.zeros(4, 4).to_sparse()},
    "meta": {"image": torch.zeros(3, 4, 4, device="meta")},
}


class Picture(RewardFunction):
    """Reads whatever media there are."""

    optional_fields = ("image", "video", "condition_images")

    def compute_reward(self, sample: Sample) -> float:
        return float(sum(getattr(sample, field) is not None for field in self.optional_fields))


PICTURE = Picture()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_sample_that_cannot_be_read(kind: str, servers: Callable[[RewardFunction], str]) -> None:
    """It fails, and takes no neighbours along, whether the client or the server notices."""
    samples = [Sample(image=PIXELS), Sample(**BROKEN[kind]), Sample(image=PIXELS)]
    local = MaskErrors(PICTURE, max_failure_rate=1.0)(samples)
    assert list(local.errors) == [1]
    remote = MaskErrors(RemoteReward(servers(PICTURE)), max_failure_rate=1.0)(samples)
    assert list(remote.errors) == [1]
    assert remote.errors[1].startswith("InputError")
    np.testing.assert_array_equal(remote.rewards, local.rewards)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, Fraction(1, 3), lambda: 1], ids=["object", "set", "fraction", "function"]
)
def test_a_value_that_has_no_form(value: Any, servers: Callable[[RewardFunction], str]) -> None:
    """It is refused where it is, by its place in the caller's batch, and what stands beside it is scored."""
    samples = [Sample("a", metadata={"x": value if place == 4 else 1}) for place in range(6)]
    remote = RemoteReward(servers(LOOKING["pil"]), batch_size=3)
    masked = MaskErrors(remote, max_failure_rate=1.0)(samples)
    assert list(masked.errors) == [4]
    with pytest.raises(InputError) as caught:
        remote(samples)
    assert (caught.value.field, caught.value.index) == ("metadata", 4)


def test_inputs_are_untouched(servers: Callable[[RewardFunction], str]) -> None:
    """Neither pixels nor metadata change, and no tensor loses its gradient."""
    image = torch.rand(3, 4, 4, requires_grad=True)
    metadata = {"a": [1, {"b": (2,)}]}
    sample = Sample("p", image=image, condition_images=[PIXELS], metadata=metadata)
    before = PIXELS.copy()
    with Executor() as executor:
        executor.run(RemoteReward(servers(LOOKING["pil"])), [sample])
    assert image.requires_grad
    assert image.grad is None
    assert metadata == {"a": [1, {"b": (2,)}]}
    np.testing.assert_array_equal(PIXELS, before)
