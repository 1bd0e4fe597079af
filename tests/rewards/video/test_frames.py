"""Frames of real video files, written here by PyAV, and which of them are chosen."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from flux_rewards import ConfigError, InputError, MissingDependencyError
from flux_rewards.media import Place, check_frames, chosen_frames, read_frames

PHOTOGRAPH = Path(__file__).parents[2] / "data" / "images" / "ocean_1.jpg"
ONE = 1 << 16  # of FFmpeg's display matrices
HEIGHT, WIDTH, COUNT = 48, 64, 10
CLOSE = 6  # of 255: what is lost between RGB and YUV, and in the codec, on plain colours


def plain_frames(count: int = COUNT) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Frames of one colour each, which tells them apart."""
    return [
        np.full((HEIGHT, WIDTH, 3), (20 * number, 100, 255 - 20 * number), dtype=np.uint8) for number in range(count)
    ]


def write_video(
    path: Path,
    frames: Sequence[np.ndarray[Any, Any]],
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    *,
    matrix: list[int] | None = None,
) -> Path:
    """A video file."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def shown(frames: Sequence[np.ndarray[Any, Any]]) -> list[tuple[int, ...]]:
    """The colour in the middle of each frame."""
    return [tuple(int(value) for value in frame[frame.shape[0] // 2, frame.shape[1] // 2]) for frame in frames]


def assert_same_colours(found: Sequence[np.ndarray[Any, Any]], expected: Sequence[np.ndarray[Any, Any]]) -> None:
    """Up to what YUV and the codec lose."""
    np.testing.assert_allclose(shown(found), shown(expected), atol=CLOSE)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames, in MPEG-4 with predicted ones."""
    return write_video(tmp_path_factory.mktemp("video") / "plain.mp4", plain_frames())


@pytest.mark.parametrize(
    ("selection", "count", "expected"),
    [
        ("all", 4, [0, 1, 2, 3]),
        ("first", 4, [0]),
        ("last", 4, [3]),
        (1, 5, [2]),
        (1, 4, [1]),
        (1, 1, [0]),
        (2, 10, [0, 9]),
        (3, 10, [0, 5, 9]),  # 4.5 to the later one
        (4, 10, [0, 3, 6, 9]),
        (5, 8, [0, 2, 4, 5, 7]),  # of 0, 1.75, 3.5, 5.25 and 7
        (10, 10, list(range(10))),
        (16, 3, [0, 1, 2]),  # none twice
        ([0, -1], 10, [0, 9]),
        ([-1, 3, 3], 10, [9, 3, 3]),  # in its own order
        ((-10,), 10, [0]),
    ],
)
def test_chosen_positions(selection: Any, count: int, expected: list[int]) -> None:
    """Worked by hand."""
    assert chosen_frames(selection, count) == expected


@pytest.mark.parametrize("count", [1, 2, 7, 81])
@pytest.mark.parametrize("wanted", [1, 2, 3, 8, 50])
def test_frames_are_spread_evenly(wanted: int, count: int) -> None:
    """As many as asked for or as there are, each once, gaps alike but for rounding."""
    chosen = chosen_frames(wanted, count)
    gaps = np.diff(chosen)
    assert len(chosen) == min(wanted, count)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)
    assert wanted == 1 or (chosen[0], chosen[-1]) == (0, count - 1)


@pytest.mark.parametrize(
    "selection", ["every", "ALL", "", 0, -1, True, 2.0, None, [], [0, "1"], [True], [1.5], {0}, b"all"]
)
def test_impossible_selections(selection: Any) -> None:
    """Named, with what is possible."""
    with pytest.raises(ConfigError, match=r"'mine': frames must be 'all', 'first', 'last', a number"):
        check_frames(selection, "mine")
    with pytest.raises(ConfigError, match="frames must be"):
        chosen_frames(selection, 3)


@pytest.mark.parametrize(("selection", "count"), [([3], 3), ([0, -4], 3)])
def test_positions_out_of_range(selection: list[int], count: int) -> None:
    """The sample is named, and how many frames there are."""
    with pytest.raises(InputError, match=r"'mine', sample 5, field 'video': there is no frame -?\d in a video of 3"):
        chosen_frames(selection, count, Place("video", 5, "mine"))


