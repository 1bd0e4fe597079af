"""verl's contract, its call sites written out from verl 0.9.1 and 0.7; with verl itself: `peers/test_verl_peer.py`."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flux_rewards import (
    CompositeReward,
    ExactMatch,
    FunctionReward,
    GroupRank,
    LengthReward,
    MaskErrors,
    RewardFunction,
    RewardOutput,
    Sample,
)
from flux_rewards.errors import ComputeError, ConfigError, ContractError, InputError
from flux_rewards.integrations import verl

ROW = {"data_source": "openai/gsm8k", "solution_str": "42", "ground_truth": "42", "extra_info": {"index": 3}}


class Moody(RewardFunction):
    """Applies to some samples, fails on others, and has parts that only its answers tell."""

    required_fields = ("response",)

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        if sample.response == "fail":
            raise RuntimeError("out of order")
        return None if sample.response == "skip" else RewardOutput(1.0, parts={"style": 0.25})


class Seen(RewardFunction):
    """Keeps what it was shown."""

    optional_fields = None

    def compute_reward(self, sample: Sample) -> RewardOutput:
        return RewardOutput(0.0, metadata={"seen": sample})


def composite() -> CompositeReward:
    return CompositeReward({"right": (ExactMatch(), 1.0), "brief": (LengthReward(target=2), 0.5)})


def forms(reward: RewardFunction, **options: Any) -> list[Callable[..., Any]]:
    """The plain and the coroutine function, both called as verl does: by keyword."""
    asynchronous = verl.compute_score_async(reward, **options)
    return [verl.compute_score(reward, **options), lambda **row: asyncio.run(asynchronous(**row))]


@pytest.mark.parametrize("form", [0, 1], ids=["plain", "coroutine"])
def test_the_score_and_its_parts(form: int) -> None:
    """1 for the answer, half of ½ for one word of two; the parts under their names."""
    assert forms(composite())[form](**ROW) == {"score": 1.25, "right": 1.0, "brief": 0.5}


def test_verl_sees_which_function_is_a_coroutine_function() -> None:
    """Through the partial in which verl wraps it, too."""
    assert inspect.iscoroutinefunction(functools.partial(verl.compute_score_async(ExactMatch())))
    assert not inspect.iscoroutinefunction(verl.compute_score(ExactMatch()))


@pytest.mark.parametrize("form", [0, 1], ids=["plain", "coroutine"])
def test_it_pickles(form: int) -> None:
    """The prime manager sends the function to processes, Ray to actors."""
    function = (verl.compute_score, verl.compute_score_async)[form](composite(), not_applicable=0.0)
    copied = pickle.loads(pickle.dumps(function))
    assert inspect.iscoroutinefunction(copied) == (form == 1)
    result = copied(**ROW)
    assert (asyncio.run(result) if form else result)["score"] == 1.25


def test_positional_arguments_as_the_prime_manager_gives_them() -> None:
    """The prime manager calls ``f(task, completion, reference, extra_info)``, and reads a plain number only."""
    function = verl.compute_score(composite(), parts=[])
    score = function("openai/gsm8k", "42", "42", None)
    assert (score, type(score)) == (1.25, float)


@pytest.mark.parametrize(
    ("options", "response", "expected"),
    [
        ({"not_applicable": -1.0}, "skip", {"score": -1.0, "style": -1.0}),
        ({"not_applicable": -1.0}, "yes", {"score": 1.0, "style": 0.25}),
        ({"on_error": -2.0}, "fail", {"score": -2.0, "failed": 1.0, "style": -2.0}),
        ({"on_error": -2.0}, "yes", {"score": 1.0, "failed": 0.0, "style": 0.25}),
    ],
)
def test_numbers_that_the_user_chose(options: dict[str, float], response: str, expected: dict[str, float]) -> None:
    """The same keys for every sample, and never None or NaN."""
    for function in forms(Moody(), parts=["style"], **options):
        assert function(**ROW | {"solution_str": response}) == expected


@pytest.mark.parametrize(
    ("response", "message"),
    [("skip", "verl has no word for that"), ("fail", "RuntimeError: out of order")],
)
def test_without_a_number_it_raises(response: str, message: str) -> None:
    """There is no word in verl for "no score", so nothing is made up."""
    for function in forms(Moody()):
        with pytest.raises(ComputeError, match=message):
            function(**ROW | {"solution_str": response})


def test_a_part_that_does_not_apply_raises_by_its_name() -> None:
    """A composite whose total is a number, one of whose parts is none."""
    reward = CompositeReward({"right": (ExactMatch(), 1.0), "moody": (Moody(), 1.0)})
    row = ROW | {"solution_str": "skip", "ground_truth": "skip"}
    with pytest.raises(ComputeError, match=r"part 'moody' does not apply.*not_applicable"):
        verl.compute_score(reward)(**row)
    assert verl.compute_score(reward, parts=["right"])(**row) == {"score": 1.0, "right": 1.0}
    assert verl.compute_score(reward, not_applicable=0.0)(**row) == {"score": 1.0, "right": 1.0, "moody": 0.0}


def test_parts_are_checked_by_name() -> None:
    """A name that the composite has not is a slip."""
    with pytest.raises(ConfigError, match=r"no part 'rigth' \(did you mean 'right'"):
        verl.compute_score(composite(), parts=["rigth"])


def test_a_misspelt_part_is_no_number() -> None:
    """Of a reward whose parts only its answers tell, too; what failed or was skipped before says nothing about it."""
    function = verl.compute_score(Moody(), parts=["sytle"], not_applicable=0.0, on_error=-1.0)
    for response in ("skip", "fail"):
        function(**ROW | {"solution_str": response})
    with pytest.raises(ContractError, match=r"parts names 'sytle' \(did you mean 'style'\?\)"):
        function(**ROW | {"solution_str": "yes"})
    with pytest.raises(ContractError, match=r"parts names 'style'.*it has none"):
        verl.compute_score(ExactMatch(), parts=["style"], not_applicable=0.0)(**ROW)


def test_a_masked_failure_has_no_parts_and_no_slip() -> None:
    """Its number comes from MaskErrors, and so there is nothing to find parts in."""
    masked = MaskErrors(Moody(), max_failure_rate=1.0, on_error=-1.0)
    function = verl.compute_score(masked, parts=["style"], not_applicable=0.5)
    assert function(**ROW | {"solution_str": "fail"}) == {"score": -1.0, "style": 0.5}


def test_a_part_that_was_seen_may_be_missing_later() -> None:
    """It then does not apply."""
    reward = FunctionReward(
        lambda sample: RewardOutput(1.0, parts={"style": 0.25} if sample.response == "yes" else {}), fields=["response"]
    )
    function = verl.compute_score(reward, parts=["style"], not_applicable=0.5)
    told = [function(**ROW | {"solution_str": said}) for said in ("yes", "no")]
    assert told == [{"score": 1.0, "style": 0.25}, {"score": 1.0, "style": 0.5}]


def test_on_error_holds_where_nobody_knows_a_share() -> None:
    """One sample at a time, the rate of a MaskErrors is not asked; of a batch it is."""
    reward = MaskErrors(Moody(), max_failure_rate=0.5)
    row = ROW | {"solution_str": "fail"}
    assert verl.compute_score(reward, on_error=-1.0, parts=[])(**row) == -1.0
    with pytest.raises(ComputeError, match=r"max_failure_rate=0\.5"):
        batch_manager_call(verl.compute_scores(reward, on_error=-1.0, parts=[]), ["fail", "fail", "yes"], [{}] * 3)


def test_a_part_called_score_does_not_replace_the_score() -> None:
    """Its key gets a number behind it."""
    reward = CompositeReward({"score": (LengthReward(target=2), 0.5)})
    assert verl.compute_score(reward)(**ROW) == {"score": 0.25, "score_2": 0.5}


def test_what_a_reward_is_shown() -> None:
    """Response, reference and prompt by default; the rest is metadata; verl's dict stays as it was."""
    info = {"question": "6 * 7?", "index": 3, "num_turns": None, "split": "train"}
    before = dict(info)
    scoring = verl.compute_score(Seen())
    (sample,) = scoring.__self__.samples(["gsm8k"], ["42"], ["42"], [info], others={"threshold": 2})  # type: ignore[attr-defined]
    assert sample == Sample(
        prompt="6 * 7?",
        response="42",
        reference="42",
        metadata={"index": 3, "split": "train", "threshold": 2, "data_source": "gsm8k"},
    )
    assert info == before
    assert scoring(**ROW | {"extra_info": info}, threshold=2, reward_model_tokenizer=object()) == {"score": 0.0}


