"""Linear layers in oneDNN: the same numbers and gradients, and nothing else changed."""

import copy
from typing import Any

import pytest
import torch

from flux_rewards.models.cpu_linear import quick_on_cpu


@pytest.fixture
def with_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """On any processor: what is faster where makes no difference to the numbers."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.mark.usefixtures("with_avx512")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (7, 24), (1, 1, 24), (1, 77, 24), (16, 50, 24), (2, 3, 5, 24), (0, 5, 24)])
def test_numbers_and_gradients_are_those_of_a_linear_layer(shape: tuple[int, ...], bias: bool) -> None:
    """For states of any shape, also where they are not contiguous; in float64 to tell apart whose rounding it is."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(24, 40, bias=bias)
    quick = copy.deepcopy(plain)
    quick_on_cpu(quick)
    states = torch.randn(shape)
    exact = torch.nn.functional.linear(
        states.double(), plain.weight.double(), None if not bias else plain.bias.double()
    )
    for given in (states, states.clone().mT.contiguous().mT if states.ndim > 1 else states):
        assert torch.allclose(quick(given).double(), exact, atol=1e-5)
        assert quick(given).shape == exact.shape
    leaf = states.clone().requires_grad_()
    (expected,), (gradient,) = (torch.autograd.grad(layer(leaf).square().sum(), leaf) for layer in (plain, quick))
    assert torch.allclose(gradient, expected, atol=1e-4)


@pytest.mark.usefixtures("with_avx512")
def test_parameters_stay_what_they_are() -> None:
    """Names, objects and the way they are printed for a reader of the model; twice is as good as once."""
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    before = dict(module.named_parameters())
    for _ in range(2):
        quick_on_cpu(module)
    after = dict(module.named_parameters())
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    assert isinstance(module[0], torch.nn.Linear)


@pytest.mark.usefixtures("with_avx512")
@pytest.mark.parametrize("changed", [{"dtype": torch.bfloat16}, {"dtype": torch.float64}, {"device": "meta"}])
def test_other_precisions_and_devices_are_left_alone(changed: dict[str, Any]) -> None:
    """Theirs is another matrix product."""
    layer = torch.nn.Linear(4, 4, **changed)
    quick_on_cpu(layer)
    assert type(layer) is torch.nn.Linear


def test_other_processors_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without AVX-512 there is nothing to gain."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    layer = torch.nn.Linear(4, 4)
    quick_on_cpu(layer)
    assert type(layer) is torch.nn.Linear
