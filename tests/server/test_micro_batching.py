"""Requests that come at the same time are scored together, and yet each is by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from reward_servers import LIMIT, ServerThread, numbers, on_thread, wait_until
from server_rewards import GroupNotes, Notes

from flux_rewards import CompositeReward, ContractError, GroupCenter, GroupRank, RewardFunction, Sample
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.server.reward_server import RewardServer
from flux_rewards.server.settings import Limits
from flux_rewards.wrappers.mask_errors import MaskErrors


class Fussy(RewardFunction):
    """Breaks its contract for a response of "many": two rows too many."""

    required_fields = ("response",)

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        extra = 2 if any(sample.response == "many" for sample in samples) else 0
        return [1.0] * (len(samples) + extra)


class NotesThatSeeNoIds(Notes):
    """Declares what it reads, and group_id is not among it."""

    optional_fields = ("metadata",)


class Batches:
    """A server with one worker, which is held while requests are sent, so that they wait together.

    Args:
        server: The server.
        folder: Of its reward.
    """

    def __init__(self, server: ServerThread, folder: Path) -> None:
        self.server, self.folder = server, folder

    def together(self, *bodies: Sequence[dict[str, Any]]) -> list[requests.Response]:
        """The answers to requests that come while the worker scores another."""
        with ThreadPoolExecutor(len(bodies) + 1) as pool:
            held = pool.submit(self.post, [{"prompt": "held", "response": "held", "metadata": {"gate": "gate"}}])
            wait_until(lambda: numbers(self.server.url)["flux_rewards_busy_batches"] == 1)
            waiting, answers = 0, []
            for body in bodies:  # one after the other: so their order is known
                answers.append(pool.submit(self.post, body))
                waiting += len(body)
                wait_until(lambda: numbers(self.server.url)["flux_rewards_waiting_samples"] == waiting)  # noqa: B023
            (self.folder / "gate").touch()
            assert held.result().status_code == 200
            return [answer.result() for answer in answers]

    def post(self, samples: Sequence[dict[str, Any]]) -> requests.Response:
        return requests.post(f"{self.server.url}/v1/score", json={"samples": list(samples)}, timeout=LIMIT)

    @property
    def calls(self) -> list[list[str]]:
        """The responses of each call of the reward, but those that were held."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [line.split()[1:] for line in lines if "held" not in line]


def serve(reward: RewardFunction, **limits: Any) -> Any:
    return on_thread(RewardServer(reward, limits=Limits(**{"workers": 1, "window": 0.0, **limits})))


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batches]:
    """A server for tests that need no server of their own."""
    folder = tmp_path_factory.mktemp("notes")
    with serve(Notes(str(folder))) as server:
        yield Batches(server, folder)


def one(response: str, **metadata: Any) -> list[dict[str, Any]]:
    return [{"prompt": "q", "response": response, "metadata": metadata}]