def test_a_video_of_no_frames() -> None:
    """Nothing can be chosen from it."""
    with pytest.raises(InputError, match="the video has no frames"):
        chosen_frames("all", 0)


@pytest.mark.parametrize(
    ("codec", "container", "pixels"),
    [
        ("mpeg4", "mp4", "yuv420p"),
        ("mpeg4", "avi", "yuv420p"),
        ("libx264", "mp4", "yuv420p"),  # with frames out of order
        ("libx264", "mkv", "yuv444p"),
        ("libvpx-vp9", "webm", "yuv420p"),
        ("mjpeg", "mkv", "yuvj420p"),
        ("ffv1", "mkv", "yuv420p10le"),
        ("gif", "gif", "rgb8"),
    ],
)
def test_codecs_and_containers(codec: str, container: str, pixels: str, tmp_path: Path) -> None:
    """Every frame, in its place and colour, whatever the file says or hides of their number."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    frames = [np.full((HEIGHT, WIDTH, 3), (255 * (n % 2), 85 * (n % 4), 0), dtype=np.uint8) for n in range(8)]
    path = write_video(tmp_path / f"video.{container}", frames, codec, pixels)
    numbers, found = read_frames(path)
    assert numbers == list(range(8))
    assert all(frame.shape == (HEIGHT, WIDTH, 3) and frame.dtype == np.uint8 for frame in found)
    loss = 40 if codec == "gif" else CLOSE  # 3, 3 and 2 bits
    np.testing.assert_allclose(shown(found), shown(frames), atol=loss)
    for selection in (3, [-1, 2], "last"):
        numbers, some = read_frames(path, selection)
        assert numbers == chosen_frames(selection, 8)
        assert all(np.array_equal(one, found[number]) for one, number in zip(some, numbers, strict=True))


@pytest.mark.parametrize("selection", ["all", "first", "last", 1, 3, 99, [0], [4, 2], [-1, 0, -1], [7]])
def test_selections_of_a_file(video: Path, selection: Any) -> None:
    """The same positions as of frames in memory, and their frames."""
    numbers, found = read_frames(video, selection)
    assert numbers == chosen_frames(selection, COUNT)
    assert_same_colours(found, [plain_frames()[number] for number in numbers])


def test_text_is_a_path_too(video: Path) -> None:
    """As everywhere."""
    assert np.array_equal(read_frames(str(video), "first")[1][0], read_frames(video, "first")[1][0])


@pytest.mark.parametrize(
    "name", ["with space.mp4", "a:b.mp4", "concat:a|b.mp4", "100%.mp4", "pipe:0", "bild-ä日本.mp4"]
)
def test_names_are_names_of_files(video: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a protocol of FFmpeg's, nor a pattern."""
    (tmp_path / name).write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(read_frames(name)[0]) == COUNT


