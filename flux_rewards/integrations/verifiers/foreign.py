"""Reward functions, rubrics and tasks that were written for verifiers, as rewards of this library."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_origin

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.composite import CompositeReward
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, ContractError, brief
from flux_rewards.event_loop import run_in_background
from flux_rewards.integrations.foreign import awaited, name_of_function, one_each
from flux_rewards.integrations.importing import imported
from flux_rewards.naming import distinct
from flux_rewards.threads import this_thread

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["VerifiersReward", "VerifiersTaskReward", "from_verifiers"]

LEGACY = "pip install 'verifiers==0.3.1', the last with rubrics"
CURRENT = "pip install 'verifiers>=0.4'"
_PLURAL = {
    "states": "state",
    "prompts": "prompt",
    "completions": "completion",
    "answers": "answer",
    "tasks": "task",
    "infos": "info",
}


class VerifiersReward(RewardFunction):
    """A reward function of verifiers 0.3: ``function(prompt, completion, answer, state, info, task, parser, ...)``.

    It is given what it names (all, where it takes ``**kwargs``): prompt and completion as messages, the reference as
    ``answer`` (an empty one where there is none), the metadata as ``info`` and each under its own name, and a ``state``
    that holds all of that. One that names plurals, or says that it returns a list, is given the rollouts of a group. A
    coroutine function runs on the library's own event loop. None is a reward that does not apply; an exception, which
    verifiers would score 0.0, or a NaN, a failure.

    Args:
        function: The function.
        objects: What a rubric offers its functions beside that, such as ``{"parser": parser}``. A function that names a
            ``parser`` where there is none gets verifiers' plain one.
        **options: Of every reward; see `RewardFunction`. The name is the function's own by default.

    Raises:
        ConfigError: `function` is not callable.

    Does not pickle around a function that does not. Source: verifiers 0.3.1, ``verifiers.legacy.rubrics.rubric``.

    Examples:
        >>> def right(completion, answer):
        ...     return float(completion[-1]["content"] == answer)
        >>> VerifiersReward(right)(prompt=["6 * 7?"] * 2, response=["42", "41"], reference=["42", "42"]).rewards
        array([1., 0.])
    """

    required_fields = ("response",)
    optional_fields = ("prompt", "reference", "metadata")

    def __init__(
        self,
        function: Callable[..., Any],
        objects: Mapping[str, Any] | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        if not callable(function):
            raise ConfigError(f"function must be callable, found {brief(function)}", reward="VerifiersReward")
        options.setdefault("name", name_of_function(function) or type(self).__name__)
        super().__init__(**options)
        self.function = function
        self.objects = objects
        signature = inspect.signature(function)
        self._takes_all = any(entry.kind is entry.VAR_KEYWORD for entry in signature.parameters.values())
        self._named = set(signature.parameters)
        returns = signature.return_annotation
        a_list = returns in (list, "list") or get_origin(returns) is list or str(returns).startswith("list[")
        self.scope = "group" if a_list or not self._named.isdisjoint(_PLURAL) else "sample"

    @property
    def scores_by_sample(self) -> bool:
        """Unless it is given groups."""
        return self.scope == "sample"

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # the code of another
        """The function itself."""
        return [self.function]

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Call the function as a rubric does."""
        rows = [_objects_of(sample) for sample in samples]
        if self.scope == "group":
            returned = self._call({plural: [row[name] for row in rows] for plural, name in _PLURAL.items()})
            return list(one_each(returned, len(rows), "rollouts", self.name))
        scores: list[Any] = []
        for row in rows:
            try:
                scores.append(self._call({**row["info"], **row}))
            except Exception as error:  # noqa: BLE001  # a failed row; the boundary raises or records it
                scores.append(error)
        return scores

    def _call(self, offered: dict[str, Any]) -> Any:
        offered = offered | dict(self.objects or {})
        if "parser" in self._named and "parser" not in offered:
            offered["parser"] = imported("verifiers.legacy", LEGACY).Parser()
        given = {name: value for name, value in offered.items() if self._takes_all or name in self._named}
        return awaited(self.function(**given))


