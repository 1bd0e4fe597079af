"""Flow-Factory's side of its contract, written out after reading a0b2bc5; the package itself is not installed here.

What a reward model is, how its arguments are held, and how the processor calls it: by keyword, with what the signature
names and all samples have, media in the form that the model asks for, on batches or on whole groups.
"""

import abc
import inspect
import sys
import types
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from flux_rewards import media

MEDIA = ("image", "video", "condition_images", "condition_videos")


class RewardModelOutput(dict[str, Any]):
    """As diffusers' outputs: a mapping whose keys are attributes, too."""

    def __init__(self, rewards: Any, extra_info: Any = None) -> None:
        super().__init__(rewards=rewards, extra_info=extra_info)
        self.rewards, self.extra_info = rewards, extra_info


@dataclass
class RewardArguments:
    name: str = "default"
    reward_model: str | None = None
    weight: float = 1.0
    dtype: Any = "bfloat16"
    device: Any = "cuda"
    batch_size: int = 16
    async_reward: bool = False
    num_workers: int = 1
    extra_kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> "RewardArguments":
        known = {key: value for key, value in given.items() if key in cls.__dataclass_fields__}
        return cls(**known, extra_kwargs={key: value for key, value in given.items() if key not in known})


class BaseRewardModel(abc.ABC):
    required_fields: tuple[str, ...] = ()
    use_tensor_inputs = False

    def __init__(self, config: Any, accelerator: Any) -> None:
        self.config, self.accelerator = config, accelerator
        self.device = torch.device("cpu")
        self.dtype = config.dtype
        self.model = None

    @abc.abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class PointwiseRewardModel(BaseRewardModel):
    required_fields: tuple[str, ...] = ("image", "prompt")


class GroupwiseRewardModel(BaseRewardModel):
    required_fields: tuple[str, ...] = ("image", "prompt")


@dataclass
class FlowSample:
    """One of Flow-Factory's samples: media are tensors, other columns of the data set are JSON."""

    prompt: str | None = None
    image: Any = None
    video: Any = None
    audio: Any = None
    condition_images: Any = None
    condition_videos: Any = None
    unique_id: int = 0
    all_latents: Any = "latents that no reward may ask for"
    extra_kwargs: dict[str, Any] = field(default_factory=dict)

    def columns(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "extra_kwargs"}
        return {**own, **self.extra_kwargs}


def wanted(model: Any, sample: FlowSample) -> list[str]:
    """The fields that the model's signature names; all of them where it takes any."""
    parameters = inspect.signature(model.__call__).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return list(sample.columns())
    return [parameter.name for parameter in parameters if parameter.name in sample.columns()]


def in_form(name: str, values: list[Any], model: Any) -> list[Any]:
    """Media as the model asks for them."""
    if name not in MEDIA:
        return values
    if model.use_tensor_inputs:
        return values
    return [media.read_media(name, value, "pil", media.Place(name)) for value in values]


def called(model: Any, samples: list[FlowSample]) -> torch.Tensor:
    """One call of a reward model."""
    columns = {name: [sample.columns()[name] for sample in samples] for name in wanted(model, samples[0])}
    there = {name: in_form(name, values, model) for name, values in columns.items() if None not in map(_none, values)}
    output = model(**there)
    scores = output.rewards if hasattr(output, "rewards") else output
    return torch.as_tensor(scores, device="cpu", dtype=torch.float32)


def _none(value: Any) -> Any:
    return None if value is None else True


def processed(model: Any, samples: list[FlowSample]) -> torch.Tensor:
    """What the processor has for the samples: by batch, or by group."""
    if isinstance(model, GroupwiseRewardModel):
        groups: dict[int, list[int]] = defaultdict(list)
        for position, sample in enumerate(samples):
            groups[sample.unique_id].append(position)
        scores = torch.zeros(len(samples))
        for positions in groups.values():
            scores[positions] = called(model, [samples[position] for position in positions])
        return scores
    size = model.config.batch_size
    return torch.cat([called(model, samples[start : start + size]) for start in range(0, len(samples), size)])


def pixels(seed: int, *shape: int) -> torch.Tensor:
    """Values on the 256 levels of a PIL image."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator).float() / 255


def picture(seed: int, size: int = 16) -> Image.Image:
    """The same pixels as PIL."""
    return media.to_pil(pixels(seed, 3, size, size))


class Warmth(PointwiseRewardModel):
    """A reward model that other modules name by its path."""

    use_tensor_inputs = True

    def __call__(self, prompt: list[str], image: Any) -> Any:
        offset = self.config.extra_kwargs["offset"]
        return torch.stack([one[0].mean() + len(text) + offset for text, one in zip(prompt, image, strict=True)])


REGISTRY: dict[str, type] = {}


@contextmanager
def installed() -> Iterator[None]:
    """As if Flow-Factory could be imported."""
    package, rewards, hparams = (types.ModuleType(f"flow_factory{name}") for name in ("", ".rewards", ".hparams"))
    for kind in (BaseRewardModel, PointwiseRewardModel, GroupwiseRewardModel, RewardModelOutput):
        setattr(rewards, kind.__name__, kind)
    rewards.get_reward_model_class = lambda name: REGISTRY[name.lower()]  # type: ignore[attr-defined]
    hparams.RewardArguments = RewardArguments  # type: ignore[attr-defined]
    modules = {module.__name__: module for module in (package, rewards, hparams)}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
