"""OpenRLHF: rewards as the ``reward_func`` of a file, and as the server behind ``--reward.remote_url``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.integrations.batches import check_reward
from flux_rewards.integrations.columns import Columns
from flux_rewards.integrations.named_parts import NamedParts
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.integrations.references import given_reference
from flux_rewards.integrations.single import SingleCalls
from flux_rewards.parameters import Parametrised

if TYPE_CHECKING:
    from fastapi import FastAPI

    from flux_rewards.base import RewardFunction
    from flux_rewards.contract import Scored
    from flux_rewards.data import Sample

__all__ = ["END_TOKENS", "make_app", "reward_func", "serve"]

_DEEPSEEK = "<|end_of_sentence|>".replace("|", "\N{FULLWIDTH VERTICAL LINE}").replace("_", "\N{LOWER ONE EIGHTH BLOCK}")
END_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    _DEEPSEEK,
)
"""How chat models end what they say. OpenRLHF decodes with special tokens, so a query ends with one of them."""

DEFAULT_FIELDS = {"responses": "response", "prompts": "prompt", "labels": "reference"}
_LOGGED = ("reward", "score", "response_clip_ratio")  # names that OpenRLHF logs by itself

Cut = Callable[[str, str], str]
"""From a query and its prompt to the response."""


class _Scoring(Parametrised):
    """Scores OpenRLHF's columns. A bound method pickles; the arguments are those of `reward_func`."""

    def __init__(
        self,
        reward: RewardFunction,
        *,
        fields: Mapping[str, str | None] | None = None,
        response_of: str | Cut | None = None,
        end_tokens: Sequence[str] = END_TOKENS,
        score: str | None = None,
        parts: Sequence[str] | None = None,
        not_applicable: float | None = None,
        on_error: float | None = None,
        max_batch: int = 64,
        window: float = 0.005,
        timeout: float | None = None,
    ) -> None:
        check_reward(reward, "OpenRLHF")
        self.columns = Columns(DEFAULT_FIELDS, fields, "OpenRLHF", reward)
        self.wants_queries = "queries" in (fields or {}).values()
        markers: Any = response_of
        if not (markers is None or callable(markers) or (isinstance(markers, str) and markers)):
            raise ConfigError(
                "OpenRLHF: response_of must be the text in front of a response, such as '<|im_start|>assistant\\n', or "
                f"function(query, prompt), found {brief(response_of)}"
            )
        if isinstance(end_tokens, str) or "" in end_tokens:
            raise ConfigError(f"OpenRLHF: end_tokens must be a list of texts, found {brief(end_tokens)}")
        self.response_of = response_of
        self.end_tokens = tuple(end_tokens)
        self.numbers = Numbers(not_applicable, on_error, "OpenRLHF")
        counted = [] if on_error is None else ["failed"]
        self.parts = NamedParts(reward, self.numbers, parts, taken=[*_LOGGED, *counted])
        self.score = score
        if score is not None and score not in self.parts.keys:
            known = ", ".join(self.parts.keys)
            choice = (
                f"one of {known}"
                if known
                else "and the reward is known to have none: leave it out, or name parts=[...]"
            )
            raise ConfigError(
                f"OpenRLHF: score must be the name of a part, {choice}; found {brief(score)}", reward=reward.name
            )
        self.calls = SingleCalls(reward, adapter="OpenRLHF", max_batch=max_batch, window=window, timeout=timeout)

    def reward_func(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any
    ) -> dict[str, Any]:
        """What OpenRLHF calls in a thread, with lists of one entry."""
        import torch  # noqa: PLC0415  # there is no OpenRLHF without it

        told = self.told(self.calls.score_group(self.samples(queries, prompts, labels)))
        logs = {name: torch.tensor(values, dtype=torch.float32) for name, values in told["extra_logs"].items()}
        return {
            "rewards": torch.tensor(told["rewards"], dtype=torch.float32),
            "scores": torch.tensor(told["scores"], dtype=torch.float32),
            "extra_logs": logs,
        }

    async def answer(self, told: Any) -> dict[str, Any]:
        """What a server answers to the JSON of a request."""
        if not isinstance(told, Mapping) or not isinstance(told.get("query"), list):
            raise InputError('expected {"query": [...], "prompts": [...], "labels": [...]}', field="query")
        queries = told["query"]
        nobody = [None] * len(queries)
        prompts, labels = (nobody if told.get(name) is None else told[name] for name in ("prompts", "labels"))
        for name, column in (("prompts", prompts), ("labels", labels)):
            if not isinstance(column, list) or len(column) != len(queries):
                raise InputError(f"{name} must be a list with {len(queries)} entries, found {brief(column)}")
        if not queries:
            return {"rewards": [], "scores": [], "extra_logs": {}}
        return self.told(await self.calls.ascore_group(self.samples(queries, prompts, labels)))

    def samples(self, queries: Sequence[str], prompts: Sequence[Any], labels: Sequence[Any]) -> list[Sample]:
        """The samples: a query is the prompt with the response behind it."""
        columns: dict[str, Sequence[Any]] = {"prompts": list(prompts), "labels": list(map(given_reference, labels))}
        columns["responses"] = [
            self._response(query, prompt, row) for row, (query, prompt) in enumerate(zip(queries, prompts, strict=True))
        ]
        if self.wants_queries:
            columns["queries"] = list(queries)
        return self.columns.samples(columns, len(queries))

    def _response(self, query: Any, prompt: Any, row: int) -> str:
        if not isinstance(query, str):
            raise InputError(f"OpenRLHF: expected a query of text, found {brief(query)}", index=row)
        if callable(self.response_of):
            response = self.response_of(query, prompt)
        elif self.response_of is not None:
            _, marker, response = query.rpartition(self.response_of)
            if not marker:
                raise InputError(f"OpenRLHF: response_of={self.response_of!r} is not in the query", index=row)
        elif isinstance(prompt, str) and query.startswith(prompt):
            response = query[len(prompt) :]
        else:
            raise InputError(
                f"OpenRLHF: the query does not start with its prompt ({brief(prompt)}), so it is not known where the "
                "response begins: a prompt was cut to the model's length, or the tokenizer decodes it to another text; "
                "give response_of=... (the text in front of a response in your chat template, or a function)",
                index=row,
            )
        return self._without_end(response)

    def _without_end(self, response: str) -> str:
        end = next((token for token in self.end_tokens if response.endswith(token)), None)
        return response if end is None else self._without_end(response.removesuffix(end).rstrip("\n"))

    def told(self, scored: Scored) -> dict[str, Any]:
        """OpenRLHF's three keys, as lists with one entry a sample.

        Raises:
            FluxRewardsError: A sample has no score, and no number stands for that.
        """
        rewards, parts = self.numbers(scored), self.parts(scored.batch)
        logs = {key: [row[key] for row in parts] for key in self.parts.keys.values()}
        shown = rewards if self.score is None else logs[self.parts.keys[self.score]]
        if self.numbers.on_error is not None:
            logs["failed"] = [float(row in scored.batch.errors) for row in range(len(rewards))]
        return {"rewards": rewards, "scores": [min(1.0, max(0.0, value)) for value in shown], "extra_logs": logs}


