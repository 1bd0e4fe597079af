"""TRL's calls, made as TRL makes them: columns, one computation a batch, None, logs, groups, schedules."""

import asyncio
import inspect
import pickle
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flux_rewards import (
    Cached,
    Clip,
    CompositeReward,
    ComputeError,
    ConfigError,
    ExactMatch,
    FunctionReward,
    GroupRank,
    InputError,
    KeywordReward,
    LengthReward,
    MaskErrors,
    Product,
    Retry,
    RewardFunction,
    RewardOutput,
    Sample,
)
from flux_rewards.integrations import trl
from flux_rewards.integrations.trl.once import KEPT, OncePerBatch


class Seen(RewardFunction):
    """Keeps what it is given; scores 1."""

    media_form = "given"

    def __init__(self) -> None:
        super().__init__()
        self.samples: list[Sample] = []
        self.calls = 0

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float]:
        self.samples += samples
        self.calls += 1
        return [1.0] * len(samples)


class Trainer:
    """The part of TRL's trainer that its callbacks show: they are its methods."""

    def __init__(self, num_generations: int, num_generations_eval: int) -> None:
        self.num_generations = num_generations
        self.num_generations_eval = num_generations_eval
        self.model = SimpleNamespace(training=True)
        self.metrics: dict[str, list[float]] = defaultdict(list)
        self.table: dict[str, list[Any]] = defaultdict(list)

    def log_metric(self, name: str, value: float) -> None:
        self.metrics[name].append(value)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        self.table[column].extend(values)

    def call(self, funcs: Sequence[Callable[..., Any]], completions: Sequence[Any], **columns: Any) -> list[Any]:
        """Every function, one after the other, with the same lists."""
        given = {"prompts": ["p"] * len(completions), "completion_ids": [[1]] * len(completions), **columns}
        callbacks = {"log_metric": self.log_metric, "log_extra": self.log_extra}
        return [func(completions=completions, **given, **callbacks, trainer_state=None) for func in funcs]


TALK = [{"role": "user", "content": "6 * 7?"}]
SAID = [{"role": "assistant", "content": "42"}]


@pytest.mark.parametrize(
    ("columns", "fields", "expected"),
    [
        ({"solution": ["42"]}, None, {"reference": "42"}),
        ({"answer": ["42"]}, None, {"reference": "42"}),
        ({"ground_truth": ["42"], "level": [3]}, None, {"reference": "42", "metadata": {"level": 3}}),
        ({"solution": ["42"], "answer": ["x"]}, None, {"reference": "42", "metadata": {"answer": "x"}}),
        (
            {"solution": ["42"], "gold": ["g"]},
            {"reference": "gold"},
            {"reference": "g", "metadata": {"solution": "42"}},
        ),
        ({"solution": ["42"]}, {"reference": None}, {"metadata": {"solution": "42"}}),
        ({"image": ["one.png"]}, None, {"condition_images": ["one.png"]}),
        ({"images": [["one.png", "two.png"]]}, None, {"condition_images": ["one.png", "two.png"]}),
        ({"uid": ["a"]}, {"group_id": "uid"}, {"group_id": "a"}),
        ({"trainer_state": SimpleNamespace(global_step=1), "seed": 3}, None, {}),
    ],
)
def test_columns_become_fields(
    columns: Mapping[str, Any], fields: Mapping[str, str | None] | None, expected: Mapping[str, Any]
) -> None:
    """By the usual names, or by those that were given; what belongs to no sample is left out."""
    seen = Seen()
    func = trl.reward_func(seen, fields=fields)
    assert func(prompts=[TALK], completions=[SAID], completion_ids=[[4, 2]], **columns) == [1.0]
    assert seen.samples == [Sample(TALK, SAID, token_ids=[4, 2], **expected)]


def test_a_column_that_is_not_there_is_named() -> None:
    """One that the user asked for."""
    func = trl.reward_func(Seen(), fields={"reference": "sollution"})
    with pytest.raises(InputError, match=r"no column 'sollution'.*solution"):
        func(prompts=["p"], completions=["c"], solution=["s"])


