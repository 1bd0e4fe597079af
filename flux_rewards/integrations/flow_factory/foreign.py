"""Reward models of Flow-Factory as rewards."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import FIELDS, RewardOutput, Sample
from flux_rewards.errors import ConfigError, ContractError, brief, close_match
from flux_rewards.integrations.foreign import name_of_function
from flux_rewards.integrations.importing import foreign_function, imported
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.threads import RenewedLock

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.parameters import LeftBehind

__all__ = ["INSTALL", "FlowFactoryGroupServer", "FlowFactoryModel", "from_flow_factory"]

INSTALL = 'pip install "flow_factory @ git+https://github.com/X-GenGroup/Flow-Factory"'

_FIELDS = ("prompt", "image", "video", "condition_images", "condition_videos")


class FlowFactoryModel(RewardFunction):
    """A reward model of Flow-Factory as a reward: one of samples, or for a ``GroupwiseRewardModel`` one of groups.

    Args:
        model: A reward model, its class, the class's dotted path or that of its file, ``"models.py:Sharpness"``, or the
            name in Flow-Factory's registry. A class is made when it is first needed.
        config: For a class: its ``RewardArguments``, or a mapping of what they hold, such as ``{"dtype": "float32"}``.
        accelerator: For a class: the ``Accelerator``; a new one by default.
        required_fields: What a sample must have; by default what the model declares. Some models declare more than they
            read: Flow-Factory only goes by it where it gathers groups from several processes.
        **options: Of every reward; see `RewardFunction`. The batch size is that of the config by default.

    What the model's signature names is passed to it by keyword, as Flow-Factory does, where all samples of the call
    have it: prompts as text, media as PIL images or, where the model says ``use_tensor_inputs``, as tensors in [0, 1],
    ``metadata`` as JSON, and keys of the metadata by their own names. It may give a tensor, an array, a list, or a
    ``RewardModelOutput``, of whose ``extra_info`` the lists with one entry a sample become metadata. A NaN is a
    failure: Flow-Factory has no word for a reward that does not apply.

    Raises:
        ConfigError: `model` is none of these, or `config` is given beside a model that is made already.
        MissingDependencyError: When it is first needed: Flow-Factory cannot be imported.
        ContractError: On a call, the model gave another number of scores.

    Pickles where `model` does: a class or a path does, the weights stay behind.

    Examples:
        >>> class Brightness:  # in practice derived from Flow-Factory's PointwiseRewardModel
        ...     required_fields, use_tensor_inputs = ("image",), True
        ...     def __init__(self, config, accelerator): ...
        ...     def __call__(self, image):
        ...         return [float(pixels.mean()) for pixels in image]
        >>> import numpy as np
        >>> FlowFactoryModel(Brightness(None, None))(image=[np.full((2, 2, 3), 0.25)]).rewards
        array([0.25])
    """

    optional_fields: Sequence[str] | None = None

    def __init__(
        self,
        model: Any,
        config: Any = None,
        accelerator: Any = None,
        *,
        required_fields: Sequence[str] | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        if not isinstance(model, (str, type)) and not callable(model):
            raise ConfigError(
                f"model must be a reward model, its class, or the class's dotted path, found {brief(model)}",
                reward="FlowFactoryModel",
            )
        made = not isinstance(model, (str, type))
        if made and not (config is None and accelerator is None):
            raise ConfigError("config and accelerator are for a class; this model is made", reward="FlowFactoryModel")
        options.setdefault("name", name_of_function(model) or type(self).__name__)
        held = getattr(model, "config", None) if made else config
        size = held.get("batch_size") if isinstance(held, Mapping) else getattr(held, "batch_size", None)
        if isinstance(size, int):
            options.setdefault("batch_size", size)
        super().__init__(**options)
        for field in required_fields or ():
            if field not in FIELDS:
                raise ConfigError(f"{field!r} is not a field of Sample{close_match(field, FIELDS)}", reward=self.name)
        self.model, self.config, self.accelerator = model, config, accelerator
        self._given_fields = None if required_fields is None else tuple(required_fields)
        self._opening = RenewedLock()
        self._opened: Any = model if made else None

    @property
    def required_fields(self) -> Sequence[str]:  # type: ignore[override]  # the model's own
        """Those that were given, or else the model's."""
        if self._given_fields is not None:
            return self._given_fields
        return tuple(field for field in self._kind.required_fields if field in _FIELDS)

    @property
    def scope(self) -> str:  # type: ignore[override]  # the model's own
        """``"group"`` for a model that Flow-Factory calls with whole groups."""
        return "group" if any(base.__name__ == "GroupwiseRewardModel" for base in self._kind.__mro__) else "sample"

    @property
    def use_tensor_inputs(self) -> bool:  # type: ignore[override]  # the model's own
        """Whether the model wants tensors."""
        return bool(getattr(self._kind, "use_tensor_inputs", False))

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # the model's own
        """The class behind a path, and how it is set up."""
        return [self._kind, None if self.config is None else str(self.config)]

    @property
    def _kind(self) -> Any:
        if isinstance(self.model, str):
            if "." in self.model or ":" in self.model:
                return foreign_function(self.model, self.name)
            return imported("flow_factory.rewards", INSTALL).get_reward_model_class(self.model)
        return self.model if isinstance(self.model, type) else type(self.model)

    def load(self) -> None:
        """Make the model now."""
        self._made()

    def close(self) -> None:
        """Let go of a model that was made here."""
        if isinstance(self.model, (str, type)):
            self._opened = None

    def _made(self) -> Any:
        with self._opening:
            if self._opened is None:
                config = self.config
                if config is None or isinstance(config, Mapping):
                    arguments = imported("flow_factory.hparams", INSTALL).RewardArguments
                    config = arguments.from_dict({"reward_model": str(self.model), **(config or {})})
                accelerator = self.accelerator
                if accelerator is None:
                    accelerator = imported("accelerate", "pip install accelerate").Accelerator()
                self._opened = self._kind(config, accelerator)
            return self._opened

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Call the model as Flow-Factory does."""
        model = self._made()
        output = model(**_columns(model, samples))
        extra = getattr(output, "extra_info", None)
        scores = getattr(output, "rewards", output)
        if hasattr(scores, "detach"):
            scores = scores.detach().double().cpu().numpy()
        if not hasattr(scores, "__len__") or len(scores) != len(samples):
            raise ContractError(
                f"{type(model).__name__} gave {brief(scores)} for {len(samples)} samples; a reward model gives one "
                "score a sample",
                reward=self.name,
            )
        notes = {
            key: values
            for key, values in (extra.items() if isinstance(extra, Mapping) else ())
            if isinstance(values, (list, tuple)) and len(values) == len(samples)
        }
        if not notes:
            return scores
        return [
            RewardOutput(score, metadata={key: values[row] for key, values in notes.items()})
            for row, score in enumerate(scores)
        ]


class FlowFactoryGroupServer(RemoteReward):
    """A reward behind a Flow-Factory server that is asked about one whole group a request.

    What ``RemoteGroupwiseRewardModel`` is in a training file of Flow-Factory.

    Args:
        server_url: As for `RemoteReward`.
        required_fields: What is sent.
        token: As for `RemoteReward`.
        timeout: Seconds for one request.
        retry_attempts: As for `RemoteReward`.
        wait_for_server: As for `RemoteReward`.
        **options: Of every reward; see `RewardFunction`.

    Examples:
        >>> FlowFactoryGroupServer("http://127.0.0.1:8000").scope
        'group'
    """

    def __init__(
        self,
        server_url: str | Sequence[str],
        *,
        required_fields: Sequence[str] = ("prompt", "image"),
        token: str | LeftBehind | None = None,
        timeout: float = 120.0,
        retry_attempts: int = 3,
        wait_for_server: float = 60.0,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(
            server_url,
            "flow_factory",
            required_fields=required_fields,
            token=token,
            timeout=timeout,
            retry_attempts=retry_attempts,
            wait_for_server=wait_for_server,
            **options,
        )

    @property
    def scope(self) -> str:  # type: ignore[override]  # as the base's
        """Of groups."""
        return "group"


def _columns(model: Any, samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """What is passed to the model: the fields that its signature names, where all samples have them."""
    parameters = inspect.signature(model.__call__).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {parameter.name for parameter in parameters}
    wanted = [field for field in _FIELDS if takes_any or field in named]
    columns: dict[str, list[Any]] = {}
    for field in wanted:
        values = [getattr(sample, field) for sample in samples]
        if all(value is not None for value in values):
            columns[field] = [sample.prompt_text for sample in samples] if field == "prompt" else values
    shared = set.intersection(*(set(sample.metadata) for sample in samples))
    for key in sorted(shared & (named - {"metadata", *_FIELDS})):
        columns[key] = [sample.metadata[key] for sample in samples]
    if "metadata" in named or (takes_any and any(sample.metadata for sample in samples)):
        columns["metadata"] = [json.dumps(dict(sample.metadata), default=str) for sample in samples]
    return columns


def from_flow_factory(
    model: Any,
    config: Any = None,
    accelerator: Any = None,
    *,
    required_fields: Sequence[str] | None = None,
    **options: Unpack[RewardOptions],
) -> FlowFactoryModel:
    """A reward model of Flow-Factory as a reward; see `FlowFactoryModel` for the arguments.

    Examples:
        >>> from_flow_factory("my_package.rewards.Sharpness", {"dtype": "float32"}, required_fields=["image"]).name
        'Sharpness'
    """
    return FlowFactoryModel(model, config, accelerator, required_fields=required_fields, **options)
