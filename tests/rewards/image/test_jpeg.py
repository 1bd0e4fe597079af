"""JPEG sizes against files written by Pillow, and the units of those who use them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flux_rewards import ConfigError, InputError
from flux_rewards.rewards.image.jpeg import JPEGCompressibility, JPEGIncompressibility
from flux_rewards.testing import Check, reward_checks

PHOTOGRAPH = Path(__file__).parents[2] / "data" / "images" / "ocean_1.jpg"


def file_size(image: Image.Image, folder: Path, quality: int = 95) -> int:
    """Bytes of a file on disk."""
    path = folder / "image.jpg"
    image.save(path, quality=quality)
    return path.stat().st_size


@pytest.fixture
def photograph() -> Image.Image:
    """Pixels alone, without what the file says beside them."""
    return Image.fromarray(np.array(Image.open(PHOTOGRAPH).convert("RGB")))


def test_is_the_size_of_the_file_in_kilobytes(photograph: Image.Image, tmp_path: Path) -> None:
    """A kilobyte is 1000 bytes; the two rewards differ in sign alone."""
    size = file_size(photograph, tmp_path)
    more, less = JPEGIncompressibility()(image=[photograph]), JPEGCompressibility()(image=[photograph])
    assert more.rewards[0] == size / 1000
    assert less.rewards[0] == -size / 1000
    assert more.metadata[0] == less.metadata[0] == {"jpeg_bytes": size}


def test_flow_grpo_divides_by_500(photograph: Image.Image, tmp_path: Path) -> None:
    """Its unit is a scale."""
    rewards = JPEGCompressibility(scale=1 / 500)(image=[photograph]).rewards
    assert rewards[0] == pytest.approx(-file_size(photograph, tmp_path) / 1000 / 500, rel=1e-12)


@pytest.mark.parametrize("quality", [1, 50, 95])
def test_quality_is_that_of_pillow(photograph: Image.Image, tmp_path: Path, quality: int) -> None:
    """Passed on as it is."""
    row = JPEGIncompressibility(quality=quality)(image=[photograph])
    assert row.metadata[0]["jpeg_bytes"] == file_size(photograph, tmp_path, quality)


@pytest.mark.parametrize("kind", ["array", "tensor", "float tensor", "path"])
def test_the_form_of_an_image_does_not_matter(photograph: Image.Image, kind: str, tmp_path: Path) -> None:
    """The pixels decide; ddpo-pytorch rounds floats to the nearest of 256 levels, and so does this."""
    array = np.array(photograph)
    first = torch.from_numpy(array).permute(2, 0, 1)
    photograph.save(tmp_path / "image.png")
    image: Any = {"array": array, "tensor": first, "float tensor": first / 255, "path": tmp_path / "image.png"}[kind]
    assert JPEGIncompressibility()(image=[image]).rewards[0] == file_size(photograph, tmp_path) / 1000


def test_what_a_file_says_beside_its_pixels_does_not_count(photograph: Image.Image, tmp_path: Path) -> None:
    """A comment of the file that an image came from is not written again; and the image keeps it."""
    told = photograph.copy()
    told.info["comment"] = b"x" * 5000
    assert JPEGIncompressibility()(image=[told]).rewards[0] == file_size(photograph, tmp_path) / 1000
    assert len(told.info["comment"]) == 5000


def test_detail_is_more_bytes() -> None:
    """Noise, then the same with less contrast, then none."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    rewards = JPEGCompressibility()(image=[noise, noise // 4, np.zeros_like(noise)]).rewards
    assert rewards[0] < rewards[1] < rewards[2] < 0


def test_a_side_too_long_for_a_jpeg() -> None:
    """Named, with its size."""
    with pytest.raises(InputError, match=r"sample 1, field 'image'.*at most 65500.*found 1x65501"):
        JPEGCompressibility()(image=[np.zeros((2, 2), np.uint8), np.zeros((65501, 1), np.uint8)])


@pytest.mark.parametrize("quality", [0, 96, 95.0, "95"])
def test_impossible_quality(quality: Any) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match="quality must be"):
        JPEGCompressibility(quality=quality)


@pytest.mark.parametrize(
    "check", [*reward_checks(JPEGCompressibility()), *reward_checks(JPEGIncompressibility(quality=80))], ids=str
)
def test_contract(check: Check) -> None:
    """As every reward."""
    check()