class OneOf(RewardFunction):
    """None, a failure, or the number that the response is; counts its calls, and is slow where it is told to."""

    def __init__(self, word: int, pause: float = 0.0) -> None:
        super().__init__(name=f"word{word}")
        self.word, self.pause = word, pause
        self.calls = 0

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float | Exception | None]:
        self.calls += 1
        time.sleep(self.pause)
        words = [sample.response_text.split()[self.word] for sample in samples]
        return [None if word == "-" else ValueError("odd") if word == "!" else float(word) for word in words]


WEIGHTS = [0.5, -2.0, 1.25]
COMPLETIONS = ["1 2 3", "- 4 5", "- - -", "1 ! 2", "! - !", "0 0 0", "- -1 -"]


def parts(pause: float = 0.0) -> CompositeReward:
    """Three parts."""
    return CompositeReward([(OneOf(word, pause), weight) for word, weight in enumerate(WEIGHTS)])


def test_the_weighted_sum_is_the_total() -> None:
    """As TRL adds up: a sum without NaN, and none where all are; a sample of which a part failed has none at all."""
    reward = MaskErrors(parts(), max_failure_rate=1.0)
    funcs, weights = trl.reward_funcs(reward)
    assert [func.__name__ for func in funcs] == ["word0", "word1", "word2"]
    assert weights == WEIGHTS
    columns = Trainer(1, 1).call(funcs, COMPLETIONS)
    assert columns[0] == [1.0, None, None, None, None, 0.0, None]
    table = np.array(columns, dtype=float).T  # None becomes NaN
    total = np.where(np.isnan(table).all(axis=1), np.nan, np.nansum(table * weights, axis=1))
    np.testing.assert_allclose(total, [0.25, -1.75, np.nan, np.nan, np.nan, 0.0, 2.0])  # by hand
    np.testing.assert_array_equal(total, reward(response=COMPLETIONS).rewards)
    assert trl.reward_func(reward)(prompts=[""] * 7, completions=COMPLETIONS) == [
        0.25,
        -1.75,
        None,
        None,
        None,
        0.0,
        2.0,
    ]


def test_a_failure_raises() -> None:
    """Where nothing masks it; and again for the next function, should anybody go on."""
    funcs, _ = trl.reward_funcs(parts())
    for _ in range(2):
        with pytest.raises(ComputeError, match="reward 'word1', sample 3: ValueError: odd"):
            Trainer(1, 1).call(funcs, COMPLETIONS[:4])


def leaves(reward: RewardFunction) -> list[Any]:
    """The parts of a composite."""
    return list(reward.children)


def test_one_computation_a_batch() -> None:
    """However many functions ask; another list of the same content is another batch; nothing is kept."""
    reward = parts()
    funcs, _ = trl.reward_funcs(reward)
    trainer = Trainer(1, 1)
    for batch in range(1, 4):
        trainer.call(funcs, ["1 2 3"])
        assert [leaf.calls for leaf in leaves(reward)] == [batch] * 3
    train, evaluate = ["1 2 3"], ["4 5 6"]
    first, second = funcs[0], funcs[1]
    mixed = [trainer.call([func], batch)[0] for func, batch in [(first, train), (first, evaluate), (second, train)]]
    assert [*mixed, *trainer.call([second], evaluate)] == [[1.0], [4.0], [2.0], [5.0]]
    assert [leaf.calls for leaf in leaves(reward)] == [5] * 3


def test_a_function_that_comes_again_wants_it_anew() -> None:
    """A second step with one and the same list, whose content has changed."""
    funcs, _ = trl.reward_funcs(parts())
    completions = ["1 2 3"]
    assert Trainer(1, 1).call(funcs[:1], completions) == [[1.0]]
    completions[0] = "7 8 9"
    assert Trainer(1, 1).call(funcs, completions) == [[7.0], [8.0], [9.0]]


