"""With verifiers 0.3.1 itself: its rubrics score with our functions, and its functions and rubrics score here."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from flux_rewards import CompositeReward, ExactMatch, GroupRank, LengthReward, RewardFunction, Sample
from flux_rewards.errors import ComputeError
from flux_rewards.integrations import verifiers as adapter

pytest.importorskip("verifiers.legacy")
pytestmark = pytest.mark.filterwarnings("default")  # other people's

ANSWERS = ["42", "it is 42", "41", ""]


def vf() -> Any:
    """The package as its users import it."""
    return importlib.import_module("verifiers.legacy")


def composite() -> CompositeReward:
    return CompositeReward({"right": (ExactMatch(), 1.0), "brief": (LengthReward(target=2, unit="words"), 0.5)})


class Moody(RewardFunction):
    """Fails on some samples."""

    required_fields = ("response",)

    def compute_reward(self, sample: Sample) -> float:
        if sample.response_text == "41":
            raise RuntimeError("out of order")
        return 1.0


async def states(answers: Sequence[str] = ANSWERS) -> list[Any]:
    """States as an environment makes them, and as a rollout leaves them."""
    package = vf()
    dataset = importlib.import_module("datasets").Dataset.from_list([{"question": "6 * 7?", "answer": "42"}])
    environment = package.SingleTurnEnv(dataset=dataset, rubric=package.Rubric())
    openai = importlib.import_module("openai").AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:1")
    client = importlib.import_module("verifiers.legacy.clients").OpenAIChatCompletionsClient(openai)
    row = environment.get_dataset()[0]
    made = [await environment.init_state(dict(row), client, "none") for _ in answers]
    for state, said in zip(made, answers, strict=True):
        state["completion"] = [importlib.import_module("verifiers.legacy.types").AssistantMessage(content=said)]
    await openai.close()
    return made


def test_a_rubric_says_what_a_direct_call_says() -> None:
    """Reward and metrics of score_rollout, on states of a real environment."""

    async def scored() -> list[Any]:
        made = await states()
        rubric = adapter.rubric(composite())
        for state in made:
            await rubric.score_rollout(state)
        return made

    direct = composite()(response=ANSWERS, reference=["42"] * 4)
    for row, state in enumerate(asyncio.run(scored())):
        assert state["reward"] == direct.rewards[row]
        parts = {name: part.rewards[row] for name, part in direct.parts.items()}
        assert state["metrics"] == {"CompositeReward": direct.rewards[row], **parts}


def test_plain_functions_in_a_rubric_of_theirs() -> None:
    """score_group of vf.Rubric: the same numbers, all states at once."""

    async def scored() -> list[Any]:
        made = await states()
        funcs, weights = adapter.reward_funcs(composite())
        await vf().Rubric(funcs=funcs, weights=weights).score_group(made)
        return made

    direct = composite()(response=ANSWERS, reference=["42"] * 4)
    told = asyncio.run(scored())
    assert [state["reward"] for state in told] == direct.rewards.tolist()
    assert [state["metrics"]["right"] for state in told] == direct.parts["right"].rewards.tolist()
    mean = direct.rewards.mean()
    assert [state["advantage"] for state in told] == pytest.approx((direct.rewards - mean).tolist())


@pytest.mark.parametrize("form", ["score_rollout", "score_group"])
def test_the_rubric_of_an_environment(form: str) -> None:
    """An environment sets its own monitors beside our rubric, in a RubricGroup: the reward is ours."""
    dataset = importlib.import_module("datasets").Dataset.from_list([{"question": "6 * 7?", "answer": "42"}])
    environment = vf().SingleTurnEnv(dataset=dataset, rubric=adapter.rubric(composite()))

    async def scored() -> list[Any]:
        made = await states()
        if form == "score_group":
            await environment.rubric.score_group(made)
        else:
            await asyncio.gather(*map(environment.rubric.score_rollout, made))
        return made

    direct = composite()(response=ANSWERS, reference=["42"] * 4)
    assert [state["reward"] for state in asyncio.run(scored())] == direct.rewards.tolist()


@pytest.mark.parametrize("ours", [True, False], ids=["our rubric", "theirs"])
def test_a_reward_of_groups(ours: bool) -> None:
    """The rubric knows the group form, and the ranks are those of a direct call."""
    reward = CompositeReward({"rank": (GroupRank(LengthReward(target=9, unit="words")), 1.0)})

    async def scored() -> list[Any]:
        made = await states()
        funcs, weights = adapter.reward_funcs(reward)
        rubric = adapter.rubric(reward) if ours else vf().Rubric(funcs=funcs, weights=weights)
        assert rubric.has_group_rewards
        await rubric.score_group(made)
        return made

    direct = reward(prompt=["q"] * 4, response=ANSWERS)
    assert [state["reward"] for state in asyncio.run(scored())] == direct.rewards.tolist()


@pytest.mark.parametrize("form", ["score_rollout", "score_group"])
def test_our_rubric_raises_what_theirs_scores_zero(form: str, caplog: pytest.LogCaptureFixture) -> None:
    """vf.Rubric makes 0.0 of an exception; ours does not, unless a number is given."""

    async def scored(rubric: Any) -> list[float]:
        made = await states(["42", "41"])
        if form == "score_group":
            await rubric.score_group(made)
        else:
            for state in made:
                await rubric.score_rollout(state)
        return [state["reward"] for state in made]

    funcs, weights = adapter.reward_funcs(Moody())
    with caplog.at_level(logging.CRITICAL):
        assert asyncio.run(scored(vf().Rubric(funcs=funcs, weights=weights))) == [1.0, 0.0]
    with pytest.raises(ComputeError, match="out of order"):
        asyncio.run(scored(adapter.rubric(Moody())))
    assert asyncio.run(scored(adapter.rubric(Moody(), on_error=-1.0))) == [1.0, -1.0]


def test_a_rubric_of_theirs_asks_once_though_the_reward_is_down() -> None:
    """Two rewards in one rubric, scored twice: the second time all is their 0.0, and nothing is left of the first."""

    class Outage(RewardFunction):
        calls = 0

        def compute_reward(self, sample: Sample) -> float:
            type(self).calls += 1
            if self.calls > 1:
                raise RuntimeError("down")
            return 0.75

    async def scored() -> list[dict[str, float]]:
        (state,) = await states(["42"])
        first = adapter.reward_funcs(CompositeReward({"up": (Outage(), 1.0), "right": (ExactMatch(), 1.0)}, name="A"))
        other = adapter.reward_funcs(CompositeReward({"right": (LengthReward(target=2, unit="words"), 1.0)}, name="B"))
        rubric = vf().Rubric(funcs=[first.funcs[0], other.funcs[0], *first.funcs[1:]], weights=[1.0, 1.0, 0.0, 0.0])
        told = []
        for _ in range(2):
            await rubric.score_rollout(state)
            told.append(dict(state["metrics"]))
        return told

    assert asyncio.run(scored()) == [
        {"A": 1.75, "B": 0.5, "up": 0.75, "right": 1.0},
        {"A": 0.0, "B": 0.5, "up": 0.0, "right": 0.0},
    ]
    assert Outage.calls == 2


def test_a_function_that_is_added_to_our_rubric_is_verifiers_own_affair() -> None:
    """Called as ever, parser and all."""

    async def length(completion: Any, parser: Any) -> float:
        return float(len(parser.parse_answer(completion)))

    async def scored() -> Any:
        (state,) = await states(["42"])
        rubric = adapter.rubric(ExactMatch())
        rubric.add_metric(length)
        await rubric.score_rollout(state)
        return state

    state = asyncio.run(scored())
    assert (state["reward"], state["metrics"]) == (1.0, {"ExactMatch": 1.0, "length": 2.0})


# The other way round


def test_a_rubric_of_theirs_scores_here() -> None:
    """MathRubric, whose function is a coroutine, needs a parser and a process: as its own score_rollout says."""
    package = vf()
    answers = ["\\boxed{42}", "\\boxed{6 \\times 7}", "\\boxed{41}"]
    reward = adapter.from_verifiers(package.MathRubric(max_workers=1))
    batch = reward(response=answers, reference=["42"] * 3)

    async def theirs() -> list[float]:
        rubric = package.MathRubric(max_workers=1)
        made = await states(answers)
        for state in made:
            await rubric.score_rollout(state)
        return [state["reward"] for state in made]

    assert batch.rewards.tolist() == asyncio.run(theirs()) == [1.0, 1.0, 0.0]


def test_a_function_of_a_parser_scores_here() -> None:
    """The format reward that XMLParser makes."""
    parser = vf().XMLParser(["think", "answer"])
    reward = adapter.from_verifiers(vf().Rubric(funcs=[parser.get_format_reward_func()], parser=parser))
    good = "<think>six times seven</think>\n<answer>42</answer>"
    batch = reward(response=[good, "42"], reference=["42"] * 2)
    assert batch.rewards[0] == 1.0
    assert batch.rewards[1] < 1.0


def test_a_function_that_wants_a_parser_gets_the_plain_one() -> None:
    """Where no rubric offers one."""

    def length(completion: Any, parser: Any) -> float:
        return float(len(parser.parse_answer(completion)))

    assert adapter.from_verifiers(length)(response=["abc"]).rewards.tolist() == [3.0]
