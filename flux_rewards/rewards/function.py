"""A reward from any callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.callables import resolve_callable
from flux_rewards.data import FIELDS, Sample
from flux_rewards.errors import ConfigError, brief, close_match
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FunctionReward"]


class FunctionReward(RewardFunction):
    """Wraps a callable that scores.

    Args:
        function: The callable, or its dotted path, such as ``"my_package.rewards.brevity"``.
        call: How it is called: ``"sample"``: ``function(sample)`` returns one row; ``"batch"``:
            ``function(samples)`` returns one row a sample; ``"columns"``: ``function(prompt=[...], image=[...])``
            receives `fields` as lists and returns one row a sample.
        fields: `Sample` fields that it reads; required for ``"columns"``. A sample without one is an `InputError`.
        **options: Of every reward; see `RewardFunction`. The name is the callable's own by default.

    A row is a number, a `RewardOutput`, or None where the reward does not apply.

    Raises:
        ConfigError: `function` is neither callable nor a dotted path, or ``"columns"`` comes without fields.

    Does not pickle around a lambda or a local function: pickle knows functions by name. Use a dotted path.

    Examples:
        >>> def brevity(sample):
        ...     return 1 / len(sample.response)
        >>> FunctionReward(brevity, fields=["response"])(response=["ab", "abcd"]).rewards
        array([0.5 , 0.25])
        >>> match = FunctionReward(
        ...     lambda response, reference: [float(a == b) for a, b in zip(response, reference)],
        ...     call="columns", fields=["response", "reference"])
        >>> match(response=["4", "5"], reference=["4", "4"]).rewards
        array([1., 0.])
    """

    example_config = {"function": "flux_rewards.testing.characters", "fields": ["response"]}

    def __init__(
        self,
        function: Callable[..., Any] | str,
        call: str = "sample",
        fields: Sequence[str] = (),
        **options: Unpack[RewardOptions],
    ) -> None:
        if not callable(function) and not isinstance(function, str):
            raise ConfigError(
                f"function must be callable or a dotted path, found {brief(function)}",
                reward="FunctionReward",
            )
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            raise ConfigError(
                "function is a coroutine function; give a plain one, and num_workers for several calls in flight",
                reward="FunctionReward",
            )
        default = function.rpartition(".")[2] if isinstance(function, str) else getattr(function, "__name__", "")
        if default and default != "<lambda>":
            options.setdefault("name", default)
        super().__init__(**options)
        self.function = function
        self.call = one_of(call, "call", self.name, ("sample", "batch", "columns"))
        if isinstance(fields, str):
            raise ConfigError(f"fields must be a list of Sample fields, found {fields!r}", reward=self.name)
        for field in fields:
            if field not in FIELDS:
                raise ConfigError(f"{field!r} is not a field of Sample{close_match(field, FIELDS)}", reward=self.name)
        if call == "columns" and not fields:
            raise ConfigError("call='columns' needs fields=[...]: the columns that it receives", reward=self.name)
        self.required_fields = tuple(fields)
        if call == "columns":
            self.optional_fields = ()  # it is given nothing else

    @property
    def scores_by_sample(self) -> bool:
        """A function of one sample does."""
        return self.call == "sample"

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # the code behind a path
        """The function itself."""
        return [resolve_callable(self.function, self.name)]

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Call the function as it wants to be called."""
        function = resolve_callable(self.function, self.name)
        if self.call == "batch":
            return function(samples)
        if self.call == "columns":
            return function(**{field: [getattr(sample, field) for sample in samples] for field in self.required_fields})
        rows: list[Any] = []
        for sample in samples:
            try:
                rows.append(function(sample))
            except Exception as error:  # noqa: BLE001  # a failed row; the boundary raises or records it
                rows.append(error)
        return rows