def test_fields_by_name() -> None:
    """The user says which column is what, a key of extra_info too; one that is not there is an error."""
    function = verl.compute_score(ExactMatch(), fields={"reference": "solution"})
    assert function(**ROW | {"ground_truth": "?", "extra_info": {"solution": "42"}}) == {"score": 1.0}
    with pytest.raises(InputError, match="no column 'solution'"):
        function(**ROW)


def test_calls_from_the_threads_of_an_event_loop() -> None:
    """As verl runs plain functions: each has the score of its own sample."""
    function = verl.compute_score(ExactMatch())
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(function, "s", str(n), str(n % 3), {}) for n in range(24)]
        assert [call.result()["score"] for call in calls] == [float(n < 3) for n in range(24)]  # type: ignore[index]


def test_a_reward_of_groups_is_refused_for_single_samples() -> None:
    """The reward loop of verl has no view of groups."""
    for factory in (verl.compute_score, verl.compute_score_async):
        with pytest.raises(ConfigError, match=r"compares the samples of a group.*verl shows one sample"):
            factory(GroupRank(LengthReward(target=2)))


def batch_manager_call(function: Callable[..., Any], texts: Sequence[str], infos: Sequence[dict[str, Any]]) -> Any:
    """The call site of verl 0.7's batch manager."""
    count = len(texts)
    return function(
        data_sources=["s"] * count, solution_strs=list(texts), ground_truths=["a b"] * count, extra_infos=list(infos)
    )


