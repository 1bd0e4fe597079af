"""With verl itself (0.9.1, on the CPU): its loader, its managers, its reward loop, its scoring functions."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flux_rewards import (
    CompositeReward,
    ExactMatch,
    FunctionReward,
    GroupRank,
    LengthReward,
    RewardFunction,
    RewardOutput,
    Sample,
    TokenKeywordReward,
)
from flux_rewards.errors import ComputeError, ConfigError
from flux_rewards.integrations import verl as adapter
from flux_rewards.integrations.verl.managers import response_offsets

pytest.importorskip("verl")
pytestmark = pytest.mark.filterwarnings("default")  # other people's

TEXTS = ["maybe 42", "42", "because it is 42", ""]
PROMPTS = ["6 * 7?", "6 * 7?", "7 * 6?", "7 * 6?"]


def of(module: str, name: str) -> Any:
    """Something of verl's."""
    return getattr(importlib.import_module(f"verl.{module}"), name)


def composite() -> CompositeReward:
    return CompositeReward({"acc": (ExactMatch(), 1.0), "brief": (LengthReward(target=2, unit="words"), 0.5)})


class Moody(RewardFunction):
    """Fails on some samples, and does not apply to others."""

    required_fields = ("response",)

    def compute_reward(self, sample: Sample) -> float | None:
        if sample.response == "42":
            raise RuntimeError("out of order")
        return None if sample.response == "" else 1.0


class Prompted(RewardFunction):
    """Says what prompt it was shown, as a number."""

    required_fields = ("prompt", "token_ids")

    def compute_reward(self, sample: Sample) -> RewardOutput:
        return RewardOutput(float(len(sample.prompt_text)), parts={"tokens": float(len(sample.token_ids or ()))})


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A byte-level BPE of few merges, so that characters beyond ASCII are several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet)
    bare.train_from_iterator([*TEXTS, *PROMPTS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="<eos>")  # noqa: S106  # no passwords


def batch_of(tokenizer: Any, texts: Sequence[str] = TEXTS, **non_tensors: Any) -> Any:
    """A ``DataProto`` as the trainer makes it: prompts padded on the left, responses with an end on the right."""
    import torch

    def padded(rows: Sequence[Sequence[int]], width: int, *, left: bool) -> Any:
        pads = [[tokenizer.pad_token_id] * (width - len(row)) for row in rows]
        return torch.tensor([pad + list(row) if left else list(row) + pad for row, pad in zip(rows, pads, strict=True)])

    prompts = [tokenizer.encode(text) for text in PROMPTS]
    responses = [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in texts]
    before, behind = padded(prompts, 12, left=True), padded(responses, 24, left=False)
    ids = torch.cat([before, behind], dim=1)
    tensors = {"prompts": before, "responses": behind, "attention_mask": (ids != tokenizer.pad_token_id).long()}
    rows: dict[str, Any] = {
        "data_source": ["mine"] * 4,
        "reward_model": [{"ground_truth": "42", "style": "rule"}] * 4,
        "extra_info": [{"index": index} for index in range(4)],
        "uid": ["a", "a", "b", "b"],
        **non_tensors,
    }
    arrays = {}
    for name, values in rows.items():
        arrays[name] = np.empty(4, dtype=object)
        arrays[name][:] = values
    return of("protocol", "DataProto").from_dict(tensors=tensors, non_tensors=arrays)


@pytest.fixture
def config(tokenizer: Any, tmp_path: Path) -> Any:
    """The trainer's own configuration, with the paths of a model and of a file with rewards."""
    hydra = importlib.import_module("hydra")
    tokenizer.save_pretrained(tmp_path / "model")
    file = tmp_path / "my_rewards.py"
    file.write_text(
        "from flux_rewards import CompositeReward, ExactMatch, LengthReward, TokenKeywordReward\n"
        "from flux_rewards.integrations import verl\n"
        "reward = CompositeReward({'acc': (ExactMatch(), 1.0),\n"
        "                          'brief': (LengthReward(target=2, unit='words'), 0.5)})\n"
        "compute_score = verl.compute_score(reward)\n"
        "compute_score_async = verl.compute_score_async(reward)\n"
        "Manager = verl.reward_manager(reward)\n"
        "words = TokenKeywordReward(good=['because'], bad=['maybe'])\n"
        "TokenManager = verl.reward_manager(words, token_rewards=True)\n"
    )
    with hydra.initialize_config_module(config_module="verl.trainer.config", version_base=None):
        return hydra.compose(
            "ppo_trainer",
            overrides=[
                f"actor_rollout_ref.model.path={tmp_path / 'model'}",
                f"reward.custom_reward_function.path={file}",
                "reward.custom_reward_function.name=compute_score_async",
                "reward.num_workers=2",
            ],
        )


def run_all(manager: Any, data: Any) -> list[dict[str, Any]]:
    """What a reward loop worker does with its share of a batch."""

    async def each() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(manager.run_single(data[row : row + 1]) for row in range(len(data)))))

    told: list[dict[str, Any]] = asyncio.get_event_loop().run_until_complete(each())
    return told


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """The managers keep the loop that they were made on."""
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    yield
    own.close()
    asyncio.set_event_loop(None)


