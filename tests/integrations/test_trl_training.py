"""TRL's own trainers, for a few steps of a tiny model on the CPU: what they log is what a direct call says."""

import asyncio
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from chat_server import Answer, ChatServer, Request, said

from flux_rewards import (
    CompositeReward,
    ComputeError,
    ConfigError,
    ExactMatch,
    FunctionReward,
    GroupRank,
    KeywordReward,
    LengthReward,
    MaskErrors,
    RatingJudge,
    RewardBatch,
    RewardFunction,
    Sample,
)
from flux_rewards.integrations import trl

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),  # TRL 1.16, transformers 5.23
]

WORDS = ["one", "two", "three", "four", "five", "six", "yes", "no", "1", "2", "3", "4", "good", "bad"]
SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
PROMPTS = ["one two", "three four", "five six", "good bad"]
GROUP = 4
STEPS = 3


def tiny_model() -> tuple[Any, Any]:
    """A causal model with random weights, and a tokenizer of a few words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIAL.values(), *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }} {% endfor %}{% if add_generation_prompt %}yes{% endif %}"
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                pad_token_id=0,
                eos_token_id=1,
                bos_token_id=None,
                max_position_embeddings=64,
            )
        )
    return model, tokenizer


def rates_by_content(request: Request) -> Answer:
    """The same points for the same words, 1 to 10."""
    return said(f"Score: {1 + zlib.crc32(request.text.encode()) % 10}")


def fails_at_bad(sample: Sample) -> float:
    """Cannot score a response with a certain word in it."""
    if "bad" in sample.response_text:
        raise ValueError("too bad")
    return float(sample.response_text.count("good"))


def with_reference(sample: Sample) -> float | None:
    """Does not apply where there is no reference."""
    return None if not sample.reference else float(sample.reference in sample.response_text.split())


def everything(url: str) -> RewardFunction:
    """A rule, a judge, a rank in the group, one that does not apply to some, one that fails on some."""
    return MaskErrors(
        CompositeReward(
            {
                "keyword": (KeywordReward(["yes"]), 1.0),
                "judge": (
                    RatingJudge(
                        "judge",
                        "How good is it?",
                        fields=("response",),
                        api_base_url=url,
                        api_key="none",
                        num_workers=8,
                    ),
                    0.5,
                ),
                "rank": (GroupRank(LengthReward(target=8)), 0.25),
                "reference": (FunctionReward(with_reference), 2.0),
                "good": (FunctionReward(fails_at_bad), -0.5),
            }
        ),
        max_failure_rate=1.0,
    )


class Probe:
    """A reward function that scores nothing, and keeps what TRL gives."""

    __name__ = "probe"

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Any]] = []

    def __call__(self, **given: Any) -> list[None]:
        self.calls.append({**given, "training": given["log_metric"].__self__.model.training})
        return [None] * len(given["completions"])


class Run(NamedTuple):
    """A training that is over."""

    reward: RewardFunction
    probe: Probe
    logs: list[dict[str, float | None]]
    folder: Path
    conversational: bool

    def direct(self, call: Mapping[str, Any]) -> RewardBatch:
        """The reward, asked without any trainer, of the completions of one call."""
        size = GROUP if call["training"] else 2
        return self.reward(
            [
                Sample(prompt, completion, reference=reference, token_ids=ids, group_id=row // size)
                for row, (prompt, completion, reference, ids) in enumerate(
                    zip(call["prompts"], call["completions"], call["solution"], call["completion_ids"], strict=True)
                )
            ]
        )


def dataset(*, conversational: bool) -> Any:
    """Prompts with a reference, and without; one of them twice, so that two groups have one prompt."""
    from datasets import Dataset

    prompts: list[Any] = [*PROMPTS, PROMPTS[0]]
    if conversational:
        prompts = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return Dataset.from_dict({"prompt": prompts, "solution": ["1", "", "3", "", "2"]})


def train(name: str, funcs: Any, weights: Any, folder: Path, *, conversational: bool) -> list[dict[str, Any]]:
    """A few steps, and an evaluation."""
    import trl as trainers

    model, tokenizer = tiny_model()
    model.save_pretrained(folder / "model")  # RLOO loads its reference from there
    trainer = getattr(trainers, f"{name}Trainer")(
        model=str(folder / "model"),
        processing_class=tokenizer,
        reward_funcs=funcs,
        args=getattr(trainers, f"{name}Config")(
            output_dir=str(folder),
            reward_weights=weights,
            per_device_train_batch_size=8,
            per_device_eval_batch_size=4,
            num_generations=GROUP,
            num_generations_eval=2,
            max_completion_length=8,
            max_steps=STEPS,
            logging_steps=1,
            learning_rate=1e-3,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            log_completions=True,
            num_completions_to_print=0,
        ),
        train_dataset=dataset(conversational=conversational),
        eval_dataset=dataset(conversational=conversational),
    )
    trainer.train()
    trainer.evaluate()
    return list(trainer.state.log_history)


@pytest.fixture(scope="module", params=["GRPO", "RLOO"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """GRPO on conversations; RLOO on text, with functions that are awaited."""
    folder = tmp_path_factory.mktemp(request.param)
    conversational = request.param == "GRPO"
    with ChatServer(rates_by_content) as server:
        reward = everything(server.url)
        funcs, weights = trl.reward_funcs(reward, is_async=not conversational)
        probe = Probe()
        logs = train(request.param, [*funcs, probe], [*weights, 1.0], folder, conversational=conversational)
        yield Run(reward, probe, logs, folder, conversational)


def test_logged_means_are_those_of_a_direct_call(run: Run) -> None:
    """Of every part under its name, and of the total; of the samples that did not fail, to float32."""
    calls = [call for call in run.probe.calls if call["training"]]
    steps = [entry for entry in run.logs if "rewards/keyword/mean" in entry]
    assert len(calls) == len(steps) == STEPS
    failed = 0
    for call, logged in zip(calls, steps, strict=True):
        batch = run.direct(call)
        failed += len(batch.errors)
        assert logged["reward"] == pytest.approx(np.nanmean(batch.rewards), abs=1e-6)
        assert logged["reward_std"] == pytest.approx(np.nanstd(batch.rewards, ddof=1), abs=1e-5)
        assert logged["rewards/CompositeReward/failed"] == pytest.approx(len(batch.errors) / 8)
        for name, part in batch.parts.items():
            values = part.rewards[~batch.failed]
            values = values[~np.isnan(values)]
            expected = None if not len(values) else pytest.approx(values.mean(), abs=1e-6)
            assert logged[f"rewards/{name}/mean"] == expected, name
        assert logged["rewards/reference/not_applicable"] == pytest.approx(
            np.mean([not reference for reference in call["solution"]])
        )
    assert failed > 0


def test_evaluation_has_groups_of_its_own_size(run: Run) -> None:
    """`num_generations_eval` is learned from the trainer."""
    calls = [call for call in run.probe.calls if not call["training"]]
    (logged,) = [entry for entry in run.logs if "eval_rewards/rank/mean" in entry]
    means = [
        np.nanmean(np.where(batch.failed, np.nan, batch.parts["rank"].rewards)) for batch in map(run.direct, calls)
    ]
    assert logged["eval_rewards/rank/mean"] == pytest.approx(np.nanmean(means), abs=1e-6)


@pytest.mark.parametrize("run", ["GRPO"], indirect=True)  # RLOO writes none
def test_table_of_completions(run: Run) -> None:
    """The parts are columns, and the failures have reasons."""
    import pandas as pd

    tables = [pd.read_parquet(path) for path in sorted((run.folder / "completions").glob("*.parquet"))]
    reasons = {reason for table in tables for reason in table["CompositeReward/error"].dropna()}
    assert "good: ValueError: too bad" in reasons
    assert all(reason.startswith(("good: ValueError", "judge: InputError")) for reason in reasons)  # it may be empty
    for table in tables:
        lost = table[~table["CompositeReward/error"].isna()]
        assert lost[["keyword", "judge", "rank", "reference", "good"]].isna().all().all()
        assert (lost["advantage"] == 0).all()


def test_one_function_for_what_is_no_plain_sum(tmp_path: Path) -> None:
    """Parts and the weights of a schedule are metrics; the total is what TRL learns from."""
    composite = CompositeReward({"keyword": (KeywordReward(["yes"]), 1.0), "length": (LengthReward(target=8), 0.0)})
    func = trl.reward_func(composite, schedule=lambda state: {"length": 0.1 * state.global_step})
    probe = Probe()
    logs = train("GRPO", [func, trl.reward_func(GroupRank(composite)), probe], None, tmp_path, conversational=False)
    steps = [entry for entry in logs if "rewards/CompositeReward/mean" in entry]
    calls = [call for call in probe.calls if call["training"]]
    assert len(steps) == len(calls) == STEPS
    for step, (call, logged) in enumerate(zip(calls, steps, strict=True)):
        parts = composite(response=call["completions"], token_ids=call["completion_ids"]).parts
        keyword, length = (parts[name].rewards.mean() for name in ("keyword", "length"))
        assert logged["rewards/CompositeReward/length/weight"] == pytest.approx(0.1 * step)
        assert logged["rewards/CompositeReward/length/mean"] == pytest.approx(length)
        assert logged["rewards/CompositeReward/mean"] == pytest.approx(keyword + 0.1 * step * length, abs=1e-6)
        assert logged["rewards/GroupRank(CompositeReward)/mean"] == pytest.approx(0.5)
        assert logged["rewards/GroupRank(CompositeReward)/CompositeReward/keyword/mean"] == pytest.approx(keyword)


def test_a_failure_ends_the_training(tmp_path: Path) -> None:
    """Where nothing masks it, with the sample's place."""
    funcs, weights = trl.reward_funcs(CompositeReward({"bad": (FunctionReward(lambda sample: 1 / 0), 1.0)}))
    with pytest.raises(ComputeError, match=r"sample 0: ZeroDivisionError"):
        train("GRPO", funcs, weights, tmp_path, conversational=False)


