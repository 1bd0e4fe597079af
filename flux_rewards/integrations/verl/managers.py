"""Reward managers of verl: classes that see token ids, prompts and, where verl shows them, whole batches."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, ContractError
from flux_rewards.integrations.importing import imported
from flux_rewards.tree import fields_read

if TYPE_CHECKING:
    from flux_rewards.contract import Scored
    from flux_rewards.data import Sample
    from flux_rewards.integrations.verl.scoring import VerlScoring

__all__ = ["batch_manager_class", "loop_manager_class", "response_offsets"]


INSTALL = "pip install verl, in a version that has it"
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes the first bytes of a character to."""


def loop_manager_class(scoring: VerlScoring, *, token_rewards: bool) -> type:
    """A manager of verl's reward loop (from 0.8 on): one sample a call, awaited."""
    base = imported("verl.experimental.reward_loop.reward_manager.base", INSTALL).RewardManagerBase

    class FluxRewardManager(base):  # type: ignore[misc, valid-type]  # of a package that may be absent
        """Scores with a reward of flux_rewards."""

        def __init__(
            self,
            config: Any,
            tokenizer: Any,
            compute_score: Any = None,
            reward_router_address: str | None = None,
            reward_model_tokenizer: Any = None,  # noqa: ARG002  # verl passes it
        ) -> None:
            super().__init__(config, tokenizer, compute_score)
            self.router = {} if reward_router_address is None else {"reward_router_address": reward_router_address}
            if token_rewards:
                _check_dense(config)

        async def run_single(self, data: Any) -> dict[str, Any]:
            """Score the last sequence of a rollout."""
            rows = data[-1:]
            loop = asyncio.get_running_loop()
            (sample,) = await loop.run_in_executor(None, samples_of, scoring, rows, self.tokenizer, self.router)
            scored = await scoring.calls.ascore(sample)
            info = _as_dict(scoring.told(scored)[0])
            score = _dense(scored, 0) if token_rewards else None
            return {"reward_score": info["score"] if score is None else score, "reward_extra_info": info}

        @classmethod
        def assemble_rm_scores(cls, data: Any, scores: Sequence[float | Sequence[float]]) -> Any:
            """One value a token, (B, response length): a list where it was scored, a number at the last token."""
            return _placed(data, scores)

    return FluxRewardManager


def batch_manager_class(scoring: VerlScoring) -> type:
    """A manager of verl before the reward loop: it is shown the whole batch, groups and all."""
    base = imported("verl.workers.reward_manager.abstract", INSTALL).AbstractRewardManager

    class FluxBatchRewardManager(base):  # type: ignore[misc, valid-type]  # of a package that may be absent
        """Scores with a reward of flux_rewards."""

        def __init__(self, tokenizer: Any, num_examine: int = 0, compute_score: Any = None, **kwargs: Any) -> None:
            self.tokenizer = tokenizer
            self.num_examine, self.compute_score, self.kwargs = num_examine, compute_score, kwargs

        def __call__(self, data: Any, return_dict: bool = False) -> Any:
            """Score a batch: a tensor (B, response length), or that and what is logged."""
            if "rm_scores" in data.batch.keys():  # noqa: SIM118  # a TensorDict iterates over rows
                keys = data.meta_info.get("reward_extra_keys", [])
                placed, info = data.batch["rm_scores"], {key: data.non_tensor_batch[key] for key in keys}
            else:
                scored = scoring.score_batch(samples_of(scoring, data, self.tokenizer, {}))
                told = list(map(_as_dict, scoring.told(scored)))
                dense = (_dense(scored, row) for row in range(len(told)))
                scores = [row["score"] if tokens is None else tokens for row, tokens in zip(told, dense, strict=True)]
                placed, info = _placed(data, scores), {key: [row[key] for row in told] for key in told[0]}
            return {"reward_tensor": placed, "reward_extra_info": info} if return_dict else placed

    return FluxBatchRewardManager


