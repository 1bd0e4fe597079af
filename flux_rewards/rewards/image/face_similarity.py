"""How much a face looks like that of a reference: identity, for images and videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, InputError, WeightsError
from flux_rewards.gradients import check_pixels
from flux_rewards.media import Place, read_media
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.faces.detection import open_face_detector
from flux_rewards.models.faces.embedding import open_face_embedder
from flux_rewards.models.faces.model import Detection, FaceModel, Faces
from flux_rewards.rewards.model_reward import ModelOptions, ModelReward
from flux_rewards.validation import number, one_of, whole_number
from flux_rewards.views import position_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

__all__ = ["FaceSimilarity"]

_AGAINST = ("condition_images", "condition_videos", "reference")


class _Person(NamedTuple):
    """The mean of the unit features of a sample's reference faces: a product with it is the mean cosine."""

    feature: torch.Tensor
    counts: Mapping[str, int]


class FaceSimilarity(ModelReward):
    """How much the face in an image or a video looks like the reference's: the cosine of ArcFace features, -1 to 1.

    In every frame the largest face counts: SCRFD finds it, a similarity transform of its five points turns it upright
    into a crop of 112x112, and ArcFace embeds that. A frame's score is the mean of its cosines with all reference
    faces, the reward is the mean over the frames that show a face. Colours, sizes and numbers are insightface's.

    **A frame without a face** is left out; where no frame has one, the reward does not apply (None, and NaN on the
    gradient path). **A reference without a face** is left out, too; where none of a sample's has one, the sample
    fails with an `InputError`: its data are wrong, and no output of a policy can mend them. Filter such samples, or
    wrap the reward in `MaskErrors`.

    Metadata: ``frames``, ``frames_with_face``, ``references``, ``reference_faces``.

    Args:
        model_name_or_path: A directory in the layout of insightface's antelopev2, or a hub id. **The weights that
            insightface publishes are for non-commercial research only**, and none come with this library.
        media: What is scored: ``"image"`` or ``"video"``.
        against: Where the reference faces come from: ``"condition_images"``, ``"condition_videos"`` (every frame) or
            ``"reference"``, an image or a list of them.
        detector: The file of the detector: SCRFD with five points.
        embedder: The file of the embedder: ArcFace.
        detection_size: Side of the square that the detector sees, in pixels, a multiple of 32. A face that fills
            the frame is found better at 320 or 160.
        detection_threshold: The lowest score of a face, 0 to 1.
        detection_overlap: Of two boxes whose intersection over union is above it, the surer one stays.
        frame_batch_size: Frames that the models see at once, of whichever samples. A detector without a batch axis,
            as in antelopev2, sees them one by one.
        model_revision: Branch, tag or commit of the weights on the hub.
        activation_checkpointing: On the gradient path, compute activations again instead of keeping them.
        **options: `device`, `dtype` (`ModelReward`), and those of every reward (`RewardFunction`). `dtype` is the
            embedder's. The detector runs in float32, and on a GPU only where onnxruntime-gpu is installed.

    Raises:
        ConfigError: An argument is not one of its values.
        MissingDependencyError: At the first call: the extra ``face`` (onnxruntime, onnx2torch) is not installed.
        WeightsError: At the first call: a file cannot be found, or is not such a model.

    Differentiable, with ``forward(pixels, condition_images=[...])`` (or `against`) on (N, 3, H, W), for videos
    (N, T, 3, H, W). Faces are found without a gradient, and where they are is held constant; none reaches the
    references. `loss` is the mean over the samples that show a face.
    Source: ROLL's reward feedback learning on video (alibaba/ROLL), which leaves out the first reference frame: pass
    ``video[1:]`` for that; Deng et al. 2019 (arXiv 1801.07698), Guo et al. 2021 (arXiv 2105.04714).

    Does not follow a person through a video, nor tell whose face it is where there are several: the largest counts.

    Examples:
        >>> FaceSimilarity("antelopev2", media="video").required_fields
        ('video', 'condition_images')
    """

    bounds = (-1.0, 1.0)
    optional_fields = ()
    reference_is_media = True
    example_config = {"model_name_or_path": "antelopev2"}
    batch_size = 8
    differentiable = True

    def __init__(
        self,
        model_name_or_path: str,
        *,
        media: str = "image",
        against: str = "condition_images",
        detector: str = "scrfd_10g_bnkps.onnx",
        embedder: str = "glintr100.onnx",
        detection_size: int = 640,
        detection_threshold: float = 0.5,
        detection_overlap: float = 0.4,
        frame_batch_size: int = 32,
        model_revision: str | None = None,
        activation_checkpointing: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(**options)
        self.model_name_or_path = model_name_or_path
        self.media = one_of(media, "media", self.name, ("image", "video"))
        self.against = one_of(against, "against", self.name, _AGAINST)
        self.required_fields = (self.media, self.against)
        self.detector = detector
        self.embedder = embedder
        self.detection_size = whole_number(detection_size, "detection_size", self.name, low=32)
        if detection_size % 32:
            raise ConfigError(f"detection_size must be a multiple of 32, found {detection_size}", reward=self.name)
        self.detection_threshold = number(detection_threshold, "detection_threshold", self.name, above=0, high=1)
        self.detection_overlap = number(detection_overlap, "detection_overlap", self.name, low=0, high=1)
        self.frame_batch_size = whole_number(frame_batch_size, "frame_batch_size", self.name, low=1)
        self.model_revision = model_revision
        self.activation_checkpointing = activation_checkpointing

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The detector, then the embedder."""
        files = (self.detector, self.embedder)
        return [Checkpoint(self.model_name_or_path, file, self.model_revision) for file in files]

    def open_model(self) -> FaceModel:
        """Both."""
        detector, embedder = self.checkpoints()
        try:
            return FaceModel(
                open_face_detector(detector, device=self.device),
                open_face_embedder(embedder, device=self.device, dtype=self.dtype),
            )
        except WeightsError as error:
            raise WeightsError(
                f"{error}. Expected insightface's antelopev2 layout: one directory with {self.detector} (SCRFD with "
                f"five points) and {self.embedder} (ArcFace); name other files by detector=... and embedder=..."
            ) from error

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One row a sample, with its counts."""
        import torch  # noqa: PLC0415  # loaded already

        videos = [[sample.image] if self.media == "image" else list(sample.video) for sample in samples]
        given = [(getattr(sample, self.against), position_of(sample)) for sample in samples]
        with torch.no_grad():
            people = self._people(given)
            faces = self._faces([frame for frames in videos for frame in frames])
        found = faces.split([len(frames) for frames in videos])
        rows: list[Any] = []
        for person, frames, features in zip(people, videos, found, strict=True):
            if isinstance(person, InputError):
                rows.append(person)
                continue
            score = float(_mean_cosine(features, person).clamp(-1, 1)) if len(features) else None
            counts = {"frames": len(frames), "frames_with_face": len(features), **person.counts}
            rows.append(RewardOutput(score, metadata=counts))  # type: ignore[arg-type]  # None: does not apply
        return rows

    def forward(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,  # noqa: ARG002  # for other parts of a composite
        **columns: Sequence[Any],
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, 3, H, W) or (N, T, 3, H, W); see `RewardFunction.forward`."""
        import torch  # noqa: PLC0415  # loaded already

        check_pixels(pixels, reward=self.name, ndim=4 if self.media == "image" else 5)
        given = columns.get(self.against)
        if given is None or len(given) != len(pixels):
            found = "none" if given is None else len(given)
            message = f"expected {self.against}=[...] one for each of the {len(pixels)} samples, found {found}"
            raise InputError(message, reward=self.name, field=self.against)
        with torch.no_grad():
            people = self._people([(value, index) for index, value in enumerate(given)])
        for person in people:
            if isinstance(person, InputError):
                raise person
        frames = pixels if self.media == "image" else pixels.flatten(0, 1)
        each = self._faces(frames).split([len(frames) // len(pixels)] * len(pixels))
        # A loss over no scores at all must still go back, to zero.
        nothing = pixels[:0].sum(dtype=torch.float32) + torch.nan
        scores = [
            _mean_cosine(features, person).to(nothing) if len(features) else nothing
            for features, person in zip(each, people, strict=True)
            if not isinstance(person, InputError)
        ]
        return self.rescaled(torch.stack(scores))

    def _people(self, given: Sequence[tuple[Any, int | None]]) -> list[_Person | InputError]:
        """Whose face each sample should show. References that several samples share are looked at once."""
        read = [self._read(value, position) for value, position in given]
        distinct: list[list[torch.Tensor]] = []
        which = []
        for images in read:
            place = next((place for place, other in enumerate(distinct) if _same(images, other)), len(distinct))
            if place == len(distinct):
                distinct.append([] if isinstance(images, InputError) else images)
            which.append(place)
        lengths = [len(images) for images in distinct]
        found = self._faces([image for images in distinct for image in images]).split(lengths)
        people: list[_Person | InputError] = []
        for place, images, (_, position) in zip(which, read, given, strict=True):
            features, count = found[place], lengths[place]
            if isinstance(images, InputError):
                people.append(images)
            elif len(features):
                people.append(_Person(features.mean(dim=0), {"references": count, "reference_faces": len(features)}))
            else:
                message = (
                    f"expected a face to compare with, found none with a score of {self.detection_threshold:g} or "
                    f"more in {count} reference images; leave the sample out, pass images that show a face, or try "
                    "another detection_size or detection_threshold"
                )
                people.append(InputError(message, reward=self.name, field=self.against, index=position))
        return people

    def _read(self, value: Any, position: int | None) -> list[torch.Tensor] | InputError:
        """The reference images of a sample, (3, H, W) each; a sample that cannot be read takes no others along."""
        place = Place(self.against, position, self.name)
        try:
            if self.against == "condition_videos":
                return [frame for video in read_media("condition_videos", value, "pixels", place) for frame in video]
            return list(read_media("condition_images", value, "pixels", place))
        except InputError as error:
            return error

    def _faces(self, frames: Sequence[torch.Tensor] | torch.Tensor) -> Faces:
        model: FaceModel = self.model
        detection = Detection(self.detection_size, self.detection_threshold, self.detection_overlap)
        return model.faces(frames, detection, self.frame_batch_size, checkpointing=self.activation_checkpointing)


def _same(images: Sequence[torch.Tensor] | InputError, others: Sequence[torch.Tensor]) -> bool:
    """Whether two samples have one set of references."""
    import torch  # noqa: PLC0415  # loaded already

    return (
        not isinstance(images, InputError)
        and len(images) == len(others)
        and all(
            one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
            for one, other in zip(images, others, strict=True)
        )
    )


def _mean_cosine(features: torch.Tensor, person: _Person) -> torch.Tensor:
    """Of unit features (K, D), the mean cosine with all faces of a person: a scalar."""
    return (features * person.feature).sum(dim=-1).mean()