def test_groups_that_straddle_processes_are_refused(tmp_path: Path) -> None:
    """Told as on one of several processes: six of the completions of a step of 12, in groups of four."""
    func = trl.reward_func(GroupRank(LengthReward(target=2)))
    probe = Probe()
    train("GRPO", [func, probe], None, tmp_path, conversational=False)
    given = {key: value for key, value in probe.calls[0].items() if key != "training"}
    half = {key: value[:6] if isinstance(value, list) else value for key, value in given.items()}
    given["log_metric"].__self__.model.train()
    with pytest.raises(ConfigError, match=r"num_generations=4.*per_device_train_batch_size \* steps_per_generation"):
        func(**half)


def scored_in_async_grpo(funcs: Sequence[Any], completions: Sequence[str]) -> list[Any]:
    """AsyncGRPO's own method, for one group; all else that its worker holds is not needed for it."""
    from trl.experimental.async_grpo import async_rollout_worker as worker

    count = len(completions)
    group = worker.RolloutGroup(
        prompts=[[{"role": "user", "content": "6 * 7?"}]] * count,
        reward_kwargs={"solution": ["42"] * count},
        completions=[[{"role": "assistant", "content": text}] for text in completions],
        completions_ids=[[1]] * count,
        completions_sequences=[[worker.TrainingSequence([1, 2], [0, 1], [0.0, 0.0], rollout_id="one")]] * count,
        tool_call_counts=[0] * count,
        tool_failure_counts=[0] * count,
        model_version=0,
        group_id=0,
        env_rewards=[],
        rollout_rewards=[],
    )
    loop: Any = SimpleNamespace(
        reward_funcs=list(funcs),
        reward_func_names=[func.__name__ for func in funcs],
        _env_reward_types=[],
        _provides_rollout_reward=False,
    )
    return list(asyncio.run(worker._AsyncRolloutLoop._score_group(loop, group)))


@pytest.mark.parametrize("is_async", [False, True])
def test_async_grpo_takes_the_total(*, is_async: bool) -> None:
    """It applies no weights; after a pickle, as its worker has them."""
    reward = MaskErrors(
        CompositeReward({"right": (ExactMatch(), 2.0), "rank": (GroupRank(LengthReward(target=3, unit="words")), 0.5)}),
        max_failure_rate=1.0,
    )
    func = pickle.loads(pickle.dumps(trl.reward_func(reward, num_generations=4, is_async=is_async)))
    completions = ["42", "so it is", "is 41", "a b c d e f"]
    samples = scored_in_async_grpo([func], completions)
    # By hand: lengths 1, 3, 2, 6 words are 1/3, 1, 2/3 and 0 good, so ranks 1/3, 1, 2/3 and 0 of the four.
    expected = np.array([2 + 1 / 6, 0.5, 1 / 3, 0.0])
    assert [sample.metrics["reward"] for sample in samples] == pytest.approx(expected)
    advantages = (expected - expected.mean()) / (expected.std() + 1e-8)
    assert [sample.advantage for sample in samples] == pytest.approx(advantages)
    if is_async:
        from trl.trainer.utils import is_async_callable

        assert is_async_callable(func)
