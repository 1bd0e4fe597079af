"""CLIP-like rewards against their published definitions, written naively on PIL, one sample at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image

from flux_rewards import (
    AestheticScore,
    CLIPScore,
    ConfigError,
    HPSv2,
    ImageSimilarity,
    InputError,
    PickScore,
    RewardFunction,
    WeightsError,
)

IMAGES = sorted((Path(__file__).parents[2] / "data" / "images").glob("*.jpg"))
SIZES = [(512, 512), (640, 360), (300, 511), (231, 224), (150, 97)]
PROMPTS = ["The brown dog chases the black dog.", "Two cats sit at the window.", "a photo of the ocean", "red", ""]
RAW = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tiny checkpoint that the tests below need."""
    found = tmp_path_factory.mktemp("checkpoints")
    tiny_clip.transformers_clip(found / "clip", size=224, patch_size=32)
    tiny_clip.hps(found / "hps")
    tiny_clip.hps(found / "hps", file="HPS_v2_compressed.pt")
    tiny_clip.dino(found / "dino", "vit")
    tiny_clip.aesthetic_head(found / "aesthetic")
    return found


def photographs() -> list[Image.Image]:
    return [Image.open(path).convert("RGB").resize(size) for path, size in zip(IMAGES, SIZES, strict=False)]


