"""Videos, and several images or videos of one sample."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from flux_rewards.errors import brief
from flux_rewards.media.frames import chosen_frames, read_frames
from flux_rewards.media.images import as_pil, as_pixels, as_tensor
from flux_rewards.media.place import Place
from flux_rewards.media.reading import is_array

if TYPE_CHECKING:
    import torch


def video_to_pil(
    video: Any, *, field: str = "video", index: int | None = None, reward: str | None = None
) -> list[Image.Image]:
    """A video as frames: from a list of images, or an array or tensor (T, C, H, W) or (T, H, W, C).

    Examples:
        >>> import numpy as np
        >>> len(video_to_pil(np.zeros((4, 2, 3, 3), dtype=np.uint8)))
        4
    """
    return read_media("video", video, "pil", Place(field, index, reward))  # type: ignore[no-any-return]


def video_to_tensor(
    video: Any, *, field: str = "video", index: int | None = None, reward: str | None = None
) -> torch.Tensor:
    """A video as a float32 tensor (T, 3, H, W) in [0, 1].

    Examples:
        >>> import numpy as np
        >>> tuple(video_to_tensor(np.zeros((4, 2, 5, 3), dtype=np.uint8)).shape)
        (4, 3, 2, 5)
    """
    return read_media("video", video, "float", Place(field, index, reward))  # type: ignore[no-any-return]


def images_to_pil(
    images: Any, *, field: str = "condition_images", index: int | None = None, reward: str | None = None
) -> list[Image.Image]:
    """The images of one sample: from a list, an array or tensor (N, C, H, W) or (N, H, W, C), or one image.

    Examples:
        >>> import numpy as np
        >>> len(images_to_pil([np.zeros((2, 3)), np.zeros((4, 4))]))
        2
    """
    return read_media("condition_images", images, "pil", Place(field, index, reward))  # type: ignore[no-any-return]


def images_to_tensors(
    images: Any, *, field: str = "condition_images", index: int | None = None, reward: str | None = None
) -> list[torch.Tensor]:
    """The images of one sample as float32 tensors (3, H, W) in [0, 1]; sizes may differ.

    Examples:
        >>> import numpy as np
        >>> [tuple(image.shape) for image in images_to_tensors([np.zeros((2, 3)), np.zeros((4, 4))])]
        [(3, 2, 3), (3, 4, 4)]
    """
    return read_media("condition_images", images, "float", Place(field, index, reward))  # type: ignore[no-any-return]


def videos_to_pil(
    videos: Any, *, field: str = "condition_videos", index: int | None = None, reward: str | None = None
) -> list[list[Image.Image]]:
    """The videos of one sample: from a list of videos, an array or tensor (N, T, C, H, W), or one (T, C, H, W).

    Examples:
        >>> import numpy as np
        >>> [len(video) for video in videos_to_pil(np.zeros((2, 4, 2, 3, 3), dtype=np.uint8))]
        [4, 4]
    """
    return read_media("condition_videos", videos, "pil", Place(field, index, reward))  # type: ignore[no-any-return]


def videos_to_tensors(
    videos: Any, *, field: str = "condition_videos", index: int | None = None, reward: str | None = None
) -> list[torch.Tensor]:
    """The videos of one sample as float32 tensors (T, 3, H, W) in [0, 1]; lengths and sizes may differ.

    Examples:
        >>> import numpy as np
        >>> [tuple(video.shape) for video in videos_to_tensors([[np.zeros((2, 3))]])]
        [(1, 3, 2, 3)]
    """
    return read_media("condition_videos", videos, "float", Place(field, index, reward))  # type: ignore[no-any-return]


def read_media(field: str, value: Any, form: str, place: Place) -> Any:
    """The value of one of the media fields of `Sample`, as a reward asks for it: "pil", "float" or "pixels".

    Examples:
        >>> import numpy as np
        >>> read_media("condition_images", np.zeros((2, 3), np.uint8), "pixels", Place("condition_images"))[0].dtype
        torch.uint8
    """
    read = _FORMS[form]
    if field == "image":
        return read(value, place)
    if field == "video":
        return _video(value, place, read)
    if field == "condition_images":
        return [read(image, place.at("image", number)) for number, image in enumerate(_images(value, place))]
    return [_video(video, place.at("video", number), read) for number, video in enumerate(_videos(value, place))]


_FORMS: dict[str, Callable[[Any, Place], Any]] = {"pil": as_pil, "float": as_tensor, "pixels": as_pixels}


def _images(images: Any, place: Place) -> Iterable[Any]:
    one = isinstance(images, (str, os.PathLike, Image.Image)) or (is_array(images) and images.ndim in (2, 3))
    return [images] if one else _several(images, place, "images", "(N, C, H, W)")


def _videos(videos: Any, place: Place) -> Iterable[Any]:
    one = isinstance(videos, (str, os.PathLike)) or (is_array(videos) and videos.ndim == 4)
    return [videos] if one else _several(videos, place, "videos", "(N, T, C, H, W)")


def raw_frames(video: Any, selection: str | int | Sequence[int], place: Place) -> tuple[list[int], list[Any]]:
    """The positions of the chosen frames of a video, and the frames as they are given; of a file, decoded.

    Raises:
        InputError: It is no video, or has no frame at one of the positions.

    Examples:
        >>> raw_frames(["a.png", "b.png", "c.png"], [0, -1], Place("video"))
        ([0, 2], ['a.png', 'c.png'])
    """
    if isinstance(video, (str, os.PathLike)):
        numbers, decoded = read_frames(video, selection, place)
        return numbers, list(decoded)
    given: Any = _several(video, place, "frames", "(T, C, H, W)")
    numbers = chosen_frames(selection, len(given), place)
    return numbers, [given[number] for number in numbers]


def _several(values: Any, place: Place, nouns: str, axes: str) -> Iterable[Any]:
    if not isinstance(values, (list, tuple)) and not (is_array(values) and values.ndim == axes.count(",") + 1):
        raise place.error(f"expected a list of {nouns}, or an array or tensor {axes}, found {brief(values)}")
    if len(values) == 0:
        raise place.error(f"expected {nouns}, found none")
    return values  # type: ignore[no-any-return]


def _frames(video: Any, place: Place, read: Callable[[Any, Place], Any]) -> list[Any]:
    _, given = raw_frames(video, "all", place)
    frames = [read(frame, place.at("frame", number)) for number, frame in enumerate(given)]
    forms = [_form(frame) for frame in frames]
    for number, form in enumerate(forms):
        if form != forms[0]:
            raise place.at("frame", number).error(f"is {form}, the first frame {forms[0]}; all must be alike")
    return frames


def _form(frame: Any) -> str:
    is_pil = isinstance(frame, Image.Image)
    return f"{frame.width}x{frame.height}" if is_pil else f"{frame.shape[2]}x{frame.shape[1]} on {frame.device}"


def _video(video: Any, place: Place, read: Callable[[Any, Place], Any]) -> Any:
    frames = _frames(video, place, read)
    if isinstance(frames[0], Image.Image):
        return frames
    import torch  # noqa: PLC0415  # loaded already

    return torch.stack(frames)
