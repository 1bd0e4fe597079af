"""What a server bears: rewards that hang or end the process, requests that would fill the memory, odd metadata."""

from __future__ import annotations

import enum
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from reward_servers import LIMIT, numbers, on_thread, wait_until

from flux_rewards import (
    AestheticScore,
    ContractError,
    FunctionReward,
    InputError,
    RemoteError,
    RewardFunction,
    RewardOutput,
    Sample,
    VideoReward,
)
from flux_rewards.batching import Batcher
from flux_rewards.plain import NotPlain, from_plain
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.rewards.image.similarity import ImageSimilarity
from flux_rewards.server.reward_server import RewardServer
from flux_rewards.server.settings import Limits
from flux_rewards.wire.allowance import Allowance, TooManyError
from flux_rewards.wire.samples import pack_samples, unpack_samples

TOKEN = "s3cret"  # noqa: S105  # of nothing


class Waits(RewardFunction):
    """Waits for as long as its gate is shut where the response says so."""

    required_fields = ("response",)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = threading.Event()

    def compute_reward(self, sample: Sample) -> float:
        if sample.response == "wait":
            assert self.gate.wait(LIMIT)
        return 1.0


def ask(url: str, *responses: str, path: str = "/v1/score") -> requests.Response:
    body = {"samples": [{"response": response} for response in responses]}
    return requests.post(url + path, json=body, timeout=LIMIT)


def test_a_call_that_hangs_keeps_its_lane_and_not_the_server() -> None:
    """Over the deadline it is given up, ``/health`` says so, and another lane serves on, which is said as well."""
    reward = Waits(num_workers=2)
    server = RewardServer(reward, limits=Limits(deadline=0.3, workers=1, window=0.0))
    with on_thread(server) as running:
        assert ask(running.url, "wait").status_code == 504
        wait_until(lambda: requests.get(f"{running.url}/health", timeout=LIMIT).status_code == 503)
        assert requests.get(f"{running.url}/health", timeout=LIMIT).json() == {"status": "stuck"}
        assert ask(running.url, "go").json()["rewards"] == [1.0]
        assert requests.get(f"{running.url}/health", timeout=LIMIT).json() == {"status": "ok"}
        reward.gate.set()


def test_a_client_that_waits_for_less_is_told_in_its_time() -> None:
    """The server gives up when its client does, and not at its own deadline."""
    reward = Waits()
    with on_thread(RewardServer(reward, limits=Limits(window=0.0))) as running:
        told = requests.post(
            f"{running.url}/v1/score",
            json={"samples": [{"response": "wait"}]},
            headers={"Flux-Rewards-Patience": "0.2"},
            timeout=LIMIT,
        )
        assert (told.status_code, "within 0.2 s" in told.text) == (504, True)
        for patience in ("soon", "0", "-1", "nan"):
            headers = {"Flux-Rewards-Patience": patience}
            assert requests.post(f"{running.url}/v1/score", json={}, headers=headers, timeout=LIMIT).status_code == 400
        reward.gate.set()


def test_a_batch_for_which_nobody_waits_goes_no_further() -> None:
    """Chunks that are not begun when all clients have gone are not scored."""
    begun: list[str] = []
    gate = threading.Event()

    def score(sample: Sample) -> float:
        begun.append(str(sample.response))
        assert gate.wait(LIMIT)
        return 1.0

    batcher = Batcher(FunctionReward(score, fields=["response"], batch_size=1), max_batch=8, window=0.0)
    batcher.start()
    future = batcher.submit([Sample(response=letter) for letter in "abcd"])
    wait_until(lambda: bool(begun))
    batcher.forget(future)
    gate.set()
    wait_until(lambda: batcher.busy == 0)
    assert begun == ["a"]
    batcher.close(timeout=LIMIT)


def test_an_author_who_ends_the_process_ends_a_request() -> None:
    """`sys.exit` in a reward is that request's failure, typed and told; in `load` the server says that it failed."""
    with on_thread(RewardServer(FunctionReward(lambda _: sys.exit(3), name="quits", fields=["response"]))) as running:
        answer = ask(running.url, "a")
        assert answer.status_code in (200, 500)
        assert "SystemExit" in answer.text
        assert requests.get(f"{running.url}/health", timeout=LIMIT).status_code == 200

    class Unloadable(RewardServer):
        def compute_reward(self, prompt: list[str]) -> list[float]:  # type: ignore[override]
            return [1.0 for _ in prompt]

        def load(self) -> None:
            sys.exit("no weights")

    with on_thread(Unloadable(), ready=False) as running:
        wait_until(lambda: requests.get(f"{running.url}/health", timeout=LIMIT).json()["status"] == "failed")


