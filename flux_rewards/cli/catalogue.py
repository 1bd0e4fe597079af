"""``flux-rewards list`` and ``flux-rewards info``: the registered rewards, looked at from outside."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import yaml

from flux_rewards.base import RewardFunction
from flux_rewards.cli.tables import plain_table
from flux_rewards.errors import FluxRewardsError
from flux_rewards.parameters import accepted_parameters
from flux_rewards.registry import Factory, list_rewards, resolve_reward

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

__all__ = ["catalogue_table", "description", "example_yaml"]

_ATTRIBUTES = (
    "required_fields",
    "scope",
    "bounds",
    "higher_is_better",
    "batch_size",
    "num_workers",
    "async_reward",
    "use_tensor_inputs",
    "differentiable",
)


def catalogue_table() -> Table:
    """Every registered reward, in a line. One that cannot be imported says why."""
    table = plain_table("name", "reads", "scope", "bounds", "what it is")
    for name in list_rewards():
        try:
            factory = resolve_reward(name)
        except (FluxRewardsError, ImportError) as error:
            table.add_row(name, "?", "?", "?", f"cannot be imported: {error}")
        else:
            facts = [_attribute(factory, attribute) for attribute in ("required_fields", "scope", "bounds")]
            table.add_row(name, *facts, _documentation(factory).partition("\n")[0])
    return table


def description(name: str) -> Iterator[Table | str]:
    """Blocks that tell all about one reward.

    Raises:
        UnknownRewardError: Nothing is called so.
    """
    factory = resolve_reward(name)
    yield f"{name}: {factory.__module__}.{factory.__qualname__}\n"
    yield _documentation(factory) + "\n"
    parameters = plain_table("parameter", "default")
    for parameter in _parameters(factory).values():
        required = parameter.default is parameter.empty
        parameters.add_row(parameter.name, "(required)" if required else repr(parameter.default))
    yield parameters
    yield ""
    if inspect.isclass(factory):
        attributes = plain_table("attribute", "value")
        for attribute in _ATTRIBUTES:
            attributes.add_row(attribute, _attribute(factory, attribute))
        yield attributes
        yield ""
    yield "In a configuration:\n"
    yield example_yaml(name, factory)


def example_yaml(name: str, factory: Factory) -> str:
    """A configuration with the reward, from its `example_config`.

    Examples:
        >>> print(example_yaml("scale", resolve_reward("scale")))
        rewards:
        - reward_model: scale
          weight: 1.0
          reward:
            reward_model: length
            target: 40
          factor: 0.5
    """
    example = getattr(factory, "example_config", {})
    config = {"rewards": [{"reward_model": name, "weight": 1.0, **example}]}
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True).rstrip()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the name is PyYAML's
        """Write what appears twice twice."""
        return True


def _parameters(factory: Factory) -> dict[str, inspect.Parameter]:
    return accepted_parameters(factory) if inspect.isclass(factory) else dict(inspect.signature(factory).parameters)


def _documentation(factory: Factory) -> str:
    """Its own docstring: that of its base class would speak of something else."""
    return inspect.cleandoc(factory.__doc__ or "(no documentation)")


def _attribute(factory: object, attribute: str) -> str:
    if not inspect.isclass(factory) or not issubclass(factory, RewardFunction):
        return "?"  # a function that makes a reward: only the reward knows
    if attribute == "scope" and getattr(factory, "group_wise", False):
        return "group"
    value = getattr(factory, attribute)
    if isinstance(value, property):
        return "of its parts"
    if attribute == "bounds" and value is not None:
        return f"[{value[0]:g}, {value[1]:g}]"
    if isinstance(value, (tuple, list)):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)