def test_the_batch_form_scores_groups() -> None:
    """Two groups of two, interleaved: the longer answer of each is nearer to nine words."""
    function = verl.compute_scores(GroupRank(LengthReward(target=9)), fields={"group_id": "index"}, parts=[])
    infos = [{"index": 0}, {"index": 1}, {"index": 0}, {"index": 1}]
    assert batch_manager_call(function, ["a", "a b", "a b", "a"], infos) == [0.0, 1.0, 1.0, 0.0]


def test_the_batch_form_masks_failures_only_where_asked() -> None:
    """Raised by default, the number with on_error."""
    infos: list[dict[str, Any]] = [{}, {}]
    with pytest.raises(ComputeError, match="out of order"):
        batch_manager_call(verl.compute_scores(Moody()), ["yes", "fail"], infos)
    told = batch_manager_call(verl.compute_scores(Moody(), on_error=-1.0), ["yes", "fail"], infos)
    assert told == [{"score": 1.0, "failed": 0.0}, {"score": -1.0, "failed": 1.0}]


def test_the_example_is_loaded_by_path() -> None:
    """As verl does it: without an entry in ``sys.modules``."""
    path = Path(__file__).parents[2] / "examples" / "verl_reward.py"
    spec = importlib.util.spec_from_file_location("custom_module_1", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    told = asyncio.run(module.compute_score(**ROW | {"solution_str": "<think>.</think><answer>42</answer>"}))
    assert set(told) == {"score", "acc", "format", "brevity"}
    assert told["acc"] == told["format"] == 1.0


# The other way round


def plain(data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
    """A function of verl; it writes into extra_info, as some do."""
    assert extra_info is not None
    extra_info["seen"] = True
    return float(solution_str == ground_truth and data_source == "mine")


async def with_parts(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, bonus: float = 0.0
) -> dict[str, Any]:
    """A coroutine function of verl that returns a dict."""
    await asyncio.sleep(0)
    right = solution_str == ground_truth
    return {"score": float(right) + bonus, "acc": right, "pred": solution_str}


def plural(
    data_sources: list[str], solution_strs: list[str], ground_truths: list[str], extra_infos: list[dict[str, Any]]
) -> list[float]:
    """A function for verl's batch manager."""
    return [len(text) / len(solution_strs) for text in solution_strs]


def broken(solution_str: str, **_: Any) -> Any:
    """Returns what its input names."""
    return {"none": None, "nan": float("nan"), "dict": {"acc": 1.0}, "text": "1"}[solution_str]


def test_a_plain_function_of_verl() -> None:
    """Its numbers; and the metadata of the samples are not written into."""
    metadata = {"level": 2}
    reward = verl.from_verl(plain, "mine")
    batch = reward(response=["42", "41"], reference=["42", "42"], metadata=[metadata, metadata])
    assert batch.rewards.tolist() == [1.0, 0.0]
    assert (reward.name, metadata) == ("plain", {"level": 2})


@pytest.mark.parametrize("workers", [1, 4])
def test_a_coroutine_function_of_verl(workers: int) -> None:
    """Numbers are parts, text is metadata; on the library's own loop, from several threads."""
    reward = verl.from_verl(with_parts, "mine", arguments={"bonus": 0.5}, num_workers=workers)
    batch = reward(response=["42", "41"], reference=["42", "42"])
    assert batch.rewards.tolist() == [1.5, 0.5]
    assert batch.parts["acc"].rewards.tolist() == [1.0, 0.0]
    assert [entry["pred"] for entry in batch.metadata] == ["42", "41"]


def of_one_data_set(solution_str: str, ground_truth: str, method: str = "strict") -> float:
    """The signature of ``verl.utils.reward_score.gsm8k.compute_score``."""
    return float(method == "strict" and solution_str.endswith(f"#### {ground_truth}"))


def test_a_function_is_given_what_it_names() -> None:
    """Those of one data set know of no data source, and need none."""
    samples = [Sample(response=f"so #### {n}", reference="42") for n in (42, 41)]
    assert verl.from_verl(of_one_data_set)(samples).rewards.tolist() == [1.0, 0.0]
    assert verl.from_verl(lambda predict_str, ground_truth: len(predict_str))(samples).rewards.tolist() == [10.0, 10.0]
    loose = verl.from_verl(of_one_data_set, arguments={"method": "flexible"})
    assert loose(samples).rewards.tolist() == [0.0, 0.0]

    def totals(solution_strs: list[str], **_: Any) -> list[float]:
        return [float(len(text)) for text in solution_strs]

    assert verl.from_verl(totals, "mine", plural=True)(response=["ab"]).rewards.tolist() == [2.0]


def test_the_prompt_is_in_extra_info() -> None:
    """As text under both names that verl's functions use; the metadata's own win."""

    def asked(extra_info: dict[str, Any]) -> dict[str, Any]:
        return {"score": 1.0, **extra_info}

    reward = verl.from_verl(asked)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "6 * 7?"}]
    batch = reward(
        [Sample(messages, "42"), Sample("6 * 7?", "42", metadata={"question": "own"}), Sample(response="42")]
    )
    assert batch.metadata == [
        {"question": "6 * 7?", "prompt": "6 * 7?"},
        {"question": "own", "prompt": "6 * 7?"},
        {},
    ]
    with_prompt = verl.from_verl(verl.compute_score(FunctionReward(lambda s: s.prompt_text == "6 * 7?")), "mine")
    assert with_prompt([Sample("6 * 7?", "42")]).rewards.tolist() == [1.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda completion, answer: 1.0, r"wants completion, answer; one of verl's is given data_source, solution_str"),
        (lambda solution_str, reward_router_address: 1.0, "wants reward_router_address"),
        (lambda: 1.0, "wants nothing"),
        (lambda solution_str, /: 1.0, "wants solution_str.*by keyword"),
    ],
)
def test_a_function_that_wants_something_else_is_refused(function: Any, message: str) -> None:
    """At once, with what there is."""
    with pytest.raises(ConfigError, match=message):
        verl.from_verl(function)