def test_metadata_without_a_form_are_the_rewards_mistake_and_asked_about_once() -> None:
    """The error names sample, field and value; it is no accident, so that the client does not ask again."""
    calls: list[int] = []

    def score(sample: Sample) -> RewardOutput:
        calls.append(1)
        return RewardOutput(1.0, metadata={"seen": {1, 2}} if sample.response == "set" else {})

    with on_thread(RewardServer(FunctionReward(score, name="noter", fields=["response"]))) as running:
        with pytest.raises(RemoteError, match=r"500: ContractError: metadata that cannot be sent: \{1, 2\} is a set"):
            RemoteReward(running.url)(response=["a", "set"])
        assert len(calls) == 2
        told = ask(running.url, "a", "set", "a").json()
        assert told["metadata"] == [{}, {"seen": [1, 2]}, {}]  # plain JSON has lists only


def test_samples_are_counted_before_they_are_built() -> None:
    """Three million samples of two bytes each are refused for their number, not for what they would take."""
    allowance = Allowance(pixels=10, samples=2)
    with pytest.raises(TooManyError, match="3 samples in a request; at most 2"):
        unpack_samples(pack_samples([Sample("a")] * 3), allowance)
    with on_thread(RewardServer(Waits(), limits=Limits(max_samples=8))) as running:
        body = '{"samples": [' + ",".join(["5"] * 300_000) + "]}"  # none of which is a sample
        headers = {"Content-Type": "application/json"}
        told = requests.post(f"{running.url}/v1/score", data=body, headers=headers, timeout=LIMIT)
        assert (told.status_code, told.json()["error"]["type"]) == (413, "TooLarge")


def test_an_image_that_many_samples_share_counts_for_each() -> None:
    """It is sent once, and yet each sample's model gets it."""
    image = np.zeros((10, 10, 3), dtype=np.uint8)
    body = pack_samples([Sample("a", image=image)] * 4)
    assert len(unpack_samples(body, Allowance(pixels=400))) == 4
    with pytest.raises(InputError, match="too many pixels") as caught:
        unpack_samples(body, Allowance(pixels=399))
    assert (caught.value.field, caught.value.index) == ("image", 3)


def test_bodies_are_bounded_together() -> None:
    """What comes beside is read and not kept, and answered with 503; when there is room it is scored."""
    limits = Limits(max_body=2**20, max_bytes=2**20, window=0.0)
    reward = Waits(num_workers=2)
    with on_thread(RewardServer(reward, limits=limits)) as running, ThreadPoolExecutor(2) as pool:
        large = {"samples": [{"response": "wait", "metadata": {"padding": "x" * 900_000}}]}
        held = pool.submit(requests.post, f"{running.url}/v1/score", json=large, timeout=LIMIT)
        wait_until(lambda: numbers(running.url)["flux_rewards_busy_batches"] == 1)
        large["samples"][0]["response"] = "go"
        refused = requests.post(f"{running.url}/v1/score", json=large, timeout=LIMIT)
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "Overloaded")
        assert "Retry-After" in refused.headers
        reward.gate.set()
        assert held.result().json()["rewards"] == [1.0]
        wait_until(lambda: requests.post(f"{running.url}/v1/score", json=large, timeout=LIMIT).status_code == 200)


def test_texts_of_no_length_fill_no_memory() -> None:
    """A few bytes ask for ten thousand million texts."""
    with pytest.raises(NotPlain, match="no length"):
        from_plain({"array": ["<U0", [10**10], {"bytes": ""}]})


def test_a_reference_is_media_through_a_video_too() -> None:
    """A path is refused, whoever reads it in the end."""
    assert VideoReward(ImageSimilarity(against="reference")).reference_is_media
    assert not VideoReward(AestheticScore()).reference_is_media


class Kind(str, enum.Enum):
    """A text of a class of its own."""

    HARD = "hard"


class Level(enum.IntEnum):
    """A number of a class of its own."""

    TWO = 2


