"""Registered rewards that need weights, with tiny ones: what their configuration says beside the name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_clip
import tiny_faces
import tiny_image_reward
import tiny_ocr
import tiny_text_models
import tiny_vlm


def _clip(folder: Path) -> dict[str, Any]:
    return {"model_name_or_path": str(tiny_clip.transformers_clip(folder))}


def _pick_score(folder: Path) -> dict[str, Any]:
    path = str(tiny_clip.transformers_clip(folder))
    return {"model_name_or_path": path, "processor_name_or_path": path}


def _aesthetic(folder: Path) -> dict[str, Any]:
    return {**_clip(folder), "head": str(tiny_clip.aesthetic_head(folder))}


def _hps(folder: Path) -> dict[str, Any]:
    path = tiny_clip.hps(folder)
    return {"model_name_or_path": str(path), "architecture": str(path / "architecture.json")}


def _dino(folder: Path) -> dict[str, Any]:
    return {"model_name_or_path": str(tiny_clip.dino(folder, "vit"))}


CONFIGS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "PickScore": _pick_score,
    "PickScore_Rank": _pick_score,
    "CLIP": _clip,
    "HPSv2": _hps,
    "aesthetic_score": _aesthetic,
    "ImageReward": tiny_image_reward.config,
    "vqa_score": tiny_vlm.config,
    "image_similarity": _dino,
    "frame_consistency": _dino,
    "face_similarity": tiny_faces.config,
    "ocr": tiny_ocr.config,
    "reward_model": tiny_text_models.reward_model_config,
    "classifier": tiny_text_models.classifier_config,
    "sentiment": tiny_text_models.sentiment_config,
    "process_reward": tiny_text_models.process_config,
    "generative_score": tiny_text_models.generative_config,
}
"""By registered name; the function writes what is needed into a folder."""
