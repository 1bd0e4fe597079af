"""The gradient path: every differentiable reward, composites, losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_rewards import CONFIGS

from flux_rewards import (
    Batched,
    Clip,
    CompositeReward,
    ConfigError,
    ContractError,
    Gate,
    GroupRank,
    InputError,
    JPEGCompressibility,
    MaskErrors,
    MotionAmount,
    Normalize,
    PickScore,
    Product,
    Retry,
    RewardFunction,
    Scale,
    TemporalFlicker,
    Threshold,
    VideoReward,
    load_rewards,
)
from flux_rewards.registry import _BUILTIN

IMAGES = sorted((Path(__file__).parent / "data" / "images").glob("*.jpg"))
PROMPTS = ["The brown dog chases the black dog.", "Two cats sit at the window."]
LEARNED = {"reward_model", "classifier", "sentiment", "process_reward", "generative_score"}  # they read texts
WITHOUT_GRADIENT = {"PickScore_Rank", "ocr", *LEARNED}
Maker = Callable[[str], RewardFunction]


@pytest.fixture(scope="module")
def reward_of(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    made: dict[str, RewardFunction] = {}

    def make(name: str) -> RewardFunction:
        if name not in made:
            if name == "video":
                made[name] = VideoReward(make("PickScore"))
            else:
                config = CONFIGS[name](tmp_path_factory.mktemp("weights")) if name in CONFIGS else {}
                made[name] = load_rewards([{"reward_model": name, **config}]).train.children[0]
        return made[name]

    return make


def pixels_for(reward: RewardFunction, seed: int = 0) -> torch.Tensor:
    """Two photographs, or two videos of photographs that move, away from 0 and 1."""
    found = []
    for path in IMAGES[:2]:
        pixels = np.asarray(Image.open(path).convert("RGB").resize((72, 64)), dtype=np.float32) / 255
        found.append(torch.from_numpy(pixels).permute(2, 0, 1) * 0.6 + 0.2)
    images = torch.stack(found)
    if "video" not in reward.required_fields:
        return images
    generator = torch.Generator().manual_seed(seed)
    frames = [images.roll((step, 2 * step), dims=(2, 3)) for step in range(3)]
    noise = 0.02 * torch.rand(2, 3, 3, 64, 72, generator=generator)
    return torch.stack(frames, dim=1) + noise


def columns_for(reward: RewardFunction) -> dict[str, Any]:
    images = [np.asarray(Image.open(path).convert("RGB").resize((72, 64))) for path in IMAGES[2:4]]
    columns: dict[str, Any] = {"condition_images": [[image] for image in images], "reference": images}
    return {name: column for name, column in columns.items() if name in reward.required_fields}


ALL = (*CONFIGS, "temporal_flicker", "motion_amount", "video")
DIFFERENTIABLE = [name for name in ALL if name not in WITHOUT_GRADIENT]
CHECKPOINTED = [
    "PickScore",
    "HPSv2",
    "ImageReward",
    "aesthetic_score",
    "image_similarity",
    "vqa_score",
    "face_similarity",
]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_gradient_is_that_of_finite_differences(name: str, reward_of: Maker) -> None:
    """Along the gradient itself, where the score rises by the square of its length; and a step along it raises it."""
    reward = reward_of(name)
    assert reward.differentiable
    pixels, columns = pixels_for(reward), columns_for(reward)
    leaf = pixels.clone().requires_grad_()
    scores = reward.forward(leaf, PROMPTS, **columns)
    assert scores.dtype == torch.float32
    scores.sum().backward()
    gradient = leaf.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    length = float(gradient.norm())
    assert length > 0
    direction = gradient / length

    def score(step: float) -> float:
        with torch.no_grad():
            return float(reward.forward((pixels + step * direction).clamp(0, 1), PROMPTS, **columns).double().sum())

    rises = [(score(step) - score(-step)) / (2 * step) for step in (0.1, 0.03, 0.01)]
    assert min(abs(rise / length - 1) for rise in rises) < 0.03
    assert score(0.03) > float(scores.detach().sum())


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_activation_checkpointing_changes_nothing_but_memory(name: str, reward_of: Maker) -> None:
    """The same scores, the same gradient."""
    reward = reward_of(name)
    saving = type(reward)(**{**reward.parameters, "activation_checkpointing": True})
    found = []
    for one in (reward, saving):
        leaf = pixels_for(reward).requires_grad_()
        scores = one.forward(leaf, PROMPTS, **columns_for(reward))
        scores.sum().backward()
        found.append((scores.detach(), leaf.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)
    assert found[0][1] is not None
    assert found[1][1] is not None
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-8)


def test_no_gradient_reaches_the_weights_or_is_left_on(reward_of: Maker) -> None:
    """They are frozen, in evaluation mode, and the caller's mode is kept."""
    reward = reward_of("PickScore")
    assert isinstance(reward, PickScore)
    leaf = pixels_for(reward).requires_grad_()
    reward.loss(leaf, PROMPTS).backward()
    assert not reward.model.module.training
    assert all(not weight.requires_grad and weight.grad is None for weight in reward.model.module.parameters())
    with torch.no_grad():
        assert not reward.forward(leaf, PROMPTS).requires_grad