def test_what_is_kept_has_an_end() -> None:
    """Where functions are left out; and nothing is kept where none is."""
    once = OncePerBatch(["a", "b"])
    batches = [[str(number)] for number in range(2 * KEPT)]
    for batch in batches:
        future, is_first = once.claim(batch, "a")
        assert is_first
        future.set_result({})
    assert len(once) <= KEPT + 1
    for batch in batches[-KEPT:]:
        assert not once.claim(batch, "b")[1]
    assert len(once) <= 1


def test_threads_don_t_mix() -> None:
    """Functions of one batch on several threads, and several batches at once, as in AsyncGRPO."""
    reward = parts(pause=0.02)
    funcs, _ = trl.reward_funcs(reward)
    batches = [[f"{number} {number + 1} {number + 2}"] for number in range(8)]
    found: dict[tuple[int, int], Any] = {}

    def ask(row: int, column: int) -> None:
        found[row, column] = funcs[column](prompts=["p"], completions=batches[row])

    threads = [threading.Thread(target=ask, args=(row, column)) for row in range(8) for column in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {(row, column): [float(row + column)] for row in range(8) for column in range(3)}
    assert [leaf.calls for leaf in leaves(reward)] == [8] * 3


class Meeting(RewardFunction):
    """Is there only when all others are."""

    def __init__(self, barrier: threading.Barrier, name: str) -> None:
        super().__init__(name=name)
        self.barrier = barrier

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float]:
        self.barrier.wait(timeout=20)
        return [1.0] * len(samples)


@pytest.mark.parametrize("is_async", [False, True])
def test_parts_run_at_once(*, is_async: bool) -> None:
    """Each of three waits for the other two."""
    barrier = threading.Barrier(3)
    reward = CompositeReward([(Meeting(barrier, name), 1.0) for name in "abc"])
    funcs, _ = trl.reward_funcs(reward, is_async=is_async)
    if is_async:
        assert asyncio.run(gathered(funcs, ["x"])) == [[1.0]] * 3
    else:
        assert Trainer(1, 1).call(funcs, ["x"]) == [[1.0]] * 3


async def gathered(funcs: Sequence[Any], completions: Sequence[str]) -> list[Any]:
    """As TRL awaits them."""
    return list(
        await asyncio.gather(*[func(prompts=["p"] * len(completions), completions=completions) for func in funcs])
    )


def test_the_loop_goes_on_while_a_batch_is_scored() -> None:
    """What is awaited is computed elsewhere; the first function that fails does not leave the others waiting."""
    funcs, _ = trl.reward_funcs(parts(pause=0.3), is_async=True)
    assert all(inspect.iscoroutinefunction(func.__call__) for func in funcs)

    async def beside() -> tuple[list[Any], int]:
        scoring = asyncio.ensure_future(gathered(funcs, ["1 2 3"]))
        rounds = 0
        while not scoring.done():
            await asyncio.sleep(0.01)
            rounds += 1
        return await scoring, rounds

    found, rounds = asyncio.run(beside())
    assert found == [[1.0], [2.0], [3.0]]
    assert rounds > 5

    async def failing() -> list[Any]:
        calls = [func(prompts=["p"], completions=COMPLETIONS[3:4]) for func in funcs]
        return await asyncio.gather(*calls, return_exceptions=True)

    assert [type(error) for error in asyncio.run(failing())] == [ComputeError] * 3


def test_giving_up_gives_up_for_all() -> None:
    """Where the call that computes is cancelled, those who wait for it hear of it."""
    funcs, _ = trl.reward_funcs(parts(pause=0.2), is_async=True)

    async def cancelled() -> Any:
        batch = ["1 2 3"]
        first, second = (asyncio.ensure_future(func(prompts=["p"], completions=batch)) for func in funcs[:2])
        await asyncio.sleep(0.05)
        first.cancel()
        return await asyncio.gather(second, return_exceptions=True)

    (error,) = asyncio.run(cancelled())
    assert isinstance(error, ComputeError)
    assert "given up" in str(error)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_batch_has_a_deadline(*, is_async: bool) -> None:
    """For one that hangs."""
    func = trl.reward_func(parts(pause=1.0), timeout=0.1, is_async=is_async)

    def call() -> Any:
        found = func(prompts=["p"], completions=["1 2 3"])
        return asyncio.run(found) if is_async else found

    with pytest.raises(TimeoutError, match="word0"):
        call()


