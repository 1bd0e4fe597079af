"""ms-swift: a reward as an outcome reward model, for ``orms[name]`` in a file of ``--external_plugins``.

The contract is that of ms-swift as read at 20ec461 (``swift/rewards/orm.py``): a class, made by name, whose instances
are called with ``completions`` and the columns of the data set, and give one number, or None, a completion.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import MissingDependencyError
from flux_rewards.executor import default_executor
from flux_rewards.integrations.batches import check_reward
from flux_rewards.integrations.columns import REFERENCES, Columns
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.parameters import Parametrised
from flux_rewards.wrappers.mask_errors import MaskErrors

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import RewardBatch, Sample

__all__ = ["SwiftScoring", "async_orm_class", "orm_class"]

_DEFAULTS = {
    "prompt": "prompt",
    "completions": "response",
    "response_token_ids": "token_ids",
    **REFERENCES,
    "images": "condition_images",
    "videos": "condition_videos",
}
_GROUPS = "ms-swift shows the batch of one process, which may hold half a group; leave the comparison to its advantages"


class SwiftScoring(Parametrised):
    """From ms-swift's columns to its numbers; the arguments are those of `orm_class`."""

    def __init__(
        self,
        reward: RewardFunction,
        *,
        fields: Mapping[str, str | None] | None = None,
        not_applicable: float | None = None,
        on_error: float | None = None,
    ) -> None:
        adapter = "ms-swift"
        check_reward(reward, adapter, groups=_GROUPS)
        self.reward = reward
        self.columns = Columns(_DEFAULTS, fields, adapter, reward)
        numbers = Numbers(not_applicable, on_error, adapter)
        self.not_applicable, self.on_error = numbers.not_applicable, numbers.on_error
        self.scorer = reward if on_error is None else MaskErrors(reward, max_failure_rate=1.0)

    def samples(self, completions: Any, columns: Mapping[str, Any]) -> list[Sample]:
        """One a completion; the messages before it are the prompt."""
        given = {**columns, "completions": completions}
        if "messages" in given and "prompt" not in given:
            given["prompt"] = [_before_the_answer(messages) for messages in given.pop("messages")]
        return self.columns.samples(given, len(completions))

    def told(self, batch: RewardBatch) -> list[float | None]:
        """One number a sample, or None for no score."""
        rows = enumerate(batch.rewards.tolist())
        return [self._missing(failed=row in batch.errors) if math.isnan(value) else value for row, value in rows]

    def _missing(self, *, failed: bool) -> float | None:
        return self.on_error if failed else self.not_applicable


def orm_class(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    name: str | None = None,
) -> type:
    """An ``ORM`` class: in a plugin file ``orms["mine"] = ms_swift.orm_class(reward)``, then ``--reward_funcs mine``.

    Args:
        reward: The reward; not one of groups: ms-swift shows the batch of one process.
        fields: Column by field of `Sample`, ``{"reference": "label"}``. By default ``solution``, ``answer`` or
            ``ground_truth`` is the reference, ``response_token_ids`` the tokens, ``images`` the condition images, and
            what stands in ``messages`` before the completion the prompt; the rest is metadata.
        not_applicable: The number for a sample to which the reward does not apply; by default None, which ms-swift
            leaves out, though not with ``gdpo``, where it counts as 0.
        on_error: The number for a sample that failed; without it the error is raised. What a `MaskErrors` within the
            reward let pass is None.
        name: The class's name, under which ms-swift logs it; the reward's own by default.

    Raises:
        ConfigError: A reward of groups, or an argument that cannot be used.
        MissingDependencyError: ms-swift cannot be imported.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> Correct = orm_class(ExactMatch())  # doctest: +SKIP
    """
    scoring = SwiftScoring(reward, fields=fields, not_applicable=not_applicable, on_error=on_error)

    def call(self: Any, completions: Any, **columns: Any) -> list[float | None]:  # noqa: ARG001  # a method
        """One number a completion, or None."""
        return scoring.told(scoring.scorer(scoring.samples(completions, columns)))

    return _class_of("ORM", call, name or reward.name, sys._getframe(1).f_globals)  # noqa: SLF001  # whose it is


def async_orm_class(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    name: str | None = None,
) -> type:
    """As `orm_class`, an ``AsyncORM``, which ms-swift awaits beside its other asynchronous ones.

    Its event loop is not blocked, whatever the reward does.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> Correct = async_orm_class(ExactMatch())  # doctest: +SKIP
    """
    scoring = SwiftScoring(reward, fields=fields, not_applicable=not_applicable, on_error=on_error)

    async def call(self: Any, completions: Any, **columns: Any) -> list[float | None]:  # noqa: ARG001  # a method
        """One number a completion, or None."""
        return scoring.told(await default_executor().submit(scoring.scorer, scoring.samples(completions, columns)))

    return _class_of("AsyncORM", call, name or reward.name, sys._getframe(1).f_globals)  # noqa: SLF001  # whose it is


def _class_of(base: str, call: Any, name: str, owner: Mapping[str, Any]) -> type:
    for module in ("swift.rewards", "swift.plugin"):  # where it is, and where it was before 4.0
        try:
            found = getattr(importlib.import_module(module), base, None)
        except ImportError:
            continue
        if found is not None:
            call.__name__, call.__qualname__ = "__call__", f"{name}.__call__"
            own = {"__init__": _made_with_anything, "__call__": call, "__module__": owner.get("__name__", __name__)}
            return type(name, (found,), own)
    raise MissingDependencyError(f"ms-swift, or its {base}, cannot be imported: pip install ms-swift")


def _made_with_anything(self: Any, *args: Any, **kwargs: Any) -> None:
    """ms-swift passes those of its settings that a constructor names."""


def _before_the_answer(messages: Any) -> Any:
    """The conversation up to what is scored."""
    ended = isinstance(messages, (list, tuple)) and messages and messages[-1].get("role") == "assistant"
    return list(messages[:-1]) if ended else messages
