"""Who may ask: tokens, and hosts that others can reach."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from reward_servers import COMMAND, LIMIT, ServerThread, command, numbers, on_thread, start
from server_rewards import Everything

from flux_rewards import ConfigError, RemoteError, Sample, config
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.server.reward_server import RewardServer
from flux_rewards.wrappers.mask_errors import MaskErrors

TOKEN = "s3cret-T0ken"  # noqa: S105  # of these tests
EVERYWHERE = "0.0.0.0"  # noqa: S104  # what is refused
PAGES = [("GET", "/v1/rewards"), ("GET", "/metrics"), ("POST", "/v1/score"), ("POST", "/compute")]
LENGTH = {"rewards": [{"reward_model": "length", "target": 4, "unit": "characters"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    """One that needs a token; /health, which `on_thread` asks, does not."""
    with on_thread(RewardServer(Everything(), token=TOKEN)) as running:
        yield running


def ask(server: ServerThread, method: str, path: str, authorization: bytes | str | None) -> requests.Response:
    headers: dict[str, bytes | str] = {} if authorization is None else {"Authorization": authorization}
    body: dict[str, Any] = {"prompt": ["a"]} if path == "/compute" else {"samples": [{"prompt": "a"}]}
    return requests.request(
        method, server.url + path, json=body if method == "POST" else None, headers=headers, timeout=LIMIT
    )


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.lower()}",
        f"Bearer {TOKEN} {TOKEN}",
        TOKEN,
        f"Basic {TOKEN}",
        f"Token {TOKEN}",
        f"Bearer: {TOKEN}",
        f"Bearer={TOKEN}",
        f"Bearer {TOKEN}é".encode("latin-1"),
        f"Bearer {TOKEN}é".encode(),
        b"Bearer \xff\xfe",
        "Bearer null",
        "Bearer None",
    ],
    ids=ascii,
)
def test_a_wrong_token_is_refused(server: ServerThread, authorization: bytes | str | None) -> None:
    """On every page, with 401, the header that says what is missing, and nothing about the right one."""
    for method, path in PAGES:
        response = ask(server, method, path, authorization)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in response.text
        error = response.json()["error"]
        assert isinstance(error, str) if path == "/compute" else error["type"] == "Unauthorized"


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN}"])
def test_the_right_token_is_taken(server: ServerThread, authorization: str) -> None:
    """The scheme is written in any case."""
    for method, path in PAGES:
        assert ask(server, method, path, authorization).status_code == 200


def test_health_needs_no_token(server: ServerThread) -> None:
    """Whoever watches the service need not be able to use it."""
    assert ask(server, "GET", "/health", None).json() == {"status": "ok"}
    assert ask(server, "GET", "/health", "Bearer wrong").status_code == 200


def test_a_wrong_token_is_refused_before_the_body_is_read(server: ServerThread) -> None:
    """A stranger's body is none of the server's business, whatever it is."""
    response = requests.post(f"{server.url}/v1/score", data=b"{", timeout=LIMIT)
    assert response.status_code == 401


def test_refusals_are_counted(server: ServerThread) -> None:
    """Somebody who tries tokens is seen."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    name = 'flux_rewards_requests_total{path="/v1/score",status="401"}'
    before = numbers(server.url, headers).get(name, 0.0)
    ask(server, "POST", "/v1/score", "Bearer guess")
    assert numbers(server.url, headers)[name] == before + 1


def test_a_client_with_the_token_is_served(server: ServerThread) -> None:
    """Without it, or with another, it hears of a 401 at once: another try does not help."""
    assert RemoteReward(server.url, token=TOKEN)([Sample("a")]).rewards.tolist() == [1.0]
    for token in (None, "wrong"):
        with pytest.raises(RemoteError, match="401") as caught:
            RemoteReward(server.url, token=token)([Sample("a")])
        assert not caught.value.retryable