def test_a_composite_folds_gradients_as_it_folds_scores(reward_of: Maker) -> None:
    """Weights, nested composites, transforms, wrappers and shared parts; the same numbers as a call."""
    pick, clip, aesthetic = (reward_of(name) for name in ("PickScore", "CLIP", "aesthetic_score"))
    inner = CompositeReward([(pick, 1.0), (Scale(clip, factor=2.0, offset=0.5), -0.5)])
    reward = CompositeReward(
        {
            "inner": (inner, 0.7),
            "again": (Retry(Batched(pick, 1)), 0.3),
            "clipped": (MaskErrors(Clip(aesthetic, low=-10, high=10)), 0.2),
            "normal": (Normalize(clip), 1.0),
            "product": (Product([clip, pick]), 0.4),
        }
    )
    assert reward.differentiable
    leaf = pixels_for(pick).requires_grad_()
    scores = reward.forward(leaf, PROMPTS)
    called = reward(image=list(leaf.detach()), prompt=PROMPTS).rewards
    np.testing.assert_allclose(scores.detach().numpy(), called, rtol=1e-4, atol=1e-6)
    scores.sum().backward()
    expected = torch.zeros_like(leaf)
    parts = [(pick, 0.7), (clip, 0.7 * -0.5 * 2.0), (pick, 0.3), (aesthetic, 0.2), (clip, 0.5)]
    for part, weight in parts:
        other = leaf.detach().clone().requires_grad_()
        (weight * part.forward(other, PROMPTS)).sum().backward()
        assert other.grad is not None
        expected += other.grad
    other = leaf.detach().clone().requires_grad_()
    (0.4 * pick.forward(other, PROMPTS) * clip.forward(other, PROMPTS)).sum().backward()
    assert other.grad is not None
    assert leaf.grad is not None
    assert torch.allclose(leaf.grad, expected + other.grad, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("wrap", "named"),
    [
        (lambda pick: CompositeReward([(pick, 1.0), (JPEGCompressibility(), 1.0)]), "JPEGCompressibility"),
        (GroupRank, "GroupRank"),
        (lambda pick: CompositeReward([(Threshold(pick, at_least=1.0), 1.0)]), "Threshold"),
        (lambda pick: Gate(pick, when=pick, at_least=0.0), "Gate"),
        (lambda pick: VideoReward(JPEGCompressibility()), "JPEGCompressibility"),
    ],
)
def test_a_part_without_a_gradient_is_named(wrap: Any, named: str, reward_of: Maker) -> None:
    """Before anything is computed."""
    reward = wrap(reward_of("PickScore"))
    assert not reward.differentiable
    for call in (reward.forward, reward.loss):
        with pytest.raises(ContractError, match=named):
            call(torch.rand(1, 3, 8, 8), ["a"])


def test_the_options_of_every_reward_hold_on_the_gradient_path() -> None:
    """`scale` and `clip`."""
    video = torch.rand(2, 3, 3, 16, 16)
    plain = TemporalFlicker().forward(video)
    assert torch.allclose(TemporalFlicker(scale=10.0).forward(video), 10 * plain)
    clipped = TemporalFlicker(scale=10.0, clip=(0.0, 6.5))
    np.testing.assert_allclose(clipped.forward(video), clipped(video=list(video)).rewards, rtol=1e-5)


class Fixed(RewardFunction):
    """Scores from the first pixel; NaN where it is 0."""

    required_fields = ("image",)
    differentiable = True

    def compute_reward(self, sample: Any) -> float:
        return 0.0

    def forward(self, pixels: torch.Tensor, prompts: Any = None, **columns: Any) -> torch.Tensor:
        first = pixels[:, 0, 0, 0]
        return torch.where(first == 0, torch.nan, 4 * first)


