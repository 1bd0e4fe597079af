"""What a judge is shown of a sample: texts as they are, pixels without loss, each under its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_server import ChatServer, Request, said
from impatient_judges import rating
from PIL import Image

from flux_rewards import InputError, Sample

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)
PICTURE = Image.fromarray(NOISE)


def asked(sample: Sample, *fields: str, **options: Any) -> Request:
    """What a judge with these fields is asked about a sample."""
    with ChatServer(said("Score: 10")) as server:
        rating(server.url, fields=fields, **options)([sample])
    return server.requests[0]


def shown(request: Request) -> list[str]:
    """The parts in order: the last line of a text, "image" for an image."""
    return [part["text"].splitlines()[-1] if part["type"] == "text" else "image" for part in request.parts][:-1]


def fence(request: Request, field: str) -> str:
    """What stands in the last fence of a field."""
    mark, _, rest = request.text.rpartition(f"<<<{field} ")[2].partition("\n")
    return rest.partition(f"\n{field} {mark}>>>")[0]


@pytest.mark.parametrize(
    "given",
    [
        PICTURE,
        NOISE,
        NOISE.transpose(2, 0, 1),
        torch.from_numpy(NOISE),
        torch.from_numpy(NOISE).permute(2, 0, 1),
        NOISE.astype(np.float32) / 255,
        torch.from_numpy(NOISE).permute(2, 0, 1).float() / 255,
        torch.from_numpy(NOISE).permute(2, 0, 1).double() / 255,
    ],
    ids=["PIL", "array", "channels first", "tensor", "tensor, channels first", "float", "float tensor", "double"],
)
def test_pixels_arrive_as_they_were(given: Any) -> None:
    """Of any kind: as PNG, to the last bit."""
    [image] = asked(Sample(image=given), "image").images
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (5, 7))
    np.testing.assert_array_equal(np.asarray(image), NOISE)


@pytest.mark.parametrize("form", ["png", "webp"])
def test_files_arrive_as_they_are(form: str, tmp_path: Path) -> None:
    """By their path, as text or not."""
    path = tmp_path / f"image.{form}"
    PICTURE.save(path, lossless=True)
    for given in (path, str(path)):
        np.testing.assert_array_equal(np.asarray(asked(Sample(image=given), "image").images[0]), NOISE)


def test_what_is_transparent_is_white() -> None:
    """Each channel is c a + 255 (1 - a), by hand; greys and palettes become RGB."""
    clear = Image.new("RGBA", (3, 1))
    clear.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (255, 0, 51, 128)])
    [image] = asked(Sample(image=clear), "image").images
    assert image.mode == "RGB"
    pixels = [image.getpixel((x, 0)) for x in range(3)]
    assert pixels[:2] == [(255, 0, 0), (255, 255, 255)]
    by_hand = (255, 255 * 127 / 255, 51 * 128 / 255 + 255 * 127 / 255)
    assert pixels[2] == pytest.approx(by_hand, abs=0.51)
    for mode, colour in (("L", 100), ("P", 3), ("1", 1)):
        grey = Image.new(mode, (2, 2), colour)
        [image] = asked(Sample(image=grey), "image").images
        assert image.getpixel((0, 0)) == grey.convert("RGB").getpixel((0, 0))


def test_jpeg_where_it_is_wished() -> None:
    """Close, and smaller."""
    smooth = PICTURE.resize((160, 224), Image.Resampling.BICUBIC)
    png, jpeg = (asked(Sample(image=smooth), "image", image_format=form) for form in ("png", "jpeg"))
    assert jpeg.images[0].format == "JPEG"
    assert jpeg.parts[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert png.parts[1]["image_url"]["url"].startswith("data:image/png;base64,")
    difference = np.asarray(jpeg.images[0]).astype(int) - np.asarray(smooth)
    assert 0 < np.abs(difference).mean() < 4
    assert len(jpeg.parts[1]["image_url"]["url"]) < len(png.parts[1]["image_url"]["url"]) / 2


def colour(request: Request, at: int) -> Any:
    """Of one of the images."""
    return request.images[at].getpixel((0, 0))


def one(red: int) -> Image.Image:
    return Image.new("RGB", (2, 3), (red, 0, 0))


def test_an_edit_is_its_source_and_its_result() -> None:
    """In the order of the fields, each under its name."""
    sample = Sample("make it red", image=one(9), condition_images=[one(1)])
    request = asked(sample, "prompt", "condition_images", "image")
    assert shown(request) == ["Source image:", "image", "Edited image:", "image"]
    assert [colour(request, at)[0] for at in range(2)] == [1, 9]
    request = asked(sample, "image", "condition_images", "prompt")
    assert shown(request) == ["Edited image:", "image", "Source image:", "image"]
    assert [colour(request, at)[0] for at in range(2)] == [9, 1]


def test_several_sources_are_numbered() -> None:
    """From a list, or a tensor along its first axis."""
    pixels = np.stack([np.asarray(one(red)) for red in (1, 2, 3)])
    for given in ([one(1), one(2), one(3)], torch.from_numpy(pixels).permute(0, 3, 1, 2)):
        request = asked(Sample("q", image=one(9), condition_images=given), "condition_images", "image")
        labels = [f"Source image {number} of 3:" for number in (1, 2, 3)]
        assert shown(request)[::2] == [*labels, "Edited image:"]
        assert [colour(request, at)[0] for at in range(4)] == [1, 2, 3, 9]


def test_an_image_alone_is_no_edit() -> None:
    """Nothing speaks of a source."""
    request = asked(Sample("q", image=one(9)), "prompt", "image")
    assert len(request.images) == 1
    assert "ource image" not in request.text
    assert "Edited" not in request.text


CLIP = np.stack([np.full((4, 6, 3), 20 * number, dtype=np.uint8) for number in range(12)])


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (3, [0, 6, 11]),  # 5.5 is as near to 5 as to 6
        (1, [5]),
        (20, list(range(12))),
        ("all", list(range(12))),
        ("first", [0]),
        ("last", [11]),
        ([-1, 2], [11, 2]),
    ],
)
@pytest.mark.parametrize("kind", ["array", "list", "tensor"])
def test_frames_of_a_video(frames: Any, expected: list[int], kind: str) -> None:
    """Those that were asked for, in their order, after a line that says how many."""
    given: Any = {
        "array": CLIP,
        "list": [Image.fromarray(frame) for frame in CLIP],
        "tensor": torch.from_numpy(CLIP).permute(0, 3, 1, 2).float() / 255,
    }[kind]
    request = asked(Sample(video=given), "video", frames=frames)
    assert [colour(request, at)[0] for at in range(len(request.images))] == [20 * number for number in expected]
    assert shown(request) == [f"Video, as {len(expected)} frames in their order:", *["image"] * len(expected)]


def test_eight_frames_unless_told_otherwise() -> None:
    """The first and the last among them, evenly spread."""
    request = asked(Sample(video=CLIP), "video")
    numbers = [colour(request, at)[0] // 20 for at in range(8)]
    assert len(request.images) == 8
    assert (numbers[0], numbers[-1]) == (0, 11)
    assert set(np.diff(numbers)) == {1, 2}


def test_frames_of_a_file(tmp_path: Path) -> None:
    """Decoded here, and sent without further loss."""
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for number in range(10):
            pixels = np.full((48, 64, 3), 20 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    request = asked(Sample(video=str(path)), "video", frames=4)
    assert [colour(request, at) for at in range(4)] == [(20 * number,) * 3 for number in (0, 3, 6, 9)]


TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be {brief}."},
    {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "assistant", "content": "A cat."},
    {"role": "user", "content": "And that?"},
]


def test_a_conversation_is_written_out() -> None:
    """Turn by turn; a lone user's message is its text."""
    request = asked(Sample(TURNS, "A dog."), "prompt", "response")
    lines = fence(request, "prompt").splitlines()
    assert [line for line in lines if line != "assistant: "] == [
        "system: Be {brief}.",
        "user: What is this?",
        "assistant: A cat.",
        "user: And that?",
    ]
    request = asked(Sample([{"role": "user", "content": "Hi"}], "A dog."), "prompt", "response")
    assert fence(request, "prompt") == "Hi"