def test_a_function_of_a_file(tmp_path: Path) -> None:
    """By the path of the file, as verl's own configuration has it; run once a process, and it pickles."""
    file = tmp_path / "my_reward.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Kept:\n"
        "    calls: int = 0\n\nkept = Kept()\n\ndef compute_score(solution_str, ground_truth):\n"
        "    kept.calls += 1\n    return float(kept.calls)\n"
    )
    reward = pickle.loads(pickle.dumps(verl.from_verl(f"{file}:compute_score")))
    assert reward.name == "compute_score"
    assert [reward(response=["x"]).rewards[0] for _ in range(2)] == [1.0, 2.0]
    for path, message in [
        (str(file), "write the function behind it"),
        (f"{file}:compute_scores", "did you mean 'compute_score'"),
        (f"{tmp_path / 'none.py'}:compute_score", "there is no file"),
    ]:
        with pytest.raises(ConfigError, match=message):
            verl.from_verl(path)(response=["x"])
    file.with_name("broken.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"broken\.py cannot be imported: ZeroDivisionError"):
        verl.from_verl(f"{tmp_path / 'broken.py'}:f")(response=["x"])


def test_a_plural_function_of_verl() -> None:
    """It is called once for the batch."""
    assert verl.from_verl(plural, "mine", plural=True)(response=["ab", "abcd"]).rewards.tolist() == [1.0, 2.0]


def test_a_function_by_its_path_pickles() -> None:
    """So does one that Python can import."""
    reward = verl.from_verl("math.isnan", "mine")
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert reward.name == "isnan"


def test_foreign_answers_that_are_no_score() -> None:
    """None does not apply; a NaN is a failure; what verl could not read either is a broken contract."""
    reward = verl.from_verl(broken, "mine")
    assert reward(response=["none"]).not_applicable.tolist() == [True]
    with pytest.raises(ComputeError, match="nan"):
        reward(response=["nan"])
    with pytest.raises(ContractError, match="without 'score'"):
        reward(response=["dict"])
    with pytest.raises(ContractError, match="expected a number"):
        reward(response=["text"])


def test_a_failure_of_a_foreign_function_is_a_failure() -> None:
    """The exception is chained, and the sample named."""
    with pytest.raises(ComputeError, match=r"sample 1.*KeyError") as caught:
        verl.from_verl(broken, "mine")(response=["none", "other"])
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_sample_needs_a_data_source() -> None:
    """From the argument, or from the metadata."""
    reward = verl.from_verl(plain)
    assert reward(response=["1"], reference=["1"], metadata=[{"data_source": "mine"}]).rewards.tolist() == [1.0]
    with pytest.raises(InputError, match="data source"):
        reward(response=["1"], reference=["1"])


def test_there_and_back() -> None:
    """A reward as a function of verl as a reward says the same."""
    samples = [Sample(response="42", reference="42"), Sample(response="4 2", reference="42")]
    back = verl.from_verl(verl.compute_score(composite()), "mine")(samples)
    direct = composite()(samples)
    assert back.rewards.tolist() == direct.rewards.tolist()
    assert {name: part.rewards.tolist() for name, part in back.parts.items()} == {
        name: part.rewards.tolist() for name, part in direct.parts.items()
    }
