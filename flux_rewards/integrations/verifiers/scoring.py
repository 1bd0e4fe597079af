"""From what verifiers knows of a rollout to a score: states of 0.3, traces of 0.4."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.integrations.batches import check_reward
from flux_rewards.integrations.columns import REFERENCES, Columns
from flux_rewards.integrations.named_parts import NamedParts
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.integrations.references import given_reference
from flux_rewards.integrations.single import SingleCalls
from flux_rewards.parameters import Parametrised
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.contract import Scored
    from flux_rewards.data import Sample

__all__ = ["GroupFunction", "RolloutFunction", "TaskFunction", "VerifiersScoring", "plain_messages"]

DEFAULT_FIELDS = {
    "prompt": "prompt",
    "completion": "response",
    **REFERENCES,
    "example_id": "group_id",
}
_ROW = ("prompt", "answer", "info", "example_id")  # fields of a row that are no columns of the user's
_TASK_DATA = ("idx", "id", "name")  # of the fields that every task's data have, those that tell it from others
_KEPT = "flux_rewards"  # where a state keeps what the functions that are asked next will tell


class VerifiersScoring(Parametrised):
    """Scores rollouts. The arguments are those of `flux_rewards.integrations.verifiers.reward_funcs`."""

    def __init__(
        self,
        reward: RewardFunction,
        *,
        fields: Mapping[str, str | None] | None = None,
        parts: Sequence[str] | None = None,
        not_applicable: float | None = None,
        on_error: float | None = None,
        max_batch: int = 64,
        window: float = 0.005,
        timeout: float | None = None,
        groups: bool = False,
    ) -> None:
        check_reward(reward, "verifiers")
        self.columns = Columns(DEFAULT_FIELDS, fields, "verifiers", reward)
        self.numbers = Numbers(not_applicable, on_error, "verifiers")
        counted = [] if on_error is None else ["failed"]
        self.parts = NamedParts(reward, self.numbers, parts, taken=counted)
        self.calls = SingleCalls(
            reward, adapter="verifiers", max_batch=max_batch, window=window, timeout=timeout, groups=groups
        )
        self._id = uuid.uuid4().hex  # of no other scoring, here or in the process that made a state

    async def tell(self, states: Sequence[Any], part: str | None) -> list[float]:
        """What a function says of states: the score, or a part, of one call of the reward for all functions.

        Each is told once: a function that is asked a second time means a new scoring. A failure is told by all of them.

        Raises:
            FluxRewardsError: A state has no score, and no number stands for that.
        """
        if any(part not in state.get(_KEPT, {}).get(self._id, {}) for state in states):
            for state, found in zip(states, await self._scored(states), strict=True):
                state[_KEPT] = {**state.get(_KEPT, {}), self._id: found}
        told = [self._taken(state, part) for state in states]
        for value in told:
            if isinstance(value, Exception):
                raise value
        return told

    async def _scored(self, states: Sequence[Any]) -> list[dict[str | None, Any]]:
        """Of each state the score, under None, and the parts."""
        try:
            samples = [self.of_state(state) for state in states]
            told = self.told(await self.calls.ascore_group(samples))
        except Exception as error:  # noqa: BLE001  # kept for each function, which raises it
            return [dict.fromkeys([None, *self.parts.keys.values()], error) for _ in states]
        return [{None: score, **{key: parts[key] for key in self.parts.keys.values()}} for score, parts in told]

    def _taken(self, state: Any, part: str | None) -> Any:
        told = state[_KEPT][self._id].pop(part)
        state[_KEPT] = {key: left for key, left in state[_KEPT].items() if left}
        if not state[_KEPT]:
            del state[_KEPT]
        return told

    def of_state(self, state: Mapping[str, Any]) -> Sample:
        """The sample of a state of 0.3: its row, its info, what was asked and what was said."""
        row = state.get("input")
        row = row if isinstance(row, Mapping) else {}
        info = state.get("info")
        found = {
            **{name: value for name, value in row.items() if name not in _ROW},
            **(info if isinstance(info, Mapping) else {}),
            "example_id": state.get("example_id"),
            "prompt": plain_messages(state.get("prompt")),
            "completion": plain_messages(state.get("completion")),
            "answer": given_reference(state.get("answer")),
        }
        return self._sample(found)

    def of_trace(self, trace: Any) -> Sample:
        """The sample of a trace of 0.4: its task's data, and the last branch from the first sampled message on."""
        data = trace.task.data
        base = next((kind for kind in type(data).__mro__ if kind.__name__ == "TaskData"), None)
        shared = set(getattr(base, "model_fields", ()))
        names = [name for name in type(data).model_fields if name in _TASK_DATA or name not in shared]
        found = {name: getattr(data, name) for name in names} | dict(data.model_extra or {})
        nodes = trace.branches[-1].nodes if trace.branches else []
        first = next((place for place, node in enumerate(nodes) if node.sampled), len(nodes))
        asked = data.prompt if data.prompt is not None else [node.message for node in nodes[:first]]
        said = trace.root_reply.strip() if trace.root_reply is not None else [node.message for node in nodes[first:]]
        return self._sample({**found, "prompt": plain_messages(asked), "completion": plain_messages(said)})

    def _sample(self, found: Mapping[str, Any]) -> Sample:
        known = {name: [value] for name, value in found.items() if value is not None}
        return self.columns.samples(known, 1)[0]

    def told(self, scored: Scored) -> list[tuple[float, dict[str, float]]]:
        """Of each sample the score, and its parts by key, with ``failed`` where a number stands for a failure.

        Raises:
            FluxRewardsError: A sample has no score, and no number stands for that.
        """
        scores, parts = self.numbers(scored), self.parts(scored.batch)
        if self.numbers.on_error is not None:
            for row, entry in enumerate(parts):
                entry["failed"] = float(row in scored.batch.errors)
        return list(zip(scores, parts, strict=True))


