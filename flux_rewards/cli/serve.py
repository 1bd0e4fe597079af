"""The command `serve`: the rewards of a configuration behind HTTP."""

from __future__ import annotations

import os
from pathlib import Path

from flux_rewards.config import load_rewards
from flux_rewards.errors import ConfigError
from flux_rewards.server.reward_server import RewardServer
from flux_rewards.server.settings import Limits

__all__ = ["TOKEN_VARIABLE", "server_of"]

TOKEN_VARIABLE = "FLUX_REWARDS_TOKEN"  # noqa: S105  # its name


def server_of(
    config: Path,
    *,
    host: str,
    port: int,
    token_variable: str = TOKEN_VARIABLE,
    no_token: bool = False,
    evaluation: bool = False,
    max_batch: int = 64,
) -> RewardServer:
    """The server of a configuration: of its one reward, or of the composite of several.

    Args:
        config: A YAML file.
        host: Where it listens.
        port: Where; 0 for a free one.
        token_variable: The environment variable that holds the token.
        no_token: Serve other hosts than loopback without one.
        evaluation: The rewards of the section ``eval_rewards``.
        max_batch: Samples of several requests that are scored together.

    Raises:
        ConfigError: The configuration cannot be read, or a token is needed and there is none.
    """
    loaded = load_rewards(config)
    composite = loaded.eval if evaluation else loaded.train
    (name, weight), *others = composite.weights.items()
    alone = not others and weight == 1.0  # one reward by itself is itself, and not a sum of one
    reward = composite.children[0] if alone else composite
    token = os.environ.get(token_variable, "").strip() or None  # a file ends in a line break
    try:
        limits = Limits(max_batch=max_batch, max_waiting=max(max_batch, Limits.max_waiting))
        return RewardServer(
            reward,
            host=host,
            port=port,
            token=None if no_token else token,
            require_token=not no_token,
            limits=limits,
            name=name if alone else None,
        )
    except ConfigError as error:
        if "can be reached from other machines" in str(error):
            raise ConfigError(
                f"{host} can be reached from other machines: put a token into the environment variable "
                f"{token_variable}, or say --no-token"
            ) from None
        raise
