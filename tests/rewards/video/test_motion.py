"""MotionAmount on pictures that were moved by a known distance."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flux_rewards import ConfigError, InputError
from flux_rewards.rewards.video import motion
from flux_rewards.rewards.video.motion import MotionAmount
from flux_rewards.testing import Check, reward_checks

PHOTOGRAPH = Path(__file__).parents[2] / "data" / "images" / "ocean_1.jpg"
Frames = np.ndarray[Any, np.dtype[Any]]


def reward(**parameters: Any) -> MotionAmount:
    """On the CPU."""
    return MotionAmount(device="cpu", **parameters)


def in_pixels(videos: Any) -> Frames:
    """The reward in pixels of the given frames, (T, H, W, 3)."""
    rewards = reward()(video=list(videos)).rewards
    return np.array([value * math.hypot(*video.shape[1:3]) for value, video in zip(rewards, videos, strict=True)])


def texture(rows: Frames, columns: Frames) -> Frames:
    """A smooth texture at any position, uint8 (H, W, 3): waves of 8 to 30 pixels in all directions."""
    generator = np.random.default_rng(0)
    gray = np.zeros(np.broadcast_shapes(rows.shape, columns.shape))
    for _ in range(24):
        wave, angle, phase = generator.uniform(8, 30), generator.uniform(0, math.pi), generator.uniform(0, 7)
        towards = columns * math.cos(angle) + rows * math.sin(angle)
        gray = gray + np.sin(2 * math.pi * towards / wave + phase)
    return np.repeat(np.clip(128 + 12 * gray, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def shifted_texture(right: float, down: float, frames: int = 2, size: tuple[int, int] = (96, 128)) -> Frames:
    """A video of it that moves so many pixels a frame."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    return np.stack([texture(rows - step * down, columns - step * right) for step in range(frames)])


def photograph(x: int = 0, y: int = 0) -> Frames:
    """A crop of it, at most 480x360 pixels."""
    return np.asarray(Image.open(PHOTOGRAPH).convert("RGB"))[y : y + 360, x : x + 480]


@pytest.mark.parametrize(
    ("right", "down"), [(1, 0), (0, 1), (2, 0), (0, -3), (1.5, 2), (-4, 3), (0.5, 0), (8, 0), (-6, -8), (12, 5)]
)
def test_a_texture_that_moves(right: float, down: float) -> None:
    """By its distance a frame, within 3 %, or a twentieth of a pixel."""
    expected = math.hypot(right, down)
    assert in_pixels([shifted_texture(right, down)])[0] == pytest.approx(expected, rel=0.03, abs=0.05)


@pytest.mark.parametrize(("right", "down"), [(8, 0), (0, 8), (16, 16), (24, 10)])
def test_a_photograph_that_moves(right: int, down: int) -> None:
    """A pan over a real one, larger than what the flow works on, within 5 %."""
    video = np.stack([photograph(), photograph(right, down)])
    assert in_pixels([video])[0] == pytest.approx(math.hypot(right, down), rel=0.05)


@pytest.mark.slow
def test_the_mean_over_pairs() -> None:
    """Faster, slower and not at all, in a video that takes several passes."""
    rows, columns = np.mgrid[:40, :60].astype(float)
    steps = [0.0, 2.0, 4.0, *[4.0 + 1.0 * step for step in range(1, 17)], *[20.0] * 4]
    video = np.stack([texture(rows, columns - step) for step in steps])
    assert in_pixels([video])[0] == pytest.approx(20 / (len(steps) - 1), rel=0.07)


def test_the_size_of_the_frames_does_not_matter() -> None:
    """A fraction of the diagonal: twice the pixels, twice the shift, the same reward."""
    small = np.stack([np.asarray(Image.fromarray(photograph(x)).resize((240, 180))) for x in (0, 12)])
    large = np.stack([np.asarray(Image.fromarray(photograph(x)).resize((600, 450))) for x in (0, 12)])
    rewards = reward()(video=[small, large]).rewards
    assert rewards[0] == pytest.approx(rewards[1], rel=0.03)
    assert rewards[0] == pytest.approx(12 / math.hypot(360, 480), rel=0.05)


def test_only_the_fastest_twentieth_counts() -> None:
    """A square of 12 % of the picture moves over a still one: its speed, not the mean."""
    rows, columns = np.mgrid[:96, :128].astype(float)
    ground = texture(rows * 1.3, columns * 0.9)
    video = np.stack([ground, ground])
    for frame, left in zip(video, (40, 43), strict=True):
        frame[30:70, left : left + 40] = texture(rows[:40, :40], columns[:40, :40])
    assert in_pixels([video])[0] == pytest.approx(3, rel=0.15)  # a little more at its edges, where things vanish


@pytest.mark.parametrize("what", ["texture", "photograph", "black", "one pixel", "a row", "a column"])
def test_a_still_video(what: str) -> None:
    """Exactly zero."""
    frame = {
        "texture": shifted_texture(0, 0)[0],
        "photograph": photograph(),
        "black": np.zeros((20, 30, 3), dtype=np.uint8),
        "one pixel": np.zeros((1, 1, 3), dtype=np.uint8),
        "a row": photograph()[:1],
        "a column": photograph()[:, :1],
    }[what]
    assert reward()(video=[np.stack([frame] * 3)]).rewards[0] == 0.0


