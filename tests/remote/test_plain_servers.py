"""Plain servers of Flow-Factory: `protocol="flow_factory"`."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scripted_server import SECRET, Asked, Reply, Script, scripted

from flux_rewards import (
    MaskErrors,
    RemoteError,
    Sample,
    load_rewards,
    to_config,
)
from flux_rewards.remote.remote_reward import RemoteReward


def columns() -> Script:
    """A plain server: the sums of prompt's length and the first red of each image."""

    def score(asked: Asked) -> Reply:
        body = asked.json
        rewards = [float(len(prompt)) for prompt in body["prompt"]]
        for place, text in enumerate(body["image"] or ()):
            rewards[place] += pixels(text)[0, 0, 0] / 256
        return Reply(body={"rewards": rewards})

    return score


def pixels(text: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))))


def plain(url: str, *fields: str, **options: Any) -> RemoteReward:
    return RemoteReward(url, protocol="flow_factory", required_fields=fields or ("prompt",), **options)


RED = np.random.default_rng(3).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)


def test_the_exact_form_of_a_plain_request() -> None:
    """All five columns, null where there is none, plain base64 of PNGs without loss, and nothing else."""
    frames = np.stack([RED, RED[::-1]])
    alpha = Image.fromarray(np.dstack([RED, np.full((5, 7), 128, dtype=np.uint8)]), "RGBA")
    samples = [
        Sample(
            "a cat", image=RED, video=frames, condition_images=[RED, alpha], condition_videos=[frames], response="x"
        ),
        Sample(
            [{"role": "user", "content": "a dog"}],
            image=Image.fromarray(RED),
            video=frames,
            condition_images=RED,
            condition_videos=[frames, frames],
        ),
    ]
    fields = ("prompt", "image", "video", "condition_images", "condition_videos")
    with scripted(columns()) as server:
        batch = plain(server.url, *fields)(samples)
        (asked,) = server.to("/compute")
        assert not server.to("/v1/rewards")
    body = asked.json
    assert (asked.method, asked.headers["Content-Type"]) == ("POST", "application/json")
    assert list(body) == list(fields)
    assert body["prompt"] == ["a cat", "a dog"]
    np.testing.assert_array_equal(batch.rewards, 5 + RED[0, 0, 0] / 256)
    for text in body["image"]:
        assert base64.b64decode(text, validate=True)[:8] == b"\x89PNG\r\n\x1a\n"
        np.testing.assert_array_equal(pixels(text), RED)
    for video in (*body["video"], *body["condition_videos"][0], *body["condition_videos"][1]):
        np.testing.assert_array_equal([pixels(text) for text in video], frames)
    assert [len(entry) for entry in body["condition_videos"]] == [1, 2]
    assert [len(entry) for entry in body["condition_images"]] == [2, 1]
    np.testing.assert_array_equal(pixels(body["condition_images"][0][0]), RED)
    assert pixels(body["condition_images"][0][1]).shape == (5, 7, 3)  # on white: a plain server drops the alpha


def test_columns_that_are_not_sent_are_null() -> None:
    """Only what was asked for; a plain server cannot be asked what it needs."""
    with scripted(columns()) as server:
        plain(server.url)([Sample("a", image=RED)])
        without = plain(server.url, "image", name="images")([Sample(image=RED)])
        bodies = [asked.json for asked in server.to("/compute")]
    assert bodies[0] == {
        "prompt": ["a"],
        "image": None,
        "video": None,
        "condition_images": None,
        "condition_videos": None,
    }
    assert bodies[1]["prompt"] == [""]
    assert without.rewards.tolist() == [RED[0, 0, 0] / 256]


def test_floats_are_rounded_and_not_cut_off() -> None:
    """0.5 of 255 is 128, as for every model that is given bytes."""
    with scripted(columns()) as server:
        plain(server.url, "image")([Sample(image=np.full((2, 2, 3), 0.999)), Sample(image=np.full((2, 2, 3), 0.5))])
        sent = [pixels(text).max() for text in server.to("/compute")[0].json["image"]]
    assert sent == [255, 128]


