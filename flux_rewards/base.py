"""What a reward is."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from flux_rewards.contract import SETUP_ERRORS, Scored, locate, read_rows, reason
from flux_rewards.data import FIELDS, MEDIA_FIELDS, RewardBatch, RewardOutput, Sample
from flux_rewards.errors import ConfigError, ContractError, FluxRewardsError, InputError, brief
from flux_rewards.executor import default_executor
from flux_rewards.gradients import GradientPath
from flux_rewards.parameters import Parametrised
from flux_rewards.validation import interval, number, whole_number
from flux_rewards.views import MEDIA_FORMS, Reading, any_media, view_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["RewardFunction", "RewardOptions"]


_METHODS = {"compute_reward", "compute_rewards"}


class RewardOptions(TypedDict, total=False):
    """Keyword arguments that every reward of the library takes beside its own; see `RewardFunction`."""

    name: str
    batch_size: int | None
    num_workers: int
    async_reward: bool
    scale: float
    clip: float | tuple[float, float] | None


class RewardFunction(Parametrised, GradientPath):
    """Scores samples. Override ONE of `compute_reward` (one sample) and `compute_rewards` (many at once).

    Call it with samples, or with columns: ``reward(samples)``, ``reward(prompt=[...], image=[...])``. Either way
    the answer is a `RewardBatch`. A failure raises, with the reward's name and the sample's index.

    A constructor stores its arguments and does nothing else; weights and clients are made on the first call. A
    subclass need not call ``super().__init__()``.

    Attributes:
        required_fields: `Sample` fields that it reads; a missing one is an `InputError`.
        optional_fields: Others that it reads where they are there; None says that it may read any. Caches go by it.
        scope: ``"sample"``, or ``"group"`` to receive one whole group at a time, whatever the batch size.
        batch_size: Samples a call; None for all.
        num_workers: Calls in flight at once, over all threads and batches: 1 for a model on one GPU, many for an API.
        async_reward: Whether a buffer may compute it beside the trainer; None lets the buffer decide.
        use_tensor_inputs: Media arrive as float tensors in [0, 1] instead of PIL images.
        media_form: In which form media arrive: ``"pil"``, ``"float"`` (tensors in [0, 1]), ``"pixels"`` (tensors, uint8
            where the source has 8 bits, else as before: nothing is lost) or ``"given"`` (what the caller passed,
            unread); None for the first or second, by `use_tensor_inputs`.
        differentiable: Offers ``forward(pixels, prompts)`` with a gradient to the pixels.
        bounds: (low, high) that its value never leaves, or None.
        higher_is_better: Whether more is better.

    Args:
        name: What it is called in parts, messages and logs; the class's name by default.
        batch_size: As the attribute.
        num_workers: As the attribute.
        async_reward: As the attribute.
        scale: The value is multiplied by this, wherever the reward stands. Token rewards too.
        clip: Then cut to (low, high), or to (-clip, clip) for one number. Token rewards too, one by one.

    Raises:
        ContractError: The class overrides neither or both methods, or one is a coroutine function.

    Examples:
        >>> class Brevity(RewardFunction):
        ...     required_fields = ("response",)
        ...     def compute_reward(self, sample):
        ...         return 1.0 - min(len(sample.response) / 100, 1.0)
        >>> Brevity()(response=["short", "x" * 50]).rewards
        array([0.95, 0.5 ])
    """

    required_fields: Sequence[str] = ()
    optional_fields: Sequence[str] | None = None
    scope: str = "sample"
    batch_size: int | None = None
    num_workers: int = 1
    async_reward: bool | None = None
    use_tensor_inputs: bool = False
    media_form: str | None = None
    bounds: tuple[float, float] | None = None
    higher_is_better: bool = True
    reference_is_media: bool = False
    """Whether `Sample.reference` is an image, or images, to this reward: caches then go by the pixels."""

    revision: ClassVar[str] = ""
    """The version of the class, for caches: where it is given they go by it, else by the code of the class."""
    decided_by: Sequence[Any] = ()
    """What decides a score beside class and parameters, such as the content of a file: caches go by it, too."""
    neutral_parameters: ClassVar[Sequence[str]] = ("name", "batch_size", "num_workers", "async_reward")
    """Parameters that decide no score: a cache does not tell rewards apart by them."""

    example_config: ClassVar[Mapping[str, Any]] = {}
    """Parameters, as a configuration writes them, that make a working instance: for help pages and checks."""

    settings = ("name", "batch_size", "num_workers", "async_reward")
    name: str = "RewardFunction"
    children: Sequence[RewardFunction] = ()
    masks_failures: bool = False
    wraps_calls: bool = False
    leaf_batch_size: int | None = None
    __by_sample: ClassVar[bool] = True  # mangled, like all that is ours: authors have names of their own

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__
        if any((base.__module__, base.__name__) == ("torch.nn.modules.module", "Module") for base in cls.__mro__):
            raise ContractError(
                f"{cls.__name__} cannot be a torch module too; hold one (self.model = ..., made on the first call): a "
                "reward is copied and sent to other processes without its weights"
            )
        own = _METHODS & vars(cls).keys()
        for method in own:
            if inspect.iscoroutinefunction(vars(cls)[method]):
                raise ContractError(
                    f"{cls.__name__}.{method} is a coroutine function; write a plain one, and set num_workers for "
                    "several calls in flight"
                )
        if own and "optional_fields" not in vars(cls):
            cls.optional_fields = None  # a parent's word says nothing about what this code reads
        if len(own) == 2:
            raise ContractError(
                f"{cls.__name__} overrides both compute_reward and compute_rewards; keep one, or two truths may differ"
            )
        # The nearest class that overrides one of them decides, a mixin's too.
        author = next(base for base in cls.__mro__ if not _METHODS.isdisjoint(vars(base)))
        cls.__by_sample = "compute_reward" in vars(author)
        if author is RewardFunction and not abstract:
            raise ContractError(
                f"{cls.__name__} must override compute_reward(self, sample) or compute_rewards(self, samples); "
                f"for a base class of your own write class {cls.__name__}(..., abstract=True)"
            )
        declared = vars(cls).get("required_fields", ())
        if isinstance(declared, property):
            return
        if isinstance(declared, str) or any(field not in FIELDS for field in declared):
            raise ContractError(
                f"{cls.__name__}.required_fields must be a tuple of Sample fields, found {declared!r}; "
                f"the fields are {', '.join(FIELDS)}"
            )

    def __init__(
        self,
        *,
        name: str | None = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        async_reward: bool | None = None,
        scale: float = 1.0,
        clip: float | tuple[float, float] | None = None,
    ) -> None:
        given = {
            "name": name,
            "batch_size": batch_size,
            "num_workers": num_workers,
            "async_reward": async_reward,
        }
        for option, value in given.items():
            if value is not None:
                setattr(self, option, value)
        if not (async_reward is None or isinstance(async_reward, bool)):
            raise ConfigError(f"async_reward must be True or False, found {brief(async_reward)}", reward=self.name)
        for option in ("batch_size", "num_workers"):
            if given[option] is not None:
                whole_number(given[option], option, self.name, low=1)
        self.__scale = number(scale, "scale", self.name)
        if isinstance(clip, (int, float)):
            clip = (-clip, clip)
        self.__clip = None if clip is None else interval(clip, "clip", self.name)
        if self.bounds is not None and (self.__scale != 1.0 or self.__clip is not None):
            low, high = sorted(float(self.__rescale(np.array(bound))) for bound in self.bounds)
            self.bounds = (low, high)
        elif self.__clip is not None:
            self.bounds = self.__clip
        if self.__scale < 0:
            self.higher_is_better = not self.higher_is_better

    # What an author writes

    def compute_reward(self, sample: Sample) -> float | RewardOutput | None:
        """Score one sample: a number, a `RewardOutput`, or None where the reward does not apply."""
        row: RewardOutput = read_rows(self.compute_rewards([sample]), [sample], reward=self.name, indices=[0]).batch[0]
        return row

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Score many samples: a list of rows, an array or tensor (N,), or a `RewardBatch`.

        A row is a number, a `RewardOutput`, None (does not apply) or an exception (failed).
        """
        return [self.__attempt(sample) for sample in samples]

    # What a caller uses

    def __call__(self, samples: Sequence[Sample] | None = None, **columns: Any) -> RewardBatch:
        """Score samples, or columns of equal length (see `Sample.from_columns`).

        Returns:
            One row a sample, in order.

        Raises:
            InputError: A sample lacks a required field, or holds a value that cannot be read.
            ComputeError: A sample could not be scored.
            ContractError: The reward returned something else than one row a sample.
        """
        if samples is None and not columns:
            raise InputError("pass samples, or columns such as prompt=[...] and response=[...]", reward=self.name)
        if samples is None:
            samples = Sample.from_columns(**columns)
        elif columns:
            raise InputError("pass either samples or columns, not both", reward=self.name)
        return default_executor().run(self, samples)

    def load(self) -> None:
        """Do now what the first call would have to wait for, such as reading weights; a combinator's parts, too."""
        for child in self.children:
            child.load()

    def close(self) -> None:
        """Let go of weights and connections; the next call makes them again. A combinator closes its parts."""
        for child in self.children:
            child.close()

    def rescaled(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores after the reward's own `scale` and `clip`, for an author's `forward`."""
        scale, clip = vars(self).get("_RewardFunction__scale", 1.0), vars(self).get("_RewardFunction__clip")
        scores = scores if scale == 1.0 else scores * scale
        return scores if clip is None else scores.clamp(*clip)

    # What the executor uses

    @property
    def scores_by_sample(self) -> bool:
        """Whether the author's code sees one sample at a time, so that chunks may be cut at will."""
        return self.__by_sample

    @property
    def reading_form(self) -> str:
        """The form in which media arrive."""
        return self.media_form or ("float" if self.use_tensor_inputs else "pil")

    @property
    def chunk_size(self) -> int | None:
        """Samples a call: one where several workers share a reward that scores sample by sample."""
        if self.batch_size is None and self.scores_by_sample and self.num_workers > 1:
            return 1
        return self.batch_size

    def check_samples(self, samples: Sequence[Sample]) -> None:
        """Raise an `InputError` unless every sample has the required fields."""
        if isinstance(samples, (str, bytes, Mapping, Sample)) or not isinstance(samples, Sequence):
            found = f"found {brief(samples)}; write [sample] for one, list(samples) for an iterator"
            raise InputError(f"expected a list of Sample, {found}", reward=self.name)
        self.__check_settings()
        if not all(issubclass(kind, Sample) for kind in set(map(type, samples))):  # few kinds, many samples
            index = [isinstance(sample, Sample) for sample in samples].index(False)
            raise InputError(
                f"expected a Sample, found {brief(samples[index])}; write Sample(prompt=..., response=...)",
                reward=self.name,
                index=index,
            )
        for field in self.required_fields:
            missing = [value is None for value in map(operator.attrgetter(field), samples)]
            if True in missing:
                raise InputError(
                    "the reward needs this field, and the sample has none",
                    reward=self.name,
                    field=field,
                    index=missing.index(True),
                )

    def __check_settings(self) -> None:
        if self.scope not in ("sample", "group"):
            raise ContractError(f"scope must be 'sample' or 'group', found {self.scope!r}", reward=self.name)
        if self.reading_form not in MEDIA_FORMS:
            known = ", ".join(MEDIA_FORMS)
            raise ContractError(f"media_form must be one of {known}, found {self.media_form!r}", reward=self.name)
        sizes: dict[str, Any] = {"num_workers": self.num_workers, "batch_size": self.batch_size}
        for what, value in sizes.items():
            if value is None and what == "batch_size":
                continue
            if not isinstance(value, int) or value < 1:
                raise ContractError(f"{what} must be a whole number >= 1, found {value!r}", reward=self.name)

    def score_chunk(self, samples: Sequence[Sample], indices: Sequence[int], *, stop_at_failure: bool) -> Scored:
        """The one boundary between an author's code and the library.

        Args:
            samples: A part of the caller's samples.
            indices: Their positions in the caller's batch.
            stop_at_failure: One failed row is as bad as many: score no further.

        Returns:
            The rows. A failed one has its reason, and the exception as an error of the library.

        Raises:
            FluxRewardsError: One of `SETUP_ERRORS`, which would fail every sample.
        """
        views, unread = self.__decode(samples, indices)
        if unread and stop_at_failure:
            row, first = next(iter(unread.items()))
            return Scored(RewardBatch(np.full(len(samples), np.nan), errors={row: reason(first)}), {row: first})
        # A sample that cannot be read must not take its neighbours along.
        rows = [row for row in range(len(views)) if row not in unread] if unread else range(len(views))
        views = [views[row] for row in rows] if unread else views
        positions = [indices[row] for row in rows] if unread else indices
        returned = self.__rows(views, stop_at_failure=stop_at_failure)
        batch, raised = read_rows(returned, views, reward=self.name, indices=positions)
        alone = not isinstance(returned, _WholeChunkFailed) or len(views) == 1
        causes: dict[int, FluxRewardsError] = {}
        for row, failure in raised.items():  # one object, where the whole call failed
            one = next(iter(causes.values()), None) if not alone else None
            causes[row] = one or locate(failure, reward=self.name, index=positions[row] if alone else None)
            if isinstance(failure, SETUP_ERRORS):
                raise causes[row]
        scored = Scored(self.__own_scale(batch), causes)
        if unread:
            failed = [
                ([row], Scored.failure(unreadable, reward=self.name, indices=[indices[row]]))
                for row, unreadable in unread.items()
            ]
            scored = Scored.scatter(len(samples), [(rows, scored), *failed])
        return scored

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """A leaf has no children to combine."""
        raise ContractError("is a leaf: it computes, it does not combine", reward=self.name)

    def __attempt(self, sample: Sample) -> Any:
        try:
            return self.compute_reward(sample)
        except Exception as error:  # noqa: BLE001  # a failed row; the boundary raises or records it
            return error

    def __rows(self, samples: Sequence[Sample], *, stop_at_failure: bool) -> Any:
        if not self.__by_sample:
            try:
                return self.compute_rewards(samples)
            except Exception as error:  # noqa: BLE001  # every row of the call failed
                return _WholeChunkFailed([error] * len(samples))
        rows: list[Any] = []
        for sample in samples:
            rows.append(self.__attempt(sample))
            if stop_at_failure and isinstance(rows[-1], Exception):
                return rows + [None] * (len(samples) - len(rows))
        return rows

    def __decode(
        self, samples: Sequence[Sample], indices: Sequence[int]
    ) -> tuple[Sequence[Sample], dict[int, InputError]]:
        """Views with media as the author asked for them; those required are decoded here, one by one."""
        if not any_media(samples):
            return samples, {}
        needed = [field for field in self.required_fields if field in MEDIA_FIELDS]
        views: list[Sample] = []
        unread: dict[int, InputError] = {}
        for row, sample in enumerate(samples):
            view = view_of(sample, Reading(self.reading_form, self.name, indices[row]))
            views.append(view)
            try:
                for field in needed:
                    getattr(view, field)
            except InputError as error:
                unread[row] = error
        return views, unread

    def __own_scale(self, batch: RewardBatch) -> RewardBatch:
        scale, clip = vars(self).get("_RewardFunction__scale", 1.0), vars(self).get("_RewardFunction__clip")
        if scale == 1.0 and clip is None:
            return batch
        tokens = batch.token_rewards
        return RewardBatch(
            self.__rescale(batch.rewards),
            None if tokens is None else [None if one is None else self.__rescale(one) for one in tokens],
            batch.metadata,
            batch.errors,
            batch.parts,
        )

    def __rescale(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):  # the executor refuses what is too large
            scaled = values * self.__scale
        return scaled if self.__clip is None else np.clip(scaled, *self.__clip)


class _WholeChunkFailed(list[Exception]):
    """One exception for every row of a call: no single sample is to blame."""