@pytest.mark.parametrize(("gain", "offset"), [(1.1, 0), (0.8, 0), (1.0, 12), (1.0, -12), (0.7, 30)])
def test_brightness_is_not_motion(gain: float, offset: float) -> None:
    """It leaks by less than 0.05 of the 256 pixels, a shift that no eye would see."""
    first = np.clip(photograph().astype(float) * 0.8 + 25, 0, 255)  # nothing is clipped
    video = np.stack([first, first * gain + offset]).round().clip(0, 255).astype(np.uint8)
    leak = in_pixels([video])[0] * 256 / 480
    assert leak < 0.05


def test_a_flash_of_a_plain_frame_is_not_motion() -> None:
    """Nothing without texture moves."""
    video = np.zeros((4, 60, 80, 3), dtype=np.uint8)
    video[1::2] = 255
    assert in_pixels([video])[0] < 1e-3


def test_noise_is_hardly_motion() -> None:
    """Grain of 3 levels on a photograph, new in each frame: less than 0.05 pixels of the 256."""
    generator = np.random.default_rng(0)
    frames = photograph().astype(float) + 3 * generator.standard_normal((2, *photograph().shape))
    assert in_pixels([frames.round().clip(0, 255).astype(np.uint8)])[0] * 256 / 480 < 0.05


def test_videos_of_any_size_and_length() -> None:
    """In one batch, in any order; each as if alone. One frame cannot move."""
    videos = [
        shifted_texture(2, 0),
        shifted_texture(1, 1, 5, (48, 40)),
        shifted_texture(1, 0, 1),
        shifted_texture(0, 3, 3, (64, 64)),
    ]
    rewards = reward()(video=videos).rewards
    assert np.isnan(rewards[2])
    np.testing.assert_array_equal(rewards[::-1], reward()(video=videos[::-1]).rewards)
    np.testing.assert_array_equal(rewards, [reward()(video=[video]).rewards[0] for video in videos])


@pytest.mark.slow
def test_both_paths_agree() -> None:
    """The gradient path takes all videos at once; with and without activations kept."""
    videos = [shifted_texture(2, 1, 10, (40, 48)), shifted_texture(0, 3, 10, (40, 48))]
    expected = reward(scale=10.0)(video=videos).rewards
    pixels = torch.from_numpy(np.stack(videos)).permute(0, 1, 4, 2, 3) / 255
    for checkpointing in (False, True):
        given = pixels.clone().requires_grad_()
        scores = reward(scale=10.0, activation_checkpointing=checkpointing).forward(given)
        np.testing.assert_allclose(scores.detach().numpy(), expected, rtol=1e-4)
        scores.sum().backward()
        assert given.grad is not None
        if not checkpointing:
            kept = given.grad
    torch.testing.assert_close(given.grad, kept, rtol=1e-3, atol=1e-5)


def test_forward_of_one_frame_does_not_apply() -> None:
    """NaN, and a loss of zero."""
    pixels = torch.rand(2, 1, 3, 4, 4, requires_grad=True)
    assert torch.isnan(reward().forward(pixels)).all()
    assert reward().loss(pixels).item() == 0.0


def test_gradient_equals_finite_differences() -> None:
    """Through all levels and steps, in float64, along random directions."""
    video = torch.from_numpy(shifted_texture(1.3, 0.7, 2, (40, 52))).permute(0, 3, 1, 2).double() / 255
    generator = torch.Generator().manual_seed(0)
    video = (video + 0.01 * torch.rand(video.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)

    def score(frames: torch.Tensor) -> torch.Tensor:
        gray = motion._gray(frames)
        return motion._speed(gray[:-1], gray[1:]).sum()

    given = video.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(given), given)
    assert gradient.abs().max() > 0
    for _ in range(6):
        direction = torch.randn(video.shape, generator=generator, dtype=torch.float64)
        difference = (score(video + 1e-7 * direction) - score(video - 1e-7 * direction)) / 2e-7
        assert difference.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-3)


def test_a_still_video_has_a_gradient_of_zero() -> None:
    """And none that is not a number."""
    pixels = (torch.from_numpy(shifted_texture(0, 0, 2, (40, 52))).permute(0, 3, 1, 2)[None] / 255).requires_grad_()
    reward().forward(pixels).sum().backward()
    assert pixels.grad is not None
    assert torch.equal(pixels.grad, torch.zeros_like(pixels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_along_the_gradient_raises_the_score(dtype: torch.dtype) -> None:
    """As everywhere; also from half precision."""
    pixels = torch.from_numpy(shifted_texture(1, 0, 3, (48, 64))).permute(0, 3, 1, 2)[None] / 255
    pixels = pixels.to(dtype).requires_grad_()
    before = reward().forward(pixels)
    assert before.dtype == torch.float32
    reward().loss(pixels).backward()
    assert pixels.grad is not None
    step = 0.01 * pixels.grad / pixels.grad.abs().max()
    after = reward().forward((pixels - step).detach().clamp(0, 1))
    assert after.item() > before.item()


def test_what_cannot_be_scored() -> None:
    """Named."""
    with pytest.raises(InputError, match=r"'MotionAmount', field 'pixels': expected \(N, T, 3, H, W\)"):
        reward().forward(torch.rand(2, 3, 8, 8))
    with pytest.raises(ConfigError, match="there is no device 'tpu-of-mine'"):
        MotionAmount("tpu-of-mine")(video=[shifted_texture(1, 0)])


@pytest.mark.parametrize("check", reward_checks(reward()), ids=str)
def test_contract(check: Check) -> None:
    """As every reward."""
    check()
