"""What a server tells about itself, and classes with a `compute_reward` of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from reward_servers import LIMIT, numbers, on_thread
from server_rewards import Brightness, GroupNotes, Notes, Parted

import flux_rewards
from flux_rewards import CompositeReward, ContractError, RemoteError, Sample
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.server.reward_server import RewardServer
from flux_rewards.server.settings import Limits

JSON = "application/json"


def test_metrics_count_what_happens(tmp_path: Path) -> None:
    """Requests by path and status, samples, failures and batches, in a form that Prometheus reads."""
    with on_thread(RewardServer(Notes(str(tmp_path)), limits=Limits(window=0.0))) as server:
        fails = {"response": "c", "metadata": {"raise": "input"}}
        for samples in ([{"response": "a"}], [{"response": "a"}, {"response": "bb"}, fails], [], [{"prompt": "q"}]):
            requests.post(f"{server.url}/v1/score", json={"samples": samples}, timeout=LIMIT)
        requests.post(f"{server.url}/v1/score", data=b"{", headers={"Content-Type": JSON}, timeout=LIMIT)
        requests.post(f"{server.url}/compute", json={"prompt": ["a"]}, timeout=LIMIT)
        numbers(server.url)
        told = numbers(server.url)
    named = {name.removeprefix("flux_rewards_"): value for name, value in told.items()}
    counted = {
        name: value for name, value in named.items() if name.startswith("requests_total") and "health" not in name
    }
    assert counted == {
        'requests_total{path="/v1/score",status="200"}': 3.0,
        'requests_total{path="/v1/score",status="400"}': 1.0,
        'requests_total{path="/v1/score",status="422"}': 1.0,
        'requests_total{path="/compute",status="422"}': 1.0,
        'requests_total{path="/metrics",status="200"}': 1.0,
    }
    assert named["samples_total"] == 4.0
    assert named["failures_total"] == 1.0
    assert named["batch_samples_sum"] == 4.0
    assert named["batch_requests_sum"] == named["batch_requests_count"]
    assert named["waiting_samples"] == named["busy_batches"] == 0.0
    assert named['request_seconds_count{path="/v1/score"}'] == 5.0
    assert named["batch_seconds_count"] == named["batch_samples_count"]


def test_metrics_of_two_servers_are_their_own(tmp_path: Path) -> None:
    """Two servers in one process don't share their numbers, nor have a global registry."""
    with (
        on_thread(RewardServer(Notes(str(tmp_path)))) as one,
        on_thread(RewardServer(Notes(str(tmp_path)))) as two,
    ):
        requests.post(f"{one.url}/v1/score", json={"samples": [{"response": "a"}]}, timeout=LIMIT)
        assert numbers(one.url)["flux_rewards_samples_total"] == 1.0
        assert numbers(two.url)["flux_rewards_samples_total"] == 0.0


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (
            Brightness(name="light"),
            {
                "name": "light",
                "scope": "sample",
                "required_fields": ["image"],
                "optional_fields": ["prompt", "response", "video", "condition_images", "condition_videos"],
                "bounds": None,
            },
        ),
        (
            GroupNotes("."),
            {
                "name": "GroupNotes",
                "scope": "group",
                "required_fields": ["response"],
                "optional_fields": ["prompt", "metadata", "image", "group_id", "reference"],
            },
        ),
        (
            CompositeReward([(Notes("."), 1.0), (Brightness(clip=(0.0, 9.0), scale=-1.0), 1.0)]),
            {"scope": "sample", "required_fields": ["response", "image"], "bounds": None},
        ),
        (Brightness(clip=(0.0, 9.0)), {"bounds": [0.0, 9.0], "higher_is_better": True}),
        (Parted(), {"optional_fields": None}),
    ],
    ids=["a sample", "a group", "several", "bounds", "any field"],
)
def test_a_server_tells_what_it_serves(reward: Any, told: dict[str, Any]) -> None:
    """`/v1/rewards` says what a client needs to know, and the version."""
    with on_thread(RewardServer(reward)) as server:
        found = requests.get(f"{server.url}/v1/rewards", timeout=LIMIT).json()
    assert {key: found[key] for key in told} == told
    assert found["version"] == flux_rewards.__version__


def test_there_are_pages_for_people_and_their_tools() -> None:
    """`/docs` and the document behind it name every path."""
    with on_thread(RewardServer(Brightness())) as server:
        docs = requests.get(f"{server.url}/docs", timeout=LIMIT)
        assert docs.status_code == 200
        assert docs.headers["Content-Type"].startswith("text/html")
        document = requests.get(f"{server.url}/openapi.json", timeout=LIMIT).json()
    assert {"/health", "/compute", "/v1/score", "/v1/rewards", "/metrics"} <= document["paths"].keys()


