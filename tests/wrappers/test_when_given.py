"""`WhenGiven`: samples that lack a field get no score, and everything else is as without it."""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from integrations import flow_factory_contract
from rewards_of_our_own import Counted
from served import served

from flux_rewards import (
    Cached,
    Combinator,
    CompositeReward,
    ComputeError,
    ExactMatch,
    Executor,
    FunctionReward,
    GroupRank,
    InputError,
    LengthReward,
    MaskErrors,
    RemoteReward,
    Retry,
    RewardBatch,
    RewardBuffer,
    RewardFunction,
    Sample,
    WhenGiven,
    load_rewards,
    to_config,
)
from flux_rewards.cli.score import score_file
from flux_rewards.integrations import flow_factory, trl
from flux_rewards.integrations.distributed import DistributedGroups
from flux_rewards.tree import fields_read

NAN = float("nan")
MIXED = [Sample("q", "4", reference="4"), Sample("q", "5"), Sample("q", "6", reference="7"), Sample("q", "7")]


class CountedAnswers(Counted):
    """Reads the reference, too."""

    required_fields = ("response", "reference")  # type: ignore[assignment]


class Crowd(RewardFunction):
    """How many of its group it is shown."""

    required_fields = ("response", "reference")
    optional_fields = ("group_id",)
    scope = "group"

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        assert len({sample.group_id for sample in samples}) == 1
        return [float(len(samples))] * len(samples)


def answers(*given: tuple[str, str | None]) -> list[Sample]:
    """Samples of responses and references."""
    return [Sample("q", response, reference=reference) for response, reference in given]


def crowds() -> list[Sample]:
    """A group of which two of three can be scored, one of which none can, and one that is whole."""
    groups: dict[str, list[str | None]] = {"a": ["x", None, "x"], "b": [None, None], "c": ["x"]}
    return [
        Sample("q", "r", reference=reference, group_id=group)
        for group, references in groups.items()
        for reference in references
    ]


CROWDS = [2.0, NAN, 2.0, NAN, NAN, 1.0]


def test_a_sample_without_the_field_gets_no_score() -> None:
    """It is no error, the reward is not asked for it, and the parts of a sum that apply decide."""
    reward = CountedAnswers()
    batch = CompositeReward({"right": (WhenGiven(reward), 2.0), "brief": (LengthReward(target=1), 0.5)})(MIXED)
    assert batch.errors == {}
    np.testing.assert_array_equal(batch.parts["right"].rewards, [1.0, NAN, 1.0, NAN])
    assert batch.rewards.tolist() == [2.5, 0.5, 2.5, 0.5]
    assert reward.asked == ["4", "6"]
    assert (batch.stats["CountedAnswers"].samples, batch.stats["CountedAnswers"].calls) == (4, 1)


@pytest.mark.parametrize("samples", [MIXED[1:2], [MIXED[1], MIXED[3]], []], ids=len)
def test_a_batch_of_nothing_but_such_samples(samples: list[Sample]) -> None:
    """There is nothing to compute."""
    batch = WhenGiven(ExactMatch())(samples)
    assert len(batch) == len(samples)
    assert np.isnan(batch.rewards).all()


def test_what_is_missing_elsewhere_is_an_error_still() -> None:
    """With its place among all samples; and so is what is no sample."""
    reward = CompositeReward([(WhenGiven(ExactMatch()), 1.0), (LengthReward(target=1), 1.0)])
    with pytest.raises(InputError) as caught:
        reward([*MIXED[:3], Sample("q", reference="4")])
    assert (caught.value.field, caught.value.index, caught.value.reward) == ("response", 3, "LengthReward")
    with pytest.raises(InputError) as caught:
        WhenGiven(ExactMatch())([*MIXED[:2], "text"])  # type: ignore[list-item]
    assert caught.value.index == 2
    for bad in ("text", MIXED[0], {"response": "4"}, iter(MIXED)):
        with pytest.raises(InputError, match="expected a list of Sample"):
            WhenGiven(ExactMatch())(bad)  # type: ignore[arg-type]


def test_each_leaf_of_a_composite_goes_by_its_own_fields() -> None:
    """One reward in two places, with and without, is computed for each; the one without raises."""
    both = CompositeReward({"right": (ExactMatch(), 1.0), "brief": (LengthReward(target=1), 0.5)})
    assert WhenGiven(both)(MIXED).rewards.tolist() == [1.5, 0.5, 0.5, 0.5]
    one = ExactMatch()
    with pytest.raises(InputError, match="sample 1, field 'reference'"):
        CompositeReward([(WhenGiven(one), 1.0), (one, 1.0)])(MIXED)


def test_groups_are_scored_without_those_that_lack_it() -> None:
    """By an author who receives groups, and by a fold that compares."""
    np.testing.assert_array_equal(WhenGiven(Crowd())(crowds()).rewards, CROWDS)
    ranked = GroupRank(WhenGiven(ExactMatch()))(MIXED)
    np.testing.assert_array_equal(ranked.rewards, [1.0, NAN, 0.0, NAN])


