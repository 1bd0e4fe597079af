"""The only place where pixels change type or range.

An image is a PIL image in any mode, a path, or an array or tensor: uint8, or float in [0, 1]; (H, W, C), (C, H, W)
or gray (H, W); 1, 3 or 4 channels. Where a shape can be read both ways, an array is (H, W, C) and a tensor (C, H, W).
Alpha is composited on white, 16-bit gray is scaled, and floats up to 1e-3 out of range are clamped. A file gives its
first frame, upright. A video is a list of images, an array or tensor (T, C, H, W) or (T, H, W, C), or the path of a
video file (extra ``video``). Anything else is an `InputError` that names the field and the sample.

Nothing is fetched or resized; no colour profile is applied, and no EXIF orientation to an
image in memory. Inputs are not changed, but for a PIL image that was opened and not yet read: that is read.
"""

from flux_rewards.media.frames import check_frames, chosen_frames, read_frames
from flux_rewards.media.images import to_pil, to_pixels, to_tensor, unit_range
from flux_rewards.media.place import Place
from flux_rewards.media.sequences import (
    images_to_pil,
    images_to_tensors,
    raw_frames,
    read_media,
    video_to_pil,
    video_to_tensor,
    videos_to_pil,
    videos_to_tensors,
)

__all__ = [
    "Place",
    "check_frames",
    "chosen_frames",
    "images_to_pil",
    "images_to_tensors",
    "raw_frames",
    "read_frames",
    "read_media",
    "to_pil",
    "to_pixels",
    "to_tensor",
    "unit_range",
    "video_to_pil",
    "video_to_tensor",
    "videos_to_pil",
    "videos_to_tensors",
]