LENGTH = LengthReward(target=3)


@pytest.mark.parametrize(
    ("reward", "names", "weights"),
    [
        (LENGTH, ["LengthReward"], [1.0]),
        (CompositeReward([(LENGTH, 2.0), (LENGTH, -1.0)]), ["LengthReward", "LengthReward_2"], [2.0, -1.0]),
        (CompositeReward({"a": (LENGTH, 1.0), "b": (LENGTH, 3.0)}, normalize_weights=True), ["a", "b"], [0.25, 0.75]),
        (Retry(MaskErrors(CompositeReward({"a": (LENGTH, 0.5)}))), ["a"], [0.5]),
        (Cached(CompositeReward({"a": (GroupRank(LENGTH), 0.5)})), ["a"], [0.5]),
        (MaskErrors(CompositeReward({"a": (LENGTH, 0.5)}), on_error=0.0), ["CompositeReward"], [1.0]),
        (GroupRank(CompositeReward({"a": (LENGTH, 0.5)})), ["GroupRank(CompositeReward)"], [1.0]),
        (Clip(CompositeReward({"a": (LENGTH, 0.5)}), 0.0, 1.0), ["Clip(CompositeReward)"], [1.0]),
        (Product({"a": LENGTH, "b": LENGTH}), ["Product"], [1.0]),
    ],
)
def test_what_becomes_functions(reward: RewardFunction, names: list[str], weights: list[float]) -> None:
    """The parts of a plain weighted sum; what is none is one function."""
    funcs, found = trl.reward_funcs(reward)
    assert isinstance(funcs, list)  # TRL takes a tuple for one function
    assert [func.__name__ for func in funcs] == names
    assert found == weights


# What is logged


def test_the_log_of_the_total() -> None:
    """Parts, failures and statistics are metrics; scores and reasons are columns."""
    trainer = Trainer(1, 1)
    reward = MaskErrors(Retry(CompositeReward({"a": (OneOf(0), 1.0), "b": (OneOf(1), 1.0)}), attempts=1))
    trainer.call([trl.reward_func(reward)], ["1 2", "3 -", "2 !", "- -"])
    expected = {
        "failed": 0.25,
        "not_applicable": 0.25,
        "a/mean": 2.0,
        "a/std": 1.0,
        "a/failed": 0.0,
        "a/not_applicable": 0.25,
        "b/mean": 2.0,
        "b/std": 0.0,
        "b/failed": 0.25,
        "b/not_applicable": 0.5,
    }
    logged = {name.removeprefix("rewards/CompositeReward/"): value for name, (value,) in trainer.metrics.items()}
    assert {name: logged[name] for name in expected} == expected
    assert {"rewards/word0/seconds", "rewards/word0/retries"} <= logged.keys() - expected.keys()
    assert "rewards/word0/cache_hits" not in logged
    assert trainer.table == {
        "CompositeReward/error": [None, None, "b: ValueError: odd", None],
        "CompositeReward/a": [1.0, 3.0, 2.0, None],
        "CompositeReward/b": [2.0, None, None, None],
    }


def test_nothing_is_logged_twice_and_no_nan() -> None:
    """Parts that TRL logs itself are left to it; NaN would be averaged over processes."""
    trainer = Trainer(1, 1)
    funcs, _ = trl.reward_funcs(MaskErrors(parts()))
    trainer.call(funcs, ["- - -", "1 2 3"])
    trainer.call(funcs, ["- - -"])
    assert not any("mean" in name for name in trainer.metrics)
    assert all(np.isfinite(value) for values in trainer.metrics.values() for value in values)
    assert trainer.table == {"CompositeReward/error": [None] * 3}


class Aspects(RewardFunction):
    """Has parts where it says so."""

    def compute_reward(self, sample: Sample) -> RewardOutput:
        return RewardOutput(1.0, parts={} if sample.response == "none" else {"style": 0.5})


