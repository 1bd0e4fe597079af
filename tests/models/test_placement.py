from __future__ import annotations

from typing import Any

import pytest
import torch

from flux_rewards.errors import ConfigError
from flux_rewards.models.placement import DTYPES, check_dtype, device_of, dtype_of, frozen, mixed_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "name", "dtype"),
    [
        ("float32", "float32", torch.float32),
        ("fp32", "float32", torch.float32),
        ("bf16", "bfloat16", torch.bfloat16),
        ("fp16", "float16", torch.float16),
        ("torch.bfloat16", "bfloat16", torch.bfloat16),
        (torch.float16, "float16", torch.float16),
    ],
)
def test_precisions_by_name(given: Any, name: str, dtype: torch.dtype) -> None:
    """Full, short, and torch's own."""
    assert check_dtype(given, "mine") == name
    assert name in DTYPES
    assert dtype_of(given) == dtype


@pytest.mark.parametrize("given", ["float64", "int8", "half", "", None, 16, torch.float64])
def test_other_precisions_are_errors(given: Any) -> None:
    """With the reward and those that there are."""
    with pytest.raises(ConfigError, match=r"reward 'mine': dtype must be one of float32, bfloat16, float16"):
        check_dtype(given, "mine")


def test_devices_by_name() -> None:
    """The current CUDA device by default and for "cuda", with its number; the CPU where there is none."""
    assert device_of("cpu") == CPU
    if torch.cuda.is_available():
        current = torch.device("cuda", torch.cuda.current_device())
        assert device_of(None) == device_of("cuda") == current
        assert device_of("cuda:0") == torch.device("cuda", 0)
    else:
        assert device_of(None) == CPU


@pytest.mark.parametrize("given", ["gpu", "cuda:99", "cuda:-1", "cpu:x", "", 3.5])
def test_devices_that_are_not_there_are_errors(given: Any) -> None:
    """With what to write."""
    with pytest.raises(ConfigError, match=r"there is no device .*'?cpu'"):
        device_of(given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_without_cuda_the_error_says_so() -> None:
    """And what to do."""
    with pytest.raises(ConfigError, match="torch sees 0 CUDA devices; use device='cpu'"):
        device_of("cuda")


class Rotary(torch.nn.Module):
    """A weight, statistics that are saved, and frequencies that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 1 / 3]))
        self.drop = torch.nn.Dropout(0.5)
        self.inner = torch.nn.Module()
        self.inner.register_buffer("inv_freq", 1e4 ** -torch.linspace(0, 1, 7), persistent=False)
        self.inner.register_buffer("positions", torch.arange(3), persistent=False)
        self.register_buffer("mean", torch.tensor([1 / 3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_frozen_module(dtype: torch.dtype) -> None:
    """Evaluates, wants no gradients, and holds weights in the precision, but not what it computes positions with."""
    module = Rotary()
    frequencies = module.inner.get_buffer("inv_freq").clone()
    held = frozen(module, CPU, dtype)
    assert held is module
    assert not held.training
    assert not held.drop.training
    assert not held.weight.requires_grad
    assert held.weight.dtype == held.get_buffer("mean").dtype == dtype
    assert torch.equal(held.inner.get_buffer("inv_freq"), frequencies)
    assert held.inner.get_buffer("positions").dtype == torch.int64
    assert "inner.inv_freq" not in held.state_dict()


def test_a_buffer_under_two_names_stays_one_in_value() -> None:
    """Shared parts of a module are moved together."""
    module = Rotary()
    module.twin = module.inner
    held = frozen(module, CPU, torch.bfloat16)
    assert held.twin is held.inner
    assert held.inner.get_buffer("inv_freq").dtype == torch.float32


@pytest.mark.parametrize("outer", [None, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_precision_is_the_models_whatever_the_callers_is(outer: torch.dtype | None, dtype: torch.dtype) -> None:
    """A trainer's autocast does not change a score; and it is as it was afterwards."""
    ones = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=outer or torch.bfloat16, enabled=outer is not None):
        with mixed_precision(CPU, dtype):
            assert (ones @ ones).dtype == dtype
            assert torch.is_autocast_enabled("cpu") is (dtype != torch.float32)
        assert (ones @ ones).dtype == (outer or torch.float32)
    assert not torch.is_autocast_enabled("cpu")


def test_a_device_without_autocast_needs_none() -> None:
    """As the meta device, for one."""
    with mixed_precision(torch.device("meta"), torch.bfloat16):
        assert torch.ones(1, device="meta").dtype == torch.float32