def many(*responses: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": "q", "response": response, **fields} for response in responses]


def rewards(answers: Sequence[requests.Response]) -> list[Any]:
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    return [answer.json()["rewards"] for answer in answers]


def test_requests_of_one_sample_are_merged_and_each_gets_its_own(tmp_path: Path) -> None:
    """The reward sees one call; `/metrics` says how many requests and samples it was made of."""
    with serve(Notes(str(tmp_path))) as server:
        answers = Batches(server, tmp_path).together(*(one("x" * number) for number in range(1, 21)))
        told = numbers(server.url)
    assert rewards(answers) == [[float(number)] for number in range(1, 21)]
    assert Batches(server, tmp_path).calls == [["x" * number for number in range(1, 21)]]
    assert told["flux_rewards_batch_requests_count"] == 2
    assert told["flux_rewards_batch_requests_sum"] == 21
    assert told["flux_rewards_batch_samples_sum"] == 21
    assert told['flux_rewards_batch_requests_bucket{le="1.0"}'] == 1


def test_a_request_is_never_split_and_no_batch_is_larger_than_it_may_be(tmp_path: Path) -> None:
    """Those that do not fit go with the next batch, in their order; one that is larger goes by itself, whole."""
    with serve(Notes(str(tmp_path)), max_batch=4) as server:
        batches = Batches(server, tmp_path)
        bodies = [many("a1", "a2"), many("b1", "b2"), many("c1", "c2", "c3"), many("d1", "d2"), many(*"efghij")]
        answers = batches.together(*bodies)
    assert rewards(answers) == [[2.0] * 2, [2.0] * 2, [2.0] * 3, [2.0] * 2, [1.0] * 6]
    assert batches.calls == [["a1", "a2", "b1", "b2"], ["c1", "c2", "c3"], ["d1", "d2"], list("efghij")]


def test_a_window_waits_for_others(tmp_path: Path) -> None:
    """A request waits until its batch is full, which ends a window of an hour; one that is alone does not wait."""
    with (
        serve(Notes(str(tmp_path), num_workers=2), window=3600.0, max_batch=3, workers=2) as server,
        ThreadPoolExecutor(4) as pool,
    ):
        batches = Batches(server, tmp_path)
        held = pool.submit(batches.post, one("held", gate="gate"))
        wait_until(lambda: numbers(server.url)["flux_rewards_busy_batches"] == 1)
        answers = list(pool.map(batches.post, [one("a"), one("bb"), one("ccc")]))
        (tmp_path / "gate").touch()
        assert rewards([*answers, held.result()]) == [[1.0], [2.0], [3.0], [4.0]]
    assert [len(call) for call in batches.calls] == [3]


@pytest.mark.parametrize("fields", [{"group_id": 1}, {"group_id": "g"}, {}], ids=["numbers", "texts", "prompts"])
def test_groups_of_two_requests_stay_apart(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Equal ids or equal prompts of two clients are two groups: their means are not mixed."""
    with serve(GroupNotes(str(tmp_path))) as server:
        bodies = [many("a", "aaa", **fields), many("aaaaa", **fields), many("aa", "aaaa", "aaaaaa", **fields)]
        answers = Batches(server, tmp_path).together(*bodies)
        merged = numbers(server.url)["flux_rewards_batch_requests_sum"]
        batches = numbers(server.url)["flux_rewards_batch_requests_count"]
    assert rewards(answers) == [[2.0, 2.0], [5.0], [4.0, 4.0, 4.0]]
    assert [[entry["size"] for entry in answer.json()["metadata"]] for answer in answers] == [[2, 2], [1], [3, 3, 3]]
    assert (merged, batches) == (4, 4)  # its author sees ids: they are not changed, so these are not merged


@pytest.mark.parametrize("fields", [{"group_id": 1}, {"group_id": "g"}, {}], ids=["numbers", "texts", "prompts"])
def test_groups_whose_ids_no_author_sees_are_merged(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Centred within each request's own groups, though scored in one batch."""
    with serve(GroupCenter(NotesThatSeeNoIds(str(tmp_path)))) as server:
        bodies = [many("a", "aaa", **fields), many("aaaaa", **fields), many("aa", "aaaa", "aaaaaa", **fields)]
        answers = Batches(server, tmp_path).together(*bodies)
        batches = numbers(server.url)["flux_rewards_batch_requests_count"]
    assert rewards(answers) == [[-1.0, 1.0], [0.0], [-2.0, 0.0, 2.0]]
    assert batches == 2


def test_groups_within_a_request_stay_as_they_are(tmp_path: Path) -> None:
    """Two groups of one request, interleaved, beside another request with the same ids."""
    with serve(GroupNotes(str(tmp_path))) as server:
        mixed: list[dict[str, Any]] = [
            {"response": "a", "group_id": 1},
            {"response": "aaaa", "group_id": "1"},
            {"response": "aaa", "group_id": 1},
            {"prompt": "1", "response": "aaaaaa"},
            {"response": "aa", "group_id": "1"},
        ]
        answers = Batches(server, tmp_path).together(mixed, mixed[:2])
    assert rewards(answers) == [[2.0, 3.0, 2.0, 6.0, 3.0], [1.0, 4.0]]


@pytest.mark.parametrize("outer", ["rank", "composite"])
def test_groups_stay_apart_where_a_part_of_the_reward_compares(tmp_path: Path, outer: str) -> None:
    """A reward within another that compares a group's samples compares those of one request only."""
    ranked = GroupRank(Notes(str(tmp_path)))
    reward = ranked if outer == "rank" else CompositeReward([(ranked, 1.0)])
    bodies = [many("a", "aaa"), many("aa", "aaaa")]
    with serve(reward) as server:
        alone = rewards([Batches(server, tmp_path).post(body) for body in bodies])
        assert rewards(Batches(server, tmp_path).together(*bodies)) == alone
    assert alone[0] == alone[1]
    assert len(set(alone[0])) == 2


def test_one_bad_sample_fails_in_its_own_request_only(tmp_path: Path) -> None:
    """Its error has the place that it has there, its type and its field; its neighbours have their scores."""
    bad = {"prompt": "q", "response": "bad", "metadata": {"raise": "input"}}
    with serve(Notes(str(tmp_path))) as server:
        answers = Batches(server, tmp_path).together(many("a", "bb"), [*many("ccc", "d"), bad, *many("e")], many("f"))
    assert rewards(answers) == [[1.0, 2.0], [3.0, 1.0, None, 1.0], [1.0]]
    assert [answer.json()["errors"] for answer in (answers[0], answers[2])] == [[], []]
    (error,) = answers[1].json()["errors"]
    assert (error["type"], error["field"], error["index"]) == ("InputError", "response", 2)
    assert "expected something else" in error["message"]
    assert "sample 4" not in str(error)  # its place in the batch is nobody's business


def test_a_reward_that_raises_for_the_batch_is_asked_again_for_each_request(tmp_path: Path) -> None:
    """A request that makes the whole call fail does not make its neighbours fail."""
    lonely = [{"response": "nobody knows its group"}]
    with serve(GroupNotes(str(tmp_path))) as server:
        answers = Batches(server, tmp_path).together(many("a", "aaa"), lonely, many("aaaaa"))
    assert [answer.status_code for answer in answers] == [200, 422, 200]
    assert [answers[place].json()["rewards"] for place in (0, 2)] == [[2.0, 2.0], [5.0]]
    error = answers[1].json()["error"]
    assert (error["type"], error["field"], error["index"]) == ("InputError", "group_id", 0)


def test_a_request_that_lacks_a_field_is_refused_alone(tmp_path: Path) -> None:
    """What a reward needs is asked for before a request may wait with others."""
    with serve(Notes(str(tmp_path))) as server:
        refused = Batches(server, tmp_path).post([{"response": "a"}, {"prompt": "q"}])
        assert refused.status_code == 422
        error = refused.json()["error"]
        assert (error["type"], error["field"], error["index"]) == ("InputError", "response", 1)
        assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("kind", ["messages", "metadata"])
@pytest.mark.parametrize("depth", [100, 300, 900])
def test_a_request_that_is_nested_too_deep_fails_alone(tmp_path: Path, kind: str, depth: int) -> None:
    """Groups go by the content of conversations: one that is too deep to be looked at spoils nothing for others."""
    deep: Any = "x"
    for _ in range(depth):
        deep = [deep]
    body: list[dict[str, Any]] = [
        {"prompt": [{"role": "user", "content": deep if kind == "messages" else "q"}], "response": "a"}
    ]
    if kind == "metadata":
        body[0]["metadata"] = {"deep": deep}
    with serve(GroupNotes(str(tmp_path))) as server:
        answers = Batches(server, tmp_path).together(many("a", "aaa"), body, many("aaaaa"))
    assert [answers[place].json()["rewards"] for place in (0, 2)] == [[2.0, 2.0], [5.0]]
    assert answers[1].status_code in (200, 400, 422)


def test_a_mistake_of_the_reward_itself_reaches_everybody(tmp_path: Path) -> None:
    """A setup error is a 500 with its type for all who wait, without a path of the machine; the server goes on."""
    with serve(Notes(str(tmp_path))) as server:
        batches = Batches(server, tmp_path)
        answers = batches.together(one("a"), one("b", broken=True), one("c"))
        assert [answer.status_code for answer in answers] == [500] * 3
        for answer in answers:
            assert answer.json()["error"]["type"] == "ConfigError"
            assert "the scale of [path] is wrong" in answer.json()["error"]["message"]
            assert "/srv" not in answer.text
        assert rewards([batches.post(one("after"))]) == [[5.0]]


def test_too_many_rows_are_a_broken_contract_and_no_scores(tmp_path: Path) -> None:
    """Rows cannot be told apart where their number is wrong: a 500 with its type."""
    with serve(Fussy()) as server:
        batches = Batches(server, tmp_path)
        answer = batches.post(one("many"))
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == ContractError.__name__
        assert rewards([batches.post(one("few"))]) == [[1.0]]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("path", "/home/somebody/models/clip.pt"),
        ("path", "/home/some body/my models/clip.pt"),
        ("path", "/home/somebody/a,b/(c)/clip.pt"),
        ("path", "/home/somebody/größe/clip.pt"),
        ("path", "file:///home/somebody/models/clip.pt"),
        ("path", "C:\\Users\\somebody\\clip.pt"),
        ("text", "cannot open /home/somebody/models/clip.pt"),
        ("text", "cannot open:/home/somebody/models/clip.pt"),
        ("text", "cannot open (/home/somebody/models/clip.pt)"),
        ("text", 'File "/home/somebody/models/clip.pt", line 3'),
        ("text", "path=/home/somebody/größe/clip.pt;"),
        ("text", "~/somebody/models/clip.pt is broken"),
        ("text", "see file:///home/somebody/models/clip.pt"),
        ("text", "C:\\Users\\somebody\\clip.pt"),
    ],
)
def test_no_path_of_the_machine_is_told(batches: Batches, kind: str, path: str) -> None:
    """Whatever a reward's exception says about the server's files stays there, in both forms of an answer."""
    answer = batches.post(one("a", **{"raise": kind, kind: path}))
    masked = MaskErrors(RemoteReward(batches.server.url), max_failure_rate=1.0)
    batch = masked([Sample("q", "a", metadata={"raise": kind, kind: path})])
    assert answer.status_code == 200
    (error,) = answer.json()["errors"]
    assert error["type"] == "ComputeError"
    for told in (answer.text, batch.errors[0]):
        assert "somebody" not in told
        assert "some body" not in told
        assert "clip.pt" not in told


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "NaN", "\0", "<script>", "\u2028"])
def test_any_text_can_be_told_back(batches: Batches, text: str) -> None:
    """Half a character in a prompt, which JSON can hold and UTF-8 cannot, is no failure of the server."""
    answer = batches.post(one("a", tell=text))
    assert answer.status_code == 200
    assert answer.json()["rewards"] == [1.0]
    failed = batches.post(one("a", **{"raise": "text", "text": f"cannot read {text}"}))
    assert failed.status_code == 200
    assert failed.json()["errors"][0]["type"] == "ComputeError"


def test_the_order_of_many_requests_at_once_is_kept(tmp_path: Path) -> None:
    """Sent from many threads, in batches of any make-up: each gets what it asked for."""
    with serve(Notes(str(tmp_path)), max_batch=8, workers=2) as server, ThreadPoolExecutor(16) as pool:
        bodies = [many(*("y" * (1 + (number * 7 + place) % 11) for place in range(number % 4))) for number in range(80)]
        answers = list(pool.map(Batches(server, tmp_path).post, bodies))
    assert rewards(answers) == [[float(len(sample["response"])) for sample in body] for body in bodies]
