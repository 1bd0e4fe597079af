"""Functions that were written for a trainer: what they are called, and how they are called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from flux_rewards.errors import ContractError, brief
from flux_rewards.event_loop import run_in_background
from flux_rewards.threads import this_thread

__all__ = ["awaited", "name_of_function", "one_each"]


def name_of_function(function: Any) -> str | None:
    """What a function, an object, a class or the path of one is called; None for a lambda.

    Examples:
        >>> name_of_function("my_rewards.py:brevity"), name_of_function(lambda x: x)
        ('brevity', None)
    """
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, str):
        return function.replace(":", ".").rpartition(".")[2] or None
    name = str(getattr(function, "__name__", type(function).__name__))
    return None if "<" in name else name


def awaited(returned: Any) -> Any:
    """A value; a coroutine is run on the library's own event loop, until its call is given up.

    Examples:
        >>> async def score():
        ...     return 0.5
        >>> awaited(score()), awaited(1.0)
        (0.5, 1.0)
    """

    async def result() -> Any:
        return await returned

    return run_in_background(result(), this_thread.stopped) if inspect.isawaitable(returned) else returned


def one_each(returned: Any, count: int, what: str, reward: str) -> Any:
    """A list of scores, one for each of so many.

    Args:
        returned: What the function returned.
        count: How many were to be scored.
        what: What they are called by the trainer.
        reward: Whose function it is, for messages.

    Raises:
        ContractError: It is no list, or has another length.

    Examples:
        >>> one_each([0.5, None], 2, "completions", "mine")
        [0.5, None]
    """
    if isinstance(returned, (str, Mapping)) or not hasattr(returned, "__len__"):
        raise ContractError(f"returned {brief(returned)}; expected a list of {count} scores", reward=reward)
    if len(returned) != count:
        raise ContractError(f"returned {len(returned)} scores for {count} {what}; expected one each", reward=reward)
    return returned