@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1),
        (-1, 0, 0, -1),
        (0, 1, -1, 0),
        (0, -1, 1, 0),
        (-1, 0, 0, 1),  # mirrored, from here
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
    ],
)
def test_frames_are_shown_upright(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    """Each corner goes where the display matrix (a b, c d) sends it: x' = a x + c y, y' = b x + d y."""
    a, b, c, d = matrix
    corners = {(-1, -1): (255, 0, 0), (1, -1): (0, 255, 0), (-1, 1): (0, 0, 255), (1, 1): (255, 255, 255)}
    frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for (x, y), colour in corners.items():
        frame[slice(0, 24) if y < 0 else slice(24, 48), slice(0, 32) if x < 0 else slice(32, 64)] = colour
    given = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    _, (found,) = read_frames(write_video(tmp_path / "turned.mp4", [frame], matrix=given), "first")
    assert found.shape == ((WIDTH, HEIGHT, 3) if a == 0 else (HEIGHT, WIDTH, 3))
    assert found.flags["C_CONTIGUOUS"]
    for (x, y), colour in corners.items():
        right, down = a * x + c * y, b * x + d * y
        pixel = found[8 if down < 0 else -8, 8 if right < 0 else -8]
        np.testing.assert_allclose(pixel.astype(int), colour, atol=12)


def test_a_file_with_what_pyav_cannot_name(tmp_path: Path) -> None:
    """A photograph with EXIF is a video of one frame to FFmpeg; it is turned all the same."""
    exif = Image.Exif()
    exif[0x112] = 6  # to be shown turned clockwise
    with Image.open(PHOTOGRAPH) as photograph:
        photograph.convert("RGB").save(tmp_path / "turned.jpg", exif=exif, quality=95)
    _, (found,) = read_frames(tmp_path / "turned.jpg")
    with Image.open(tmp_path / "turned.jpg") as stored:
        expected = np.rot90(np.asarray(stored.convert("RGB")), -1)
    assert np.abs(found.astype(int) - expected).mean() < 2  # two decoders of JPEG


def test_a_photograph_survives(tmp_path: Path) -> None:
    """Lossless FFV1 in full chroma: only the conversion to YUV and back, by at most 3 of 255."""
    photograph = np.asarray(Image.open(PHOTOGRAPH).convert("RGB").resize((160, 120)))
    _, (found,) = read_frames(write_video(tmp_path / "photo.mkv", [photograph], "ffv1", "yuv444p"), 1)
    assert np.abs(found.astype(int) - photograph).max() <= 3


def test_positions_out_of_range_of_a_file(video: Path) -> None:
    """Known when the file has ended, from either side."""
    for selection in ([10], [0, -11]):
        with pytest.raises(InputError, match=r"sample 2, field 'video': there is no frame -?1[01] in a video of 10"):
            read_frames(video, selection, Place("video", 2))


def no_video(kind: str, folder: Path) -> Path:
    """A file that holds no video."""
    path = folder / {"text": "note.txt", "playlist": "list.m3u8", "audio": "sound.wav"}.get(kind, "broken.avi")
    if kind == "folder":
        return folder
    if kind == "audio":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
            sound.rate = 8000
            container.mux(stream.encode(sound))
        return path
    whole = write_video(folder / "whole.avi", plain_frames()).read_bytes()
    content = {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(5000),
        "cut in the header": whole[:300],
        "cut in a frame": whole[: len(whole) * 3 // 4],
        "text": b"A video of a cat.\n" * 50,
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/part.ts\n#EXT-X-ENDLIST\n",
    }
    if kind != "missing":
        path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize("selection", ["all", [0, 9], "last"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "cannot read the video file '.*broken.avi': FileNotFoundError: No such file"),
        ("folder", "cannot read the video file"),
        ("empty", "cannot read the video file '.*broken.avi': InvalidDataError"),
        ("noise", "cannot read the video file '.*broken.avi': InvalidDataError"),
        ("cut in the header", "cannot read the video file"),
        ("cut in a frame", "cannot read|is damaged"),
        ("text", "is text, no video"),
        ("playlist", "cannot read the video file"),
        ("audio", "has no video, found audio"),
    ],
)
def test_files_that_hold_no_video(
    kind: str, message: str, selection: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Named with reward, sample and file; FFmpeg prints nothing of its own."""
    path = no_video(kind, tmp_path)
    with pytest.raises(InputError, match=rf"reward 'mine', sample 3, field 'video': .*(?:{message})"):
        read_frames(path, selection, Place("video", 3, "mine"))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    """A song with a picture has a video stream of one frame, which is not looked at."""
    cover = tmp_path / "cover.jpg"
    Image.new("RGB", (32, 32), "red").save(cover)
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container, av.open(str(cover)) as picture:
        audio = container.add_stream("aac", rate=44100)
        image = container.add_stream_from_template(picture.streams.video[0])
        image.disposition = av.stream.Disposition.attached_pic
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
        for packet in picture.demux(video=0):
            if packet.size:
                packet.stream = image
                container.mux(packet)
    with pytest.raises(InputError, match="has no video, found audio, video"):
        read_frames(path)


@pytest.mark.parametrize("address", ["https://example.org/a.mp4", "data:video/mp4;base64,AAAA"])
def test_nothing_is_fetched(address: str) -> None:
    """An address is refused before FFmpeg sees it."""
    with pytest.raises(InputError, match="media are not fetched"):
        read_frames(address)


def test_a_missing_extra_is_named(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "flux_rewards\[video\]"'):
        read_frames(video)
