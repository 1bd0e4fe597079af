"""Reward functions of flow_grpo, ddpo-pytorch and DiffusionNFT as rewards."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ComputeError, ConfigError, ContractError, brief, close_match
from flux_rewards.integrations.foreign import name_of_function
from flux_rewards.integrations.importing import foreign_function
from flux_rewards.media import images_to_pil
from flux_rewards.threads import RenewedLock
from flux_rewards.validation import number, one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FlowGRPOFunction", "from_flow_grpo"]

_FIELDS = ("image", "video", "prompt", "condition_images")


class FlowGRPOFunction(RewardFunction):
    """A function ``fn(images, prompts, metadata) -> (scores, info)`` as a reward.

    Args:
        function: The function, its dotted path, or that of its file, ``"rewards.py:name"``; with `factory`, what
            gives it.
        images: How it wants them, which its code alone says: ``"nchw"``, the default, a float32 tensor (N, 3, H, W) in
            [0, 1], as flow_grpo passes, or ``"nhwc"``, a uint8 array (N, H, W, 3), as ddpo-pytorch's own functions take
            (and numbers such as means are 255 times larger). Videos have an axis more, after the first. Samples of
            different sizes are scored in calls of their own, since a tensor holds but one size.
        factory: Whether `function` is called first, once, for the function that scores, as flow_grpo's
            ``pickscore_score(device)`` is.
        device: For a factory that takes one.
        total: The key of the score where the function gives a dict, as ``multi_score`` does.
        not_applicable: The number that stands for "does not apply", such as flow_grpo's -10; None for none.
        required_fields: What a sample must have: ``image`` or ``video``, ``prompt``, ``condition_images`` (of which the
            first is passed as ``ref_images``).
        **options: Of every reward; see `RewardFunction`.

    The metadata of the samples are passed as a list of mappings; `only_strict` as the function has it. Scores may be a
    list, an array, a tensor, or the five values of GenEval, whose second to third are kept as metadata. Other keys of a
    dict, and of the info, are parts where they have one number a sample, and metadata where they have one of anything
    else. A NaN is a failure; in a part it says that the part does not apply.

    Raises:
        ConfigError: An argument is none of its values.
        ContractError: On a call, the function gave another number of scores.

    Pickles where `function` does: one within a factory does not; name the factory instead.

    Examples:
        >>> def brightness(images, prompts, metadata):
        ...     return images.mean((1, 2, 3)), {}
        >>> FlowGRPOFunction(brightness, images="nhwc")(prompt=["a"], image=[np.full((2, 2, 3), 51, np.uint8)]).rewards
        array([51.])
    """

    optional_fields = ("metadata",)

    def __init__(
        self,
        function: Callable[..., Any] | str,
        images: str = "nchw",
        *,
        factory: bool = False,
        device: str | None = None,
        total: str = "avg",
        not_applicable: float | None = None,
        required_fields: Sequence[str] = ("image", "prompt"),
        **options: Unpack[RewardOptions],
    ) -> None:
        given: Any = function
        if not callable(given) and not isinstance(given, str):
            found = f"found {brief(function)}"
            raise ConfigError(f"function must be callable or a dotted path, {found}", reward="FlowGRPOFunction")
        options.setdefault("name", name_of_function(function) or type(self).__name__)
        super().__init__(**options)
        self.function = function
        self.images = one_of(images, "images", self.name, ("nchw", "nhwc"))
        self.factory, self.device, self.total = factory, device, total
        if device is not None and not factory:
            raise ConfigError("device is for a factory; give factory=True, or leave it out", reward=self.name)
        self.not_applicable = None if not_applicable is None else number(not_applicable, "not_applicable", self.name)
        for field in required_fields:
            if field not in _FIELDS:
                known = ", ".join(_FIELDS)
                raise ConfigError(
                    f"required_fields may hold {known}, found {field!r}{close_match(field, _FIELDS)}", reward=self.name
                )
        if ("image" in required_fields) == ("video" in required_fields):
            raise ConfigError("required_fields needs one of image and video", reward=self.name)
        self.required_fields = tuple(required_fields)
        self.media_form = "float" if images == "nchw" else "pil"
        self._opening = RenewedLock()
        self._opened: Callable[..., Any] | None = None

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # the code behind a path
        """The function itself."""
        return [foreign_function(self.function, self.name)]

    def load(self) -> None:
        """Make the function now, where a factory gives it."""
        self._scorer()

    def close(self) -> None:
        """Let go of what a factory made."""
        self._opened = None

    def _scorer(self) -> Callable[..., Any]:
        with self._opening:
            if self._opened is None:
                found = foreign_function(self.function, self.name)
                if self.factory:
                    found = found(self.device) if _takes(found, "device") else found()
                self._opened = found
            return self._opened

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Call the function, once for each size of images."""
        field = "image" if "image" in self.required_fields else "video"
        stacks: dict[Any, list[int]] = {}
        pixels = [_array(getattr(sample, field)) for sample in samples]
        for row, array in enumerate(pixels):
            stacks.setdefault((tuple(array.shape), str(getattr(array, "device", ""))), []).append(row)
        scores: list[Any] = [None] * len(samples)
        for rows in stacks.values():
            found = self._called([pixels[row] for row in rows], [samples[row] for row in rows])
            for row, score in zip(rows, found, strict=True):
                scores[row] = score
        return scores

    def _called(self, pixels: Sequence[Any], samples: Sequence[Sample]) -> list[RewardOutput | Exception]:
        function = self._scorer()
        given: dict[str, Any] = {}
        if "condition_images" in self.required_fields:
            given["ref_images"] = [images_to_pil(sample.condition_images)[0] for sample in samples]
        if _takes(function, "only_strict"):
            given["only_strict"] = True
        prompts = [sample.prompt_text if sample.prompt is not None else "" for sample in samples]
        answer = function(_stacked(pixels), prompts, [dict(sample.metadata) for sample in samples], **given)
        columns: dict[str, Any] = {}
        notes: Mapping[str, Any] = {}
        if isinstance(answer, tuple) and len(answer) == 5:  # GenEval
            answer, notes = answer[0], {"rewards": answer[1], "strict_rewards": answer[2]}
        elif isinstance(answer, tuple):
            info = answer[1] if len(answer) > 1 and isinstance(answer[1], Mapping) else {}
            columns, answer = {str(name): values for name, values in info.items()}, answer[0]
        if isinstance(answer, Mapping):
            if self.total not in answer:
                known = ", ".join(map(str, answer))
                raise ContractError(f"the function gave no {self.total!r}; it gave {known}: name one of them as total")
            columns |= {str(name): values for name, values in answer.items() if name != self.total}
            answer = answer[self.total]
        return self._rows(answer, columns, notes, len(samples))

    def _rows(
        self, answer: Any, columns: Mapping[str, Any], notes: Mapping[str, Any], count: int
    ) -> list[RewardOutput | Exception]:
        scores = _plain(answer)
        if scores is None or len(scores) != count:
            raise ContractError(f"the function gave {brief(answer)} for {count} samples; expected one score a sample")
        lists = {name: values for name, given in columns.items() if (values := _plain(given, count)) is not None}
        parts = {name: values for name, values in lists.items() if all(map(_is_number, values))}
        kept = {name: values for name, given in notes.items() if (values := _plain(given, count)) is not None}
        kept |= {name: values for name, values in lists.items() if name not in parts}
        return [
            self._row(
                score, {name: values[row] for name, values in parts.items()}, {n: v[row] for n, v in kept.items()}
            )
            for row, score in enumerate(scores)
        ]

    def _row(self, score: Any, parts: Mapping[str, Any], notes: Mapping[str, Any]) -> RewardOutput | Exception:
        own = {name: None if _is_nan(value) else self._applied(value) for name, value in parts.items()}
        for name, value in own.items():
            if value is not None and math.isinf(value):
                return ComputeError(f"the function gave {value} for {name!r}, not a finite score")
        return RewardOutput(self._applied(score), metadata=notes, parts=own)  # type: ignore[arg-type]

    def _applied(self, score: Any) -> float | None:
        return None if score is None or score == self.not_applicable else float(score)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def from_flow_grpo(function: Callable[..., Any] | str, images: str = "nchw", **options: Any) -> FlowGRPOFunction:
    """A reward function of flow_grpo, ddpo-pytorch or DiffusionNFT as a reward; see `FlowGRPOFunction`.

    It is given float tensors (N, 3, H, W) in [0, 1] unless `images` is ``"nhwc"``: uint8 arrays (N, H, W, 3).

    Examples:
        >>> from_flow_grpo("flow_grpo.rewards.pickscore_score", factory=True, device="cuda").name
        'pickscore_score'
    """
    return FlowGRPOFunction(function, images, **options)


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a builtin
        return False


def _array(pixels: Any) -> Any:
    """One sample's pixels: a tensor as it is, PIL images as uint8 (H, W, 3) or (T, H, W, 3)."""
    if hasattr(pixels, "detach"):
        return pixels
    return np.stack([np.asarray(frame) for frame in pixels]) if isinstance(pixels, list) else np.asarray(pixels)


def _stacked(pixels: Sequence[Any]) -> Any:
    if isinstance(pixels[0], np.ndarray):
        return np.stack(pixels)
    import torch  # noqa: PLC0415  # loaded already

    return torch.stack(list(pixels))


def _plain(values: Any, count: int | None = None) -> list[Any] | None:
    """A list, from an array or a tensor on any device, too; None for what is none, or of another length."""
    if hasattr(values, "detach"):
        values = values.detach().double().cpu()
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, (list, tuple)) or count not in (None, len(values)):
        return None
    return [value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value for value in values]