def samples_of(scoring: VerlScoring, data: Any, tokenizer: Any, others: dict[str, Any]) -> list[Sample]:
    """The samples of a ``DataProto``: responses decoded without padding, prompts, and what comes with them."""
    known = data.non_tensor_batch
    ids = [row[:length].tolist() for row, length in zip(data.batch["responses"], _lengths(data), strict=True)]
    columns: dict[str, Sequence[Any]] = {"response_ids": ids}
    for name in ("raw_prompt", "uid"):
        if name in known:
            columns[name] = [_listed(value) for value in known[name]]
    if "raw_prompt" not in known:
        columns["prompt_str"] = _decoded_prompts(data, tokenizer)
    if "multi_modal_data" in known:
        columns["images"] = [(media or {}).get("image") for media in known["multi_modal_data"]]
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    if _reads_offsets(scoring):
        columns["response_offsets"] = [
            response_offsets(tokenizer, row, text) for row, text in zip(ids, texts, strict=True)
        ]
    nobody: list[Any] = [None] * len(ids)
    models = known.get("reward_model", nobody)
    told = (known.get(name, nobody) for name in ("extra_info", "tool_extra_fields", "__num_turns__", "reward_scores"))
    infos = [  # under the names that verl's own managers give them
        {**(info or {}), **(tools or {}), "num_turns": turns, "rollout_reward_scores": scores or {}}
        for info, tools, turns, scores in zip(*told, strict=True)
    ]
    truths = [_listed((model or {}).get("ground_truth")) for model in models]
    return scoring.samples(list(known.get("data_source", nobody)), texts, truths, infos, others=others, columns=columns)


def response_offsets(tokenizer: Any, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
    """For each token its (start, end) characters in the decoded text; special tokens, which are not in it, are empty.

    Tokens are decoded one by one where that gives the text back; else a token is decoded behind those before it, and a
    character of several tokens belongs to the last of them.
    """
    pieces = [tokenizer.decode([token], skip_special_tokens=True) for token in ids]
    ends = list(itertools.accumulate(map(len, pieces)))
    if "".join(pieces) != text:
        ends, start, read, reached = [], 0, 0, 0
        for place in range(1, len(ids) + 1):
            before = tokenizer.decode(ids[start:read], skip_special_tokens=True)
            now = tokenizer.decode(ids[start:place], skip_special_tokens=True)
            if len(now) > len(before) and not now.endswith(_UNFINISHED):
                reached += len(now) - len(before)
                start, read = read, place
            ends.append(min(reached, len(text)))
    return list(zip([0, *ends], ends, strict=False))


def _placed(data: Any, scores: Sequence[float | Sequence[float]]) -> Any:
    import torch  # noqa: PLC0415  # there is no verl without it

    lengths = _lengths(data)
    placed = torch.zeros_like(data.batch["responses"], dtype=torch.float32)
    for row, score in enumerate(scores):
        if not isinstance(score, (list, tuple)):
            placed[row, lengths[row] - 1] = float(score)  # type: ignore[arg-type]  # the last column of an empty response, as verl's own managers do
        elif len(score) == lengths[row]:
            placed[row, : lengths[row]] = placed.new_tensor(score)
        else:
            raise ContractError(f"verl: {len(score)} token rewards for {lengths[row]} tokens of sample {row}")
    return placed


def _dense(scored: Scored, row: int) -> list[float] | None:
    tokens = scored.batch.token_rewards
    values = None if tokens is None else tokens[row]
    return None if values is None or row in scored.batch.errors else values.tolist()


def _lengths(data: Any) -> list[int]:
    width = data.batch["responses"].shape[-1]
    lengths: list[int] = data.batch["attention_mask"][:, -width:].sum(-1).tolist()
    return lengths


def _decoded_prompts(data: Any, tokenizer: Any) -> list[str]:
    ids = data.batch["prompts"]
    mask = data.batch["attention_mask"][:, : ids.shape[-1]].bool()
    return [tokenizer.decode(row[kept].tolist(), skip_special_tokens=True) for row, kept in zip(ids, mask, strict=True)]


def _listed(value: Any) -> Any:
    """Messages and answers as they were before parquet made arrays of them."""
    return value.tolist() if hasattr(value, "tolist") else value


def _reads_offsets(scoring: VerlScoring) -> bool:
    return "token_offsets" in fields_read(scoring.reward).named


def _as_dict(told: dict[str, float] | float) -> dict[str, float]:
    return told if isinstance(told, dict) else {"score": told}


def _check_dense(config: Any) -> None:
    model = config.reward.reward_model
    if not model.enable or model.enable_resource_pool:
        raise ConfigError(
            "verl: token rewards don't arrive in this configuration: verl streams one number a sample from the reward "
            "loop unless a reward model shares the rollout's resources (reward.reward_model.enable=True, "
            "reward.reward_model.enable_resource_pool=False, and reward.custom_reward_function.path set, so that verl "
            "asks this manager); without token_rewards=True the score goes to the last token"
        )
