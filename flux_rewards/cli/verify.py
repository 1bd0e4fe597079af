"""The command `verify`: ours, theirs, and the difference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import yaml

from flux_rewards.cli.tables import plain_table
from flux_rewards.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from flux_rewards.verification import Comparison

__all__ = ["comparison_table", "parse_parameters"]


def parse_parameters(given: Iterable[str]) -> dict[str, Any]:
    """Parameters from ``KEY=VALUE``, the value read as in a configuration.

    Raises:
        ConfigError: One has no ``=``, or its value is no YAML.

    Examples:
        >>> parse_parameters(["device=cpu", "batch_size=4"])
        {'device': 'cpu', 'batch_size': 4}
    """
    parameters: dict[str, Any] = {}
    for entry in given:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise ConfigError(f"expected KEY=VALUE, such as device=cpu, found {entry!r}")
        try:
            parameters[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{key}: cannot read {value!r}: {error}") from error
    return parameters


def comparison_table(comparison: Comparison) -> Table:
    """One row an image."""
    table = plain_table("image", "ours", "theirs", "difference", numbers_from=1)
    for number, (ours, theirs, apart) in enumerate(
        zip(comparison.ours, comparison.theirs, comparison.differences, strict=True), start=1
    ):
        table.add_row(str(number), f"{ours:.5f}", f"{theirs:.5f}", f"{apart:+.5f}")
    return table
