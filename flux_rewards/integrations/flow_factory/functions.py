"""Flow-Factory: rewards as its reward models, and its reward models as rewards.

The contract is that of Flow-Factory at a0b2bc5 (``rewards/abc.py``, ``rewards/reward_processor.py``): a reward model is
called by keyword with the fields that its signature names, each a list, a batch at a time, or one whole group.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, ContractError, InputError, brief
from flux_rewards.integrations.batches import batch_numbers, check_reward, part_numbers
from flux_rewards.integrations.columns import Columns
from flux_rewards.integrations.flow_factory.foreign import INSTALL, FlowFactoryModel, from_flow_factory
from flux_rewards.integrations.importing import imported
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.tree import fields_read

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample

__all__ = ["FlowFactoryModel", "from_flow_factory", "reward_model_class"]

_FIELDS = ("prompt", "image", "video", "condition_images", "condition_videos", "metadata")
"""What Flow-Factory has of a sample's fields, under the same names."""


def reward_model_class(
    reward: RewardFunction,
    *,
    fields: Mapping[str, str | None] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
    name: str | None = None,
) -> type:
    """A reward model for Flow-Factory: a class, to be named in its YAML by the dotted path.

    In a module of your own write ``MyReward = flow_factory.reward_model_class(reward)``, and in the training file
    ``reward_model: my_module.MyReward``. It is a ``PointwiseRewardModel``, or for a reward of groups a
    ``GroupwiseRewardModel``, which Flow-Factory calls with one whole group at a time.

    Flow-Factory passes what the signature of a reward model names; this one names what the reward reads: its
    `required_fields`, for a reward of samples also its `optional_fields`, and the columns of `fields`. Media come as
    tensors in [0, 1], unrounded, and are read when the reward asks for them.

    Args:
        reward: The reward. It keeps its own device, precision and batch size: those of the YAML entry hold for what
            Flow-Factory does around it, such as how many samples a call has.
        fields: Column by field, ``{"reference": "answer"}``: a column is an attribute of Flow-Factory's samples,
            or a key of the JSON in their ``metadata``, where the other columns of the data set are.
        not_applicable: The number for a sample to which the reward does not apply; without it that is an error, since
            Flow-Factory takes a NaN for a score.
        on_error: The number for a sample that failed; without it the error is raised.
        name: The class's name, where it is to be pickled that of the variable; the reward's own by default.

    Returns:
        The class. Its instances give ``RewardModelOutput(rewards, extra_info)``: float32 (B,) on the CPU, and the
        parts by name.

    Raises:
        MissingDependencyError: Flow-Factory cannot be imported.
        ConfigError: `reward` is none, or reads a field that Flow-Factory has not, such as `response`.

    Does not share weights between classes: name one class for training and evaluation, and Flow-Factory makes one
    object of it. A remote reward is asked at once what it reads.

    Examples:
        >>> from flux_rewards import JPEGCompressibility
        >>> MyReward = reward_model_class(JPEGCompressibility())  # doctest: +SKIP
    """
    adapter = "flow_factory.reward_model_class"
    check_reward(reward, adapter)
    numbers = Numbers(not_applicable, on_error, adapter)
    columns = Columns({field: field for field in _FIELDS}, fields, adapter, reward)
    names = _arguments(reward, columns)
    bases = imported("flow_factory.rewards", INSTALL)
    base = bases.GroupwiseRewardModel if reward.scope == "group" else bases.PointwiseRewardModel
    output = bases.RewardModelOutput

    def call(self: Any, *args: Any, **given: Any) -> Any:  # noqa: ARG001  # a method
        """Score a batch, or one whole group."""
        import torch  # noqa: PLC0415  # only those who score pay for it

        bound = signature.bind(None, *args, **given).arguments
        samples = _samples({key: value for key, value in bound.items() if key != "self"}, columns, reward)
        batch, values = batch_numbers(reward, samples, numbers)
        parts = {part: scores.tolist() for part, scores in part_numbers(batch, numbers).items()}
        return output(rewards=torch.tensor(values, dtype=torch.float32), extra_info={"parts": parts})

    parameter = inspect.Parameter
    signature = inspect.Signature(
        [parameter("self", parameter.POSITIONAL_OR_KEYWORD)]
        + [parameter(argument, parameter.POSITIONAL_OR_KEYWORD, default=None) for argument in names]
    )
    call.__name__, call.__qualname__ = "__call__", f"{name or reward.name}.__call__"
    vars(call)["__signature__"] = signature
    made: type = type(base)(
        name or reward.name,
        (base,),
        {
            "__call__": call,
            "__doc__": f"{reward!r} as a reward model of Flow-Factory.",
            "__module__": sys._getframe(1).f_globals.get("__name__", __name__),  # noqa: SLF001  # whose variable it is
            "required_fields": names,
            "use_tensor_inputs": True,
            "reward": reward,
        },
    )
    return made