def test_the_same_completions_beside_other_columns_are_another_batch() -> None:
    """A function that comes with another answer gets the scores for that one."""
    reward = CompositeReward({"one": (ExactMatch(), 1.0), "two": (ExactMatch(), 0.5)})
    (one, two), _ = trl.reward_funcs(reward)
    completions = ["4", "5"]
    assert one(prompts=["q", "q"], completions=completions, answer=["4", "4"]) == [1.0, 0.0]
    assert two(prompts=["q", "q"], completions=completions, answer=["5", "5"]) == [0.0, 1.0]


def test_weights_that_the_trainer_was_not_given() -> None:
    """TRL would add the parts up without them, and the policy would learn another reward."""
    reward = CompositeReward({"right": (ExactMatch(), 1.0), "brief": (LengthReward(target=2, unit="words"), 0.2)})
    funcs, weights = trl.reward_funcs(reward)
    call = {"prompts": ["q"], "completions": ["4"], "answer": ["4"]}
    trainer = Trainer(1, 1)
    trainer.args = SimpleNamespace(reward_weights=None)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"\[1.0, 0.2\], and the trainer has none; pass .*reward_weights"):
        funcs[0](**call, log_metric=trainer.log_metric)
    trainer.args = SimpleNamespace(reward_weights=weights)  # type: ignore[attr-defined]
    assert funcs[0](**call, log_metric=trainer.log_metric) == [1.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"gold": ["4"]}, r"no column solution or answer or .*columns are .*gold.*fields=\{'reference': COLUMN\}"),
        ({"solution": ["2 + 2 = 4"], "answer": ["4"]}, "'solution' and 'answer' could both be the reference"),
        ({"answer": ["4", "5"]}, "'answer' must be a list with 1 entries"),
    ],
)
def test_a_reference_that_is_not_told(columns: dict[str, list[str]], message: str) -> None:
    """Under another name, twice, or of another length: said before anything is scored."""
    with pytest.raises((ConfigError, InputError), match=message):
        trl.reward_func(ExactMatch())(prompts=["q"], completions=["4"], **columns)


def test_two_columns_that_agree_need_no_choice() -> None:
    """Nor do any where no reward reads the field."""
    call = {"prompts": ["q"], "completions": ["4"]}
    assert trl.reward_func(ExactMatch())(**call, solution=["4"], answer=["4"]) == [1.0]
    assert trl.reward_func(LengthReward(target=1))(**call, solution=["2 + 2"], answer=["4"]) == [1.0]


def test_a_reward_that_is_given_to_the_trainer_itself() -> None:
    """It is callable, and no function of TRL's: the error says what is."""
    with pytest.raises(InputError, match=r"trl\.reward_func"):
        ExactMatch()(prompts=["q"], completions=["4"], trainer_state=None)


def test_ids_of_the_users_own() -> None:
    """They are groups as they stand, whole ones; ids for some samples only are refused."""
    func = trl.reward_func(GroupRank(LengthReward(target=9)), num_generations=2, fields={"group_id": "uid"})
    call = {"prompts": ["p", "q", "p", "q"], "completions": ["a a", "a", "a", "a a"]}
    assert func(**call, uid=[1, 2, 1, 2]) == [1.0, 0.0, 0.0, 1.0]
    with pytest.raises(ConfigError, match="some samples have a group_id, and others none"):
        func(**call, uid=[1, 2, 1, None])
    with pytest.raises(ConfigError, match="the group 1 has 3 samples here"):
        func(**call, uid=[1, 1, 1, 2])


def test_evaluation_has_a_size_of_its_own() -> None:
    """What was said of training is not held against it."""
    trainer = Trainer(4, 2)
    trainer.model.training = False
    func = trl.reward_func(GroupRank(LengthReward(target=9)), num_generations=4)
    call = {"prompts": ["p", "p"], "completions": ["a a", "a"]}
    assert func(**call, log_metric=trainer.log_metric) == [1.0, 0.0]


