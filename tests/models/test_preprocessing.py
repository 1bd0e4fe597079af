"""Pixels on their way into a model: against PIL, transformers, torchvision and open_clip."""

from pathlib import Path
from typing import Any

import numpy as np
import open_clip.transform
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image
from transformers import BitImageProcessorPil, CLIPImageProcessorPil, ViTImageProcessorPil

from flux_rewards.errors import WeightsError
from flux_rewards.media import to_pixels, to_tensor
from flux_rewards.models.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing

IMAGES = sorted((Path(__file__).parents[1] / "data" / "images").glob("*.jpg"))
SIZES = [(512, 512), (640, 360), (300, 511), (231, 224), (150, 97)]  # width and height; the last is scaled up
CPU = torch.device("cpu")
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def photographs() -> list[Image.Image]:
    """Real images, at five sizes and ratios."""
    found = [Image.open(path).convert("RGB") for path in IMAGES]
    return [found[number % len(found)].resize(size, Image.Resampling.LANCZOS) for number, size in enumerate(SIZES * 2)]


def by_pil(image: Image.Image, resize: str) -> np.ndarray[Any, Any]:
    """The definition, in PIL: levels of (224, 224, 3)."""
    width, height = image.size
    if resize == "squash":
        return np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))
    if resize == "shortest":
        size = (int(224 * width / height), 224) if height <= width else (224, int(224 * height / width))
        scaled = image.resize(size, Image.Resampling.BICUBIC)
        left, top = round((scaled.width - 224) / 2), round((scaled.height - 224) / 2)
        return np.asarray(scaled.crop((left, top, left + 224, top + 224)))
    scale = 224 / max(width, height)
    scaled = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (224, 224))
    canvas.paste(scaled, ((224 - scaled.width) // 2, (224 - scaled.height) // 2))
    return np.asarray(canvas)


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("number", range(10))
def test_pixels_are_those_of_pil(number: int, resize: str) -> None:
    """Hardly one of them a level apart, at five sizes and ratios."""
    image = photographs()[number]
    ours = Preprocessing((224, 224), resize, **PLAIN)([to_pixels(image)], CPU)[0].permute(1, 2, 0).numpy() * 255
    difference = np.abs(ours - by_pil(image, resize).astype(float))
    assert difference.mean() < 0.01
    assert difference.max() <= 2.0


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("number", range(10))
def test_float_pixels_are_those_of_pil_without_its_rounding(number: int, resize: str) -> None:
    """Within half a level on average, two at most, and with no bias."""
    image = photographs()[number]
    ours = Preprocessing((224, 224), resize, **PLAIN)([to_tensor(image)], CPU)[0].permute(1, 2, 0).numpy() * 255
    difference = ours - by_pil(image, resize).astype(float)
    assert np.abs(difference).mean() < 0.5
    assert abs(difference.mean()) < 0.05
    assert np.abs(difference).max() <= 2.0


@pytest.mark.parametrize("size", [(512, 512), (517, 512), (300, 511), (225, 228), (98, 150)])
def test_a_transformers_checkpoint_is_prepared_as_transformers_does(size: tuple[int, int], tmp_path: Path) -> None:
    """Its own processor on PIL, crop offsets of odd excesses included."""
    theirs = CLIPImageProcessorPil()
    theirs.save_pretrained(tmp_path)
    image = photographs()[0].resize(size, Image.Resampling.LANCZOS)
    expected = theirs(images=image, return_tensors="pt")["pixel_values"][0]
    ours = Preprocessing.of_transformers(tmp_path)([to_pixels(image)], CPU)[0]
    std = torch.tensor(CLIP_STD).view(3, 1, 1)
    assert ((ours - expected) * std * 255).abs().max() < 1.2


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        (BitImageProcessorPil, {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}),
        (ViTImageProcessorPil, {"size": {"height": 224, "width": 224}, "resample": 2}),
        (ViTImageProcessorPil, {"size": {"height": 192, "width": 224}, "resample": 3}),
    ],
)
def test_dino_checkpoints_are_prepared_as_transformers_does(processor: Any, options: Any, tmp_path: Path) -> None:
    """An edge beyond the crop, both sides squashed, bilinear."""
    theirs = processor(**options)
    theirs.save_pretrained(tmp_path)
    for image in photographs()[:5]:
        expected = theirs(images=image, return_tensors="pt")["pixel_values"][0]
        ours = Preprocessing.of_transformers(tmp_path)([to_pixels(image)], CPU)[0]
        assert ours.shape == expected.shape
        assert ((ours - expected) * torch.tensor(theirs.image_std).view(3, 1, 1) * 255).abs().max() <= 2.0


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(517, 512), (300, 511), (227, 224), (98, 150)])
def test_an_open_clip_checkpoint_is_prepared_as_open_clip_does(mode: str, size: tuple[int, int]) -> None:
    """Its own transform, with a gray padding."""
    config = {"size": 224, "resize_mode": mode, "fill_color": 102}
    theirs = open_clip.transform.image_transform(
        224, is_train=False, mean=CLIP_MEAN, std=CLIP_STD, resize_mode=mode, fill_color=102
    )
    image = photographs()[0].resize(size, Image.Resampling.LANCZOS)
    ours = Preprocessing.of_open_clip(config, image_size=224)([to_pixels(image)], CPU)[0]
    std = torch.tensor(CLIP_STD).view(3, 1, 1)
    assert ((ours - theirs(image)) * std * 255).abs().max() <= 2.0