class RolloutFunction(Parametrised):
    """A function of a ``Rubric``: the score of a rollout, or one of the parts that were scored with it."""

    def __init__(self, scoring: VerifiersScoring, name: str, part: str | None = None) -> None:
        self.scoring = scoring
        self.__name__ = name  # by which verifiers logs it
        self.part = part

    async def __call__(self, state: Any) -> float:
        """What a ``Rubric`` awaits."""
        return await self.of_state(state)

    async def of_state(self, state: Any) -> float:
        """The score, or a part of it."""
        (told,) = await self.scoring.tell([state], self.part)
        return told


class GroupFunction(Parametrised):
    """As `RolloutFunction`, for the rollouts of an example together."""

    def __init__(self, scoring: VerifiersScoring, name: str, part: str | None = None) -> None:
        self.scoring = scoring
        self.__name__ = name
        self.part = part

    async def __call__(self, states: list[Any]) -> list[float]:
        """What a ``Rubric`` awaits; it knows the group form by the name of the parameter."""
        return await self.of_states(states)

    async def of_states(self, states: Sequence[Any]) -> list[float]:
        """The scores, or a part of them."""
        return await self.scoring.tell(states, self.part)


class TaskFunction(Parametrised):
    """A task's reward: what ``@vf.reward`` makes of a method, which verifiers knows by these attributes."""

    reward = True

    def __init__(self, scoring: VerifiersScoring, weight: float = 1.0, priority: int = 0) -> None:
        self.scoring = scoring
        self._vf_weight = number(weight, "verifiers: weight", "")
        self.reward_priority = whole_number(priority, "verifiers: priority", "", low=-(2**31))
        self.__name__ = "reward"

    def __set_name__(self, owner: type, name: str) -> None:
        self.__name__ = name  # by which verifiers records it

    async def __call__(self, trace: Any) -> float:
        """What a ``Task`` awaits."""
        scored = await self.scoring.calls.ascore(self.scoring.of_trace(trace))
        ((score, parts),) = self.scoring.told(scored)
        trace.record_metrics(parts)
        return score


def plain_messages(said: Any) -> Any:
    """Text as it is, and messages as mappings.

    Examples:
        >>> plain_messages([{"role": "user", "content": "6 * 7?"}])
        [{'role': 'user', 'content': '6 * 7?'}]
    """
    if not isinstance(said, (list, tuple)):
        return said
    messages = [entry.model_dump(exclude_none=True) if hasattr(entry, "model_dump") else entry for entry in said]
    if messages and all(isinstance(entry, Mapping) and entry.get("role") == "text" for entry in messages):
        return "".join(entry["content"] for entry in messages)  # what a model without a chat template was given
    return messages
