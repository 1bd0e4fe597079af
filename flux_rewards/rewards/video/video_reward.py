"""Any image reward on the frames of videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ComputeError, ConfigError, FluxRewardsError, InputError, brief
from flux_rewards.gradients import check_pixels
from flux_rewards.media import Place, check_frames, chosen_frames, raw_frames
from flux_rewards.validation import one_of
from flux_rewards.views import position_of
from flux_rewards.wrappers.mask_errors import MaskErrors
from flux_rewards.wrappers.wrapper import CallWrapper

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from flux_rewards.chunks import Chunk, Proceed
    from flux_rewards.contract import Scored

__all__ = ["VideoReward"]

_FRAMES_AT_ONCE = 512  # in memory; the image reward cuts them into batches of its own


class VideoReward(RewardFunction):
    """Scores videos by an image reward on their frames, all videos' frames together in full batches.

    Args:
        reward: A reward of images; its `batch_size` is how many frames it sees at once.
        frames: ``"all"``, ``"first"``, ``"last"``, a number of frames spread evenly over the video, or a list of
            positions (negative ones count from the end).
        reduce: What becomes of the frames' scores: ``"mean"`` (Flow-Factory's PickScore on videos), ``"min"`` or
            ``"max"``.
        **options: Of every reward; see `RewardFunction`.

    Frames to which the reward does not apply are left out; where it applies to none, the video has no score. A frame
    that fails makes its video fail, and no other. Metadata: ``frames``, which were scored, and ``frame_rewards``.

    Differentiable where the reward is, with ``forward(pixels, prompts)`` on (N, T, 3, H, W).

    Raises:
        ConfigError: The reward compares a group (put that around this one), or an argument is not one of its values.

    Does not look at what is between frames; see `TemporalFlicker`, `FrameConsistency` and `MotionAmount`. Frames of
    a file are decoded as they are needed, and only those chosen are kept.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> brightness = FunctionReward(lambda sample: np.asarray(sample.image).mean() / 255, name="brightness")
        >>> clip = np.stack([np.full((8, 8, 3), level, dtype=np.uint8) for level in (0, 51, 102)])
        >>> VideoReward(brightness, reduce="max")(video=[clip]).rewards
        array([0.4])
    """

    optional_fields: Sequence[str] | None = None
    media_form = "given"
    example_config: ClassVar[Mapping[str, Any]] = {"reward": {"reward_model": "jpeg_compressibility"}}

    def __init__(
        self,
        reward: RewardFunction,
        frames: str | int | Sequence[int] = "all",
        reduce: str = "mean",
        **options: Unpack[RewardOptions],
    ) -> None:
        if not isinstance(reward, RewardFunction):
            raise ConfigError(f"reward must be a reward, found {brief(reward)}", reward="VideoReward")
        if options.get("name") is None:
            options["name"] = f"VideoReward({reward.name})"
        self.bounds = reward.bounds
        self.higher_is_better = reward.higher_is_better
        super().__init__(**options)
        if reward.scope == "group":
            raise ConfigError(
                f"{reward.name} compares the samples of a group, and frames are none; put it around this reward: "
                f"{type(reward).__name__}(VideoReward(...))",
                reward=self.name,
            )
        says = reward.optional_fields is not None
        if "video" in reward.required_fields or (says and "image" not in reward.required_fields):
            reads = ", ".join(reward.required_fields) or "no field that it names"
            raise ConfigError(f"reward must be one that reads an image; {reward.name} reads {reads}", reward=self.name)
        check_frames(frames, self.name)
        self.reward = reward
        self.frames = frames
        self.reduce = one_of(reduce, "reduce", self.name, ("mean", "min", "max"))
        if self.async_reward is None and not _may_run_beside(reward):
            self.async_reward = False
        needed = [field for field in reward.required_fields if field != "image"]
        self.required_fields = ("video", *(field for field in needed if field != "video"))
        others = reward.optional_fields
        self.optional_fields = None if others is None else tuple(field for field in others if field != "image")

    @property
    def differentiable(self) -> bool:  # type: ignore[override]  # not an author's choice here
        """Whether the image reward is."""
        return self.reward.differentiable

    @property
    def reference_is_media(self) -> bool:  # type: ignore[override]  # not an author's choice here
        """Whether the image reward's references are images."""
        return self.reward.reference_is_media

    def load(self) -> None:
        """Load the image reward."""
        self.reward.load()

    def close(self) -> None:
        """Close the image reward."""
        self.reward.close()

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One row a video."""
        rows: list[Any] = [None] * len(samples)
        for videos in self._videos(samples, rows):
            flat = [frame for _, _, frames in videos for frame in frames]
            causes: dict[int, FluxRewardsError] = {}
            batch = MaskErrors(_Witnessed(self.reward, causes), max_failure_rate=1.0)(flat)
            failed = {index: causes.get(index) or ComputeError(reason) for index, reason in batch.errors.items()}
            start = 0
            for row, numbers, frames in videos:
                end = start + len(frames)
                errors = {index - start: failed[index] for index in failed if start <= index < end}
                rows[row] = self._row(numbers, batch.rewards[start:end], errors)
                start = end
        return rows

    def _videos(
        self, samples: Sequence[Sample], rows: list[Any]
    ) -> Iterator[list[tuple[int, Sequence[int], list[Sample]]]]:
        """Row, numbers and samples of the chosen frames of each video, so many videos at a time."""
        held: list[tuple[int, Sequence[int], list[Sample]]] = []
        for row, sample in enumerate(samples):
            try:
                place = Place("video", position_of(sample), self.name)
                numbers, frames = raw_frames(sample.video, self.frames, place)
                for number, frame in zip(numbers, frames, strict=True):
                    if frame is None:
                        raise place.at("frame", number).error("expected an image, found None")  # noqa: TRY301
            except Exception as error:  # noqa: BLE001  # a failed row; the boundary raises or records it
                rows[row] = error
                continue
            held.append((row, numbers, [_frame_of(sample, frame) for frame in frames]))
            if sum(len(frames) for _, _, frames in held) >= _FRAMES_AT_ONCE:
                yield held
                held = []
        if held:
            yield held

    def _row(self, numbers: Sequence[int], rewards: NDArray[np.float64], errors: Mapping[int, FluxRewardsError]) -> Any:
        if errors:
            first = min(errors)
            more = f" (and {len(errors) - 1} more frames)" if len(errors) > 1 else ""
            return _of_frame(numbers[first], errors[first], more)
        applies = rewards[~np.isnan(rewards)]
        if not len(applies):
            return None
        score = float(getattr(applies, self.reduce)())
        each = [None if np.isnan(reward) else float(reward) for reward in rewards]
        return RewardOutput(score, metadata={"frames": list(numbers), "frame_rewards": each})

    def forward(
        self, pixels: torch.Tensor, prompts: Sequence[str] | None = None, **columns: Sequence[Any]
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, T, 3, H, W); see `RewardFunction.forward`."""
        import torch  # noqa: PLC0415  # loaded already

        if not self.differentiable:
            return super().forward(pixels, prompts, **columns)
        check_pixels(pixels, prompts, reward=self.name, ndim=5)
        numbers = chosen_frames(self.frames, pixels.shape[1], Place("pixels", None, self.name))
        each = len(numbers)
        flat = pixels[:, list(numbers)].flatten(0, 1)
        texts = None if prompts is None else _repeated(prompts, each)
        scores = self.reward.forward(flat, texts, **{name: _repeated(values, each) for name, values in columns.items()})
        scores = scores.view(len(pixels), each)
        applies = ~torch.isnan(scores)
        if self.reduce == "mean":
            reduced = torch.where(applies, scores, 0.0).sum(dim=1) / applies.sum(dim=1)  # 0 / 0 is NaN
        else:
            worst = torch.inf if self.reduce == "min" else -torch.inf
            kept = torch.where(applies, scores, worst)
            reduced = kept.amin(dim=1) if self.reduce == "min" else kept.amax(dim=1)
        return self.rescaled(torch.where(applies.any(dim=1), reduced, torch.nan))


