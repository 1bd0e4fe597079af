"""OpenRLHF's contract, its call sites written out from 0.11: it does not install without a GPU."""

from __future__ import annotations

import asyncio
import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from flux_rewards import CompositeReward, ExactMatch, GroupRank, LengthReward, RewardFunction, Sample
from flux_rewards.errors import ComputeError, ConfigError, InputError
from flux_rewards.integrations import openrlhf

PROMPT = "<|im_start|>user\n6 * 7?<|im_end|>\n<|im_start|>assistant\n"
FILE = """
from flux_rewards import CompositeReward, ExactMatch, LengthReward
from flux_rewards.integrations import openrlhf

reward = CompositeReward({"acc": (ExactMatch(), 1.0), "brief": (LengthReward(target=2, unit="words"), 0.5)})
reward_func = openrlhf.reward_func(reward, score="acc")

if __name__ == "__main__":
    openrlhf.serve(reward, port=0, score="acc")
"""


class Moody(RewardFunction):
    """Fails on some samples, and does not apply to others."""

    required_fields = ("response",)

    def compute_reward(self, sample: Sample) -> float | None:
        if sample.response == "fail":
            raise RuntimeError("out of order")
        return None if sample.response == "skip" else 1.0


class Echo(RewardFunction):
    """1 where the response is what the label says, special tokens and all."""

    required_fields = ("response", "reference")

    def compute_reward(self, sample: Sample) -> float:
        return float(sample.response == sample.reference)


def composite() -> CompositeReward:
    return CompositeReward({"acc": (ExactMatch(), 1.0), "brief": (LengthReward(target=2, unit="words"), 0.5)})


def trainer_calls(function: Any, query: str, prompt: str, label: str) -> dict[str, Any]:
    """The call site of 0.11: lists of one item, positionally, in a thread; what its experience then holds."""

    async def execute() -> Any:
        return await asyncio.gather(asyncio.to_thread(function, [query], [prompt], [label]))

    (told,) = asyncio.run(execute())
    reward, score = told.get("rewards"), told.get("scores") or told.get("rewards")
    info = {"reward": torch.tensor([reward]), "score": torch.tensor([score])}
    for key, value in (told.get("extra_logs") or {}).items():
        info[key] = torch.tensor([value.flatten()[0].item()])
    return info


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "reward.py"
    path.write_text(FILE)
    return path


def test_a_file_with_a_reward_func(file: Path) -> None:
    """Loaded by path, called as the trainer does: reward, score and parts arrive as tensors of one element."""
    spec = importlib.util.spec_from_file_location("reward_func", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    info = trainer_calls(module.reward_func, f"{PROMPT}42<|im_end|>", PROMPT, "42")
    assert {key: value.item() for key, value in info.items()} == {
        "reward": 1.25,
        "score": 1.0,
        "acc": 1.0,
        "brief": 0.5,
    }
    assert info["reward"].shape == (1,)


def test_a_list_of_several() -> None:
    """Earlier versions pass whole lists; the score is the reward cut to [0, 1] where no part is named."""
    reward = CompositeReward({"acc": (ExactMatch(), 2.0), "brief": (LengthReward(target=1, unit="words"), -0.5)})
    told = openrlhf.reward_func(reward)(["q 42", "q 41"], ["q ", "q "], ["42", "42"])
    assert told["rewards"].tolist() == [1.5, -0.5]
    assert told["scores"].tolist() == [1.0, 0.0]
    assert {key: value.tolist() for key, value in told["extra_logs"].items()} == {
        "acc": [1.0, 0.0],
        "brief": [1.0, 1.0],
    }


@pytest.mark.parametrize(
    ("query", "options", "response"),
    [
        (f"{PROMPT}42", {}, "42"),
        (f"{PROMPT}42<|im_end|>", {}, "42"),
        (f"{PROMPT}42<|im_end|>\n<|endoftext|>", {}, "42"),
        (f"{PROMPT}a </s> b</s>", {}, "a </s> b"),
        (f"{PROMPT}42<|im_end|>", {"end_tokens": []}, "42<|im_end|>"),
        (f"{PROMPT}42[END]", {"end_tokens": ["[END]"]}, "42"),
        (PROMPT[9:] + "42", {"response_of": "<|im_start|>assistant\n"}, "42"),
        (f"{PROMPT}a<|im_start|>assistant\nb", {"response_of": "<|im_start|>assistant\n"}, "b"),
        ("42", {"response_of": lambda query, prompt: query}, "42"),
        (f"{PROMPT}42", {"fields": {"response": "queries"}}, f"{PROMPT}42"),
    ],
)
def test_where_the_response_begins_and_ends(query: str, options: dict[str, Any], response: str) -> None:
    """Behind the prompt, or where the user says; without the special tokens of its end."""
    told = openrlhf.reward_func(Echo(), **options)([query], [PROMPT], [response])
    assert told["rewards"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (PROMPT[9:] + "42", {}, r"sample 0.*does not start with its prompt.*response_of"),
        ("42", {"response_of": "assistant:"}, r"'assistant:' is not in the query"),
        (7, {}, "expected a query of text"),
    ],
)
def test_a_response_that_cannot_be_found_is_an_error(query: Any, options: dict[str, Any], message: str) -> None:
    """The whole query is never judged by accident."""
    with pytest.raises(InputError, match=message):
        openrlhf.reward_func(Echo(), **options)([query], [PROMPT], ["42"])


