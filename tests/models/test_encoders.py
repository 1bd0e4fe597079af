"""Dual encoders and vision transformers: against transformers and open_clip themselves, on the same tiny weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tiny_clip
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from flux_rewards import WeightsError
from flux_rewards.media import to_pixels
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.open_clip_model import open_clip_architecture, open_open_clip
from flux_rewards.models.opening import open_dual_encoder, open_image_encoder
from flux_rewards.models.preprocessing import Preprocessing
from flux_rewards.models.transformers_clip import open_transformers_clip

IMAGES = sorted((Path(__file__).parents[1] / "data" / "images").glob("*.jpg"))
TEXTS = ["a photo of the cat", "red chair", "a photo of the cat", "ocean wave under blue sky " * 20, ""]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.transformers_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.open_clip_folder(tmp_path_factory.mktemp("open_clip"))


def photographs(size: tuple[int, int] | None = None) -> list[Image.Image]:
    images = [Image.open(path).convert("RGB") for path in IMAGES[:5]]
    return images if size is None else [image.resize(size) for image in images]


def unit(features: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = features / features.norm(dim=-1, keepdim=True)
    return found


def test_features_are_those_of_transformers(clip: Path) -> None:
    """Its processor on PIL images, its model, one sample at a time."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(clip).eval()
    processor, tokenizer = CLIPImageProcessorPil.from_pretrained(clip), CLIPTokenizer.from_pretrained(clip)
    ours = open_dual_encoder(str(clip), None, device="cpu", dtype="float32")
    images = photographs()
    with torch.no_grad():
        for image, feature in zip(images, ours.features([to_pixels(image) for image in images]), strict=True):
            pixels = processor(images=image, return_tensors="pt")["pixel_values"]
            expected = unit(model.get_image_features(pixel_values=pixels).pooler_output)[0]
            assert float(feature @ expected) == pytest.approx(1.0, abs=1e-4)
        for text, encoded in zip(TEXTS, ours.texts(TEXTS), strict=True):
            tokens = tokenizer([text], truncation=True, max_length=77, return_tensors="pt")
            expected = unit(model.get_text_features(**tokens).pooler_output)[0]
            assert torch.allclose(encoded.feature, expected, atol=1e-5)
    assert ours.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_features_are_those_of_open_clip(open_clip_folder: Path) -> None:
    """Its own factory, transform and tokenizer, one sample at a time."""
    name = f"local-dir:{open_clip_folder}"
    model, transform = open_clip.create_model_from_pretrained(name)
    tokenizer = open_clip.get_tokenizer(name)
    ours = open_dual_encoder(str(open_clip_folder), None, device="cpu", dtype="float32")
    images = photographs()
    model.eval()
    with torch.no_grad():
        for image, feature in zip(images, ours.features([to_pixels(image) for image in images]), strict=True):
            expected = model.encode_image(transform(image)[None], normalize=True)[0]
            assert float(feature @ expected) == pytest.approx(1.0, abs=1e-4)
        for text, encoded in zip(TEXTS, ours.texts(TEXTS), strict=True):
            assert torch.allclose(encoded.feature, model.encode_text(tokenizer([text]), normalize=True)[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_features_of_a_vision_transformer_are_those_of_its_class_token(kind: str, tmp_path: Path) -> None:
    """DINO's first version and its second."""
    from transformers import AutoModel

    folder = tiny_clip.dino(tmp_path, kind)
    ours = open_image_encoder(str(folder), None, device="cpu", dtype="float32")
    options = {"add_pooling_layer": False} if kind == "vit" else {}
    theirs = AutoModel.from_pretrained(folder, **options).eval()
    pixels = [to_pixels(image) for image in photographs()]
    with torch.no_grad():
        prepared = ours.preprocessing(pixels, torch.device("cpu"))
        expected = unit(theirs(pixel_values=prepared).last_hidden_state[:, 0])
    assert torch.allclose(ours.features(pixels), expected, atol=1e-5)
    assert ours.width == expected.shape[1]


def test_tokens_that_do_not_fit_are_counted(clip: Path, open_clip_folder: Path) -> None:
    """Of 77, two are marks; a text of exactly 75 fits."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(clip)
    one = next(word for word in ("cat", "the", "a") if len(tokenizer.tokenize(word)) == 1)
    texts = [" ".join([one] * count) for count in (1, 75, 76, 100)]
    ours = open_dual_encoder(str(clip), None, device="cpu", dtype="float32")
    assert [text.tokens_cut for text in ours.texts(texts)] == [0, 0, 1, 25]
    theirs = open_dual_encoder(str(open_clip_folder), None, device="cpu", dtype="float32")
    assert [text.tokens_cut for text in theirs.texts(["cat " * count for count in (1, 75, 76, 100)])] == [0, 0, 1, 25]


def test_each_distinct_text_is_encoded_once_and_kept(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a call, and across calls."""
    ours = open_dual_encoder(str(clip), None, device="cpu", dtype="float32")
    encoded: list[int] = []
    tower = type(ours).text_tower

    def counting(self: Any, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        encoded.append(len(tokens["input_ids"]))
        return tower(self, tokens)

    monkeypatch.setattr(type(ours), "text_tower", counting)
    texts = [f"cat number {number}" for number in range(3)]
    first = ours.texts(texts * 5)
    second = ours.texts([*texts, "dog number 1"])
    assert encoded == [3, 1]
    assert all(torch.equal(one.feature, other.feature) for one, other in zip(first[:3], second[:3], strict=True))


def test_the_kept_texts_have_a_limit(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used go first, and a call larger than the limit is answered whole."""
    monkeypatch.setattr("flux_rewards.models.dual_encoder._KEPT_TEXTS", 2)
    ours = open_dual_encoder(str(clip), None, device="cpu", dtype="float32")
    ours._texts.clear()
    assert len(ours.texts(["cat", "dog", "tree"])) == 3
    assert list(ours._texts) == ["dog", "tree"]
    ours.texts(["dog"])
    ours.texts(["house"])
    assert list(ours._texts) == ["dog", "house"]


def test_one_checkpoint_is_one_model(clip: Path) -> None:
    """Whoever names it; another precision is another one."""
    one, other = (open_dual_encoder(str(clip), None, device="cpu", dtype="float32") for _ in range(2))
    image = open_image_encoder(str(clip), None, device="cpu", dtype="float32")
    assert one is other is image
    assert open_dual_encoder(str(clip), None, device="cpu", dtype="bfloat16") is not one


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(clip: Path, dtype: str) -> None:
    """Weights are held in it, features are float32."""
    full = open_dual_encoder(str(clip), None, device="cpu", dtype="float32")
    half = open_dual_encoder(str(clip), None, device="cpu", dtype=dtype)
    assert half.module.visual_projection.weight.dtype == getattr(torch, dtype)  # type: ignore[union-attr]
    pixels = [to_pixels(image) for image in photographs()]
    found, expected = half.features(pixels), full.features(pixels)
    assert found.dtype == torch.float32
    assert ((found * expected).sum(dim=-1) > 0.995).all()
    assert np.allclose(found.norm(dim=-1), 1.0, atol=1e-5)


def test_a_model_opened_and_used_in_inference_mode_still_gives_gradients(tmp_path: Path) -> None:
    """Nothing that is kept is an inference tensor."""
    folder = tiny_clip.transformers_clip(tmp_path)
    with torch.inference_mode():
        ours = open_dual_encoder(str(folder), None, device="cpu", dtype="float32")
        (text,) = ours.texts(["cat"])
    pixels = torch.rand(1, 3, 40, 40, requires_grad=True)
    (ours.encode(pixels) @ text.feature).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_activation_checkpointing_gives_the_same_gradient(clip: Path) -> None:
    """Activations are made again, and come out alike."""
    ours = open_dual_encoder(str(clip), None, device="cpu", dtype="float32")
    found = []
    for checkpointing in (False, True):
        pixels = torch.linspace(0, 1, 2 * 3 * 40 * 40).view(2, 3, 40, 40).requires_grad_()
        ours.encode(pixels, checkpointing=checkpointing).square().mul(torch.arange(16.0)).sum().backward()
        found.append(pixels.grad)
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].abs().max() > 0
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("visual_projection.weight"), "missing visual_projection.weight"),
        (lambda state: state.update({"extra.weight": torch.ones(1)}), "unexpected extra.weight"),
        (
            lambda state: state.update({"visual_projection.weight": torch.ones(3, 32)}),
            r"misshaped visual_projection.weight \(3, 32\) for \(16, 32\)",
        ),
    ],
)
def test_a_transformers_checkpoint_that_does_not_fit_is_refused(change: Any, named: str, tmp_path: Path) -> None:
    """By the names of what is wrong: a model without its weights must not exist."""
    folder = tiny_clip.transformers_clip(tmp_path)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=named):
        open_dual_encoder(str(folder), None, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("visual.proj"), "missing visual.proj"),
        (lambda state: state.update({"visual.extra": torch.ones(1)}), "unexpected visual.extra"),
        (lambda state: state.update({"visual.proj": torch.ones(3, 3)}), r"misshaped visual.proj \(3, 3\)"),
    ],
)
def test_an_open_clip_checkpoint_that_does_not_fit_is_refused(change: Any, named: str, tmp_path: Path) -> None:
    """By the names of what is wrong."""
    folder = tiny_clip.open_clip_folder(tmp_path)
    state = load_file(folder / "open_clip_model.safetensors")
    change(state)
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(WeightsError, match=named):
        open_dual_encoder(str(folder), None, device="cpu", dtype="float32")


def test_other_kinds_of_models_are_refused(tmp_path: Path, clip: Path) -> None:
    """SigLIP would need another padding and a bias; a text model has no images."""
    config = json.loads((clip / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(WeightsError, match="known are clip"):
        open_image_encoder(str(tmp_path), None, device="cpu", dtype="float32")
    dino = tiny_clip.dino(tmp_path / "dino", "vit")
    with pytest.raises(WeightsError, match="expected a CLIPModel"):
        open_dual_encoder(str(dino), None, device="cpu", dtype="float32")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="neither config"):
        open_dual_encoder(str(tmp_path / "empty"), None, device="cpu", dtype="float32")


def test_the_real_hps_checkpoint_fits_the_architecture() -> None:
    """Names and shapes of ViT-H/14, as the published files hold them, without its four gigabytes."""
    from open_clip.model import CLIP

    with torch.device("meta"):
        state = CLIP(**open_clip_architecture("ViT-H-14")).state_dict()
    # ViT-H/14: 32 blocks of 1280, 257 positions; text: 24 blocks of 1024, 77 positions, 49,408 tokens.
    assert state["visual.proj"].shape == (1280, 1024)
    assert state["visual.positional_embedding"].shape == (257, 1280)
    assert state["visual.conv1.weight"].shape == (1280, 3, 14, 14)
    assert state["visual.transformer.resblocks.31.attn.in_proj_weight"].shape == (3840, 1280)
    assert state["transformer.resblocks.23.mlp.c_fc.weight"].shape == (4096, 1024)
    assert state["token_embedding.weight"].shape == (49408, 1024)
    assert state["positional_embedding"].shape == (77, 1024)
    assert state["text_projection"].shape == (1024, 1024)
    assert state["logit_scale"].shape == ()
    blocks = 12  # two norms, two projections of the attention, two of the MLP, each with weight and bias
    outside = 5 + 2 + 2 + 1 + 5  # of the vision tower, its norms; of the text tower; the scale
    assert len(state) == 32 * blocks + 24 * blocks + len([name for name in state if ".resblocks." not in name])
    assert len([name for name in state if ".resblocks." not in name]) <= outside


def test_a_checkpoint_under_a_key_is_read(tmp_path: Path) -> None:
    """As HPSv2's files have it; without the key the error says what is there."""
    torch.save({"epoch": 1, "state_dict": tiny_clip.open_clip_state()}, tmp_path / "weights.pt")
    architecture = tiny_clip.open_clip_architecture()
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
    file = Checkpoint(str(tmp_path / "weights.pt"))
    assert open_open_clip(file, architecture, Preprocessing((32, 32)), under="state_dict", **options).width == 16
    with pytest.raises(WeightsError, match="no entry 'model'"):
        open_open_clip(file, architecture, Preprocessing((32, 32)), under="model", **options)


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    """A trainer's seeds mean the same with and without rewards."""
    folders = tiny_clip.transformers_clip(tmp_path / "a"), tiny_clip.open_clip_folder(tmp_path / "b")
    before = torch.get_rng_state()
    for folder in folders:
        open_dual_encoder(str(folder), None, device="cpu", dtype="float32")
    checkpoint = Checkpoint(str(folders[0]))
    open_transformers_clip(checkpoint, checkpoint, device="cpu", dtype="bfloat16")
    assert torch.equal(torch.get_rng_state(), before)