def test_the_token_is_shown_nowhere(server: ServerThread, caplog: pytest.LogCaptureFixture) -> None:
    """Neither printed, nor pickled, nor in a configuration, an error, a log, or a copy's representation."""
    caplog.set_level(logging.DEBUG)
    reward = RemoteReward(server.url, token=TOKEN, name="remote")
    wrong = RemoteReward(server.url, token=f"{TOKEN}-wrong", name="remote")
    reward([Sample("a")])
    with pytest.raises(RemoteError) as caught:
        wrong([Sample("a")])
    masked = MaskErrors(RemoteReward(server.url, token=f"{TOKEN}-wrong", name="remote"), max_failure_rate=1.0)
    masked_errors: Any = None
    try:
        masked_errors = masked([Sample("a")]).errors
    except RemoteError as error:
        masked_errors = error
    shown = [
        repr(reward),
        str(reward),
        repr(copy.deepcopy(reward)),
        json.dumps(config.to_config(reward), default=str),
        str(caught.value),
        repr(caught.value),
        repr(caught.value.__cause__),
        repr(caught.value.__context__),
        str(masked_errors),
        repr(RewardServer(Everything(), token=TOKEN)),
        caplog.text,
    ]
    assert [text for text in shown if TOKEN in text] == []
    assert TOKEN.encode() not in pickle.dumps(reward)
    assert TOKEN.encode() not in pickle.dumps(caught.value)


def test_a_server_that_others_can_reach_needs_a_token() -> None:
    """The class refuses it, and says what to do."""
    for host in (EVERYWHERE, "::", "192.0.2.7", "example.org", ""):
        with pytest.raises(ConfigError, match="token"):
            RewardServer(Everything(), host=host)
        RewardServer(Everything(), host=host, token=TOKEN)
        RewardServer(Everything(), host=host, require_token=False)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        RewardServer(Everything(), host=host)


@pytest.mark.parametrize("token", ["", " ", "\t", "größe", "\u200b", "line\nbreak", " around ", "a b", "nul\0"])
def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    """An empty one would let everybody in; one with a blank or a line break could never be given."""
    with pytest.raises(ConfigError, match="token"):
        RewardServer(Everything(), token=token)


@pytest.mark.parametrize("given", [None, ""], ids=["none", "an empty one"])
def test_the_command_refuses_other_hosts_without_a_token(tmp_path: Path, given: str | None) -> None:
    """It names the variable and --no-token, and does not listen."""
    (tmp_path / "rewards.yaml").write_text(json.dumps(LENGTH))
    server = start(
        tmp_path,
        COMMAND,
        ["serve", "rewards.yaml", "--host", EVERYWHERE, "--port", "0"],
        {"FLUX_REWARDS_TOKEN": given},
    )
    try:
        assert server.exit_code() not in (0, 97)
        assert "FLUX_REWARDS_TOKEN" in server.printed
        assert "--no-token" in server.printed
        assert "serving" not in server.printed
        assert "Traceback" not in server.printed
    finally:
        server.end()


def test_the_command_serves_other_hosts_to_anybody_where_it_is_told_to(tmp_path: Path) -> None:
    """`--no-token`."""
    with command(tmp_path, LENGTH, "--no-token", host=EVERYWHERE) as server:
        assert RemoteReward(server.url)(response=["four"]).rewards.tolist() == [1.0]


@pytest.mark.parametrize("token", [TOKEN, f"{TOKEN}\n"], ids=["as it is", "with a line break, as of a file"])
def test_the_command_takes_its_token_from_the_environment(tmp_path: Path, token: str) -> None:
    """From the variable that is named; it is not printed."""
    environment = {"MY_TOKEN": token, "FLUX_REWARDS_TOKEN": "another"}
    with command(tmp_path, LENGTH, "--token-env", "MY_TOKEN", host=EVERYWHERE, environment=environment) as server:
        assert requests.get(f"{server.url}/v1/rewards", timeout=LIMIT).status_code == 401
        assert RemoteReward(server.url, token=TOKEN)(response=["four"]).rewards.tolist() == [1.0]
        with pytest.raises(RemoteError, match="401"):
            RemoteReward(server.url, token=environment["FLUX_REWARDS_TOKEN"])(response=["four"])
        assert TOKEN not in server.printed