def test_columns_are_there_in_every_batch() -> None:
    """Once they were: TRL makes one table of several batches."""
    trainer = Trainer(1, 1)
    func = trl.reward_func(Aspects())
    for word in ("some", "none", "some"):
        trainer.call([func], [word])
    assert trainer.table["Aspects/style"] == [0.5, None, 0.5]


# Groups

RANK = GroupRank(LengthReward(target=4, unit="characters"))
WORDS = ["a", "aa", "aaa", "aaaa"]


def test_groups_go_by_place() -> None:
    """Two groups of one prompt stay apart; the size is learned from the trainer, in evaluation its own."""
    trainer = Trainer(4, 2)
    func = trl.reward_func(RANK)
    assert trainer.call([func], WORDS + WORDS[::-1]) == [[0, 1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3, 0]]
    trainer.model.training = False
    assert trainer.call([func], WORDS) == [[0, 1, 0, 1]]


def test_the_size_of_groups_can_be_given() -> None:
    """For a trainer that does not tell, such as AsyncGRPO, which shows one group at a time."""
    func = trl.reward_func(RANK, num_generations=2)
    assert func(prompts=["p"] * 4, completions=WORDS) == [0, 1, 0, 1]
    assert trl.reward_func(RANK, num_generations=4)(prompts=["p"] * 4, completions=WORDS) == [0, 1 / 3, 2 / 3, 1]


@pytest.mark.parametrize(
    ("options", "prompts", "message"),
    [
        ({}, ["p"] * 6, r"no whole groups of num_generations=4.*per_device_train_batch_size \* steps_per_generation"),
        ({}, ["p", "p", "q", "q"], "samples 0 and 2 should be of one group of num_generations=4"),
        ({"num_generations": 2}, ["p"] * 4, "num_generations=2 was given here, but the trainer has 4"),
        ({"eval": True}, ["p"] * 3, "no whole groups of num_generations_eval=2.*per_device_eval_batch_size"),
    ],
)
def test_groups_that_are_not_whole_are_refused(options: dict[str, Any], prompts: list[str], message: str) -> None:
    """With the setting to change."""
    trainer = Trainer(4, 2)
    trainer.model.training = not options.pop("eval", False)
    func = trl.reward_func(RANK, **options)
    with pytest.raises(ConfigError, match=message):
        trainer.call([func], ["a"] * len(prompts), prompts=prompts)


def test_a_trainer_that_does_not_tell() -> None:
    """Groups are not guessed."""
    with pytest.raises(ConfigError, match="pass num_generations"):
        trl.reward_func(RANK)(prompts=["p"] * 4, completions=WORDS)


def test_rewards_without_groups_need_none() -> None:
    """Any number of completions; no id is made up, which a cache would go by."""
    seen = Seen()
    Trainer(4, 2).call([trl.reward_func(seen)], ["a"] * 3)
    assert [sample.group_id for sample in seen.samples] == [None] * 3


def test_environments_may_write_into_prompts() -> None:
    """Then the prompts of a group differ."""
    prompts = ["seed 1", "seed 2", "seed 3", "seed 4"]
    found = Trainer(4, 2).call([trl.reward_func(RANK)], WORDS, prompts=prompts, environments=[object()] * 4)
    assert found == [[0, 1 / 3, 2 / 3, 1]]


def test_images_in_prompts_are_not_compared() -> None:
    """Only the words are: decoders give another object for each completion."""
    prompts = [[{"role": "user", "content": [{"type": "image", "image": object()}, {"type": "text", "text": "What?"}]}]]
    prompts += [
        [{"role": "user", "content": [{"type": "image", "image": object()}, {"type": "text", "text": "What?"}]}]
    ]
    assert Trainer(2, 2).call([trl.reward_func(RANK)], WORDS[:2], prompts=prompts) == [[0, 1]]


# Schedules


