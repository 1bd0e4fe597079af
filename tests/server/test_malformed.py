"""JSON that holds no samples: each body is refused by itself, in the form that is promised."""

from __future__ import annotations

import gzip
import random
from typing import TYPE_CHECKING, Any

import pytest
from malformed_bodies import (
    BAD_COLUMNS,
    BAD_VALUES,
    MAX_PIXELS,
    NO_IMAGES,
    NO_JSON,
    NO_SAMPLES,
    PNG,
    base,
    check_refusal,
    encoded,
    post,
)

from flux_rewards.errors import InputError
from flux_rewards.wire.allowance import Allowance
from flux_rewards.wire.json_samples import Images

if TYPE_CHECKING:
    from reward_servers import ServerThread


@pytest.mark.parametrize("what", NO_IMAGES)
@pytest.mark.parametrize("path", ["/v1/score", "/compute"])
def test_what_is_no_image_is_refused_with_its_field_and_index(
    strict_server: ServerThread, path: str, what: str
) -> None:
    """Only a PNG, JPEG or WebP in base64 is an image: nothing is fetched, opened or unpacked that is none."""
    good, bad = base(PNG), NO_IMAGES[what]
    body = {"prompt": ["a", "b"], "image": [good, bad]}
    if path == "/v1/score":
        body = {"samples": [{"prompt": "a", "image": good}, {"prompt": "b", "image": bad}]}
    response = post(strict_server, path, body)
    assert response.status_code == 422
    told = check_refusal(strict_server, path, response)
    if path == "/v1/score":
        assert (told["error"]["field"], told["error"]["index"]) == ("image", 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("video", base(PNG)),
        ("video", [base(PNG), 5]),
        ("video", [[base(PNG)]]),
        ("video", {"frames": []}),
        ("video", "/etc/passwd"),
        ("condition_images", base(PNG)),
        ("condition_images", [["x"]]),
        ("condition_images", ["/etc/passwd"]),
        ("condition_videos", [base(PNG)]),
        ("condition_videos", [["file:///etc/passwd"]]),
        ("condition_videos", [[[base(PNG)]]]),
        ("condition_videos", 1.5),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/v1/score", "/compute"])
def test_what_is_no_media_is_refused_with_its_field_and_index(
    strict_server: ServerThread, path: str, field: str, value: Any
) -> None:
    """Videos and condition media are lists of images, as deep as they are meant to be."""
    body = {"prompt": ["a", "b"], field: [None, value]}
    if path == "/v1/score":
        body = {"samples": [{"prompt": "a"}, {"prompt": "b", field: value}]}
    response = post(strict_server, path, body)
    assert response.status_code == 422
    told = check_refusal(strict_server, path, response)
    if path == "/v1/score":
        assert (told["error"]["field"], told["error"]["index"]) == (field, 1)


@pytest.mark.parametrize("path", ["/v1/score", "/compute"])
def test_the_pixels_of_a_request_are_counted_together(strict_server: ServerThread, path: str) -> None:
    """Images each of which is small enough are refused where they are too many, before they are unpacked."""
    image = base(encoded("PNG", (50, 50)))

    def body(count: int) -> Any:
        if path == "/v1/score":
            return {"samples": [{"video": [image] * count}]}
        return {"prompt": ["a"], "video": [[image] * count]}

    assert post(strict_server, path, body(MAX_PIXELS // 2500)).status_code == 200
    response = post(strict_server, path, body(MAX_PIXELS // 2500 + 1))
    assert response.status_code == 422
    check_refusal(strict_server, path, response)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_good_image_is_taken(strict_server: ServerThread, form: str) -> None:
    """What the other tests refuse is not refused for being an image; a data URL of a PNG is one, too."""
    image = base(encoded(form))
    assert post(strict_server, "/compute", {"prompt": ["a"], "image": [image]}).json() == {"rewards": [1.0]}
    if form == "PNG":
        image = "data:image/png;base64," + image
        assert post(strict_server, "/compute", {"prompt": ["a"], "image": [image]}).json() == {"rewards": [1.0]}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_image_is_read_or_refused_and_nothing_else(form: str) -> None:
    """Whatever a decoder stumbles over, it is the sample that is refused."""
    generator = random.Random(form)
    whole = encoded(form, (24, 24))
    for _ in range(700):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        if generator.random() < 0.3:
            del data[generator.randrange(len(data)) :]
        try:
            Images(Allowance(10**6)).image(base(bytes(data)), "image", 0)
        except InputError as error:
            assert error.field == "image"  # noqa: PT017  # either way is right


@pytest.mark.parametrize("what", NO_JSON)
@pytest.mark.parametrize("path", ["/v1/score", "/compute"])
def test_what_is_no_json_is_refused(strict_server: ServerThread, path: str, what: str) -> None:
    """A body that cannot be read at all is malformed."""
    response = post(strict_server, path, NO_JSON[what])
    assert response.status_code == 400
    check_refusal(strict_server, path, response)


@pytest.mark.parametrize("path", ["/v1/score", "/compute"])
def test_a_compressed_body_is_refused(strict_server: ServerThread, path: str) -> None:
    """Nothing is unpacked: a small body stays small."""
    body = gzip.compress(b'{"samples": [{"prompt": "a"}], "prompt": ["a"]}')
    check_refusal(strict_server, path, post(strict_server, path, body, **{"Content-Encoding": "gzip"}))


@pytest.mark.parametrize("what", NO_SAMPLES)
def test_what_holds_no_samples_is_refused(strict_server: ServerThread, what: str) -> None:
    """JSON of another shape is not taken for an empty request."""
    check_refusal(strict_server, "/v1/score", post(strict_server, "/v1/score", NO_SAMPLES[what]))


@pytest.mark.parametrize(("field", "value"), BAD_VALUES, ids=lambda text: text[:30].encode("ascii", "replace").decode())
def test_a_value_of_a_wrong_type_is_refused_with_its_field_and_index(
    strict_server: ServerThread, field: str, value: str
) -> None:
    """Each field of a sample has its types, and there are no other fields."""
    body = f'{{"samples": [{{"prompt": "a"}}, {{"{field}": {value}}}]}}'
    response = post(strict_server, "/v1/score", body)
    assert response.status_code == 422
    error = check_refusal(strict_server, "/v1/score", response)["error"]
    assert error["index"] == 1
    if len(field) < 50 and field.isprintable() and "\\" not in field:
        assert error["field"] == field


@pytest.mark.parametrize("row", ["null", "5", '"a"', "[]", "true", "NaN"])
def test_a_sample_that_is_no_object_is_refused_with_its_index(strict_server: ServerThread, row: str) -> None:
    """A sample is an object with fields."""
    response = post(strict_server, "/v1/score", f'{{"samples": [{{"prompt": "a"}}, {row}]}}')
    assert response.status_code == 422
    assert check_refusal(strict_server, "/v1/score", response)["error"]["index"] == 1


@pytest.mark.parametrize("what", BAD_COLUMNS)
def test_columns_that_do_not_fit_are_refused(strict_server: ServerThread, what: str) -> None:
    """The columns of ``/compute`` are lists of one length, with a text for each prompt."""
    check_refusal(strict_server, "/compute", post(strict_server, "/compute", BAD_COLUMNS[what]))
