"""ImageReward as a reward, on tiny checkpoints in the official format."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_image_reward import (
    LONG_PROMPT,
    TINY,
    config,
    official_tokens,
    pil_pixels,
    random_state,
    reference_scores,
    save,
    save_tokenizer,
)

from flux_rewards import ConfigError, InputError, Sample
from flux_rewards.errors import WeightsError
from flux_rewards.models.preprocessing import CLIP_MEAN, CLIP_STD
from flux_rewards.rewards.image.image_reward import ImageReward
from flux_rewards.testing import reward_checks

PROMPTS = ["a photo of a red cat", "two dog on the beach", LONG_PROMPT]
OCEAN = Path(__file__).parents[2] / "data" / "images" / "ocean_1.jpg"


@pytest.fixture(scope="module")
def parameters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a reward with a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("tiny")
    return {
        "model_name_or_path": str(save(folder / "image_reward")),
        "tokenizer": str(save_tokenizer(folder / "bert")),
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def reward(parameters: dict[str, Any]) -> ImageReward:
    """With its weights."""
    return ImageReward(**parameters)


def noise(count: int, size: int = 64) -> torch.Tensor:
    """Float pixels in [0, 1], away from both ends."""
    return 0.2 + 0.6 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def expected(pixels: torch.Tensor, prompts: list[str], tokenizer: str) -> torch.Tensor:
    """By the published architecture, of pixels in [0, 1] that need no resize."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (CLIP_MEAN, CLIP_STD))
    return reference_scores(random_state(), (pixels - mean) / std, *official_tokens(prompts, Path(tokenizer)))


def test_scores_are_those_of_the_published_model(parameters: dict[str, Any], reward: ImageReward) -> None:
    """Of float pixels of the model's size, which nothing rounds."""
    scores = expected(noise(3), PROMPTS, parameters["tokenizer"])
    assert reward(image=list(noise(3)), prompt=PROMPTS).rewards == pytest.approx(scores.numpy(), rel=1e-5, abs=1e-5)


def test_a_file_is_scored_as_pil_prepares_it(parameters: dict[str, Any], reward: ImageReward) -> None:
    """From a photograph on disk, in any of the forms that a sample may hold."""
    image = Image.open(OCEAN)
    tokens = official_tokens(PROMPTS[:1], Path(parameters["tokenizer"]))
    score = float(reference_scores(random_state(), pil_pixels([image], TINY.image), *tokens))
    forms = [OCEAN, image, np.asarray(image), torch.from_numpy(np.array(image)).permute(2, 0, 1)]
    assert reward(image=forms, prompt=PROMPTS[:1] * 4).rewards == pytest.approx([score] * 4, rel=1e-3, abs=3e-3)


def test_what_did_not_fit_is_told(reward: ImageReward) -> None:
    """The 17 tokens of the long prompt that the model never saw, and nothing where all was seen."""
    batch = reward(image=list(noise(3)), prompt=PROMPTS)
    assert list(batch.metadata) == [{}, {}, {"prompt_tokens_cut": 17}]
    words = LONG_PROMPT.split()
    longer = reward(image=[noise(1)[0]] * 2, prompt=[" ".join(words[:33]), LONG_PROMPT + " blue sea"])
    assert longer.metadata[1] == {"prompt_tokens_cut": 19}
    assert longer.rewards[0] == pytest.approx(longer.rewards[1], rel=1e-5)


def test_a_conversation_is_read_as_its_text(reward: ImageReward) -> None:
    """Trainers of chat models pass messages."""
    said = [{"role": "user", "content": PROMPTS[0]}]
    batch = reward(image=[noise(1)[0]] * 2, prompt=[PROMPTS[0], said])
    assert batch.rewards[0] == pytest.approx(batch.rewards[1], rel=1e-5)


def test_scaling(parameters: dict[str, Any], reward: ImageReward) -> None:
    """(r + 2) / 4, not cut, and the options of every reward after it."""
    columns: dict[str, Any] = {"image": list(noise(3)), "prompt": PROMPTS}
    raw = reward(**columns).rewards
    unit = ImageReward(scaling="unit", scale=10.0, **parameters)
    assert unit(**columns).rewards == pytest.approx((raw + 2) / 4 * 10, rel=1e-6)
    assert unit.forward(noise(3), PROMPTS).numpy() == pytest.approx((raw + 2) / 4 * 10, rel=1e-5)


def test_half_precision_is_close(parameters: dict[str, Any], reward: ImageReward) -> None:
    """In float32 all the same."""
    half = ImageReward(dtype="bfloat16", **parameters)
    scores = half.forward(noise(3), PROMPTS)
    assert scores.dtype == torch.float32
    assert scores.numpy() == pytest.approx(reward.forward(noise(3), PROMPTS).numpy(), abs=0.02)