def test_hps_pixels_are_those_of_the_official_transform() -> None:
    """A tensor first, then the longer side to 224 and black around it: values beyond [0, 1] stay."""
    for image in photographs():
        pixels = to_tensor(image)
        scale = 224 / max(pixels.shape[-2:])
        scaled = tv.resize(pixels, [round(side * scale) for side in pixels.shape[-2:]], tv.InterpolationMode.BICUBIC)
        down, right = 224 - scaled.shape[-2], 224 - scaled.shape[-1]
        padded = tv.pad(scaled, [right // 2, down // 2, right - right // 2, down - down // 2], fill=0)
        ours = Preprocessing((224, 224), "longest", eight_bit=False, **PLAIN)([to_pixels(image)], CPU)[0]
        assert torch.allclose(ours, padded, atol=1e-5)


def test_an_image_is_prepared_alike_from_pil_and_from_levels() -> None:
    """Bit for bit; a float tensor of the same pixels is not rounded between, and differs by less than a level or so."""
    image = photographs()[1]
    prepare = Preprocessing((224, 224), **PLAIN)
    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    from_pil, from_levels, from_rows, from_floats = (
        prepare([pixels], CPU) for pixels in (to_pixels(image), levels, levels.contiguous(), to_tensor(image))
    )
    assert to_pixels(image).dtype == torch.uint8
    assert torch.equal(from_pil, from_levels)
    assert torch.equal(from_pil, from_rows)
    assert (from_pil - from_floats).abs().mean() * 255 < 0.5
    assert (from_pil - from_floats).abs().max() * 255 < 2.0


def test_images_of_many_sizes_keep_their_order() -> None:
    """Those of one size travel together, and come back where they were."""
    images = [to_pixels(image) for image in photographs()]
    prepare = Preprocessing((224, 224))
    together = prepare(images, CPU)
    assert together.shape == (10, 3, 224, 224)
    for row, image in enumerate(images):
        assert torch.allclose(together[row], prepare([image], CPU)[0], atol=1e-6)


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_the_gradient_is_that_of_finite_differences(resize: str) -> None:
    """Through resize, clamp, crop, padding and normalisation."""
    torch.manual_seed(0)
    pixels = torch.rand(1, 3, 9, 7, dtype=torch.float64).mul(0.6).add(0.2)
    prepare = Preprocessing((4, 4), resize)
    weights = torch.rand(1, 3, 4, 4)
    leaf = pixels.float().requires_grad_()
    (prepare(leaf, CPU) * weights).sum().backward()
    step = 1e-2
    for place in [(0, 0, 4, 3), (0, 1, 3, 2), (0, 2, 8, 6)]:
        up, down = pixels.float(), pixels.float()
        up[place] += step
        down[place] -= step
        rise = ((prepare(up, CPU) - prepare(down, CPU)) * weights).sum() / (2 * step)
        assert leaf.grad is not None
        assert leaf.grad[place].item() == pytest.approx(rise.item(), abs=2e-3)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"size": {"longest_edge": 224}}, "longest_edge"),
        ({"size": {"shortest_edge": 224}, "do_center_crop": False}, "does not crop"),
        ({"size": {"height": 8, "width": 8}, "resample": 1}, "resample 1"),
        ({"size": {"height": 8, "width": 8}, "do_resize": False}, "do_resize"),
    ],
)
def test_what_is_not_known_is_refused(config: Any, named: str, tmp_path: Path) -> None:
    """Rather than prepared in some other way."""
    import json

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=named):
        Preprocessing.of_transformers(tmp_path)


def test_a_checkpoint_without_preprocessing_is_refused(tmp_path: Path) -> None:
    """It belongs to the weights."""
    with pytest.raises(WeightsError, match="preprocessor_config"):
        Preprocessing.of_transformers(tmp_path)
    with pytest.raises(WeightsError, match="wide"):
        Preprocessing.of_open_clip({"resize_mode": "wide"}, image_size=224)