def reward_func(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    response_of: str | Cut | None = None,
    end_tokens: Sequence[str] = END_TOKENS,
    score: str | None = None,
    parts: Sequence[str] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    max_batch: int = 64,
    window: float = 0.005,
    timeout: float | None = None,
) -> Callable[..., dict[str, Any]]:
    r"""The ``reward_func`` of a file that ``--reward.remote_url`` names.

    OpenRLHF calls it with one sample at a time, in threads; calls that come at once are scored together.

    Args:
        reward: The reward; not one of groups: OpenRLHF shows single samples.
        fields: Column by field of `Sample`: ``responses``, ``prompts``, ``labels``, and ``queries`` for the whole text.
            By default the response is the response, the label the reference (an empty one, as OpenRLHF passes it
            without ``label_key``, is none). A prompt is text with its chat template.
        response_of: What tells a response from its query: None: the query starts with the prompt, and one that does
            not is an error; text: what stands in front of a response (``"<|im_start|>assistant\\n"``), at its last
            place; or ``function(query, prompt)``.
        end_tokens: Special tokens that are cut from the end of a response.
        score: The part that becomes OpenRLHF's score of dynamic filtering; None for the reward. Cut to [0, 1].
        parts: Parts that are logged; by default those that the reward is known to have, such as a composite's.
        not_applicable: The number for a sample, or a part, to which the reward does not apply; None raises.
        on_error: The number for a sample that could not be scored; None raises. The policy learns from it.
        max_batch: Samples that are scored together, at most.
        window: Seconds that a call waits for others, where calls overlap.
        timeout: Seconds for a call; what is not done by then has failed. None for the reward's own limits.

    Returns:
        ``reward_func(queries, prompts, labels)``, which returns ``{"rewards": tensor (N,), "scores": tensor (N,) in
        [0, 1], "extra_logs": {part: tensor (N,)}}``, with ``failed`` (0 or 1) among the last where `on_error` is given.

    Raises:
        ConfigError: A reward of groups, or an argument that cannot be used.

    What it raises OpenRLHF logs; it then goes on without a reward for that sample, and fails later. A score of exactly
    0 OpenRLHF reads as none, and takes the reward in its place. Source: OpenRLHF 0.11, ``openrlhf/utils/agent.py``;
    tested against its call site as read, since it does not install without a GPU.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> score = reward_func(ExactMatch())
        >>> score(["6 * 7? 42<|im_end|>"], ["6 * 7?"], ["42"])
        {'rewards': tensor([1.]), 'scores': tensor([1.]), 'extra_logs': {}}
    """
    scoring = _Scoring(
        reward,
        fields=fields,
        response_of=response_of,
        end_tokens=end_tokens,
        score=score,
        parts=parts,
        not_applicable=not_applicable,
        on_error=on_error,
        max_batch=max_batch,
        window=window,
        timeout=timeout,
    )
    return scoring.reward_func