@pytest.mark.parametrize(
    ("reply", "what", "count"),
    [
        (Reply(body={"error": "CUDA out of memory"}), "CUDA out of memory", 1),
        (Reply(500, {"detail": "CUDA out of memory"}), "CUDA out of memory", 2),
        (Reply(422, {"error": "sample 1: no image", "detail": "sample 1: no image"}), "sample 1: no image", 1),
        (Reply(422, {"detail": [{"loc": ["body", "prompt"], "msg": "field required"}]}), "field required", 1),
        (Reply(body={"rewards": [1.0]}), "expected 2 rewards", 2),
        (Reply(body={"rewards": [1.0, 2.0, 3.0]}), "expected 2 rewards", 2),
        (Reply(body={"rewards": ["1", 2.0]}), "finite number", 2),
        (Reply(body={"rewards": [True, 2.0]}), "finite number", 2),
        (Reply(body='{"rewards": [NaN, 2.0]}'), "finite number", 2),
        (Reply(body='{"rewards": [1e999, 2.0]}'), "finite number", 2),
        (Reply(body={"rewards": [10**400, 2.0]}), "number", 2),
        (Reply(body={"rewards": [[1.0], 2.0]}), "finite number", 2),
        (Reply(body={"rewards": None}), "expected 2 rewards", 2),
        (Reply(body={"scores": [1.0, 2.0]}), "expected 2 rewards", 2),
        (Reply(body=[1.0, 2.0]), r"\[1.0, 2.0\]", 1),
        (Reply(body="<html>"), "cannot be read", 2),
        (Reply(body=b""), "cannot be read", 2),
        (Reply(404, "Not Found"), "404", 1),
    ],
    ids=lambda value: str(value.body)[:40] if isinstance(value, Reply) else str(value),
)
def test_a_plain_server_that_fails(reply: Reply, what: str, count: int, pauses: list[float]) -> None:
    """Its own words, in an error, and never a score."""
    with scripted(reply) as server:
        with pytest.raises(RemoteError, match=what):
            plain(server.url, retry_attempts=2)([Sample("a"), Sample("b")])
        assert len(server.to("/compute")) == count


def test_null_of_a_plain_server_does_not_apply() -> None:
    """NaN, and no error."""
    with scripted(Reply(body={"rewards": [None, 1]})) as server:
        batch = plain(server.url)([Sample("a"), Sample("b")])
    assert batch.not_applicable.tolist() == [True, False]
    assert not batch.errors


def test_a_plain_server_gets_the_token_too() -> None:
    """Where it is behind a proxy that asks for one."""
    with scripted(columns()) as server:
        plain(server.url, token=SECRET)([Sample("a")])
        assert server.asked[-1].headers["Authorization"] == f"Bearer {SECRET}"


def test_an_image_that_a_plain_server_cannot_be_sent() -> None:
    """It fails alone, by its place, and the others are scored."""
    samples = [Sample("a", image=RED), Sample("bb", image="nowhere.png"), Sample("ccc", image=RED)]
    with scripted(columns()) as server:
        batch = MaskErrors(plain(server.url, "prompt", "image"), max_failure_rate=1.0)(samples)
    assert list(batch.errors) == [1]
    np.testing.assert_array_equal(batch.rewards[[0, 2]], np.array([1, 3]) + RED[0, 0, 0] / 256)


def test_a_plain_server_from_a_configuration() -> None:
    """With the fields that it is sent."""
    with scripted(columns()) as server:
        remote = plain(server.url, "prompt", "image", name="far")
        config = to_config(remote)
        (again,) = load_rewards(config).train.children
        assert to_config(load_rewards(config)) == config
        assert tuple(again.required_fields) == ("prompt", "image")
        assert not server.asked