@pytest.mark.parametrize(("step", "expected"), [(0, [1.0, None]), (50, [2.0, None]), (100, [3.0, None])])
def test_weights_by_a_schedule(step: int, expected: list[float | None]) -> None:
    """The sum of the same parts, by the step; failures stay out."""
    reward = MaskErrors(CompositeReward({"a": (OneOf(0), 1.0), "b": (OneOf(1), 9.0)}))
    func = trl.reward_func(reward, schedule=lambda state: {"b": state.global_step / 100})
    trainer = Trainer(1, 1)
    found = func(
        prompts=["p"] * 2,
        completions=["1 2", "1 !"],
        trainer_state=SimpleNamespace(global_step=step),
        log_metric=trainer.log_metric,
    )
    assert found == expected
    assert trainer.metrics["rewards/CompositeReward/b/weight"] == [step / 100]
    assert trainer.metrics["rewards/CompositeReward/a/weight"] == [1.0]


@pytest.mark.parametrize(
    ("schedule", "state", "message"),
    [
        (lambda state: {"word": 1.0}, SimpleNamespace(), "a weight for 'word', no part.*word1"),
        (lambda state: {"word0": float("nan")}, SimpleNamespace(), "the scheduled weight of 'word0'"),
        (lambda state: {}, None, "this trainer passes none"),
    ],
)
def test_schedules_that_cannot_be_used(schedule: Any, state: Any, message: str) -> None:
    """On a call."""
    with pytest.raises(ConfigError, match=message):
        trl.reward_func(parts(), schedule=schedule)(prompts=["p"], completions=["1 2 3"], trainer_state=state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: trl.reward_func(len), "expected a reward"),  # type: ignore[arg-type]
        (lambda: trl.reward_func(RANK, schedule=dict), "a CompositeReward"),
        (lambda: trl.reward_func(LENGTH, num_generations=0), "num_generations must be a whole number"),
        (lambda: trl.reward_func(LENGTH, timeout=0), "timeout must be a finite number"),
        (lambda: trl.reward_func(LENGTH, fields={"gold": "x"}), "no"),
        (lambda: trl.reward_func(LENGTH, is_async=True, distributed=True), "needs is_async=False"),
    ],
)
def test_arguments_that_cannot_be_used(make: Callable[[], Any], message: str) -> None:
    """When the function is made."""
    with pytest.raises(ConfigError, match=message):
        make()


IN_A_PROCESS = """
import pickle, sys
funcs = pickle.load(sys.stdin.buffer)
batch = {"prompts": ["6 * 7?"] * 2, "completions": ["42", "is 41"], "solution": ["42", "42"]}
print([func(**batch) for func in funcs], [func.__name__ for func in funcs])
"""


def test_functions_pickle_to_another_process() -> None:
    """As those of AsyncGRPO must; the functions of one reward still share one computation."""
    reward = CompositeReward({"right": (ExactMatch(), 1.0), "brief": (LengthReward(target=2), 0.2)})
    sent = pickle.dumps(trl.reward_funcs(reward)[0])
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS], input=sent, capture_output=True, timeout=60, check=True)
    assert done.stdout.decode().strip() == "[[1.0, 0.0], [0.5, 1.0]] ['right', 'brief']"
    funcs = pickle.loads(pickle.dumps(trl.reward_funcs(CompositeReward({"a": (Seen(), 1.0), "b": (Seen(), 1.0)}))[0]))
    Trainer(1, 1).call(funcs, ["x"])
    assert funcs[0]._scoring is funcs[1]._scoring
    assert [leaf.calls for leaf in leaves(funcs[0]._scoring.reward)] == [1, 1]


def test_other_functions_and_models_stand_beside_ours() -> None:
    """Lists are added; TRL tells modules, names and functions apart by their kind."""
    funcs, weights = trl.reward_funcs(CompositeReward([(KeywordReward(["yes"]), 1.0)]))
    assert [type(entry).__name__ for entry in [*funcs, "org/reward-model"]] == ["RewardFunc", "str"]
    assert [*weights, 0.5] == [1.0, 0.5]
    assert "KeywordReward" in repr(funcs[0])


def test_functions_of_several_rewards_have_their_own_names() -> None:
    """As their rewards have."""
    funcs = [trl.reward_func(FunctionReward(lambda sample: 0.0, name=name)) for name in ("one", "two")]
    assert [func.__name__ for func in funcs] == ["one", "two"]
