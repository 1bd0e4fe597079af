"""slime: against its calls, written out after reading 0d234f3, not against the package."""

import asyncio
import inspect
import pickle
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from integrations import trainer_pages
from integrations.rewards_elsewhere import Picky, both
from PIL import Image

from flux_rewards import ComputeError, ConfigError, ExactMatch, FunctionReward, GroupRank, LengthReward, Sample
from flux_rewards.integrations import slime


@dataclass
class SlimeSample:
    """What slime passes."""

    prompt: Any = "q"
    response: str = ""
    label: str | None = None
    tokens: list[int] = field(default_factory=list)
    response_length: int = 0
    group_index: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    multimodal_inputs: dict[str, Any] | None = None
    reward: Any = None


def rollout(fn: Any, samples: list[SlimeSample]) -> list[Any]:
    """Slime's own: one task a sample, on one loop."""

    async def run() -> list[Any]:
        return list(await asyncio.gather(*(fn({}, sample, evaluation=False) for sample in samples)))

    return asyncio.run(run())


def test_scores_are_those_of_a_direct_call() -> None:
    """Of many samples at once, with the label as the reference."""
    fn = slime.custom_rm(ExactMatch())
    assert inspect.iscoroutinefunction(fn)
    samples = [SlimeSample(response=str(number), label=str(number % 3)) for number in range(9)]
    assert rollout(fn, samples) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_calls_that_come_at_once_are_scored_together() -> None:
    """And none of them blocks the loop."""
    sizes: list[int] = []

    def slow(samples: Any) -> list[float]:
        sizes.append(len(samples))
        time.sleep(0.05)
        return [0.0] * len(samples)

    async def run() -> int:
        fn = slime.custom_rm(FunctionReward(slow, call="batch"))
        ticks = 0
        calls = asyncio.gather(*(fn({}, SlimeSample()) for _ in range(32)))
        while not calls.done():
            await asyncio.sleep(0.002)
            ticks += 1
        return ticks

    assert asyncio.run(run()) > 5
    assert sum(sizes) == 32
    assert len(sizes) < 10


def test_the_fields_of_a_sample() -> None:
    """The response's tokens are the last; what is left over is metadata; messages stay messages."""
    seen: list[Sample] = []

    def look(samples: Any) -> list[float]:
        seen.extend(samples)
        return [0.0] * len(samples)

    prompt, image = [{"role": "user", "content": "What?"}], Image.new("RGB", (2, 2), "red")
    metadata = {"level": 3, "offsets": [(0, 1), (1, 1)]}
    sample = SlimeSample(prompt, "A", "B", [1, 2, 3, 4, 5], 2, 7, metadata, {"images": [image]})
    rollout(slime.custom_rm(FunctionReward(look, call="batch"), fields={"token_offsets": "offsets"}), [sample])
    (got,) = seen
    assert (got.prompt, got.response, got.reference, got.token_ids, got.group_id) == (prompt, "A", "B", [4, 5], 7)
    assert (got.metadata, got.token_offsets) == ({"level": 3}, [(0, 1), (1, 1)])
    assert got.condition_images == [image]


def test_a_dict_for_the_reward_key() -> None:
    """The score under its name, beside the parts."""
    fn = slime.custom_rm(both(), reward_key="score")
    assert rollout(fn, [SlimeSample(response="4 5", label="4 5")]) == [{"score": 1.5, "right": 1.0, "short": 1.0}]
    only = slime.custom_rm(both(), reward_key="score", parts=["right"])
    assert rollout(only, [SlimeSample(response="4 5", label="5")]) == [{"score": 0.5, "right": 0.0}]


def test_groups_are_scored_as_groups() -> None:
    """Several at once, though slime gives them equal prompts and no ids."""
    fn = slime.group_rm(GroupRank(LengthReward(4, unit="words")))
    groups = [[SlimeSample(response="x " * count) for count in counts] for counts in ((4, 1), (1, 2, 3))]

    async def run() -> list[Any]:
        return list(await asyncio.gather(*(fn({}, group) for group in groups)))

    assert asyncio.run(run()) == [[1.0, 0.0], [0.0, 0.5, 1.0]]


def test_a_list_of_samples_without_group_rm() -> None:
    """A rollout that made several has each of them scored."""
    fn = slime.custom_rm(ExactMatch())
    assert asyncio.run(fn({}, [SlimeSample(response="4", label=label) for label in "45"])) == [1.0, 0.0]


def test_no_score_is_a_number_only_by_name() -> None:
    """Slime takes what it gets."""
    samples = [SlimeSample(response=said) for said in ("good", "skip", "fail")]
    with pytest.raises(ComputeError, match="does not apply"):
        rollout(slime.custom_rm(Picky()), samples[:2])
    with pytest.raises(ComputeError, match="cannot be scored"):
        rollout(slime.custom_rm(Picky()), samples[::2])
    assert rollout(slime.custom_rm(Picky(), not_applicable=0.5, on_error=-1.0), samples) == [1.0, 0.5, -1.0]


def test_it_pickles() -> None:
    """To slime's actors."""
    fn = pickle.loads(pickle.dumps(slime.custom_rm(both(), reward_key="score")))
    assert inspect.iscoroutinefunction(fn)
    assert rollout(fn, [SlimeSample(response="4", label="4")])[0]["score"] == 1.25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: slime.custom_rm(GroupRank(Picky())), "one sample at a time"),
        (lambda: slime.custom_rm(len), "expected a reward"),  # type: ignore[arg-type]
        (lambda: slime.custom_rm(both(), parts=["right"]), "give reward_key"),
        (lambda: slime.custom_rm(both(), reward_key="score", parts=["wrong"]), "no part 'wrong'"),
        (lambda: rollout(slime.group_rm(Picky()), [SlimeSample()]), "--group-rm"),
    ],
)
def test_what_cannot_be_served_is_refused(call: Any, message: str) -> None:
    """With the setting to change."""
    with pytest.raises(ConfigError, match=message):
        call()


def test_the_page_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """And its functions are what slime awaits."""
    found = trainer_pages.ran("slime.md", "my_rewards.py")
    assert capsys.readouterr().out == "1.1 [0.5, 0.5]\n"
    told = rollout(found["detailed"], [SlimeSample(response="5", label="4")])
    assert sorted(told[0]) == ["FormatReward", "NumericAnswerReward", "score"]