@pytest.mark.parametrize("nested", [lambda r: Cached(WhenGiven(r)), lambda r: WhenGiven(Cached(r))], ids=["in", "out"])
def test_a_cache_keeps_what_was_computed(nested: Any) -> None:
    """Twins among the rest are found; what was left out is asked for when it has the field."""
    inner = CountedAnswers()
    reward = nested(inner)
    first = answers(("a", "1"), ("bb", None), ("a", "1"), ("ccc", None))
    np.testing.assert_array_equal(reward(first).rewards, [1.0, NAN, 1.0, NAN])
    batch = reward(answers(("bb", None), ("a", "1"), ("bb", "1")))
    np.testing.assert_array_equal(batch.rewards, [NAN, 1.0, 2.0])
    assert inner.asked == ["a", "bb"]
    assert batch.stats["CountedAnswers"].cache_hits == 1
    np.testing.assert_array_equal(nested(Crowd())([*crowds()]).rewards, CROWDS)


@pytest.mark.parametrize("group_size", [None, 3])
@pytest.mark.parametrize("wrap", [lambda r: r, Cached], ids=["plain", "cached"])
def test_a_buffer_gives_what_the_call_gives(wrap: Any, group_size: int | None) -> None:
    """Sample by sample; groups are complete with those that are left out, and batches are full without them."""
    sizes = FunctionReward(lambda samples: [len(samples)] * len(samples), call="batch", fields=["reference"])
    sizes.batch_size = 2
    tree = CompositeReward({"crowd": (wrap(WhenGiven(Crowd())), 1.0), "sizes": (WhenGiven(sizes), 1.0)})
    groups: dict[str, list[str | None]] = {"a": ["x", None, "x"], "b": [None] * 3, "c": [None, "x", "x"]}
    samples = [
        Sample("q", "r", reference=reference, group_id=group)
        for group, references in groups.items()
        for reference in references
    ]
    seen: list[tuple[int, int]] = []
    with RewardBuffer(tree, group_size, progress=lambda done, of: seen.append((done, of))) as buffer:
        for sample in samples:
            buffer.add(sample)
        batch = buffer.finalize(timeout=60)
    expected = [2.0, NAN, 2.0, NAN, NAN, NAN, NAN, 2.0, 2.0]
    np.testing.assert_array_equal(batch.parts["crowd"].rewards, expected)
    np.testing.assert_array_equal(batch.parts["sizes"].rewards, expected)
    assert seen[-1] == (18, 18)


def test_nothing_is_taken_in_where_another_sample_is_refused() -> None:
    """An error leaves no piece of its batch behind."""
    reward = CompositeReward([(WhenGiven(ExactMatch()), 1.0), (LengthReward(target=1), 1.0)])
    with RewardBuffer(reward) as buffer:
        with pytest.raises(InputError, match="sample 1, field 'response'"):
            buffer.add([Sample("q", "4"), Sample("q", reference="4")])
        buffer.add(answers(("4", "4"), ("5", None)))
        assert buffer.finalize(timeout=60).rewards.tolist() == [2.0, 1.0]


def wrong(sample: Sample) -> float:
    """Fails for some."""
    if sample.response == "6":
        raise ValueError("no")
    return 1.0


@pytest.mark.parametrize(
    "nested",
    [
        lambda r: MaskErrors(WhenGiven(r)),
        lambda r: WhenGiven(MaskErrors(r)),
        lambda r: MaskErrors(Retry(WhenGiven(r), 2, sleep=lambda s: None)),
    ],
    ids=["above", "below", "retried"],
)
def test_a_failure_is_no_lack(nested: Any) -> None:
    """Masked or raised as without the wrapper, at its own place."""
    reward = FunctionReward(wrong, fields=["response", "reference"])
    batch = nested(reward)(MIXED)
    np.testing.assert_array_equal(batch.rewards, [1.0, NAN, NAN, NAN])
    assert batch.errors == {2: "ValueError: no"}
    with pytest.raises(ComputeError, match="sample 2"):
        WhenGiven(reward)(MIXED)


def test_rows_that_are_done_are_seen_before_others() -> None:
    """Those that are left out need no call."""
    with Executor() as executor:
        pending = executor.submit(WhenGiven(ExactMatch()), MIXED)
        assert pending.done_rows() >= {1, 3}
        np.testing.assert_array_equal(pending.result(timeout=60).rewards, [1.0, NAN, 0.0, NAN])