def features_by_definition(folder: Path, image: Image.Image, text: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Of one image and one text, by transformers' own processor, tokenizer and model; and the logit scale."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(images=image, return_tensors="pt")["pixel_values"]
    tokens = CLIPTokenizer.from_pretrained(folder)(
        text, padding=True, truncation=True, max_length=77, return_tensors="pt"
    )
    with torch.no_grad():
        i = model.get_image_features(pixel_values=pixels).pooler_output
        t = model.get_text_features(**tokens).pooler_output
        return i / i.norm(), t / t.norm(), float(model.logit_scale.exp())


def assert_near(found: Any, expected: list[float]) -> None:
    """To a thousandth of the largest: cosines of random weights may lie at 0."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.fixture(scope="module")
def clip_cosines(folder: Path) -> tuple[list[float], float]:
    found = [features_by_definition(folder / "clip", *pair) for pair in zip(photographs(), PROMPTS, strict=True)]
    return [float((i * t).sum()) for i, t, _ in found], found[0][2]


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("/26", lambda cosine, scale: scale * cosine / 26),
        ("raw", lambda cosine, scale: scale * cosine),
        ("cosine", lambda cosine, scale: cosine),
    ],
)
def test_pick_score(scaling: str, expected: Any, folder: Path, clip_cosines: tuple[list[float], float]) -> None:
    """To a thousandth of its size."""
    cosines, scale = clip_cosines
    path = str(folder / "clip")
    reward = PickScore(path, processor_name_or_path=path, scaling=scaling, device="cpu")
    found = reward(image=photographs(), prompt=PROMPTS).rewards
    assert_near(found, [expected(cosine, scale) for cosine in cosines])


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("cosine", lambda cosine, scale: cosine),
        ("logit", lambda cosine, scale: scale * cosine),
        ("clipscore", lambda cosine, scale: 2.5 * max(cosine, 0)),
    ],
)
def test_clip_score(scaling: str, expected: Any, folder: Path, clip_cosines: tuple[list[float], float]) -> None:
    """To a thousandth of its size."""
    cosines, scale = clip_cosines
    found = CLIPScore(str(folder / "clip"), scaling=scaling, device="cpu")(image=photographs(), prompt=PROMPTS).rewards
    assert_near(found, [expected(cosine, scale) for cosine in cosines])


def test_a_prefix_stands_in_front_of_the_prompt(folder: Path) -> None:
    """As in the original CLIPScore."""
    image = photographs()[0]
    i, t, _ = features_by_definition(folder / "clip", image, "A photo depicts red")
    reward = CLIPScore(str(folder / "clip"), prefix="A photo depicts ", device="cpu")
    assert reward(image=[image], prompt=["red"]).rewards[0] == pytest.approx(float((i * t).sum()), rel=1e-3)


@pytest.mark.parametrize("version", ["2.0", "2.1"])
@pytest.mark.parametrize(("scaling", "factor"), [("cosine", 1), ("x100", 100)])
def test_hps(version: str, scaling: str, factor: int, folder: Path) -> None:
    """To a thousandth: a tensor first, its longer side scaled, black around it; no logit scale."""
    import open_clip
    from open_clip.model import CLIP

    files = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}
    model = CLIP(**json.loads((folder / "hps" / "architecture.json").read_text()))
    state = torch.load(folder / "hps" / files[version], weights_only=True)
    model.load_state_dict(state["state_dict"], strict=True)
    model.eval()
    expected = []
    for image, prompt in zip(photographs(), PROMPTS, strict=True):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        scale = 32 / max(image.size)
        small = tv.resize(pixels, [round(side * scale) for side in pixels.shape[1:]], tv.InterpolationMode.BICUBIC)
        down, right = 32 - small.shape[1], 32 - small.shape[2]
        square = tv.pad(small, [right // 2, down // 2, right - right // 2, down - down // 2])
        with torch.no_grad():
            i = model.encode_image(tv.normalize(square, *map(list, RAW))[None], normalize=True)
            t = model.encode_text(open_clip.tokenize([prompt]), normalize=True)
        expected.append(factor * float((i @ t.T).diag()))
    architecture = str(folder / "hps" / "architecture.json")
    reward = HPSv2(version, model_name_or_path=str(folder / "hps"), architecture=architecture, scaling=scaling)
    found = reward(image=photographs(), prompt=PROMPTS).rewards
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * factor)


@pytest.mark.parametrize(("scaling", "factor"), [("raw", 1.0), ("/10", 0.1)])
def test_aesthetic_score(scaling: str, factor: float, folder: Path) -> None:
    """To a thousandth: five matrices, one after the other, on the unit feature."""
    head = folder / "aesthetic" / "sac+logos+ava1-l14-linearMSE.pth"
    state = {name: tensor.double().numpy() for name, tensor in torch.load(head, weights_only=True).items()}
    expected = []
    for image in photographs():
        value = features_by_definition(folder / "clip", image, "")[0][0].double().numpy()
        for layer in (0, 2, 4, 6, 7):
            value = state[f"layers.{layer}.weight"] @ value + state[f"layers.{layer}.bias"]
        expected.append(factor * float(value[0]))
    reward = AestheticScore(str(folder / "clip"), head=str(head), scaling=scaling)
    np.testing.assert_allclose(reward(image=photographs()).rewards, expected, rtol=1e-3, atol=1e-3 * factor)
    same = AestheticScore(str(folder / "clip"), head=str(head.parent), head_file=head.name, scaling=scaling)
    assert np.array_equal(same(image=photographs()).rewards, reward(image=photographs()).rewards)


def test_an_aesthetic_head_for_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    """Its width is that of CLIP ViT-L/14."""
    head = tiny_clip.aesthetic_head(tmp_path, width=768)
    with pytest.raises(WeightsError, match=r"layers.0.weight \(1024, 768\) for \(1024, 16\)"):
        AestheticScore(str(folder / "clip"), head=str(head))(image=photographs()[:1])


@pytest.mark.parametrize("reduce", ["mean", "max", "min", "first"])
def test_image_similarity_to_condition_images(reduce: str, folder: Path) -> None:
    """To a thousandth, with one to three images a sample."""
    images = photographs()
    given = [images[1:2], [images[2], images[0], images[3]], [images[4], images[1]]]
    expected = []
    for image, conditions in zip(images, given, strict=False):
        feature = features_by_definition(folder / "clip", image, "")[0]
        cosines = [float((feature * features_by_definition(folder / "clip", c, "")[0]).sum()) for c in conditions]
        fold: dict[str, Callable[[list[float]], Any]] = {
            "mean": np.mean,
            "max": max,
            "min": min,
            "first": lambda values: values[0],
        }
        expected.append(float(fold[reduce](cosines)))
    reward = ImageSimilarity(str(folder / "clip"), reduce=reduce)
    found = reward(image=images[:3], condition_images=given).rewards
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-4)


def test_image_similarity_to_a_reference_in_dino(folder: Path) -> None:
    """By transformers' own processor and model, the class token."""
    from transformers import ViTImageProcessorPil, ViTModel

    model = ViTModel.from_pretrained(folder / "dino", add_pooling_layer=False).eval()
    processor = ViTImageProcessorPil.from_pretrained(folder / "dino")
    images = photographs()
    with torch.no_grad():
        tokens = [model(**processor(images=image, return_tensors="pt")).last_hidden_state[0, 0] for image in images]
    expected = [float(torch.nn.functional.cosine_similarity(tokens[row], tokens[row - 1], dim=0)) for row in range(5)]
    reward = ImageSimilarity(str(folder / "dino"), against="reference")
    found = reward(image=images, reference=[images[row - 1] for row in range(5)]).rewards
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert reward(image=images[:1], reference=images[:1]).rewards[0] == pytest.approx(1.0, abs=1e-6)


def test_a_reference_that_is_no_image_names_its_sample(folder: Path) -> None:
    """As any other image would."""
    reward = ImageSimilarity(str(folder / "dino"), against="reference")
    with pytest.raises(InputError, match="sample 1, field 'reference'"):
        reward(image=photographs()[:2], reference=[photographs()[0], 4])
    with pytest.raises(InputError, match="one for each of the 2 images, found none"):
        reward.forward(torch.rand(2, 3, 8, 8))


def test_a_prompt_that_is_cut_says_so(folder: Path) -> None:
    """In its sample's metadata, and nobody else's; chat messages are prompts, too."""
    reward = CLIPScore(str(folder / "clip"))
    long = [{"role": "user", "content": "cat " * 90}]
    batch = reward(image=photographs()[:2], prompt=["cat", long])
    assert batch.metadata[0] == {}
    assert batch.metadata[1]["prompt_tokens_cut"] >= 15


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (PickScore, {"scaling": "26"}, "scaling"),
        (CLIPScore, {"scaling": "raw"}, "scaling"),
        (CLIPScore, {"prefix": 3}, "prefix"),
        (CLIPScore, {"dtype": "int8"}, "dtype"),
        (HPSv2, {"version": "3"}, "version"),
        (AestheticScore, {"scaling": "cosine"}, "scaling"),
        (ImageSimilarity, {"against": "prompt"}, "against"),
        (ImageSimilarity, {"reduce": "sum"}, "reduce"),
    ],
)
def test_a_wrong_argument_is_named_at_once(kind: Any, options: dict[str, Any], named: str) -> None:
    """Before any weights are looked for."""
    with pytest.raises(ConfigError, match=named):
        kind(**options)


