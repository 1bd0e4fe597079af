"""Checks of constructor arguments: each returns the value, or raises a `ConfigError` that names the parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flux_rewards.errors import ConfigError, brief, close_match

__all__ = ["checked_text", "interval", "number", "one_of", "texts", "whole_number"]


def number(
    value: Any,
    parameter: str,
    reward: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
) -> float:
    """A finite number in [low, high], greater than `above`.

    Examples:
        >>> number(0.5, "weight", "length", low=0, high=1)
        0.5
    """
    ok = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    if not ok or not (low <= value <= high and value > above):
        limits = [f">= {low:g}"] * (low > -math.inf) + [f"> {above:g}"] * (above > -math.inf)
        limits += [f"<= {high:g}"] * (high < math.inf)
        wanted = f"a finite number {' and '.join(limits)}".rstrip()
        raise ConfigError(f"{parameter} must be {wanted}, found {brief(value)}", reward=reward or None)
    return float(value)


def whole_number(value: Any, parameter: str, reward: str, *, low: int) -> int:
    """A whole number of at least `low`.

    Examples:
        >>> whole_number(3, "n", "repetition", low=1)
        3
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{parameter} must be a whole number >= {low}, found {brief(value)}", reward=reward or None)
    return value


def interval(value: Any, parameter: str, reward: str) -> tuple[float, float]:
    """A pair (low, high) of finite numbers with low < high.

    Examples:
        >>> interval([0, 1], "bounds", "normalize")
        (0.0, 1.0)
    """
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ConfigError(f"{parameter} must be a pair (low, high), found {brief(value)}", reward=reward or None)
    low, high = (number(bound, parameter, reward) for bound in value)
    if low >= high:
        raise ConfigError(f"{parameter} must have low < high, found {brief(value)}", reward=reward or None)
    return low, high


def one_of(value: Any, parameter: str, reward: str, known: Sequence[str]) -> str:
    """One of a few words.

    Examples:
        >>> one_of("mean", "ties", "group_rank", ["mean", "min"])
        'mean'
    """
    if value not in known:
        hint = close_match(value, known) if isinstance(value, str) else ""
        raise ConfigError(f"{parameter} must be one of {', '.join(known)}, found {brief(value)}{hint}", reward=reward)
    return str(value)


def checked_text(value: Any, parameter: str, reward: str) -> str:
    """A text that is not blank.

    Examples:
        >>> checked_text("Score", "label", "judge")
        'Score'
    """
    if (
        not isinstance(value, str)
        or not value.strip()
        or (not value.isprintable() and "\ud800" <= max(value) <= "\udfff")
    ):
        raise ConfigError(f"{parameter} must be a text, found {brief(value)}", reward=reward)
    return value


def texts(value: Any, parameter: str, reward: str) -> list[str]:
    """A list of non-empty texts; a lone text is refused, since it is a list of letters too.

    Examples:
        >>> texts(["a", "b"], "good", "keyword")
        ['a', 'b']
    """
    ok = isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(item, str) and item for item in value)
    if not ok:
        raise ConfigError(f"{parameter} must be a list of non-empty texts, found {brief(value)}", reward=reward)
    return list(value)
