"""flow_grpo, ddpo-pytorch, DiffusionNFT and their forks: ``fn(images, prompts, metadata) -> (scores, info)``.

The contract is that of flow_grpo at ac4c86e and 54809b5, ddpo-pytorch at 1958463 and DiffusionNFT at 24af555. Images
are a float tensor (N, C, H, W) in [0, 1] or a uint8 array (N, H, W, C); videos have one axis more, after the first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.base import RewardFunction
from flux_rewards.errors import ComputeError, ConfigError, InputError, brief
from flux_rewards.gradients import not_differentiable
from flux_rewards.integrations.batches import batch_numbers, check_reward, part_numbers
from flux_rewards.integrations.columns import Columns
from flux_rewards.integrations.flow_grpo.foreign import FlowGRPOFunction, from_flow_grpo
from flux_rewards.integrations.numbers import Numbers
from flux_rewards.parameters import accepted_parameters
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    import torch

    from flux_rewards.data import Sample

__all__ = ["FlowGRPOFunction", "differentiable_reward_fn", "from_flow_grpo", "reward_fn", "score_factory"]

_DEFAULTS = {"prompts": "prompt", "images": "image", "videos": "video", "ref_images": "condition_images"}
_GROUPS = (
    "{} sees the batch of one process, which may hold half a group; leave the comparison to the trainer, which "
    "subtracts the mean of each prompt, or gather groups with flux_rewards.integrations.distributed"
)


def reward_fn(
    reward: RewardFunction,
    *,
    form: str = "scores",
    fields: Mapping[str, str | None] | None = None,
    not_applicable: float | None = None,
    on_error: float | None = None,
) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """The function that a trainer calls: ``fn(images, prompts, metadata, ref_images=None, only_strict=True)``.

    Args:
        reward: The reward.
        form: ``"scores"``: the scores, and the parts as info, as the trainers' single rewards do; ``"dict"``:
            ``{part: scores, ..., "avg": total}`` and an empty info, as flow_grpo's ``multi_score`` does.
        fields: Column by field: ``{"reference": "answer"}``. Columns are ``prompts``, ``images``, ``ref_images``
            and the keys of the metadata.
        not_applicable: The number for a sample to which the reward does not apply (flow_grpo's own is -10); without it
            that is an error. A part that does not apply is NaN without it, and decides nothing.
        on_error: The number for a sample that failed; without it the error is raised.

    Returns:
        A plain function. Scores are float64 arrays (N,). Images stay where they are, one view a sample, until the
        reward reads them; of five axes they are videos. `ref_images` are condition images, one or a list a sample.

    Raises:
        ConfigError: It is no reward, or one of groups, or a part is called ``avg`` in the form of that name.

    Does not pickle, being a function within one: name it in a module of your own. `only_strict` is taken, and means
    nothing: it is of GenEval's server.

    Examples:
        >>> from flux_rewards import JPEGCompressibility
        >>> fn = reward_fn(JPEGCompressibility())
        >>> scores, info = fn(np.zeros((2, 32, 32, 3), np.uint8), ["a cat", "a dog"], [{}, {}])
        >>> scores.shape, info
        ((2,), {})
    """
    adapter = "flow_grpo.reward_fn"
    check_reward(reward, adapter, groups=_GROUPS.format(adapter))
    one_of(form, "form", adapter, ("scores", "dict"))
    numbers = Numbers(not_applicable, on_error, adapter)
    columns = Columns(_DEFAULTS, fields, adapter, reward)
    if form == "dict" and "avg" in getattr(reward, "weights", {}):
        raise ConfigError("a part is called 'avg', the trainer's name for the total; rename it", reward=reward.name)

    def fn(
        images: Any,
        prompts: Sequence[str],
        metadata: Any = None,
        ref_images: Any = None,
        only_strict: bool = True,  # noqa: ARG001  # of the contract
    ) -> tuple[Any, dict[str, Any]]:
        """Score a batch."""
        samples = _samples(columns, images, prompts, metadata, ref_images)
        batch, values = batch_numbers(reward, samples, numbers)
        parts = dict(part_numbers(batch, numbers))
        scores = np.array(values, dtype=np.float64)
        return (scores, parts) if form == "scores" else ({**parts, "avg": scores}, {})

    return fn


def score_factory(
    make: RewardFunction | Callable[[Any], RewardFunction], **options: Any
) -> Callable[..., Callable[..., tuple[Any, dict[str, Any]]]]:
    """What stands in a trainer's table of scores: ``factory(device)``, or ``factory()``, gives the function.

    flow_grpo passes the device to a plain function whose code names it, as this one's does; ddpo-pytorch passes none.

    Args:
        make: The reward; or what makes it: its class, or ``lambda device: PickScore(device=device)``. A parameter
            called ``device`` is told the device; a function's first one, whatever it is called, is too.
        **options: As for `reward_fn`.

    Examples:
        >>> from flux_rewards import JPEGCompressibility
        >>> jpeg = score_factory(JPEGCompressibility())
        >>> "device" in jpeg.__code__.co_varnames
        True
        >>> jpeg("cuda")(np.zeros((1, 8, 8, 3), np.uint8), ["a cat"], [{}])[0].shape
        (1,)
    """
    if isinstance(make, RewardFunction):
        reward_fn(make, **options)  # what is wrong is said before the training begins
    elif not callable(make):
        raise ConfigError(f"flow_grpo.score_factory: expected a reward or what makes one, found {brief(make)}")

    def factory(device: Any = None) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """The function for a device."""
        reward = make if isinstance(make, RewardFunction) else _made(make, None if device is None else str(device))
        return reward_fn(reward, **options)

    return factory


def _made(make: Callable[..., RewardFunction], device: str | None) -> RewardFunction:
    try:
        named = accepted_parameters(make)
    except (TypeError, ValueError):  # of a builtin
        return make(device)
    if "device" in named and named["device"].kind is not inspect.Parameter.POSITIONAL_ONLY:
        return make(device=device)
    return make() if isinstance(make, type) or not named else make(device)  # a class's first parameter is another


def differentiable_reward_fn(
    reward: RewardFunction, *, fields: Mapping[str, str | None] | None = None, not_applicable: float | None = None
) -> Callable[..., tuple[torch.Tensor, Any]]:
    """The form of AlignProp and of TRL's former trainers, with a gradient: ``fn(images, prompts, metadata)``.

    Args:
        reward: A differentiable reward.
        fields: Column by field, beside images and prompts: ``{"condition_images": "source"}`` for a key of the
            metadata.
        not_applicable: The number, without a gradient, for a sample to which the reward does not apply; without it that
            is an error.

    Returns:
        A function that takes float images (N, 3, H, W) in [0, 1], or videos (N, T, 3, H, W), and gives ``(rewards,
        metadata)``: float32 (N,) with a gradient to the pixels, and the metadata as they came.

    Raises:
        ConfigError: The reward is not differentiable.

    Examples:
        >>> from flux_rewards import CLIPScore
        >>> loss_of = differentiable_reward_fn(CLIPScore())
    """
    adapter = "flow_grpo.differentiable_reward_fn"
    check_reward(reward, adapter, groups=_GROUPS.format(adapter))
    if not reward.differentiable:
        raise ConfigError(
            f"has no gradient to the pixels: {not_differentiable(reward)} is not differentiable; use reward_fn",
            reward=reward.name,
        )
    number = Numbers(not_applicable, None, adapter).not_applicable
    columns = Columns(_DEFAULTS, fields, adapter, reward)

    def fn(images: torch.Tensor, prompts: Sequence[str], metadata: Any = None) -> tuple[torch.Tensor, Any]:
        """Score a batch, with a gradient."""
        import torch  # noqa: PLC0415  # loaded already

        samples = _samples(columns, images, prompts, metadata, None)
        given = [field for field, column in columns.given.items() if column is not None and field != "prompt"]
        scores = reward.forward(
            images,
            [sample.prompt_text for sample in samples],
            **{field: [getattr(sample, field) for sample in samples] for field in given},
        )
        absent = torch.isnan(scores)
        if not bool(absent.any()):
            return scores, metadata
        if number is None:
            raise ComputeError(
                f"the reward does not apply to this sample, and {adapter} has no word for that: give "
                "not_applicable=... to choose a number",
                reward=reward.name,
                index=int(absent.nonzero()[0]),
            )
        return torch.where(absent, number, scores), metadata

    return fn


def _samples(columns: Columns, images: Any, prompts: Any, metadata: Any, ref_images: Any) -> list[Sample]:
    """Samples whose media are views of the trainer's own tensors."""
    if isinstance(prompts, (str, bytes)) or not hasattr(prompts, "__len__"):
        raise InputError(f"{columns.adapter}: expected a list of prompts, found {brief(prompts)}", field="prompt")
    count = len(prompts)
    notes = [{}] * count if metadata is None else list(metadata)
    for row, entry in enumerate(notes):
        if not (entry is None or isinstance(entry, Mapping)):
            message = f"{columns.adapter}: expected a mapping a sample, found {brief(entry)}"
            raise InputError(message, field="metadata", index=row)
    media = {"images" if _axes(images) != 5 else "videos": images, "ref_images": ref_images}
    given = {"prompts": prompts, **{name: values for name, values in media.items() if values is not None}}
    for name, values in [*given.items(), ("metadata", notes)]:
        if len(values) != count:
            raise InputError(f"{columns.adapter}: {len(values)} {name} for {count} prompts; expected one a prompt")
    keys = dict.fromkeys(key for entry in notes if entry for key in entry)
    table = {key: [(entry or {}).get(key) for entry in notes] for key in keys}
    table.update({name: [values[row] for row in range(count)] for name, values in given.items()})
    return columns.samples(table, count)


def _axes(images: Any) -> int:
    return int(getattr(images, "ndim", 4))
