"""NeMo-RL: a reward as an environment of one turn.

The contract is that of NeMo-RL as read at 0b8a793 (``environments/interfaces.py``, ``environments/utils.py``): a Ray
actor class, named by its dotted path in ``register_env`` and made with its part of the configuration, whose ``step``
gets a batch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.integrations.batches import batch_numbers, check_reward
from flux_rewards.integrations.columns import REFERENCES, Columns
from flux_rewards.integrations.importing import imported
from flux_rewards.integrations.named_parts import NamedParts
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.parameters import Parametrised

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample

__all__ = ["EnvironmentScoring", "environment_class", "ray_environment"]

_DEFAULTS = {
    "prompt": "prompt",
    "response": "response",
    "response_tokens": "token_ids",
    **REFERENCES,
}
_GROUPS = (
    "NeMo-RL shows an environment samples one by one where rollouts are asynchronous; leave the comparison to its "
    "advantages (GRPO, or GDPO with components=True)"
)


class EnvironmentScoring(Parametrised):
    """From a batch of message logs to NeMo-RL's numbers; the arguments are those of `environment_class`."""

    def __init__(
        self,
        reward: RewardFunction,
        *,
        components: bool = False,
        parts: Sequence[str] | None = None,
        fields: Mapping[str, str | None] | None = None,
        not_applicable: float | None = None,
        on_error: float | None = None,
    ) -> None:
        adapter = "NeMo-RL"
        check_reward(reward, adapter, groups=_GROUPS)
        self.reward, self.components = reward, components
        self.columns = Columns(_DEFAULTS, fields, adapter, reward)
        self.numbers = Numbers(not_applicable, on_error, adapter)
        self.parts = NamedParts(reward, self.numbers, parts if components else [])
        if components and not self.parts.keys:
            raise ConfigError("NeMo-RL: components=True is for a reward with parts; name them", reward=reward.name)

    def rewards(self, message_logs: Sequence[Any], metadata: Sequence[Any]) -> Any:
        """Float32 (B,), or a mapping of them by part."""
        import torch  # noqa: PLC0415  # only those who score pay for it

        samples = [
            self._sample(log, note, row) for row, (log, note) in enumerate(zip(message_logs, metadata, strict=True))
        ]
        batch, values = batch_numbers(self.reward, samples, self.numbers)
        if not self.components:
            return torch.tensor(values, dtype=torch.float32)
        rows = self.parts(batch)
        return {key: torch.tensor([row[key] for row in rows], dtype=torch.float32) for key in self.parts.keys.values()}

    def _sample(self, log: Sequence[Mapping[str, Any]], note: Any, row: int) -> Sample:
        roles = [message.get("role") for message in log]
        if "assistant" not in roles:
            raise InputError(
                f"NeMo-RL: a message log without an assistant, found the roles {brief(roles)}",
                reward=self.reward.name,
                field="response",
                index=row,
            )
        start = roles.index("assistant")
        said = [{"role": message["role"], "content": message.get("content")} for message in log]
        columns = dict(note) if isinstance(note, Mapping) else {}
        columns |= {"prompt": said[:start], "response": said[start:]}
        if len(said) == start + 1:  # one answer: as text, and its tokens
            columns["response"] = said[start]["content"]
            tokens = log[start].get("token_ids")
            if tokens is not None:
                columns["response_tokens"] = tokens.tolist() if hasattr(tokens, "tolist") else list(tokens)
        (sample,) = self.columns.samples({name: [value] for name, value in columns.items()}, 1)
        return sample


def environment_class(
    reward: RewardFunction,
    *,
    components: bool = False,
    parts: Sequence[str] | None = None,
    fields: Mapping[str, str | None] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    name: str | None = None,
) -> type:
    """An ``EnvironmentInterface`` whose every episode ends after one step with the reward; see `ray_environment`.

    Samples have the messages before the first of the assistant as the prompt, and what follows as the response: as text
    with its `token_ids` where it is one message, else as messages. The contents are as NeMo-RL has them, with what its
    chat template puts around them.

    Args:
        reward: The reward; not one of groups.
        components: Give ``{part: (B,)}`` instead of the total (B,): the columns of GDPO, before their weights.
        parts: Which, where they are not all that the reward is known to have.
        fields: Column by field of `Sample`, ``{"reference": "expected"}``: a key of the samples' metadata
            (``extra_env_info``). By default ``ground_truth``, ``answer`` or ``solution`` is the reference.
        not_applicable: The number for a sample, or a part, to which the reward does not apply; without it an error.
        on_error: The number for a sample that failed; without it the error is raised, and ends the training.
        name: The class's name, that of the variable; the reward's own by default.

    Raises:
        ConfigError: A reward of groups, or an argument that cannot be used.
        MissingDependencyError: NeMo-RL cannot be imported.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> MyEnvironment = environment_class(ExactMatch())  # doctest: +SKIP
    """
    scoring = EnvironmentScoring(
        reward, components=components, parts=parts, fields=fields, not_applicable=not_applicable, on_error=on_error
    )
    interfaces = imported(
        "nemo_rl.environments.interfaces", "install NeMo-RL from its repository, github.com/NVIDIA-NeMo/RL"
    )

    class Environment(interfaces.EnvironmentInterface):  # type: ignore[misc,name-defined]  # imported late
        """A reward as an environment of one turn."""

        def __init__(self, cfg: Any = None) -> None:
            self.cfg = cfg

        def step(
            self, message_log_batch: Sequence[Any], metadata: Sequence[Any], return_extracted_answer: bool = False
        ) -> Any:
            """Score a batch; every episode ends."""
            import torch  # noqa: PLC0415  # only those who score pay for it

            count = len(message_log_batch)
            return interfaces.EnvironmentReturn(
                observations=[{"role": "environment", "content": ""}] * count,
                metadata=list(metadata),
                next_stop_strings=[None] * count,
                rewards=scoring.rewards(message_log_batch, metadata),
                terminateds=torch.ones(count),
                answers=[None] * count if return_extracted_answer else None,
            )

        def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
            """The batch as it is, and the mean reward."""
            rewards = batch.get("rewards")
            return batch, {} if rewards is None else {"mean_reward": float(rewards.float().mean())}

    Environment.__name__ = Environment.__qualname__ = name or reward.name
    Environment.__module__ = sys._getframe(1).f_globals.get("__name__", __name__)  # noqa: SLF001  # whose variable it is
    return Environment


def ray_environment(environment: type, **options: Any) -> Any:
    """The class as a Ray actor, as ``register_env`` wants it; Ray is imported here.

    In a module of your own: ``MyEnvironment = nemo_rl.ray_environment(nemo_rl.environment_class(reward))``, and then
    ``register_env("mine", "my_module.MyEnvironment")``.

    Args:
        environment: Of `environment_class`.
        **options: Of ``ray.remote``; it is restarted, and its tasks repeated, as NeMo-RL's own environments are.

    Raises:
        MissingDependencyError: Ray cannot be imported.
    """
    ray = imported("ray", "pip install ray")
    return ray.remote(**{"max_restarts": -1, "max_task_retries": -1, **options})(environment)