def make_app(reward: RewardFunction, *, path: str = "/get_reward", max_body: int = 2**24, **options: Any) -> FastAPI:
    """The HTTP form: an application that answers ``POST path`` and ``GET /health``.

    A request is ``{"query": [...], "prompts": [...], "labels": [...]}``, an answer ``{"rewards": [...],
    "scores": [...], "extra_logs": {...}}``; after a failure OpenRLHF asks again, five times in all.

    Args:
        reward: The reward.
        path: Where it answers; OpenRLHF's option takes the whole address.
        max_body: Bytes of a request.
        **options: As `reward_func`.

    Raises:
        ConfigError: As `reward_func`.
        MissingDependencyError: The extra ``server`` is not installed.
    """
    from flux_rewards.integrations.openrlhf.server import app_of  # noqa: PLC0415  # needs the extra

    return app_of(_Scoring(reward, **options).answer, path, max_body)


def serve(
    reward: RewardFunction,
    *,
    host: str = "127.0.0.1",
    port: int = 5000,
    allow_other_hosts: bool = False,
    path: str = "/get_reward",
    **options: Any,
) -> None:
    """Serve `make_app` until SIGTERM or Ctrl-C.

    OpenRLHF sends no token, so that whoever reaches the port is answered: any other host than loopback needs
    `allow_other_hosts`.

    Args:
        reward: The reward; loaded before the first request.
        host: Where it listens.
        port: Where; 0 for a free one, which is printed.
        allow_other_hosts: Serve other machines, without a token.
        path: Where it answers.
        **options: As `reward_func`.

    Raises:
        ConfigError: Another host, and not `allow_other_hosts`; or as `reward_func`.
        MissingDependencyError: The extra ``server`` is not installed.
    """
    from flux_rewards.integrations.openrlhf.server import OpenRLHFServer  # noqa: PLC0415  # needs the extra

    app = make_app(reward, path=path, **options)
    OpenRLHFServer(reward, app, host=host, port=port, require_token=not allow_other_hosts).run()
