"""Frames of video files, and which of them are looked at."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.errors import ConfigError, MissingDependencyError, brief, close_match
from flux_rewards.media.place import Place
from flux_rewards.media.reading import decoding, local_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_frames", "chosen_frames", "read_frames"]

_WORDS = ("all", "first", "last")
_VIDEO = Place("video")


def check_frames(selection: Any, reward: str) -> None:
    """Raise unless it says which frames to take, of a video of any length; see `chosen_frames`.

    Raises:
        ConfigError: It does not; the message lists what would.

    Examples:
        >>> check_frames([0, -1], "mine")
    """
    if isinstance(selection, str):
        known = selection in _WORDS
    elif isinstance(selection, (list, tuple)):
        known = len(selection) > 0 and all(isinstance(one, int) and not isinstance(one, bool) for one in selection)
    else:
        known = isinstance(selection, int) and not isinstance(selection, bool) and selection >= 1
    if not known:
        hint = close_match(selection, _WORDS) if isinstance(selection, str) else ""
        raise ConfigError(
            "frames must be 'all', 'first', 'last', a number of frames >= 1, or a list of positions such as [0, -1], "
            f"found {brief(selection)}{hint}",
            reward=reward,
        )


def chosen_frames(selection: str | int | Sequence[int], count: int, place: Place = _VIDEO) -> list[int]:
    """The positions of the frames to take from a video of `count` frames.

    Args:
        selection: ``"all"``; ``"first"``; ``"last"``; a number n: n frames spread evenly, the first and the last among
            them, at the nearest positions; of one, the middle (the earlier of two); all where there are fewer than n;
            or a list of positions, kept in its order, where negative ones count from the end.
        count: Frames of the video.
        place: For messages.

    Raises:
        ConfigError: `selection` is none of these.
        InputError: The video has no frames, or none at one of the positions.

    Examples:
        >>> chosen_frames(3, 8), chosen_frames(1, 9), chosen_frames([0, -1], 8)
        ([0, 4, 7], [4], [0, 7])
    """
    check_frames(selection, place.reward or "chosen_frames")
    if count < 1:
        raise place.error("the video has no frames")
    if isinstance(selection, str):
        return {"all": list(range(count)), "first": [0], "last": [count - 1]}[selection]
    if isinstance(selection, int):
        gaps = selection - 1
        if selection >= count:
            return list(range(count))
        return (
            [(2 * step * (count - 1) + gaps) // (2 * gaps) for step in range(selection)] if gaps else [(count - 1) // 2]
        )
    for position in selection:
        if not -count <= position < count:
            raise place.error(
                f"there is no frame {position} in a video of {count} (0 to {count - 1}, or -{count} to -1); choose "
                "others, or a number of frames"
            )
    return [position % count for position in selection]


def read_frames(
    path: str | os.PathLike[Any], selection: str | int | Sequence[int] = "all", place: Place = _VIDEO
) -> tuple[list[int], list[NDArray[np.uint8]]]:
    """The chosen frames of a video file, decoded by FFmpeg; needs the extra ``video``.

    Args:
        path: A file on this machine, in any container and codec that PyAV's FFmpeg reads.
        selection: Which frames; see `chosen_frames`. ``"first"`` and positions from the start are read up to there,
            for all others the file is read to its end. No frame but those chosen is converted or kept.
        place: For messages.

    Returns:
        The positions of the frames and, in that order, the frames: uint8 (H, W, 3), RGB, turned and mirrored as the
        file's display matrix says, by quarter turns.

    Raises:
        ConfigError: `selection` is none of those.
        InputError: The file is missing, empty, damaged or has no video (a cover picture is none), there is no frame
            at one of the positions, or `path` is an address: nothing is fetched.
        MissingDependencyError: PyAV is not installed.

    Colours are converted as FFmpeg does it: by the file's matrix and range, by BT.601 where it names none. Frames are
    not resampled in time, deinterlaced, tone-mapped or stretched to square pixels. Damage is found where FFmpeg or the
    container tells; a stream cut between two frames (WebM) has the frames before the cut.

    Examples:
        >>> read_frames("missing.mp4", "first")
        Traceback (most recent call last):
        flux_rewards.errors.InputError: field 'video': cannot read the video file 'missing.mp4': ...
    """
    check_frames(selection, place.reward or "read_frames")
    name = local_path(path, place)
    _import_av()  # outside of what turns errors into those of the file
    with decoding(f"the video file {name!r}", place):
        if selection == "all":
            found, _ = _decoded(name, None, place)
            return chosen_frames("all", len(found), place), list(found.values())
        from_start = [0] if selection == "first" else selection
        if isinstance(from_start, (list, tuple)) and min(from_start) >= 0:
            found, count = _decoded(name, from_start, place, stop=True)
        else:
            # Packets are counted without decoding, and nearly always are the frames; where not, decoding tells.
            count = _count_packets(name, place)
            found, decoded = _decoded(name, chosen_frames(selection, count, place), place)
            if decoded != count:
                count = decoded
                found, _ = _decoded(name, chosen_frames(selection, count, place), place)
        numbers = chosen_frames(selection, count, place)
        return numbers, [found[number] for number in numbers]


def _import_av() -> Any:
    try:
        import av  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingDependencyError(
            'video files are decoded by PyAV, which is not installed: pip install "flux_rewards[video]", or pass frames'
        ) from error
    return av


@contextmanager
def _opened(name: str, place: Place) -> Iterator[tuple[Any, Any]]:
    """The file and its video stream."""
    av = _import_av()
    # A playlist may name what is elsewhere, and a name may look like one of FFmpeg's protocols.
    with av.open(f"file:{name}", options={"protocol_whitelist": "file"}) as container:
        cover = av.stream.Disposition.attached_pic
        if container.format.name == "tty":  # FFmpeg shows any text file as a film of a terminal
            raise place.error(f"the file {name!r} is text, no video")
        streams = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not streams:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise place.error(f"the file {name!r} has no video, found {kinds}")
        size, needed = container.size, max((one.pos + one.size for one in streams[0].index_entries), default=0)
        if needed > size:  # FFmpeg would stop there without a word
            raise place.error(
                f"the video file {name!r} is cut short: {size} of at least {needed} bytes; write it again"
            )
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _count_packets(name: str, place: Place) -> int:
    with _opened(name, place) as (container, stream):
        return sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)


def _decoded(
    name: str, wanted: Collection[int] | None, place: Place, *, stop: bool = False
) -> tuple[dict[int, NDArray[np.uint8]], int]:
    """The wanted frames (None: all) by position, and how many were decoded: to the last wanted one, or to the end."""
    found: dict[int, NDArray[np.uint8]] = {}
    count = 0
    with _opened(name, place) as (container, stream):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise place.error(f"the video file {name!r} is damaged at frame {count}; write it again")
            if wanted is None or count in wanted:
                found[count] = _upright(frame)
            count += 1
            if stop and wanted is not None and count > max(wanted):
                break
    return found, count


def _upright(frame: Any) -> NDArray[np.uint8]:
    """RGB, as it is to be shown."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # something beside the matrix that PyAV has no name for, such as EXIF; the angle it gives anyway
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
    if matrix is None:
        return pixels
    # x' = a x + c y, y' = b x + d y, of rows (a, b, .) and (c, d, .) in fixed point
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