def test_a_plain_answer_is_plain_json_and_an_exact_one_exact() -> None:
    """Parts, token rewards and metadata: as JSON has them for any client, as they were for this library's own."""
    with on_thread(RewardServer(Parted())) as server:
        body = {"samples": [{"response": "a"}, {"response": "b"}]}
        plain = requests.post(f"{server.url}/v1/score", json=body, timeout=LIMIT).json()
        exact = RemoteReward(server.url)([Sample(response="a"), Sample(response="b")])
    assert plain["rewards"] == [0.0, 1.0]
    assert plain["token_rewards"] == [[0.5, 1.5]] * 2
    assert plain["metadata"] == [{"size": [1, 2], "array": [1.0, None], "bytes": "AA=="}] * 2
    assert plain["parts"]["twice"]["rewards"] == [0.0, 2.0]
    assert exact.rewards.tolist() == [0.0, 1.0]
    assert exact.metadata[0]["size"] == (1, 2)
    assert exact.metadata[0]["bytes"] == b"\x00"
    np.testing.assert_array_equal(exact.metadata[0]["array"], [1.0, math.nan])


# Classes of a user's own


class Written(RewardServer):
    """As a user writes it: notes what it is given, and returns what it is told to."""

    def __init__(self, returns: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.returns = returns
        self.given: Any = None
        self.loaded = False

    def load(self) -> None:
        self.loaded = True

    def compute_reward(
        self,
        prompt: list[str],
        image: list[Any] | None = None,
        video: list[Any] | None = None,
        condition_images: list[Any] | None = None,
        condition_videos: list[Any] | None = None,
    ) -> Sequence[float | None]:
        self.given = (prompt, image, video, condition_images, condition_videos)
        return [float(len(entry)) for entry in prompt] if self.returns is None else self.returns


class PromptsOnly(RewardServer):
    """A `compute_reward` that takes no media."""

    def compute_reward(self, prompt: list[str]) -> list[float]:  # type: ignore[override]
        return [float(len(entry)) for entry in prompt]


@pytest.fixture(scope="module")
def written() -> Iterator[tuple[Written, str]]:
    """One that is told what to return, and where it listens."""
    server = Written()
    with on_thread(server) as running:
        yield server, running.url


def compute(url: str, **columns: Any) -> requests.Response:
    return requests.post(f"{url}/compute", json=columns, timeout=LIMIT)


def test_a_class_of_ones_own_gets_lists_and_is_loaded_first() -> None:
    """Lists with one entry a sample, None for the columns that nobody sent; a number a sample comes back."""
    fresh = Written()
    with on_thread(fresh) as server:
        assert fresh.loaded
        assert compute(server.url, prompt=["a", "bbb"], image=None).json() == {"rewards": [1.0, 3.0]}
        assert fresh.given == (["a", "bbb"], None, None, None, None)
    with on_thread(PromptsOnly()) as server:
        assert compute(server.url, prompt=["a", "bbb"]).json() == {"rewards": [1.0, 3.0]}


@pytest.mark.parametrize("returned", [[None], [0.25], [np.float32(0.25)], np.array([0.25]), [3]], ids=str)
def test_what_a_class_returns_is_what_is_answered(written: tuple[Written, str], returned: Any) -> None:
    """None stays null: it does not apply."""
    server, url = written
    server.returns = returned
    expected = None if returned[0] is None else float(returned[0])
    assert compute(url, prompt=["a"]).json() == {"rewards": [expected]}


@pytest.mark.parametrize(
    "returned", [[], [1.0, 2.0], ["1"], [math.nan], [math.inf], 5.0, "a", [[1.0]], {"a": 1.0}], ids=str
)
def test_what_a_class_must_not_return_is_no_score(written: tuple[Written, str], returned: Any) -> None:
    """A wrong number of scores, or something else than numbers, fails, and is not made into a number."""
    server, url = written
    server.returns = returned
    response = compute(url, prompt=["a"])
    assert response.status_code in (422, 500)
    assert isinstance(response.json()["error"], str)
    assert "rewards" not in response.json()
    with pytest.raises(RemoteError):
        RemoteReward(url, "flow_factory", retry_attempts=1)([Sample("a")])


def test_a_server_has_a_reward_or_a_method_and_not_both() -> None:
    """What is served is said once."""
    with pytest.raises(ContractError, match="needs a reward"):
        RewardServer()
    with pytest.raises(ContractError, match="not both"):
        Written(reward=Brightness())