@pytest.mark.parametrize("size", [64, 90])
def test_both_paths_agree(reward: ImageReward, size: int) -> None:
    """Pixels with a gradient are scored as pixels without; in batches of any size."""
    pixels = noise(3, size)
    scores = reward.forward(pixels.requires_grad_(), PROMPTS)
    assert scores.requires_grad
    assert scores.detach().numpy() == pytest.approx(
        reward(image=list(pixels.detach()), prompt=PROMPTS).rewards, rel=1e-5, abs=1e-5
    )


@pytest.mark.parametrize("size", [64, 90])
def test_gradient_is_that_of_finite_differences(reward: ImageReward, size: int) -> None:
    """Through resize, crop and network: along the gradient, by central differences; and a step that way helps."""
    pixels = noise(2, size).requires_grad_()
    scores = reward.forward(pixels, PROMPTS[:2])
    (gradient,) = torch.autograd.grad(scores.sum(), pixels)
    norm = float(gradient.norm())
    step = 0.05 * gradient / norm
    after, before = (float(reward.forward(pixels.detach() + sign * step, PROMPTS[:2]).sum()) for sign in (1, -1))
    assert (after - before) / 0.1 == pytest.approx(norm, rel=0.02)
    assert after > float(scores.detach().sum()) > before
    assert all(float(row.norm()) > 0 for row in gradient)


def test_recomputed_activations_give_the_same_gradients(parameters: dict[str, Any], reward: ImageReward) -> None:
    """Through the loss that ReFL minimises, image by image or all at once."""
    found: list[torch.Tensor] = []
    for other in (
        reward,
        ImageReward(activation_checkpointing=True, **parameters),
        ImageReward(batch_size=1, **parameters),
    ):
        pixels = noise(3).requires_grad_()
        found += torch.autograd.grad(other.loss(pixels, PROMPTS, kind="hinge", target=2.0), pixels)
    assert found[0].equal(found[1])
    assert torch.allclose(found[0], found[2], rtol=1e-4, atol=1e-8)
    assert found[0].abs().max() > 0


def test_weights_get_no_gradient(parameters: dict[str, Any]) -> None:
    """Also where they were read within a caller's inference mode."""
    reward = ImageReward(batch_size=5, **parameters)
    with torch.inference_mode():
        reward(image=list(noise(1)), prompt=PROMPTS[:1])
    pixels = noise(1).requires_grad_()
    (gradient,) = torch.autograd.grad(reward.forward(pixels, PROMPTS[:1]).sum(), pixels)
    assert gradient.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in reward.model.network.parameters())


@pytest.mark.parametrize(
    ("pixels", "prompts", "message"),
    [
        (torch.zeros(1, 3, 64, 64), None, "reads images with their prompts"),
        (torch.zeros(2, 3, 64, 64), ["a cat"], "one for each of the 2 images, found 1"),
        (torch.zeros(3, 64, 64), ["a cat"], r"expected \(N, 3, H, W\)"),
        (torch.full((1, 3, 64, 64), -1.0), ["a cat"], r"expected pixels in \[0, 1\]"),
    ],
)
def test_what_forward_refuses(
    reward: ImageReward, pixels: torch.Tensor, prompts: list[str] | None, message: str
) -> None:
    """By field, before anything is computed."""
    with pytest.raises(InputError, match=message):
        reward.forward(pixels, prompts)


def test_a_sample_without_a_prompt_is_named(reward: ImageReward) -> None:
    """The model cannot judge an image alone."""
    with pytest.raises(InputError, match="'ImageReward', sample 1, field 'prompt'"):
        reward([Sample("a cat", image=noise(1)[0]), Sample(image=noise(1)[0])])


def test_impossible_parameters() -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=r"scaling must be one of raw, unit, found 'units'.*did you mean 'unit'"):
        ImageReward(scaling="units")


def test_a_folder_without_the_files_says_so(tmp_path: Path) -> None:
    """At the first call, not before."""
    reward = ImageReward(str(tmp_path), device="cpu")
    with pytest.raises(WeightsError, match=r"holds no ImageReward\.pt; it holds nothing"):
        reward(image=list(noise(1)), prompt=["a cat"])


def test_files_to_fetch() -> None:
    """Three, of two repositories; nothing is read to tell."""
    found = [(part.source, part.file, part.revision) for part in ImageReward(model_revision="v1").checkpoints()]
    assert found == [
        ("THUDM/ImageReward", "ImageReward.pt", "v1"),
        ("THUDM/ImageReward", "med_config.json", "v1"),
        ("google-bert/bert-base-uncased", "tokenizer.json", None),
    ]


def test_travels_without_its_weights(reward: ImageReward) -> None:
    """Pickles small, and shares the weights again where they are held."""
    reward.load()
    pickled = pickle.dumps(reward)
    assert len(pickled) < 10_000
    other = pickle.loads(pickled)
    assert other == reward
    assert other.model is reward.model


def test_keeps_the_contract(tmp_path: Path) -> None:
    """All checks of `flux_rewards.testing`."""
    for check in reward_checks(ImageReward(**config(tmp_path))):
        check()
