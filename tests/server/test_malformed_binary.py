"""Binary bodies that hold no samples: nothing in them acts, names a file, or grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from malformed_binary import FOUR, NO_BINARY, nested_plain, packed
from malformed_bodies import BINARY, PNG, base, check_refusal, post
from reward_servers import ServerThread, on_thread
from server_rewards import Likeness

from flux_rewards import Sample
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.server.reward_server import RewardServer
from flux_rewards.wire.samples import unpack_samples


@pytest.mark.parametrize("what", NO_BINARY)
def test_what_is_no_binary_is_refused(strict_server: ServerThread, what: str) -> None:
    """Whatever the header says, nothing is read beyond the body, and nothing acts."""
    response = post(strict_server, "/v1/score", NO_BINARY[what], BINARY)
    assert response.status_code == 400
    check_refusal(strict_server, "/v1/score", response)


@pytest.mark.parametrize("depth", [50, 200, 300, 400, 900])
@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
def test_what_is_nested_is_read_or_refused(strict_server: ServerThread, kind: str, depth: int) -> None:
    """However deep a value is that can just be read, it does not become a failure of the strict_server."""
    response = post(strict_server, "/v1/score", packed(nested_plain(kind, depth)), BINARY)
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        check_refusal(strict_server, "/v1/score", response)
    assert response.status_code == 200 or depth > 50


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", 5),
        ("prompt", {"dict": []}),
        ("prompt", {"bytes": "AAEC"}),
        ("prompt", [5]),
        ("response", 5.5),
        ("response", {"buffer": "0"}),
        ("image", 5),
        ("image", {"dict": []}),
        ("image", {"bytes": base(PNG)}),
        ("video", 5),
        ("condition_images", {"tuple": [5]}),
        ("condition_videos", [[5]]),
        ("token_ids", "abc"),
        ("token_ids", 5),
        ("token_ids", [1.5]),
        ("token_offsets", [[0, 1], 5]),
        ("token_offsets", "ab"),
        ("group_id", [1]),
        ("group_id", {"dict": []}),
        ("metadata", 5),
        ("metadata", "a"),
        ("metadata", [1]),
    ],
    ids=str,
)
def test_a_value_of_a_wrong_type_in_binary_is_refused(strict_server: ServerThread, field: str, value: Any) -> None:
    """The fields of a sample have their types in this form, too."""
    response = post(strict_server, "/v1/score", packed([{"prompt": "a"}, {field: value}], **FOUR), BINARY)
    check_refusal(strict_server, "/v1/score", response)


@pytest.mark.parametrize("field", ["image", "video", "condition_images", "condition_videos"])
def test_a_path_in_binary_is_refused(strict_server: ServerThread, tmp_path: Path, field: str) -> None:
    """A client names no files of the strict_server, even such as are there and hold an image."""
    path = tmp_path / "private.png"
    path.write_bytes(PNG)
    address: Any = str(path)
    for value in (address, [address], [[address]], {"tuple": [address]}, f"file://{address}"):
        response = post(strict_server, "/v1/score", packed([{"prompt": "a", field: value}]), BINARY)
        check_refusal(strict_server, "/v1/score", response)
        assert address not in response.text


@pytest.mark.parametrize("form", ["json", "binary"])
def test_a_reference_that_is_an_image_is_not_named_by_its_path(tmp_path: Path, form: str) -> None:
    """Where a reward compares with an image, the image is sent: a file that is there is neither read nor missed."""
    path = tmp_path / "private.png"
    path.write_bytes(PNG)
    with on_thread(RewardServer(Likeness())) as server:
        for name in (str(path), f"file://{path}", str(tmp_path / "missing.png")):
            if form == "json":
                response = post(server, "/v1/score", {"samples": [{"image": base(PNG), "reference": name}]})
            else:
                response = post(
                    server, "/v1/score", packed([{"image": {"buffer": "0"}, "reference": name}], **FOUR), BINARY
                )
            assert response.status_code in (400, 422)
            assert name not in response.text
        images = [Sample(image=np.full((2, 2, 3), 7, np.uint8), reference=np.full((2, 2, 3), 9, np.uint8))]
        assert RemoteReward(server.url)(images).rewards.tolist() == [2.0]


def test_a_buffer_that_many_share_is_not_copied_for_each(strict_server: ServerThread) -> None:
    """A small body does not become a large one in memory: each tensor of a buffer is one and the same."""
    many = [{"prompt": "a", "metadata": {"dict": [["one", {"tensor": ["0", "uint8"]}]]}}] * 20
    rows = unpack_samples(packed(many, **FOUR))
    assert len({row.metadata["one"].data_ptr() for row in rows}) == 1