@pytest.mark.parametrize("name", ["compute_score", "compute_score_async"])
@pytest.mark.parametrize("kind", ["naive", "dapo", "gdpo"])
def test_the_managers_of_verl_tell_what_a_direct_call_says(config: Any, tokenizer: Any, name: str, kind: str) -> None:
    """Loaded by path and name, through verl's own loader, with ``reward_kwargs``; one key for each part."""
    config.reward.custom_reward_function.name = name
    config.reward.reward_manager.name = kind
    manager = of("trainer.ppo.reward", "load_reward_manager")(config, tokenizer)
    assert manager.is_async_reward_score == (name == "compute_score_async")
    told = run_all(manager, batch_of(tokenizer))
    direct = composite()(response=TEXTS, reference=["42"] * 4)
    assert [row["reward_score"] for row in told] == direct.rewards.tolist()
    for part, expected in direct.parts.items():
        assert [row["reward_extra_info"][part] for row in told] == expected.rewards.tolist()


def test_reward_kwargs_of_the_configuration_arrive(config: Any, tokenizer: Any) -> None:
    """They are merged into every call."""
    from omegaconf import open_dict

    with open_dict(config):
        config.reward.custom_reward_function.reward_kwargs = {"threshold": 2}
    manager = of("trainer.ppo.reward", "load_reward_manager")(config, tokenizer)
    assert run_all(manager, batch_of(tokenizer))[1]["reward_score"] == 1.25


def test_gdpo_finds_the_parts(config: Any, tokenizer: Any) -> None:
    """``algorithm.gdpo_reward_keys`` names parts: verl's advantages from them are finite."""
    import torch

    manager = of("trainer.ppo.reward", "load_reward_manager")(config, tokenizer)
    data = batch_of(tokenizer)
    told = run_all(manager, data)
    columns = {key: np.array([row["reward_extra_info"][key] for row in told]) for key in told[0]["reward_extra_info"]}
    mask = data.batch["attention_mask"][:, 12:]
    advantages, _ = of("trainer.ppo.core_algos", "compute_gdpo_outcome_advantage")(
        token_level_rewards=manager.assemble_rm_scores(data, [row["reward_score"] for row in told]),
        response_mask=mask,
        index=data.non_tensor_batch["uid"],
        config={"gdpo_reward_keys": ["acc", "brief"], "gdpo_reward_weights": [1.0, 0.5]},
        non_tensor_batch=columns,
        batch=data.batch,
    )
    assert torch.isfinite(advantages).all()
    assert advantages[1, 0] > advantages[0, 0]


def test_a_failure_ends_the_call_and_a_number_only_where_asked(tokenizer: Any) -> None:
    """The naive manager raises what the reward raised."""
    manager = of("experimental.reward_loop.reward_manager", "get_reward_manager_cls")("naive")
    data = batch_of(tokenizer)
    with pytest.raises(ComputeError, match="out of order"):
        run_all(manager(None, tokenizer, adapter.compute_score_async(Moody())), data)
    asked = adapter.compute_score_async(Moody(), on_error=-1.0, not_applicable=0.5)
    told = run_all(manager(None, tokenizer, asked), data)
    assert [row["reward_extra_info"] for row in told] == [
        {"score": 1.0, "failed": 0.0},
        {"score": -1.0, "failed": 1.0},
        {"score": 1.0, "failed": 0.0},
        {"score": 0.5, "failed": 0.0},
    ]


# Managers of ours


def test_our_manager_is_loaded_by_path(config: Any, tokenizer: Any) -> None:
    """``reward.reward_manager.source=importlib``: the numbers of a direct call."""
    config.reward.reward_manager.source = "importlib"
    config.reward.reward_manager.name = "Manager"
    config.reward.reward_manager.module.path = config.reward.custom_reward_function.path
    manager = of("trainer.ppo.reward", "load_reward_manager")(config, tokenizer)
    told = run_all(manager, batch_of(tokenizer))
    direct = composite()(response=TEXTS, reference=["42"] * 4)
    assert [row["reward_score"] for row in told] == direct.rewards.tolist()
    placed = manager.assemble_rm_scores(batch_of(tokenizer), [row["reward_score"] for row in told])
    naive = of("experimental.reward_loop.reward_manager.base", "RewardManagerBase")
    assert placed.equal(naive.assemble_rm_scores(batch_of(tokenizer), [row["reward_score"] for row in told]))


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ({}, PROMPTS),
        ({"raw_prompt": [[{"role": "user", "content": text * 2}] for text in PROMPTS]}, [t * 2 for t in PROMPTS]),
    ],
    ids=["decoded", "messages"],
)
def test_our_manager_shows_prompts_and_tokens(tokenizer: Any, given: dict[str, Any], prompts: list[str]) -> None:
    """The prompt as verl has it, and the ids of the response up to its end."""
    manager = adapter.reward_manager(Prompted(), parts=["tokens"])(None, tokenizer)
    told = run_all(manager, batch_of(tokenizer, **given))
    assert [row["reward_score"] for row in told] == [float(len(text)) for text in prompts]
    counts = [float(len(tokenizer.encode(text)) + 1) for text in TEXTS]
    assert [row["reward_extra_info"]["tokens"] for row in told] == counts