def test_of_a_response_of_messages_the_last_text_is_judged() -> None:
    """Neither what tools said nor what was said before."""
    response: list[dict[str, Any]] = [
        {"role": "assistant", "content": "I will look."},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is 42."}]},
        {"role": "assistant", "content": ""},
    ]
    request = asked(Sample("q", response), "prompt", "response")
    assert fence(request, "response") == "It is 42."
    assert "I will look" not in request.text


def test_an_empty_response_is_shown_as_one() -> None:
    """It is a response."""
    assert fence(asked(Sample("q", ""), "prompt", "response"), "response") == ""


@pytest.mark.parametrize(("reference", "text"), [("4", "4"), (4, "4"), (0.5, "0.5"), (0, "0")])
def test_a_reference_is_text_or_a_number(reference: Any, text: str) -> None:
    """As it is written."""
    assert fence(asked(Sample("q", "r", reference=reference), "reference"), "reference") == text


def test_texts_only_are_a_plain_string() -> None:
    """As models without eyes want it."""
    request = asked(Sample("q", "r", reference="t"), "prompt", "response", "reference")
    [message] = request.body["messages"]
    assert isinstance(message["content"], str)


def test_texts_stand_in_the_order_of_the_fields() -> None:
    """Each in a fence with its name."""
    sample = Sample("q", "r", reference="t")
    for fields in (("prompt", "response", "reference"), ("reference", "response", "prompt")):
        text = asked(sample, *fields).text
        places = [text.rindex(f"<<<{field} ") for field in fields]
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("sample", "field"),
    [
        (Sample("q", image="/nowhere.png"), "image"),
        (Sample("q", image=NOISE.astype(np.float32)), "image"),  # far beyond [0, 1]
        (Sample("q", image=np.zeros((0, 3, 3), np.uint8)), "image"),
        (Sample("q", condition_images=[PICTURE, 7]), "condition_images"),
        (Sample("q", condition_images=[]), "condition_images"),
        (Sample("q", video=[]), "video"),
        (Sample("q", video="/nowhere.mp4"), "video"),
        (Sample("q", reference=["a"]), "reference"),
        (Sample("q", [{"role": "user", "content": "hm"}]), "response"),
        (Sample([{"role": "system", "content": "hm"}]), "prompt"),
        (Sample(image=PICTURE), "prompt"),
    ],
)
def test_what_cannot_be_shown_is_named(sample: Sample, field: str) -> None:
    """Reward, field and index; nothing is asked about it."""
    with ChatServer(said("Score: 10")) as server, pytest.raises(InputError) as caught:
        rating(server.url, fields=(field,))([sample])
    assert (caught.value.field, caught.value.index, caught.value.reward) == (field, 0, "RatingJudge")
    assert server.requests == []


def test_samples_are_left_as_they_are() -> None:
    """Pixels and turns."""
    pixels, turns = NOISE.copy(), [dict(turn) for turn in TURNS]
    asked(Sample(turns, "r", image=pixels), "prompt", "response", "image")
    np.testing.assert_array_equal(pixels, NOISE)
    assert turns == TURNS
