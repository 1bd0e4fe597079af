"""Requests that are none: too large, too slow, of another kind, or cut off."""

from __future__ import annotations

import json
import socket

import pytest
import requests
from malformed_binary import packed
from malformed_bodies import BINARY, JSON, MAX_BODY, MAX_SAMPLES, check_refusal, post
from reward_servers import ServerThread, numbers


@pytest.mark.parametrize(
    "kind",
    [None, "", "text/plain", "multipart/form-data; boundary=a", "application/octet-stream", "application/x-pickle"],
)
def test_another_content_type_is_refused(strict_server: ServerThread, kind: str | None) -> None:
    """What a body is, is said and not guessed."""
    response = post(strict_server, "/v1/score", b'{"samples": [{"prompt": "a"}]}', kind)
    assert response.status_code == 415
    check_refusal(strict_server, "/v1/score", response)


@pytest.mark.parametrize("kind", [JSON, f"{JSON}; charset=utf-8", "Application/JSON"])
def test_a_content_type_may_have_parameters(strict_server: ServerThread, kind: str) -> None:
    """Its case and its parameters don't matter."""
    assert post(strict_server, "/v1/score", {"samples": [{"prompt": "a"}]}, kind).status_code == 200


@pytest.mark.parametrize("path", ["/v1/score", "/compute"])
def test_a_body_that_says_that_it_is_too_large_is_refused(strict_server: ServerThread, path: str) -> None:
    """A client that has sent all of it still gets its answer."""
    response = post(strict_server, path, b" " * (MAX_BODY + 1))
    assert response.status_code == 413
    check_refusal(strict_server, path, response)


@pytest.mark.parametrize("path", ["/v1/score", "/compute"])
def test_a_body_that_becomes_too_large_is_refused(strict_server: ServerThread, path: str) -> None:
    """Sent in chunks, it has no length until it is too long."""
    response = post(strict_server, path, iter([b" " * 2**16] * 17))
    assert response.status_code == 413
    check_refusal(strict_server, path, response)


def test_too_many_samples_are_refused(strict_server: ServerThread) -> None:
    """There is a most of samples in a request, and it is said."""
    samples = [{"prompt": "a"}] * (MAX_SAMPLES + 1)
    for path, body, kind in (
        ("/v1/score", {"samples": samples}, JSON),
        ("/v1/score", packed(samples), BINARY),
        ("/compute", {"prompt": ["a"] * (MAX_SAMPLES + 1)}, JSON),
    ):
        response = post(strict_server, path, body, kind)
        assert response.status_code == 413
        assert str(MAX_SAMPLES) in str(check_refusal(strict_server, path, response)["error"])
    assert post(strict_server, "/v1/score", {"samples": samples[:-1]}).status_code == 200


def test_no_samples_have_no_scores(strict_server: ServerThread) -> None:
    """An empty request is a request."""
    assert post(strict_server, "/v1/score", {"samples": []}).json()["rewards"] == []
    assert post(strict_server, "/v1/score", packed([]), BINARY).json()["rewards"] == []
    assert post(strict_server, "/compute", {"prompt": []}).json() == {"rewards": []}


def raw(strict_server: ServerThread, head: str, *pieces: bytes, close: bool = False) -> bytes:
    """Send bytes as they are, and read an error or until there is no more; `close` ends the sending side."""
    with socket.create_connection(("127.0.0.1", strict_server.port), timeout=30) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        for piece in pieces:
            connection.sendall(piece)
        if close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while b"\r\n\r\n" not in received or b'"error"' not in received:
            more = connection.recv(65536)
            if not more:
                break
            received += more
        return received


SLOW = {
    "chunks without end": ("Transfer-Encoding: chunked", (b"5\r\n     \r\n",)),
    "no chunks": ("Transfer-Encoding: chunked", ()),
    "half a chunk": ("Transfer-Encoding: chunked", (b"ffff\r\n{",)),
    "a length longer than the body": ("Content-Length: 500", (b'{"samples": []}',)),
    "a length and no body": ("Content-Length: 500", ()),
}


@pytest.mark.parametrize(
    ("path", "what"), [*(("/v1/score", what) for what in SLOW), ("/compute", "chunks without end")]
)
def test_a_body_that_does_not_come_is_given_up(strict_server: ServerThread, path: str, what: str) -> None:
    """A client that says that there is more, and does not send it, holds nothing for long."""
    header, pieces = SLOW[what]
    answer = raw(strict_server, f"POST {path} HTTP/1.1\nHost: a\nContent-Type: {JSON}\n{header}\n\n", *pieces)
    status, _, rest = answer.partition(b"\r\n")
    assert status.split()[1] == b"408"
    told = json.loads(rest.partition(b"\r\n\r\n")[2])["error"]
    assert told if path == "/compute" else told["type"] == "TooSlow"
    assert post(strict_server, path, {"prompt": []} if path == "/compute" else {"samples": []}).status_code == 200


@pytest.mark.parametrize(
    "header", ["Content-Length: -5", "Content-Length: abc", "Content-Length: 5\nContent-Length: 6", "A bad line"]
)
def test_a_request_that_is_not_http_is_refused(strict_server: ServerThread, header: str) -> None:
    """What cannot even be taken for a request is a 400, and the server goes on."""
    answer = raw(strict_server, f"POST /v1/score HTTP/1.1\nHost: a\nContent-Type: {JSON}\n{header}\n\n")
    assert answer.split(b" ")[1] == b"400"
    assert b"Traceback" not in answer
    assert post(strict_server, "/v1/score", {"samples": []}).status_code == 200


def test_a_client_that_hangs_up_in_the_middle_of_its_body_is_no_failure_of_the_server(
    strict_server: ServerThread,
) -> None:
    """Nothing is counted as a 500, and the server goes on."""
    failures = 'flux_rewards_requests_total{path="/v1/score",status="500"}'
    before = numbers(strict_server.url).get(failures, 0.0)
    head = f"POST /v1/score HTTP/1.1\nHost: a\nContent-Type: {JSON}\nContent-Length: 500\n\n"
    assert raw(strict_server, head, b'{"samples": ', close=True) == b""
    assert post(strict_server, "/v1/score", {"samples": []}).status_code == 200
    assert numbers(strict_server.url).get(failures, 0.0) == before


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/v1/score", 405), ("DELETE", "/compute", 405), ("POST", "/health", 405)],
)
def test_there_is_an_answer_where_there_is_nothing(
    strict_server: ServerThread, method: str, path: str, status: int
) -> None:
    """Pages that there are not, and methods, are refused in the same form."""
    response = requests.request(method, strict_server.url + path, timeout=30)
    assert response.status_code == status
    check_refusal(strict_server, path, response)
