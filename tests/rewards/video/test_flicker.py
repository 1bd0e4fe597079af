"""TemporalFlicker against VBench's definition, written naively on 8-bit frames."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flux_rewards import InputError
from flux_rewards.rewards.video.flicker import TemporalFlicker
from flux_rewards.testing import Check, reward_checks

Frames = np.ndarray[Any, np.dtype[Any]]
PHOTOGRAPH = Path(__file__).parents[2] / "data" / "images" / "ocean_1.jpg"


def published(video: Frames) -> float:
    """(255 - MAE) / 255 of (T, H, W, 3), as VBench has it: a mean over pairs of the mean over pixels and colours."""
    frames = video.astype(np.float64)
    return float((255 - np.mean([np.abs(b - a).mean() for a, b in itertools.pairwise(frames)])) / 255)


def noise(*shape: int, seed: int = 0) -> Frames:
    """Random 8-bit frames."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def photograph_that_moves() -> Frames:
    """Crops of a photograph, each a little further."""
    photograph = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"))
    return np.stack([photograph[:120, 3 * step : 160 + 3 * step] for step in range(5)])


@pytest.mark.parametrize("video", [noise(4, 9, 7), noise(2, 1, 1), noise(17, 16, 8), photograph_that_moves()], ids=len)
def test_is_the_published_formula(video: Frames) -> None:
    """From 8-bit frames, from floats, and by the gradient path."""
    reward, expected = TemporalFlicker(), published(video)
    floats = torch.from_numpy(video).permute(0, 3, 1, 2) / 255
    np.testing.assert_allclose(reward(video=[video, floats]).rewards, expected, rtol=1e-6)
    assert reward.forward(floats[None]).item() == pytest.approx(expected, rel=1e-6)


def test_worked_by_hand() -> None:
    """Still: 1. Black to white and back: 0. One of two pairs by 51 of 255: 1 - 0.2 / 2."""
    still = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    blinking, once = still.copy(), still.copy()
    blinking[1], once[2] = 255, 51
    np.testing.assert_allclose(TemporalFlicker()(video=[still, blinking, once]).rewards, [1.0, 0.0, 0.9], atol=1e-7)


def test_videos_of_any_size_and_length() -> None:
    """In one batch; each as if alone. One frame has nothing to flicker."""
    videos = [noise(4, 9, 7), noise(1, 8, 8), noise(2, 30, 20, seed=1), noise(9, 5, 5, seed=2)]
    rewards = TemporalFlicker()(video=videos).rewards
    assert np.isnan(rewards[1])
    kept = [0, 2, 3]
    np.testing.assert_allclose(rewards[kept], [published(videos[index]) for index in kept], rtol=1e-6)


def test_forward_of_one_frame_does_not_apply() -> None:
    """NaN, and a loss of zero."""
    pixels = torch.rand(2, 1, 3, 4, 4, requires_grad=True)
    assert torch.isnan(TemporalFlicker().forward(pixels)).all()
    assert TemporalFlicker().loss(pixels).item() == 0.0


def test_gradient_equals_finite_differences() -> None:
    """Away from the kink of equal pixels."""
    pixels = torch.rand(2, 3, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pixels.requires_grad_()
    reward = TemporalFlicker(scale=1000.0)
    (gradient,) = torch.autograd.grad(reward.forward(pixels)[1], pixels)
    assert torch.equal(gradient[0], torch.zeros_like(gradient[0]))  # of another video
    flat, expected = pixels.detach(), gradient[1].flatten()
    for position in range(0, flat[1].numel(), 5):
        moved = [flat.clone(), flat.clone()]
        for sign, one in zip((-1, 1), moved, strict=True):
            one[1].view(-1)[position] += sign * 1e-3
        low, high = (reward.forward(one)[1].item() for one in moved)
        assert (high - low) / 2e-3 == pytest.approx(expected[position].item(), abs=0.5)  # float32 of values near 1000


def test_a_step_along_the_gradient_raises_the_score() -> None:
    """As everywhere; also from half precision."""
    for dtype in (torch.float32, torch.bfloat16):
        pixels = torch.rand(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        reward = TemporalFlicker()
        before = reward.forward(pixels)
        assert before.dtype == torch.float32
        reward.loss(pixels).backward()
        assert pixels.grad is not None
        after = reward.forward((pixels - 0.1 * pixels.grad.sign()).detach().clamp(0, 1))
        assert after.item() > before.item()


def test_scale_reaches_both_paths() -> None:
    """The reward's own options."""
    video = noise(3, 8, 8)
    reward = TemporalFlicker(scale=-2.0)
    assert reward.bounds == (-2.0, 0.0)
    assert reward(video=[video]).rewards[0] == pytest.approx(-2 * published(video), rel=1e-6)
    floats = torch.from_numpy(video).permute(0, 3, 1, 2)[None] / 255
    assert reward.forward(floats).item() == pytest.approx(-2 * published(video), rel=1e-6)


def test_pixels_that_are_no_videos() -> None:
    """Named."""
    with pytest.raises(InputError, match=r"'TemporalFlicker', field 'pixels': expected \(N, T, 3, H, W\)"):
        TemporalFlicker().forward(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("check", reward_checks(TemporalFlicker()), ids=str)
def test_contract(check: Check) -> None:
    """As every reward."""
    check()