def test_our_manager_shows_what_theirs_does(tokenizer: Any) -> None:
    """Turns, and rewards of tools, among the metadata: through the naive manager and ours the same."""
    shown: list[dict[str, Any]] = []

    def keep(sample: Sample) -> float:
        shown.append(dict(sample.metadata))
        return float(sample.metadata["num_turns"])

    reward = FunctionReward(keep)
    given: dict[str, Any] = {"__num_turns__": [2, 3, 4, 5], "reward_scores": [{"tool": float(row)} for row in range(4)]}
    naive = of("experimental.reward_loop.reward_manager", "get_reward_manager_cls")("naive")
    theirs = naive(None, tokenizer, adapter.compute_score_async(reward))
    ours = adapter.reward_manager(reward)(None, tokenizer)
    variants: list[dict[str, Any]] = [given, {**given, "reward_scores": [{}] * 4}]
    for rows in variants:
        told = []
        for manager in (theirs, ours):
            shown.clear()
            told.append([row["reward_score"] for row in run_all(manager, batch_of(tokenizer, **rows))])
            told.append(sorted(shown, key=lambda entry: entry["index"]))
        assert told[0] == told[2] == [2.0, 3.0, 4.0, 5.0]
        assert told[1] == told[3]
    whole = adapter.batch_reward_manager(reward)(tokenizer=tokenizer)(batch_of(tokenizer, **given))
    assert whole.sum(-1).tolist() == [2.0, 3.0, 4.0, 5.0]


def test_token_rewards_reach_their_tokens(config: Any, tokenizer: Any) -> None:
    """-1 on the tokens of "maybe", +1 on those of "because", as a direct call with the tokenizer's offsets says."""
    config.reward.reward_model.enable = True
    words = TokenKeywordReward(good=["because"], bad=["maybe"])
    manager = adapter.reward_manager(words, token_rewards=True, not_applicable=0.0)(config, tokenizer)
    data = batch_of(tokenizer)
    placed = manager.assemble_rm_scores(data, [row["reward_score"] for row in run_all(manager, data)])
    for row, text in enumerate(TEXTS):
        encoded = tokenizer(text, return_offsets_mapping=True)
        offsets = [*encoded["offset_mapping"], (len(text), len(text))]
        ids = [*encoded["input_ids"], tokenizer.eos_token_id]
        (expected,) = words([Sample(response=text, token_ids=ids, token_offsets=offsets)]).token_rewards or [None]
        assert expected is not None
        assert placed[row, : len(ids)].tolist() == expected.tolist()
        assert placed[row, len(ids) :].abs().sum() == 0
    assert placed.abs().sum() > 0


def test_token_rewards_are_refused_where_verl_drops_them(config: Any, tokenizer: Any) -> None:
    """One number a sample is streamed unless a reward model shares the rollout's resources."""
    words = TokenKeywordReward(good=["because"])
    with pytest.raises(ConfigError, match="enable_resource_pool=False"):
        adapter.reward_manager(words, token_rewards=True)(config, tokenizer)


