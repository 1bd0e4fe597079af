"""Samples as plain JSON, with images as base64, as any client can send them."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flux_rewards.data import FIELDS, Sample
from flux_rewards.errors import InputError, brief, close_match
from flux_rewards.wire.fields import check_field

if TYPE_CHECKING:
    from flux_rewards.wire.allowance import Allowance

__all__ = ["COLUMNS", "Images", "samples_of_columns", "samples_of_json"]

COLUMNS = ("prompt", "image", "video", "condition_images", "condition_videos")
"""What ``/compute`` of Flow-Factory takes: a list each, or null."""

_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass
class Images:
    """Decodes base64 images, as many pixels as there may be in one request.

    Attributes:
        allowance: How many more.
    """

    allowance: Allowance

    def image(self, text: Any, field: str, index: int) -> Any:
        """A PIL image, loaded.

        Raises:
            InputError: It is no base64 of a PNG, JPEG or WebP, or too large; known before it is unpacked.
        """
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  # for those who receive images

        if not isinstance(text, str):
            raise InputError(f"expected an image in base64, found {brief(text)}", field=field, index=index)
        try:
            data = base64.b64decode(text.removeprefix("data:image/png;base64,"), validate=True)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except (binascii.Error, ValueError, UnidentifiedImageError, OSError, SyntaxError) as error:
            if isinstance(error, (binascii.Error, UnidentifiedImageError)) or "base64" in str(error):
                message = f"expected a PNG, JPEG or WebP in base64, not a path or a URL: found {brief(text)}"
            else:
                message = "expected a PNG, JPEG or WebP in base64, found one that cannot be read"
            raise InputError(message, field=field, index=index) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise InputError("the image has too many pixels", field=field, index=index) from None
        self.allowance.take_pixels(image.width * image.height, field, index)
        try:
            image.load()
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise InputError(f"the image is broken: {type(error).__name__}", field=field, index=index) from None
        return image

    def media(self, field: str, value: Any, index: int) -> Any:
        """The value of a field of media."""
        if field == "image":
            return self.image(value, field, index)
        if field == "condition_videos":
            return [self._list(entry, field, index) for entry in self._entries(value, field, index)]
        return self._list(value, field, index)

    def _list(self, value: Any, field: str, index: int) -> list[Any]:
        return [self.image(entry, field, index) for entry in self._entries(value, field, index)]

    @staticmethod
    def _entries(value: Any, field: str, index: int) -> list[Any]:
        if not isinstance(value, list):
            raise InputError(f"expected a list of images in base64, found {brief(value)}", field=field, index=index)
        return value


def samples_of_columns(body: Any, images: Images) -> list[Sample]:
    """Samples from columns, as ``/compute`` has them.

    Raises:
        InputError: There is no prompt, a column is unknown or has another length, or an entry cannot be read.
        TooManyError: There are more samples than are allowed.

    Examples:
        >>> from flux_rewards.wire.allowance import Allowance
        >>> samples_of_columns({"prompt": ["a cat"], "image": None}, Images(Allowance(pixels=100)))
        [Sample(prompt='a cat')]
    """
    if not isinstance(body, Mapping):
        raise InputError(f"expected an object with prompt, image, ..., found {brief(body)}")
    columns = _columns(body)
    count = len(columns["prompt"])
    images.allowance.take_samples(count)
    for name, column in columns.items():
        if len(column) != count:
            raise InputError(f"has {len(column)} entries for {count} prompts", field=name)
    rows = []
    for index in range(count):
        prompt = columns["prompt"][index]
        if not isinstance(prompt, str):
            raise InputError(f"expected text, found {brief(prompt)}", field="prompt", index=index)
        media = {
            name: images.media(name, column[index], index)
            for name, column in columns.items()
            if name != "prompt" and column[index] is not None
        }
        rows.append(Sample(prompt, **media))
    return rows


def _columns(body: Mapping[str, Any]) -> dict[str, list[Any]]:
    for name in body:
        if name not in COLUMNS:  # unread, it would change the scores
            hint = close_match(str(name), COLUMNS)
            raise InputError(f"is no column{hint}; the columns are {', '.join(COLUMNS)}", field=str(name)[:80])
    columns = {name: body[name] for name in COLUMNS if body.get(name) is not None}
    for name, column in columns.items():
        if not isinstance(column, list):
            raise InputError(f"expected a list with one entry a sample, found {brief(column)}", field=name)
    if "prompt" not in columns:
        raise InputError("expected a list of prompts", field="prompt")
    return columns


def samples_of_json(body: Any, images: Images) -> list[Sample]:
    """Samples from ``{"samples": [{...}, ...]}``.

    Raises:
        InputError: A sample has a field that there is not, or an entry cannot be read.
        TooManyError: There are more samples than are allowed.

    Examples:
        >>> from flux_rewards.wire.allowance import Allowance
        >>> body = {"samples": [{"response": "4", "token_ids": [1], "metadata": {"n": 1}}]}
        >>> samples_of_json(body, Images(Allowance(pixels=0)))
        [Sample(response='4', token_ids=[1], metadata={'n': 1})]
    """
    rows = body.get("samples") if isinstance(body, Mapping) else None
    if not isinstance(rows, list):
        raise InputError(f'expected {{"samples": [...]}}, found {brief(body)}')
    images.allowance.take_samples(len(rows))
    return [_sample(row, index, images) for index, row in enumerate(rows)]


def _sample(row: Any, index: int, images: Images) -> Sample:
    if not isinstance(row, Mapping):
        raise InputError(f"expected an object with the fields of a sample, found {brief(row)}", index=index)
    values: dict[str, Any] = {}
    for field, value in row.items():
        if field not in FIELDS:
            hint = close_match(str(field), FIELDS)
            raise InputError(f"{brief(field)} is not a field of a sample{hint}", field=str(field)[:80], index=index)
        if value is None:
            continue
        if field in COLUMNS and field != "prompt":
            values[field] = images.media(field, value, index)
            continue
        check_field(field, value, index)
        values[field] = [tuple(pair) for pair in value] if field == "token_offsets" else value
    return Sample(**values)
