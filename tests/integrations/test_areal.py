"""AReaL: against its pool of processes, written out after reading 1c17804, not against the package."""

import asyncio
import multiprocessing
import pickle
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import pytest
from integrations import trainer_pages
from integrations.rewards_elsewhere import CallsSoFar, Picky

from flux_rewards import ComputeError, ConfigError, ExactMatch, FunctionReward, GroupRank, Sample
from flux_rewards.integrations import areal

CALL = ("What is 2 + 2?", "4", [1, 2], [3])


def test_a_score_is_that_of_a_direct_call() -> None:
    """By position or by keyword; columns of the data set come as keywords."""
    score = areal.reward_fn(ExactMatch())
    assert score(*CALL, answer="4") == 1.0
    assert score(prompt="q", completions="4", prompt_ids=[1], completion_ids=[3], answer="5", level=2) == 0.0
    assert areal.reward_fn(ExactMatch(), fields={"reference": "label"})(*CALL, label="4") == 1.0


def test_the_fields_of_a_sample() -> None:
    """The prompt's tokens are nobody's."""
    seen: list[Sample] = []

    def look(samples: Any) -> list[float]:
        seen.extend(samples)
        return [0.0] * len(samples)

    areal.reward_fn(FunctionReward(look, call="batch"))(*CALL, solution="4", query_id="7")
    (got,) = seen
    assert got == Sample("What is 2 + 2?", "4", reference="4", token_ids=[3], metadata={"query_id": "7"})


def in_the_pool(score: Any, calls: int) -> list[Any]:
    """As AReaL does it: the function is pickled for each call."""

    async def run() -> list[Any]:
        loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            call = partial(score, *CALL, answer="4")
            futures = [loop.run_in_executor(pool, call) for _ in range(calls)]
            return list(await asyncio.wait_for(asyncio.gather(*futures), 60))

    return asyncio.run(run())


def test_a_process_has_one_object_however_often_it_is_sent() -> None:
    """Or weights would be read with every call."""
    assert in_the_pool(areal.reward_fn(CallsSoFar()), 4) == [1.0, 2.0, 3.0, 4.0]


def test_pickles_of_one_function_are_one_object() -> None:
    """And those of another are another."""
    score, other = areal.reward_fn(Picky()), areal.reward_fn(Picky(), on_error=0.25)
    first, second = (pickle.loads(pickle.dumps(score)) for _ in range(2))
    assert first.__self__ is second.__self__
    assert pickle.loads(pickle.dumps(other)).__self__ is not first.__self__
    assert first.__self__ == score.__self__  # type: ignore[attr-defined]


def test_no_score_is_a_number_only_by_name() -> None:
    """What is raised AReaL tries again, and then raises."""
    with pytest.raises(ComputeError, match="does not apply"):
        areal.reward_fn(Picky())("q", "skip", [], [1])
    with pytest.raises(ComputeError, match="cannot be scored"):
        areal.reward_fn(Picky())("q", "fail", [], [1])
    score = areal.reward_fn(Picky(), not_applicable=0.5, on_error=-1.0)
    assert [score("q", said, [], [1]) for said in ("good", "skip", "fail")] == [1.0, 0.5, -1.0]


def test_what_is_not_done_in_time_failed() -> None:
    """Before AReaL's own limit, after which there would be a 0."""

    def slow(sample: Sample) -> float:
        time.sleep(0.5)
        return 1.0

    with pytest.raises(ComputeError, match=r"not (scored|done)"):
        areal.reward_fn(FunctionReward(slow), timeout=0.05)(*CALL)


def test_a_reward_of_groups_is_refused() -> None:
    """AReaL shows single samples."""
    with pytest.raises(ConfigError, match="one sample at a time"):
        areal.reward_fn(GroupRank(Picky()))


def test_the_page_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """As a program."""
    trainer_pages.ran("areal.md", "my_rewards.py")
    assert capsys.readouterr().out == "1.1\n"