def test_no_number_without_being_asked() -> None:
    """A failure raises, so does what does not apply; with numbers given they are told, and failures are logged."""
    with pytest.raises(ComputeError, match="out of order"):
        openrlhf.reward_func(Moody())(["fail"], [""], [""])
    with pytest.raises(ComputeError, match="OpenRLHF has no word for that"):
        openrlhf.reward_func(Moody())(["skip"], [""], [""])
    asked = openrlhf.reward_func(Moody(), not_applicable=0.5, on_error=-1.0)(
        ["fail", "skip", "yes"], [""] * 3, [""] * 3
    )
    assert asked["rewards"].tolist() == [-1.0, 0.5, 1.0]
    assert asked["scores"].tolist() == [0.0, 0.5, 1.0]
    assert asked["extra_logs"]["failed"].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "rigth"}, "score must be the name of a part"),
        ({"response_of": 3}, "response_of must be the text"),
        ({"response_of": ""}, "response_of must be the text"),
        ({"end_tokens": "</s>"}, "end_tokens must be a list"),
        ({"fields": {"answer": "labels"}}, "not a field of Sample"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    """At construction, before a training begins."""
    with pytest.raises(ConfigError, match=message):
        openrlhf.reward_func(composite(), **options)


def test_a_score_of_a_reward_without_parts() -> None:
    """There is none to choose from, and the message says what to do."""
    with pytest.raises(ConfigError, match=r"known to have none: leave it out, or name parts=\[\.\.\.\]; found 'nope'"):
        openrlhf.reward_func(ExactMatch(), score="nope")


def test_a_reward_of_groups_is_refused() -> None:
    """OpenRLHF shows one sample at a time."""
    with pytest.raises(ConfigError, match=r"compares the samples of a group.*OpenRLHF"):
        openrlhf.reward_func(GroupRank(LengthReward(target=2)))


def test_it_pickles() -> None:
    """As Ray sends it."""
    copied = pickle.loads(pickle.dumps(openrlhf.reward_func(composite(), score="acc")))
    assert copied(["q 42"], ["q "], ["42"])["rewards"].tolist() == [1.25]


# HTTP


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a process of its own, on a free port of loopback."""
    path = tmp_path_factory.mktemp("served") / "reward.py"
    path.write_text(FILE)
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = said.split(" at ")[1].split(" ")[0]
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=Retry(total=40, connect=40, backoff_factor=0.01)))
        session.get(f"{found}/health", timeout=30)  # the port is open a moment after the address is printed
        yield f"{found}/get_reward"
        session.close()
        process.terminate()
        assert process.wait(30) == 0


def test_the_http_form(address: str) -> None:
    """The request of 0.11, and the same keys in lists."""
    payload = {"query": [f"{PROMPT}42<|im_end|>"], "prompts": [PROMPT], "labels": ["42"]}
    answer = requests.post(address, json=payload, timeout=30)
    answer.raise_for_status()
    assert answer.json() == {"rewards": [1.25], "scores": [1.0], "extra_logs": {"acc": [1.0], "brief": [0.5]}}


@pytest.mark.parametrize(
    ("payload", "status", "message"),
    [
        ({"query": ["x"], "prompts": ["y"], "labels": ["z"]}, 422, "does not start with its prompt"),
        ({"query": "x"}, 422, "expected"),
        ({"query": ["x"], "prompts": ["x", "y"]}, 422, "prompts must be a list with 1 entries"),
        ([], 422, "expected"),
    ],
)
def test_a_request_that_cannot_be_scored(address: str, payload: Any, status: int, message: str) -> None:
    """A status and a reason, never a number."""
    answer = requests.post(address, json=payload, timeout=30)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_bodies_that_are_no_requests(address: str) -> None:
    """No JSON, another type, nothing to score, and the page for those who look whether it runs."""
    kind = {"Content-Type": "application/json"}
    assert requests.post(address, data="{", headers=kind, timeout=30).status_code == 400
    assert requests.post(address, data="{}", headers={"Content-Type": "text/plain"}, timeout=30).status_code == 415
    assert requests.post(address, data=" " * (2**24 + 1), headers=kind, timeout=30).status_code == 413
    empty = requests.post(address, json={"query": []}, timeout=30)
    assert empty.json() == {"rewards": [], "scores": [], "extra_logs": {}}
    assert requests.get(address.replace("/get_reward", "/health"), timeout=30).json() == {"status": "ok"}


def test_other_machines_are_served_only_where_asked() -> None:
    """OpenRLHF sends no token."""
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        openrlhf.serve(composite(), host="0.0.0.0")  # noqa: S104  # refused


@pytest.mark.parametrize("function", [openrlhf.reward_func(Echo()), openrlhf.reward_func(ExactMatch())])
def test_an_empty_label_is_no_reference(function: Any) -> None:
    """OpenRLHF passes "" for a data set without labels; a reward that needs one says so."""
    with pytest.raises(InputError, match="reference"):
        function([f"{PROMPT}"], [PROMPT], [""])