@pytest.mark.parametrize(
    ("kind", "target", "expected"),
    [
        ("negative", None, -(1.0 + 3.0) / 2),
        ("hinge", 2.0, (1.0 + 0.0) / 2),
        ("distance", 2.5, (1.5 + 0.5) / 2),
    ],
)
def test_losses(kind: str, target: float | None, expected: float) -> None:
    """By hand, over the samples that have a score."""
    pixels = torch.zeros(3, 3, 2, 2)
    pixels[1, 0, 0, 0], pixels[2, 0, 0, 0] = 0.25, 0.75
    leaf = pixels.requires_grad_()
    loss = Fixed().loss(leaf, kind=kind, target=target)
    assert float(loss.detach()) == pytest.approx(expected)
    loss.backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad[0].abs().sum() == 0


def test_a_loss_over_nothing_is_zero() -> None:
    """With a gradient of zero: a step of training goes on."""
    leaf = torch.zeros(2, 3, 2, 2, requires_grad=True)
    loss = Fixed().loss(leaf, kind="hinge", target=1.0)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert leaf.grad is not None
    assert leaf.grad.abs().sum() == 0


def test_a_composite_leaves_out_what_does_not_apply() -> None:
    """As it does in a call."""
    video = torch.rand(2, 1, 3, 8, 8)
    reward = CompositeReward([(TemporalFlicker(), 1.0), (VideoReward(Fixed()), 2.0)])
    assert torch.allclose(reward.forward(video), 8 * video[:, 0, 0, 0, 0])
    assert torch.isnan(CompositeReward([(TemporalFlicker(), 1.0)]).forward(video)).all()
    for one in (TemporalFlicker(), MotionAmount()):
        leaf = video.clone().requires_grad_()
        one.loss(leaf).backward()
        assert leaf.grad is not None
        assert leaf.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "hinge"}, ConfigError, "needs a target"),
        ({"kind": "negative", "target": 1.0}, ConfigError, "takes no target"),
        ({"kind": "mse"}, ConfigError, "kind must be one of negative, hinge, distance"),
    ],
)
def test_wrong_losses_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """By what they lack."""
    with pytest.raises(error, match=message):
        Fixed().loss(torch.rand(1, 3, 8, 8), **arguments)


@pytest.mark.parametrize(
    ("pixels", "prompts", "message"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["a"], r"expected a float tensor \(N, 3, H, W\)"),
        (np.zeros((1, 3, 8, 8)), ["a"], "expected a float tensor"),
        (torch.zeros(3, 8, 8), ["a"], r"expected \(N, 3, H, W\), found \(3, 8, 8\)"),
        (torch.zeros(1, 4, 8, 8), ["a"], "found \\(1, 4, 8, 8\\)"),
        (torch.zeros(0, 3, 8, 8), [], "found \\(0, 3, 8, 8\\)"),
        (torch.full((1, 3, 8, 8), -1.0), ["a"], r"\(x / 2 \+ 0.5\).clamp"),
        (torch.full((1, 3, 8, 8), float("nan")), ["a"], "found \\[nan"),
        (torch.zeros(2, 3, 8, 8), ["a"], "one for each of the 2 images, found 1"),
        (torch.zeros(2, 3, 8, 8), "ab", "one for each of the 2 images, found 'ab'"),
        (torch.zeros(2, 3, 8, 8), None, "compares images with their prompts"),
    ],
)
def test_wrong_pixels_are_refused(pixels: Any, prompts: Any, message: str, reward_of: Maker) -> None:
    """With the name of the reward and what to do."""
    with pytest.raises(InputError, match=message) as caught:
        reward_of("PickScore").forward(pixels, prompts)
    assert caught.value.reward == "PickScore"


def test_every_registered_reward_says_whether_it_is_differentiable() -> None:
    """None is left out of this file."""
    covered = {_BUILTIN[name] for name in (*DIFFERENTIABLE, *WITHOUT_GRADIENT)}
    from flux_rewards import resolve_reward

    for name, path in _BUILTIN.items():
        kind = resolve_reward(name)
        claims = isinstance(kind, type) and kind.__dict__.get("differentiable", False) is True
        assert not claims or path in covered, name


def test_videos_are_refused_where_images_are_scored(reward_of: Maker) -> None:
    """And the other way round."""
    with pytest.raises(InputError, match=r"expected \(N, 3, H, W\)"):
        reward_of("PickScore").forward(torch.rand(1, 2, 3, 8, 8), ["a"])
    for reward in (MotionAmount(), TemporalFlicker(), VideoReward(Fixed())):
        with pytest.raises(InputError, match=r"expected \(N, T, 3, H, W\)"):
            reward.forward(torch.rand(1, 3, 8, 8))