@pytest.mark.parametrize("text", ["because it is 42", "déjà vu — 42 €", "42 😀 maybe", ""])
def test_offsets_are_the_tokenizers_own(tokenizer: Any, text: str) -> None:
    """From ids alone, as far as whole characters go: where a character is one token, the tokenizer says the same."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    offsets = response_offsets(tokenizer, encoded["input_ids"], text)
    assert "".join(text[start:end] for start, end in offsets) == text
    if text.isascii():
        assert offsets == encoded["offset_mapping"]
    for own, (start, end) in zip(offsets, encoded["offset_mapping"], strict=True):
        assert own[0] == own[1] or own == (start, end)


@pytest.mark.parametrize("form", ["tensor", "dict"])
def test_a_whole_batch_with_its_groups(tokenizer: Any, form: str) -> None:
    """The manager of verl before the reward loop: ranks within ``uid``, at the last token of each response."""
    reward = CompositeReward({"rank": (GroupRank(LengthReward(target=9, unit="words")), 1.0)})
    data = batch_of(tokenizer)
    placed = adapter.batch_reward_manager(reward)(tokenizer=tokenizer, num_examine=0, compute_score=None)(
        data, return_dict=form == "dict"
    )
    if form == "dict":
        assert placed["reward_extra_info"] == {"score": [1.0, 0.0, 1.0, 0.0], "rank": [1.0, 0.0, 1.0, 0.0]}
        placed = placed["reward_tensor"]
    assert placed.shape == data.batch["responses"].shape
    assert placed.sum(-1).tolist() == [1.0, 0.0, 1.0, 0.0]
    for row, text in enumerate(TEXTS):
        assert placed[row, len(tokenizer.encode(text))] == placed[row].sum()


def test_the_batch_managers_of_verl_call_our_functions(tokenizer: Any) -> None:
    """Naive and batch of verl before the reward loop, still in the package: the same tensor from each."""
    registry = of("workers.reward_manager", "get_reward_manager_cls")
    expected = composite()(response=TEXTS, reference=["42"] * 4).rewards
    for name, function in (
        ("naive", adapter.compute_score(composite())),
        ("batch", adapter.compute_scores(composite())),
    ):
        manager = registry(name)(tokenizer=tokenizer, num_examine=0, compute_score=function)
        result = manager(batch_of(tokenizer), return_dict=True)
        assert np.allclose(result["reward_tensor"].sum(-1).numpy(), expected)
        assert set(result["reward_extra_info"]) == {"score", "acc", "brief"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["verl's", "ours"])
def test_the_whole_reward_loop_on_ray(config: Any, tokenizer: Any, kind: str) -> None:
    """Two workers in processes of their own load the file, score, and the controller places what they say."""
    ray = importlib.import_module("ray")
    config.reward.reward_manager.module.path = config.reward.custom_reward_function.path
    if kind == "ours":
        config.reward.reward_manager.source = "importlib"
        config.reward.reward_manager.name = "Manager"
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100 * 1024**2, configure_logging=False)
    try:
        result = of("experimental.reward_loop", "RewardLoopManager")(config).compute_rm_score(batch_of(tokenizer))
    finally:
        ray.shutdown()
    direct = composite()(response=TEXTS, reference=["42"] * 4)
    assert np.allclose(result.batch["rm_scores"].sum(-1).numpy(), direct.rewards)
    assert sorted(result.meta_info["reward_extra_keys"]) == ["acc", "brief", "score"]
    assert result.non_tensor_batch["acc"].tolist() == direct.parts["acc"].rewards.tolist()


# The other way round


def test_functions_that_come_with_verl() -> None:
    """gsm8k's and MATH's: the numbers of a direct call, by the dotted path."""
    function = of("utils.reward_score", "default_compute_score")
    answers = ["so #### 42", "#### 41", "42"]
    reward = adapter.from_verl("verl.utils.reward_score.default_compute_score", "openai/gsm8k")
    batch = reward(response=answers, reference=["42"] * 3)
    assert batch.rewards.tolist() == [function("openai/gsm8k", answer, "42") for answer in answers] == [1.0, 0.0, 0.0]
    dapo = adapter.from_verl("verl.utils.reward_score.default_compute_score", "math_dapo")
    batch = dapo(response=["Answer: 42", "Answer: 41"], reference=["42", "42"])
    assert batch.rewards.tolist() == [1.0, -1.0]
    assert batch.parts["acc"].rewards.tolist() == [1.0, 0.0]
    assert [entry["pred"] for entry in batch.metadata] == ["42", "41"]


@pytest.mark.parametrize(
    ("module", "answers"),
    [
        ("gsm8k", ["so #### 42", "42"]),
        ("math_dapo", ["Answer: 42", "Answer: 41"]),
        ("math_reward", ["\\boxed{42}", "\\boxed{41}"]),
    ],
)
def test_functions_of_one_data_set(module: str, answers: list[str]) -> None:
    """They name no data source, and some of them another response: the numbers of a direct call by position."""
    direct = [of(f"utils.reward_score.{module}", "compute_score")(answer, "42") for answer in answers]
    batch = adapter.from_verl(f"verl.utils.reward_score.{module}.compute_score")(response=answers, reference=["42"] * 2)
    assert batch.rewards.tolist() == [told["score"] if isinstance(told, dict) else told for told in direct]
    assert batch.rewards[0] > batch.rewards[1]


def test_a_data_source_that_verl_does_not_know_is_a_failure() -> None:
    """Its NotImplementedError is chained."""
    reward = adapter.from_verl("verl.utils.reward_score.default_compute_score")
    with pytest.raises(ComputeError, match="not implemented") as caught:
        reward(response=["1"], reference=["1"], metadata=[{"data_source": "nobody's"}])
    assert isinstance(caught.value.__cause__, NotImplementedError)
