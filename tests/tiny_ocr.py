"""A recogniser that needs no model, for the checks of the contract."""

from pathlib import Path
from typing import Any

from PIL import Image


def brightness(image: Image.Image) -> str:
    """The mean of an image's pixels, in digits: text that depends on the pixels."""
    return str(round(sum(image.convert("L").histogram()[level] * level for level in range(256))))


def config(folder: Path) -> dict[str, Any]:
    """The parameters of an `OCRReward` that reads brightness."""
    return {"recognizer": "tiny_ocr.brightness"}
