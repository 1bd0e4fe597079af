"""Reward functions that were written for TRL, as rewards of this library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.callables import resolve_callable
from flux_rewards.data import FIELDS, RewardOutput, Sample
from flux_rewards.errors import ConfigError, brief, close_match
from flux_rewards.integrations.columns import REFERENCES
from flux_rewards.integrations.foreign import awaited, name_of_function, one_each
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TRLReward", "from_trl"]

USUAL_COLUMNS = {
    **REFERENCES,
    "image": "condition_images",
    "images": "condition_images",
}
"""What a function is given where nobody says otherwise, and its samples have it."""

_OWN = ("prompts", "completions", "completion_ids", "log_extra", "log_metric")


class TRLReward(RewardFunction):
    """A reward function of TRL: ``function(prompts, completions, completion_ids, **columns) -> [float or None, ...]``.

    It is called with lists, one entry a sample: ``completion_ids`` where all samples have `token_ids`, and as columns
    the reference, the condition images and the metadata. What it logs (``log_extra``, ``log_metric``) becomes metadata
    of the samples. None is a reward that does not apply; a NaN, or an exception, a failure.

    Args:
        function: The function, an object that is called like one, or its dotted path, such as
            ``"trl.rewards.accuracy_reward"``; a coroutine function is run on the library's own event loop.
        columns: The names by which it wants what samples have, by name: a field of `Sample`, or a key of the metadata.
            A field named here is required. Without it the reference is ``solution``, ``answer`` and ``ground_truth``,
            the condition images are ``images``, and ``image`` where each sample has one, and metadata go by their own
            names.
        conversational: True: completions are lists of messages, and text becomes one; False: they are text; None: as
            the sample has them, except that the functions of ``trl.rewards`` get messages, which they require.
        scope: ``"group"`` for a function that compares the completions of a prompt: it is given one group at a time.
        **options: Of every reward; see `RewardFunction`. The name is the function's own by default.

    Raises:
        ConfigError: `function` is the name, or object, of a model; or a column is none.

    Does not pass a ``trainer_state``: there is no trainer. Pickles as far as `function` does.
    Source: the documentation of TRL 1.16, "Using a custom reward function".

    Examples:
        >>> def matches(completions, solution, **kwargs):
        ...     return [None if gold == "?" else float(gold in text) for text, gold in zip(completions, solution)]
        >>> reward = TRLReward(matches)
        >>> reward(prompt=["6 * 7?"] * 3, response=["It is 42.", "No", "No"], reference=["42", "42", "?"]).rewards
        array([ 1.,  0., nan])
    """

    def __init__(
        self,
        function: Callable[..., Any] | str,
        columns: Mapping[str, str] | None = None,
        *,
        conversational: bool | None = None,
        scope: str = "sample",
        **options: Unpack[RewardOptions],
    ) -> None:
        given: Any = function
        is_path = isinstance(given, str) and "." in given and all(word.isidentifier() for word in given.split("."))
        if not is_path and (hasattr(given, "named_parameters") or not callable(given)):
            raise ConfigError(
                f"function must be a function, found {brief(function)}: a model is no function; give it to the trainer "
                "beside the functions of reward_funcs",
                reward="TRLReward",
            )
        options.setdefault("name", name_of_function(function) or type(self).__name__)
        super().__init__(**options)
        self.function = function
        self.columns = columns
        self.conversational = conversational
        self.scope = one_of(scope, "scope", self.name, ("sample", "group"))
        for column, field in (columns or {}).items():
            if column in _OWN or not all(isinstance(word, str) for word in (column, field)):
                raise ConfigError(
                    f"columns are {{name: field or key of the metadata}}, and {', '.join(_OWN)} are given anyway; "
                    f"found {brief(columns)}",
                    reward=self.name,
                )
        named = [field for field in (columns or {}).values() if field in FIELDS]
        self.required_fields = tuple(dict.fromkeys(["response", *named]))

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # the code of another
        """The function itself."""
        return [resolve_callable(self.function, self.name)]

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Call the function with columns, and await it where it wants that."""
        noted: list[dict[str, Any]] = [{} for _ in samples]

        def log_extra(column: str, values: Sequence[Any]) -> None:
            for entry, value in zip(noted, values, strict=True):
                entry[column] = value

        def log_metric(name: str, value: float) -> None:
            for entry in noted:
                entry[name] = value

        function = resolve_callable(self.function, self.name)
        returned = function(**self._arguments(samples), log_extra=log_extra, log_metric=log_metric)
        returned = one_each(awaited(returned), len(samples), "completions", self.name)
        return [RewardOutput(value, metadata=entry) for value, entry in zip(returned, noted, strict=True)]

    def _arguments(self, samples: Sequence[Sample]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        keys = dict.fromkeys(key for sample in samples for key in sample.metadata)
        usual = {column: field for column, field in USUAL_COLUMNS.items() if column not in keys}
        for column, source in {**usual, **dict.fromkeys(keys), **(self.columns or {})}.items():
            values = [_value(sample, source or column) for sample in samples]
            if column == "image" and source == "condition_images" and any(_several(value) for value in values):
                continue  # TRL's column of that name holds one image
            if column == "image" and source == "condition_images":
                values = [value[0] if isinstance(value, (list, tuple)) and value else value for value in values]
            if any(value is not None for value in values):
                given[column] = values
        for column, source in (self.columns or {}).items():
            if column not in given:
                raise ConfigError(
                    f"columns has {column!r} from {source!r}, no field of Sample"
                    f"{close_match(source, FIELDS)} and no key of the samples' metadata",
                    reward=self.name,
                )
        given["prompts"] = [self._worded(sample.prompt, "user") for sample in samples]
        given["completions"] = [self._worded(sample.response, "assistant", sample) for sample in samples]
        tokens = [sample.token_ids for sample in samples]
        if all(ids is not None for ids in tokens):
            given["completion_ids"] = [list(ids) for ids in tokens if ids is not None]
        return {name: value for name, value in given.items() if name not in ("log_extra", "log_metric")}

    def _worded(self, said: Any, role: str, sample: Sample | None = None) -> Any:
        wants_messages = self.conversational
        home = self.function if isinstance(self.function, str) else str(getattr(self.function, "__module__", ""))
        if wants_messages is None and home.startswith("trl.rewards"):
            wants_messages = True
        if wants_messages and isinstance(said, str):
            return [{"role": role, "content": said}]
        if wants_messages is False and said is not None and not isinstance(said, str):
            return sample.response_text if sample is not None else Sample(said).prompt_text
        return said


def _several(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 1


def _value(sample: Sample, source: str) -> Any:
    return getattr(sample, source) if source in FIELDS else sample.metadata.get(source)


def from_trl(
    function: Callable[..., Any] | str,
    columns: Mapping[str, str] | None = None,
    *,
    conversational: bool | None = None,
    scope: str = "sample",
    **options: Unpack[RewardOptions],
) -> TRLReward:
    """A reward function that was written for TRL, or comes with it, as a reward; see `TRLReward`.

    Examples:
        >>> def brevity(completions, **kwargs):
        ...     return [1.0 / len(text.split()) for text in completions]
        >>> from_trl(brevity)(response=["two words"]).rewards
        array([0.5])
    """
    return TRLReward(function, columns, conversational=conversational, scope=scope, **options)