def test_group_ids_are_the_callers_own() -> None:
    """Whatever the id is, a reward that sees it sees it as it would here; none stays none."""

    class Ids(RewardFunction):
        scope = "group"
        required_fields = ("response",)

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            return [RewardOutput(1.0, metadata={"id": sample.group_id}) for sample in samples]

    ids: list[Any] = [3, 3, 1.5, "g", ("epoch", 2), None, None, Kind.HARD, Level.TWO]
    samples = [Sample("q", "a", group_id=group) for group in ids]
    local = [dict(row) for row in Ids()(samples).metadata]
    with on_thread(RewardServer(Ids())) as running:
        assert [dict(row) for row in RemoteReward(running.url)(samples).metadata] == local


def test_compute_says_which_field_of_which_sample(tmp_path: Path) -> None:
    """Its clients read a text, so the text says it; what it does not know is refused, not left out."""
    path = tmp_path / "grey.png"
    Image.new("L", (2, 2)).save(path)
    with on_thread(RewardServer(Waits())) as running:
        told = requests.post(f"{running.url}/compute", json={"prompt": ["x"]}, timeout=LIMIT)
        assert told.status_code == 422
        assert told.json()["error"].startswith("sample 0, field 'response': the reward needs this field")
        told = requests.post(f"{running.url}/compute", json={"prompt": ["x"], "images": ["y"]}, timeout=LIMIT)
        assert (told.status_code, "did you mean 'image'" in told.json()["error"]) == (422, True)
        told = requests.post(f"{running.url}/compute", data='{"prompt": ["x"]}', timeout=LIMIT)
        assert told.status_code == 415


def test_a_token_that_was_left_behind_is_taken_from_the_environment_or_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy from a pickle has no token; another process finds it where the server found its own."""
    import pickle

    with on_thread(RewardServer(FunctionReward(len_of, fields=["response"], name="n"), token=TOKEN)) as running:
        remote = RemoteReward(running.url, token=TOKEN, name="remote")
        assert remote(response=["ab"]).rewards.tolist() == [2.0]
        copy = pickle.loads(pickle.dumps(remote))
        with pytest.raises(ValueError, match="left behind when the reward was pickled; set FLUX_REWARDS_TOKEN"):
            copy(response=["ab"])
        monkeypatch.setenv("FLUX_REWARDS_TOKEN", f"{TOKEN}\n")
        assert copy(response=["ab"]).rewards.tolist() == [2.0]
        assert RemoteReward(running.url, name="remote")(response=["ab"]).rewards.tolist() == [2.0]


def len_of(sample: Sample) -> float:
    """The number of characters."""
    return float(len(sample.response_text))


def test_a_class_needs_what_its_method_has_no_default_for() -> None:
    """A field that a sample lacks is named; one that the method does not take is not sent."""

    class Both(RewardServer):
        def compute_reward(self, prompt: list[str], image: list[Any]) -> list[float]:  # type: ignore[override]
            return [1.0 for _ in prompt]

    with on_thread(Both()) as running:
        told = requests.get(f"{running.url}/v1/rewards", timeout=LIMIT).json()
        assert (told["required_fields"], told["optional_fields"]) == (["prompt", "image"], [])
        with pytest.raises(InputError, match="needs this field") as caught:
            RemoteReward(running.url)([Sample("q")])
        assert (caught.value.field, caught.value.index) == ("image", 0)


def test_required_fields_are_a_list() -> None:
    """A text would be taken apart."""
    with pytest.raises(ValueError, match="required_fields must be a list of fields, found 'prompt'"):
        RemoteReward("http://127.0.0.1:9", protocol="flow_factory", required_fields="prompt")


def test_a_token_count_is_a_list_of_whole_numbers() -> None:
    """An array of something else is refused where it arrives."""
    for wrong in (np.ones((2, 2), dtype=np.int64), np.ones(2, dtype=np.float32)):
        with pytest.raises(ValueError, match="list of whole numbers"):
            unpack_samples(pack_samples([Sample("a", token_ids=wrong)]))  # type: ignore[arg-type]


def test_contract_errors_name_what_cannot_be_told() -> None:
    """Where the answer is packed."""
    from flux_rewards import RewardBatch
    from flux_rewards.contract import Scored
    from flux_rewards.wire.answers import pack_answer, plain_answer

    batch = RewardBatch(np.array([1.0, 2.0]), metadata=[{}, {"a": object()}])
    for pack in (pack_answer, plain_answer):
        with pytest.raises(ContractError, match="is a object") as caught:
            pack(Scored(batch, {}))
        assert (caught.value.field, caught.value.index) == ("metadata", 1)