class VerifiersTaskReward(RewardFunction):
    """The rewards of a ``Task`` of verifiers 0.4: their weighted sum, each a part by its name.

    For every sample a task is made, of the data that the sample has: the prompt, the reference as `reference`'s field,
    and the metadata; and a trace of the prompt and the response. What the task's metrics say is metadata.

    Args:
        task: The class, derived from ``vf.Task``, whose rewards need no runtime.
        reference: The field of the task's data that is the sample's reference.
        config: A ``TaskConfig``, such as one with functions plugged in; None for the class's own.
        **options: Of every reward; see `RewardFunction`. The name is the class's own by default.

    Raises:
        ConfigError: `task` is no class with a ``score``.
        MissingDependencyError: On a call, verifiers 0.4 is not installed.

    Does not run the task's ``setup`` and ``finalize``. Source: verifiers 0.4.0, ``verifiers.v1.task``.

    Examples:
        >>> VerifiersTaskReward(int)
        Traceback (most recent call last):
        ...
        flux_rewards.errors.ConfigError: reward 'VerifiersTaskReward': task must be a class derived from vf.Task, ...
    """

    required_fields = ("response",)
    optional_fields = ("prompt", "reference", "metadata")

    def __init__(
        self, task: type, reference: str = "answer", *, config: Any = None, **options: Unpack[RewardOptions]
    ) -> None:
        if not hasattr(task, "score") or not hasattr(task, "data_type"):
            raise ConfigError(
                f"task must be a class derived from vf.Task, found {brief(task)}", reward="VerifiersTaskReward"
            )
        options.setdefault("name", task.__name__)
        super().__init__(**options)
        self.task = task
        self.reference = reference
        self.config = config

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # the code of another
        """The class."""
        return [self.task]

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Score traces of the samples, concurrently."""
        return run_in_background(self._scored(samples), this_thread.stopped)

    async def _scored(self, samples: Sequence[Sample]) -> list[Any]:
        return await asyncio.gather(*map(self._score, samples), return_exceptions=True)

    async def _score(self, sample: Sample) -> RewardOutput:
        task: Any = self.task
        known = {"prompt": sample.prompt, self.reference: sample.reference, **sample.metadata}
        data = task.data_type()(**{name: value for name, value in known.items() if value is not None})
        trace = _trace_of(sample, task.__name__, data)
        await task(data, self.config).score(trace)
        parts = {name: None if entry is None else entry.value for name, entry in trace.rewards.items()}
        missing = [name for name, value in parts.items() if value is None]
        if missing or not parts:
            raise ContractError(f"the task has no score for {', '.join(missing) or 'any reward'}", reward=self.name)
        return RewardOutput(trace.reward, parts=parts, metadata=dict(trace.metrics))


def _trace_of(sample: Sample, name: str, data: Any) -> Any:
    vf = imported("verifiers.v1", CURRENT)
    kinds = {"system": vf.SystemMessage, "user": vf.UserMessage, "assistant": vf.AssistantMessage}
    kinds["tool"] = vf.ToolMessage
    nodes: list[Any] = []
    for said, role in ((sample.prompt, "user"), (sample.response, "assistant")):
        for message in _messages(said, role):
            spoken = dict(message)
            kind = kinds[spoken.pop("role")]
            sampled = role == "assistant" and kind is vf.AssistantMessage
            parent = len(nodes) - 1 if nodes else None
            nodes.append(vf.MessageNode(parent=parent, message=kind(**spoken), sampled=sampled))
    agent = vf.AgentInfo(config=vf.AgentConfig())
    return vf.Trace(task=vf.TraceTask(type=name, data=data), agent=agent, nodes=nodes)


def _objects_of(sample: Sample) -> dict[str, Any]:
    """What a rubric of verifiers offers a function of one rollout."""
    info = dict(sample.metadata)
    row: dict[str, Any] = {
        "prompt": _messages(sample.prompt, "user"),
        "completion": _messages(sample.response, "assistant"),
        "answer": "" if sample.reference is None else sample.reference,
        "info": info,
        "task": info.get("task"),
    }
    asked = {name: row[name] for name in ("prompt", "answer", "info", "task")}
    state = {**row, "input": asked, "trajectory": [], "is_completed": True, "is_truncated": False, "error": None}
    return {**row, "state": state}


def _messages(said: Any, role: str) -> list[Any]:
    if said is None:
        return []
    return [{"role": role, "content": said}] if isinstance(said, str) else [dict(message) for message in said]


def from_verifiers(
    source: Any, *, reference: str = "answer", config: Any = None, **options: Unpack[RewardOptions]
) -> RewardFunction:
    """What was written for verifiers as a reward.

    Args:
        source: A reward function of 0.3 (`VerifiersReward`); a ``Rubric`` or ``RubricGroup`` of 0.3: the weighted sum
            of its functions, a composite with a part for each, metrics of weight 0 included; or a ``Task`` class of 0.4
            (`VerifiersTaskReward`).
        reference: As `VerifiersTaskReward`.
        config: As `VerifiersTaskReward`.
        **options: Of a function, or a task; a rubric takes ``name`` only.

    Raises:
        ConfigError: It is none of these, or a rubric without functions.

    Examples:
        >>> def right(completion, answer):
        ...     return float(completion[-1]["content"] == answer)
        >>> from_verifiers(right, name="correct").name
        'correct'
    """
    if isinstance(source, type):
        return VerifiersTaskReward(source, reference, config=config, **options)
    if hasattr(source, "rubrics") or (hasattr(source, "funcs") and hasattr(source, "weights")):
        found = _functions_of(source)
        if not found:
            raise ConfigError(f"{type(source).__name__} has no reward functions")
        names = distinct(getattr(function, "__name__", type(function).__name__) for function, _, _ in found)
        parts = {
            name: (VerifiersReward(function, objects, name=name), weight)
            for name, (function, weight, objects) in zip(names, found, strict=True)
        }
        unknown = sorted(set(options) - {"name"})
        if unknown:
            raise ConfigError(f"a rubric takes name=... only, found {', '.join(unknown)}")
        return CompositeReward(parts, name=options.get("name", type(source).__name__))
    return VerifiersReward(source, **options)


def _functions_of(rubric: Any) -> list[tuple[Any, float, Mapping[str, Any]]]:
    own = [
        (function, float(weight), dict(rubric.class_objects))
        for function, weight in zip(rubric.funcs, rubric.weights, strict=True)
    ]
    return own + [found for inner in getattr(rubric, "rubrics", ()) for found in _functions_of(inner)]
