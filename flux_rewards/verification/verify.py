"""Scores of inputs that ship with the package, compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.config import load_rewards
from flux_rewards.errors import ConfigError, FluxRewardsError, brief, close_match
from flux_rewards.registry import resolve_reward
from flux_rewards.verification import originals

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction

__all__ = ["VERIFIABLE", "Comparison", "verify"]

_HERE = Path(__file__).parent
_SCALES = {"scaling", "scale", "clip", "prefix", "alternatives"}
_FLOAT32 = 1e-3  # of the largest score
_HALF = 2e-2


@dataclass(frozen=True)
class Comparison:
    """Our scores and theirs, image by image.

    Attributes:
        source: Whose they are.
        ours: Our scores.
        theirs: Theirs; empty where they could not be had.
        tolerance: How far apart they may be.
        reason: Why theirs could not be had.

    Examples:
        >>> Comparison("a paper", [0.5, 1.0], [0.5, 1.01], tolerance=0.1).agrees
        True
    """

    source: str
    ours: Sequence[float]
    theirs: Sequence[float]
    tolerance: float
    reason: str = ""

    @property
    def differences(self) -> list[float]:
        """Ours minus theirs."""
        return [ours - theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)] if self.theirs else []

    @property
    def agrees(self) -> bool | None:
        """Whether all are near enough; None where there was nothing to compare with."""
        return all(abs(apart) <= self.tolerance for apart in self.differences) if self.theirs else None


@dataclass(frozen=True)
class _Original:
    """Where the original scores of a reward come from.

    Attributes:
        parameters: Of ours, so that both are on one scale.
        score: Gives theirs from our reward, the paths of the images and the prompt.
        source: What `score` runs.
        package: What has to be installed for it, beside our own dependencies.
    """

    score: Callable[[Any, Sequence[Path], str], list[float]]
    source: str
    parameters: dict[str, Any] = field(default_factory=dict)
    package: str | None = None


_ORIGINALS: dict[str, list[_Original]] = {
    "PickScore": [_Original(originals.clip_logits, "transformers' CLIPModel and CLIPProcessor", {"scaling": "raw"})],
    "CLIP": [_Original(originals.clip_cosines, "transformers' CLIPModel and CLIPProcessor")],
    "HPSv2": [
        _Original(originals.hps_recipe, "open_clip's model, torchvision's transforms"),
        _Original(originals.hps_package, "the package hpsv2", package="hpsv2"),
    ],
    "aesthetic_score": [_Original(originals.aesthetic_recipe, "transformers' CLIPModel, and the head's matrices")],
    "ImageReward": [_Original(originals.image_reward_package, "the package image-reward", package="image-reward")],
    "vqa_score": [_Original(originals.vqa_recipe, "transformers' model and processor, one image at a time")],
}

VERIFIABLE = tuple(_ORIGINALS)
"""Registered names of the rewards that have something to be compared with."""


def verify(name: str, **parameters: Any) -> list[Comparison]:
    """Score the images that ship with the package, and compare with published scores and the original code.

    Args:
        name: One of `VERIFIABLE`, in any case.
        **parameters: Of the reward, such as ``model_name_or_path`` for a local copy, or ``device``.

    Returns:
        A comparison for each source, also where it could not be asked.

    Raises:
        ConfigError: The reward has nothing to be compared with.
        WeightsError: Its weights cannot be found, or do not fit.

    Fetches the real weights where they are not on this machine. Images were compressed again since the published
    scores were taken; they agree within the tolerance that is told, not to the last digit.

    Examples:
        >>> "ImageReward" in VERIFIABLE
        True
    """
    factory = resolve_reward(name)
    title = {resolve_reward(each): each for each in VERIFIABLE}.get(factory)
    if title is None:
        raise ConfigError(
            f"{name!r} has no published scores, nor original code to be compared with{close_match(name, VERIFIABLE)}; "
            f"known are {', '.join(VERIFIABLE)}"
        )
    published = json.loads((_HERE / "published.json").read_text())
    paths, prompt = [_HERE / "images" / image for image in published["images"]], published["prompt"]
    common = {key: value for original in _ORIGINALS[title] for key, value in original.parameters.items()}
    if changed := sorted(_SCALES & parameters.keys()):
        raise ConfigError(f"{title} is compared on the scale of its original; leave out {', '.join(changed)}")
    reward = load_rewards([{"reward_model": title, **common, **parameters}]).train.children[0]
    ours = [float(score) for score in reward(image=paths, prompt=[prompt] * len(paths)).rewards]
    reward.close()  # the originals load the weights themselves, and both may not fit
    found = [_ask(original, reward, ours=ours, paths=paths, prompt=prompt) for original in _ORIGINALS[title]]
    if title in published["scores"]:
        told = published["scores"][title]
        found.append(Comparison(told["source"], ours, told["values"], told["tolerance"]))
    return found


def _ask(
    original: _Original, reward: RewardFunction, *, ours: list[float], paths: list[Path], prompt: str
) -> Comparison:
    """Theirs, or why not: what is not ours may fail in any way."""
    if original.package is not None:
        try:
            version(original.package)
        except PackageNotFoundError:
            reason = f"{original.package} is not installed"
            return Comparison(original.source, ours, [], 0.0, reason)
    try:
        theirs = original.score(reward, paths, prompt)
    except FluxRewardsError:
        raise
    except Exception as error:  # noqa: BLE001
        return Comparison(original.source, ours, [], 0.0, f"{type(error).__name__}: {brief(str(error))}")
    tolerance = _FLOAT32 if getattr(reward, "dtype", "float32") == "float32" else _HALF
    if len(theirs) != len(ours):
        return Comparison(original.source, ours, [], 0.0, f"gave {len(theirs)} scores for {len(ours)} images")
    return Comparison(original.source, ours, theirs, tolerance * max(map(abs, theirs)))
