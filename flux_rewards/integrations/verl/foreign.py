"""Scoring functions that were written for verl, as rewards of this library."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, ContractError, InputError, brief
from flux_rewards.integrations.foreign import awaited, name_of_function, one_each
from flux_rewards.integrations.importing import foreign_function

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["VerlReward"]

_GIVEN = ("data_source", "solution_str", "ground_truth", "extra_info")
_ALIASES = ("predict_str", "model_output")
"""What some of verl's functions call ``solution_str``; verl passes it by position."""


class VerlReward(RewardFunction):
    """A function of verl: ``compute_score(data_source, solution_str, ground_truth, extra_info) -> number or dict``.

    Called by keyword, one sample at a time, with what its signature names of these, so that verl's functions for one
    data set, ``compute_score(solution_str, ground_truth)``, are called too (``predict_str`` and ``model_output`` are
    names of theirs for the first); one with ``**kwargs`` is given all. The response comes as text, the reference as
    ``ground_truth``, and the metadata, a copy, as ``extra_info``; the prompt's text is in it as ``question`` and as
    ``prompt``, where the metadata have no such key. In a dict ``score`` is the reward, its other numbers are parts, and
    what is no number is metadata. A coroutine function runs on the library's own event loop. None is a reward that does
    not apply; an exception, or a NaN, a failure.

    Args:
        function: The function, its dotted path, such as ``"verl.utils.reward_score.gsm8k.compute_score"``, or the path
            of its file, ``"my_reward.py:compute_score"``.
        data_source: What it is told of where a sample is from; None for the samples' own ``metadata["data_source"]``.
            A function that does not name it needs none.
        arguments: Further keyword arguments, as ``reward_kwargs`` in verl's configuration.
        plural: The form of verl's batch manager: ``compute_score(data_sources, solution_strs, ground_truths,
            extra_infos) -> list``.
        **options: Of every reward; see `RewardFunction`. The name is the function's own by default. A function that
            waits for others wants ``num_workers``: calls in flight at once.

    Raises:
        ConfigError: `function` is neither callable nor a path, or wants what verl's reward functions are not given;
            for a path, on a call.
        InputError: On a call, a sample has no data source, and no `data_source` was given.
        ContractError: On a call, the function returned something else.

    Does not score tokens, and starts no reward model: ``reward_router_address`` is not given. Pickles as far as
    `function` does. Source: verl 0.9.1, ``verl.experimental.reward_loop.reward_manager.naive``.

    Examples:
        >>> def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        ...     return {"score": float(ground_truth in solution_str), "length": len(solution_str), "pred": solution_str}
        >>> batch = VerlReward(compute_score, data_source="mine")(response=["42"], reference=["42"])
        >>> batch.rewards, batch.parts["length"].rewards, batch.metadata
        (array([1.]), array([2.]), [{'pred': '42'}])
    """

    required_fields = ("response",)
    optional_fields = ("prompt", "reference", "metadata")

    def __init__(
        self,
        function: Callable[..., Any] | str,
        data_source: str | None = None,
        *,
        arguments: Mapping[str, Any] | None = None,
        plural: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        if not callable(function) and not isinstance(function, str):
            raise ConfigError(
                f"function must be callable or a dotted path, found {brief(function)}", reward="VerlReward"
            )
        options.setdefault("name", name_of_function(function) or type(self).__name__)
        super().__init__(**options)
        self.function = function
        self.data_source = data_source
        self.arguments = arguments
        self.plural = plural
        if callable(function):
            self._wanted(function)

    @property
    def scores_by_sample(self) -> bool:
        """Unless the function wants a batch."""
        return not self.plural

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # the code of another
        """The function itself."""
        return [foreign_function(self.function, self.name)]

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Call the function as verl does."""
        function = foreign_function(self.function, self.name)
        wanted = self._wanted(function)
        calls = [self._call(sample, index, wanted) for index, sample in enumerate(samples)]
        if self.plural:
            columns = {name: [entry[name] for entry in calls] for name in wanted}
            returned = awaited(function(**columns, **(self.arguments or {})))
            return [self._read(value) for value in one_each(returned, len(calls), "samples", self.name)]
        rows: list[Any] = []
        for entry in calls:
            try:
                rows.append(self._read(awaited(function(**entry, **(self.arguments or {})))))
            except ContractError:
                raise
            except Exception as error:  # noqa: BLE001  # a failed row; the boundary raises or records it
                rows.append(error)
        return rows

    def _wanted(self, function: Callable[..., Any]) -> dict[str, str]:
        """What the function is given: by the name of its parameter, that in `_GIVEN`."""
        verls = {f"{name}s" if self.plural else name: name for name in _GIVEN}
        try:
            named = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # of a builtin
            return verls
        open_ended = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        takes_all = any(entry.kind is entry.VAR_KEYWORD for entry in named)
        by_name = {entry.name for entry in named if entry.kind not in (*open_ended, entry.POSITIONAL_ONLY)}
        aliases = {} if self.plural or "solution_str" in by_name else dict.fromkeys(_ALIASES, "solution_str")
        wanted = {key: name for key, name in verls.items() if takes_all or key in by_name}
        wanted |= {key: name for key, name in aliases.items() if key in by_name}
        known = by_name & (wanted.keys() | set(self.arguments or ()))
        needed = [entry.name for entry in named if entry.kind not in open_ended and entry.default is entry.empty]
        unknown = [name for name in needed if name not in known]
        if unknown or not wanted:
            raise ConfigError(
                f"the function wants {', '.join(unknown) or 'nothing'}; one of verl's is given {', '.join(verls)}, by "
                "keyword, and arguments={...}: rename its parameters, or wrap it",
                reward=self.name,
            )
        return wanted

    def _call(self, sample: Sample, index: int, wanted: Mapping[str, str]) -> dict[str, Any]:
        found: dict[str, Any] = {"solution_str": sample.response_text, "ground_truth": sample.reference}
        if "data_source" in wanted.values():
            found["data_source"] = self._source(sample, index)
        if "extra_info" in wanted.values():
            notes = {key: value for key, value in sample.metadata.items() if key != "data_source"}
            found["extra_info"] = {**_asked(sample), **notes}
        return {parameter: found[name] for parameter, name in wanted.items()}

    def _source(self, sample: Sample, index: int) -> Any:
        source = self.data_source if self.data_source is not None else sample.metadata.get("data_source")
        if source is None:
            raise InputError(
                "a function of verl is told a data source, and this sample has none: give data_source=..., or put it "
                'into metadata["data_source"]',
                reward=self.name,
                field="metadata",
                index=index,
            )
        return source

    def _read(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return _plain(value)
        if "score" not in value:
            raise ContractError(
                f"returned a dict without 'score': {', '.join(map(str, value))}; verl reads the reward from it",
                reward=self.name,
            )
        others = {str(key): _plain(entry) for key, entry in value.items() if key != "score"}
        parts = {key: entry for key, entry in others.items() if isinstance(entry, (bool, int, float))}
        noted = {key: entry for key, entry in others.items() if key not in parts}
        return RewardOutput(_plain(value["score"]), parts=parts, metadata=noted)


def _asked(sample: Sample) -> dict[str, str]:
    """The prompt's text, under the names that verl's functions look for in ``extra_info``."""
    try:
        return {} if sample.prompt is None else dict.fromkeys(("question", "prompt"), sample.prompt_text)
    except InputError:  # messages without a text of the user's
        return {}


def _plain(value: Any) -> Any:
    """A number out of an array or tensor that holds one."""
    return value.item() if hasattr(value, "item") and math.prod(getattr(value, "shape", (0,))) == 1 else value
