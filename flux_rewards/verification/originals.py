"""The original computations, one image at a time on PIL, with none of our preprocessing and none of our encoders."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import torch

    from flux_rewards.rewards.image.aesthetic import AestheticScore
    from flux_rewards.rewards.image.clip_score import CLIPScore
    from flux_rewards.rewards.image.hps import HPSv2
    from flux_rewards.rewards.image.image_reward import ImageReward
    from flux_rewards.rewards.image.pick_score import PickScore
    from flux_rewards.rewards.image.vqa_score import VQAScore

__all__ = [
    "aesthetic_recipe",
    "clip_cosines",
    "clip_logits",
    "hps_package",
    "hps_recipe",
    "image_reward_package",
    "vqa_recipe",
]


def clip_logits(reward: PickScore, paths: Sequence[Path], prompt: str) -> list[float]:
    """``exp(logit_scale) * cosine``, as the README of PickScore computes it."""
    weights, processor = reward.checkpoints()
    return _clip(weights.path(), processor.path(), paths, prompt, scaled=True)


def clip_cosines(reward: CLIPScore, paths: Sequence[Path], prompt: str) -> list[float]:
    """Cosines of a checkpoint in transformers' format."""
    (checkpoint,) = reward.checkpoints()
    return _clip(checkpoint.path(), checkpoint.path(), paths, prompt, scaled=False)


def _clip(model_path: Path, processor_path: Path, paths: Sequence[Path], prompt: str, *, scaled: bool) -> list[float]:
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer  # noqa: PLC0415

    model = CLIPModel.from_pretrained(model_path).eval()
    prepare = CLIPImageProcessorPil.from_pretrained(processor_path)
    tokens = CLIPTokenizer.from_pretrained(processor_path)(
        [prompt], padding=True, truncation=True, max_length=77, return_tensors="pt"
    )
    scores = []
    for image in _images(paths):
        logit = _without_gradient(model, **prepare(images=image, return_tensors="pt"), **tokens).logits_per_image
        scores.append(float(logit) if scaled else float(logit / model.logit_scale.detach().exp()))
    return scores


def aesthetic_recipe(reward: AestheticScore, paths: Sequence[Path], prompt: str) -> list[float]:  # noqa: ARG001
    """The head's matrices, one after the other, on transformers' unit features."""
    import torch  # noqa: PLC0415
    from transformers import CLIPImageProcessorPil, CLIPModel  # noqa: PLC0415

    checkpoint, head = reward.checkpoints()
    model = CLIPModel.from_pretrained(checkpoint.path()).eval()
    prepare = CLIPImageProcessorPil.from_pretrained(checkpoint.path())
    state = torch.load(head.path(), map_location="cpu", weights_only=True)
    scores = []
    for image in _images(paths):
        pixels = prepare(images=image, return_tensors="pt")["pixel_values"]
        found = _without_gradient(model.get_image_features, pixel_values=pixels)
        value = getattr(found, "pooler_output", found)[0]
        value = value / value.norm()
        for layer in (0, 2, 4, 6, 7):
            value = state[f"layers.{layer}.weight"].float() @ value + state[f"layers.{layer}.bias"].float()
        scores.append(float(value))
    return scores


def hps_recipe(reward: HPSv2, paths: Sequence[Path], prompt: str) -> list[float]:
    """open_clip's model and tokenizer; torchvision's resize of the longer side, padding and normalisation."""
    import open_clip  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import torchvision.transforms.v2.functional as tv  # noqa: PLC0415
    from open_clip.model import CLIP  # noqa: PLC0415

    from flux_rewards.models.open_clip_model import open_clip_architecture  # noqa: PLC0415
    from flux_rewards.models.weights import blank  # noqa: PLC0415

    architecture = open_clip_architecture(reward.architecture)
    with blank():
        model = CLIP(**architecture)
    (checkpoint,) = reward.checkpoints()
    state = torch.load(checkpoint.path(), map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict(state, strict=True)
    model.eval()
    side = architecture["vision_cfg"]["image_size"]
    scores = []
    for image in _images(paths):
        pixels = tv.to_dtype(tv.pil_to_tensor(image), torch.float32, scale=True)
        factor = side / max(image.size)
        scaled = tv.resize(pixels, [round(s * factor) for s in pixels.shape[1:]], tv.InterpolationMode.BICUBIC)
        down, right = side - scaled.shape[1], side - scaled.shape[2]
        square = tv.pad(scaled, [right // 2, down // 2, right - right // 2, down - down // 2])
        square = tv.normalize(square, list(open_clip.OPENAI_DATASET_MEAN), list(open_clip.OPENAI_DATASET_STD))
        features = _without_gradient(model.encode_image, square[None], normalize=True)
        text = _without_gradient(model.encode_text, open_clip.tokenize([prompt]), normalize=True)
        scores.append(float((features * text).sum()))
    return scores


def hps_package(reward: HPSv2, paths: Sequence[Path], prompt: str) -> list[float]:
    """The official package's `score`."""
    import hpsv2  # type: ignore[import-not-found]  # noqa: PLC0415

    with _quiet():
        return [float(score) for score in hpsv2.score([*map(str, paths)], prompt, hps_version=f"v{reward.version}")]


def image_reward_package(reward: ImageReward, paths: Sequence[Path], prompt: str) -> list[float]:  # noqa: ARG001
    """The official package's `score`."""
    import ImageReward as Official  # type: ignore[import-not-found]  # noqa: PLC0415

    with _quiet():
        model = Official.load("ImageReward-v1.0", device="cpu")
        return [float(score) for score in model.score(prompt, [*map(str, paths)])]


def vqa_recipe(reward: VQAScore, paths: Sequence[Path], prompt: str) -> list[float]:
    """The probability of the answer after the chat template, with transformers' own processor."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415

    path = reward.checkpoints()[0].path()
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=getattr(torch, reward.dtype)).eval()
    processor = AutoProcessor.from_pretrained(path)
    (answer,) = processor.tokenizer(reward.answer, add_special_tokens=False)["input_ids"]
    question = reward.question.replace("{prompt}", prompt)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    scores = []
    for image in _images(paths):
        inputs = processor(text=[chat], images=[image], return_tensors="pt")
        logits = _without_gradient(model, **inputs).logits[0, -1].float()
        scores.append(float(logits.softmax(dim=-1)[answer]))
    return scores


def _images(paths: Sequence[Path]) -> Iterator[Image.Image]:
    for path in paths:
        with Image.open(path) as image:
            yield image.convert("RGB")


def _without_gradient(call: Any, *args: torch.Tensor, **options: Any) -> Any:
    import torch  # noqa: PLC0415

    with torch.no_grad():
        return call(*args, **options)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """These packages print as they work."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