def _may_run_beside(reward: RewardFunction) -> bool:
    """Whether no part of a tree says that it may not be computed beside the trainer."""
    return reward.async_reward is not False and all(map(_may_run_beside, reward.children))


class _Witnessed(CallWrapper):
    """Hands the errors of failed samples on, by their positions: what is masked keeps only their texts."""

    def __init__(self, reward: RewardFunction, causes: dict[int, FluxRewardsError]) -> None:
        super().__init__(reward)
        self._causes = causes

    def around(self, chunk: Chunk, proceed: Proceed) -> Scored:
        scored = proceed(chunk)
        for row, cause in scored.causes.items():
            self._causes.setdefault(chunk.positions[row], cause)
        return scored


def _of_frame(number: int, cause: FluxRewardsError, more: str) -> FluxRewardsError:
    """The failure of a video by that of a frame: of the same kind, and as transient."""
    text = f"frame {number}: {cause.reward}: {cause.args[0]}{more}"
    error = InputError(text, field="video") if isinstance(cause, InputError) else ComputeError(text)
    error.retryable, error.retry_after = cause.retryable, cause.retry_after
    error.__cause__ = cause
    return error


def _frame_of(sample: Sample, frame: Any) -> Sample:
    """What the image reward sees of a video: one frame, and all else as it is."""
    fields = {name: value for name, value in vars(sample).items() if not name.startswith("_")}
    fields |= vars(sample).get("_given", {})
    return Sample(**{**fields, "image": frame, "video": None, "group_id": None})


def _repeated(values: Sequence[Any], times: int) -> list[Any]:
    return [value for value in values for _ in range(times)]