def _arguments(reward: RewardFunction, columns: Columns) -> tuple[str, ...]:
    """The names that the model's signature has."""
    given = {field: column for field, column in columns.given.items() if column is not None}
    read = fields_read(reward)
    for field in read.needed:
        if field not in given and field not in _FIELDS:
            raise ConfigError(
                f"needs {field!r}, which Flow-Factory's samples have under no name of its own; say which column it "
                f"is: fields={{{field!r}: 'column'}}",
                reward=reward.name,
            )
    # What is gathered from other processes is what is required, and no more.
    wanted = read.needed if reward.scope == "group" else _FIELDS if read.anything else read.named
    own = [field for field in _FIELDS if field in wanted and columns.given.get(field, field) == field]
    asked = list(given.values())
    # Other columns of a data set come as JSON in the metadata.
    metadata = [] if set(asked) <= set(_FIELDS) else ["metadata"]
    return tuple(dict.fromkeys([*own, *asked, *metadata]))


def _samples(given: Mapping[str, Any], columns: Columns, reward: RewardFunction) -> list[Sample]:
    there = {name: values for name, values in given.items() if values is not None}
    if "metadata" in there:
        there = _spread(there, columns, reward)
    read = fields_read(reward)
    needed = {**{field: columns.given.get(field, field) for field in read.required}, **columns.given}
    for field, column in needed.items():
        if column is None or column in there:
            continue
        if field in read.required or field not in read.needed:
            raise _absent(field, reward)
        there[column] = [None] * max(map(len, there.values()), default=0)  # a reward that does not apply to them
    lengths = {name: len(values) for name, values in there.items()}
    if len(set(lengths.values())) != 1:
        found = f"lists of different lengths: {lengths}" if lengths else "nothing"
        raise ContractError(f"Flow-Factory passed {found}; expected one entry a sample", reward=reward.name)
    samples = columns.samples(there, next(iter(lengths.values())))
    if reward.scope != "group":
        return samples
    return [replace(sample, group_id="group") for sample in samples]  # each call is one group


def _spread(there: Mapping[str, Any], columns: Columns, reward: RewardFunction) -> dict[str, Any]:
    """The columns, with those that are asked for and stand in the metadata."""
    metadata = [_parsed(entry, row, reward) for row, entry in enumerate(there["metadata"])]
    found = {
        column: [entry.get(column) for entry in metadata]
        for column in columns.given.values()
        if column is not None and any(column in entry for entry in metadata)
    }
    return {**found, **there, "metadata": metadata}


def _absent(field: str, reward: RewardFunction) -> InputError:
    return InputError(
        "Flow-Factory passed no such column; it passes one only where every sample of the batch has it",
        reward=reward.name,
        field=field,
    )


def _parsed(metadata: Any, row: int, reward: RewardFunction) -> Mapping[str, Any]:
    """The metadata of a sample, which later versions pass as JSON."""
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except ValueError:
            metadata = brief(metadata)
    if not isinstance(metadata, Mapping):
        message = f"expected a mapping, or JSON of one, found {brief(metadata)}"
        raise InputError(message, reward=reward.name, field="metadata", index=row)
    return metadata