def test_weights_that_are_nowhere_are_an_error_of_the_call(tmp_path: Path) -> None:
    """And of `load`."""
    reward = CLIPScore(str(tmp_path / "nowhere"))
    for call in (reward.load, lambda: reward(image=photographs()[:1], prompt=["a"])):
        with pytest.raises(ConfigError, match="neither a path that exists nor a hub id"):
            call()


def test_a_device_that_is_not_there_is_an_error(folder: Path) -> None:
    """With what torch sees."""
    with pytest.raises(ConfigError, match="there is no device"):
        CLIPScore(str(folder / "clip"), device="cuda:77").load()
    with pytest.raises(ConfigError, match="'cpu', 'cuda'"):
        CLIPScore(str(folder / "clip"), device="gpu").load()


def test_weights_leave_with_the_last_reward_that_holds_them(tmp_path: Path) -> None:
    """And come back with the next call."""
    import weakref

    path = str(tiny_clip.transformers_clip(tmp_path))
    one, other = (CLIPScore(path, name=name) for name in ("one", "other"))
    images, prompts = photographs()[:1], ["a"]
    expected = one(image=images, prompt=prompts).rewards
    other.load()
    model = weakref.ref(one.model)
    one.close()
    assert model() is other.model
    other.close()
    assert model() is None
    assert np.array_equal(one(image=images, prompt=prompts).rewards, expected)


def test_half_precision_still_tells_images_of_one_prompt_apart(folder: Path) -> None:
    """Cosines taken in bfloat16 would tie: its steps are 0.001 and more."""
    generator = np.random.default_rng(0)
    base = np.asarray(photographs()[0].resize((64, 64))).astype(int)
    images = [np.clip(base + generator.integers(-9, 10, base.shape), 0, 255).astype(np.uint8) for _ in range(16)]
    scores = CLIPScore(str(folder / "clip"), dtype="bf16")(image=images, prompt=["a cat"] * 16).rewards
    assert len(set(scores)) >= 14


def test_images_are_encoded_once_for_all_rewards_that_share_a_tower(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch; the next batch's are others."""
    from flux_rewards import CompositeReward
    from flux_rewards.models.transformers_clip import _TransformersClip

    seen: list[int] = []
    tower = _TransformersClip.tower

    def counting(self: Any, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return tower(self, pixels)

    monkeypatch.setattr(_TransformersClip, "tower", counting)
    path, head = str(folder / "clip"), str(folder / "aesthetic" / "sac+logos+ava1-l14-linearMSE.pth")
    clip = CLIPScore(path, batch_size=2)
    parts: list[RewardFunction] = [clip, AestheticScore(path, head=head), ImageSimilarity(path, against="reference")]
    images = photographs()
    apart = sum(part(image=images, prompt=PROMPTS, reference=images[::-1]).rewards for part in parts)
    seen.clear()
    composite = CompositeReward([(part, 1.0) for part in parts])
    batch = composite(image=images, prompt=PROMPTS, reference=images[::-1])
    assert sum(seen) == 5 + 5  # the images, and the references
    np.testing.assert_allclose(batch.rewards, apart, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        composite(image=images[::-1], prompt=PROMPTS, reference=images[::-1]).parts["CLIPScore"].rewards,
        clip(image=images[::-1], prompt=PROMPTS).rewards,
        rtol=1e-5,
        atol=1e-6,
    )
    assert sum(seen) == 10 + 10 + 5