@pytest.mark.slow
def test_in_a_pool_of_processes() -> None:
    """The wrapper goes along, and the rows stay here."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, Executor(pool=pool) as executor:
        got = executor.submit(WhenGiven(ExactMatch()), MIXED).result(timeout=120)
    np.testing.assert_array_equal(got.rewards, [1.0, NAN, 0.0, NAN])


def test_what_a_tree_reads() -> None:
    """Required beneath the wrapper is optional; one other use requires it."""
    right, asked = ExactMatch(), Counted()
    read = fields_read(CompositeReward([(WhenGiven(right), 1.0), (asked, 1.0)]))
    assert (read.required, read.needed, read.optional) == (("response",), ("response", "reference"), ("reference",))
    assert fields_read(CompositeReward([(WhenGiven(right), 1.0), (right, 1.0)])).required == ("response", "reference")
    read = fields_read(CompositeReward([(WhenGiven(right), 1.0), (FunctionReward(wrong), 1.0)]))
    assert (read.required, read.named, read.optional) == ((), ("response", "reference"), None)


class Weighed(Combinator):
    """Looks at the samples, as the folds of this library do not."""

    def __init__(self, reward: RewardFunction) -> None:
        self.children = (reward,)

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:
        return RewardBatch(batches[0].rewards * [sample.metadata["weight"] for sample in samples])


def test_a_fold_of_ones_own_may_read_anything() -> None:
    """Unless it says what."""

    class Says(Weighed):
        optional_fields = ("metadata",)

    assert fields_read(Weighed(Counted())).optional is None
    assert fields_read(Says(Counted())).optional == ("metadata",)


def test_behind_a_server() -> None:
    """The client learns that the field may be missing, and sends it where it is there."""
    reward = CompositeReward({"right": (WhenGiven(ExactMatch()), 1.0), "brief": (LengthReward(target=1), 0.5)})
    with served(reward) as url:
        told = requests.get(f"{url}/v1/rewards", timeout=10).json()
        assert (told["required_fields"], told["optional_fields"]) == (["response"], ["reference", "token_ids"])
        remote = RemoteReward(url)
        batch = remote(MIXED)
        assert batch.rewards.tolist() == [1.5, 0.5, 0.5, 0.5]
        np.testing.assert_array_equal(batch.parts["right"].rewards, [1.0, NAN, 0.0, NAN])
        with pytest.raises(InputError, match="sample 1, field 'response'"):
            remote([MIXED[0], Sample("q")])
    with served(ExactMatch()) as url:
        np.testing.assert_array_equal(WhenGiven(RemoteReward(url))(MIXED).rewards, [1.0, NAN, 0.0, NAN])


@pytest.mark.parametrize("columns", [{"answer": ["4", None]}, {}], ids=["mixed", "no column"])
def test_the_functions_of_trl(columns: dict[str, Any]) -> None:
    """The part is None, its neighbour is not."""
    reward = CompositeReward({"right": (WhenGiven(ExactMatch()), 1.0), "brief": (LengthReward(target=1), 0.5)})
    funcs, weights = trl.reward_funcs(reward)
    batch = {"prompts": ["q"] * 2, "completions": ["4", "5"], **columns}
    assert weights == [1.0, 0.5]
    assert [func(**batch) for func in funcs] == [[1.0 if columns else None, None], [1.0, 1.0]]
    with pytest.raises(InputError, match="no column"):
        trl.reward_func(WhenGiven(ExactMatch()), fields={"reference": "gold"})(**batch)


def test_flow_factory() -> None:
    """A column of the JSON that some samples lack, or all; one that nobody names is asked for at once."""
    with flow_factory_contract.installed():
        reward = WhenGiven(ExactMatch())
        with pytest.raises(Exception, match="needs 'response'"):
            flow_factory.reward_model_class(reward)
        made = flow_factory.reward_model_class(
            reward, fields={"response": "caption", "reference": "answer"}, not_applicable=-1.0
        )
        model = made(flow_factory_contract.RewardArguments(batch_size=2), accelerator=None)
        rows = [
            flow_factory_contract.FlowSample(
                prompt="q", extra_kwargs={"caption": "4", "metadata": json.dumps({"answer": gold} if gold else {})}
            )
            for gold in ("4", None, None, None)
        ]
        assert flow_factory_contract.processed(model, rows).tolist() == [1.0, -1.0, -1.0, -1.0]


def test_groups_on_several_processes_ask_the_tree() -> None:
    """With one process it is the plain call."""
    np.testing.assert_array_equal(DistributedGroups(WhenGiven(Crowd()))(crowds()).rewards, CROWDS)


def test_the_command_line_takes_a_mixed_file(tmp_path: Path) -> None:
    """Which it checks before anything is scored."""
    rows = [{"response": "4", "reference": "4"}, {"response": "5"}]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"name": "right", "reward_model": "when_given", "reward": {"reward_model": "exact_match"}}
    (tmp_path / "rewards.yaml").write_text(json.dumps({"rewards": [entry]}))
    score_file(tmp_path / "rewards.yaml", tmp_path / "samples.jsonl", tmp_path / "out.jsonl")
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in scored] == [1.0, None]


def test_it_is_the_reward_in_all_else() -> None:
    """Name, bounds, and the way to a configuration and back."""
    reward = WhenGiven(ExactMatch(name="right"))
    assert (reward.name, reward.bounds, reward.scope, reward.required_fields) == ("right", (0.0, 1.0), "sample", ())
    config = to_config(reward)
    loaded = load_rewards(config).train
    assert to_config(load_rewards(config)) == config
    np.testing.assert_array_equal(loaded(MIXED).rewards, [1.0, NAN, 0.0, NAN])
