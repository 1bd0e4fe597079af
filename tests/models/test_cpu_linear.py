"""Linear layers on a CPU: the same sums, and the same gradients, by another kernel."""

import copy
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from flux_rewards.models.cpu_linear import quick_on_cpu


def test_a_transformer_gives_the_same_states_and_gradients() -> None:
    """In float32, to rounding; its weights are the ones that it had."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
    }
    plain = (
        CLIPVisionModel(CLIPVisionConfig(**sizes, num_attention_heads=2, image_size=32, patch_size=8))
        .eval()
        .requires_grad_(False)
    )
    quick = copy.deepcopy(plain)
    quick_on_cpu(quick)
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), quick.parameters(), strict=True))
    found = []
    for model in (plain, quick):
        pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        states = model(pixel_values=pixels).last_hidden_state
        states.square().sum().backward()
        found.append((states.detach(), pixels.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-4)
    assert found[0][1] is not None
    assert found[1][1] is not None
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)


def test_other_shapes_and_precisions_are_left_to_torch() -> None:
    """States of one row, or of several axes, and half precision."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 4)
    expected = {shape: layer(torch.ones(shape)) for shape in [(8,), (2, 8), (2, 3, 8), (2, 3, 5, 8)]}
    quick_on_cpu(layer)
    for shape, states in expected.items():
        assert torch.allclose(layer(torch.ones(shape)), states, atol=1e-6)
    half = torch.nn.Linear(8, 4, dtype=torch.bfloat16)
    quick_on_cpu(half)
    assert type(half) is torch.nn.Linear
