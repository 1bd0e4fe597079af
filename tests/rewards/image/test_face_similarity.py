"""FaceSimilarity: scores, what does not apply, gradients."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_faces import DETECTOR, EMBEDDER, antelope, config, draw, random_detector, random_embedder

from flux_rewards.data import Sample
from flux_rewards.errors import ConfigError, InputError, WeightsError
from flux_rewards.models.faces.alignment import TEMPLATE
from flux_rewards.models.faces.detection import FaceDetector
from flux_rewards.models.faces.model import Detection
from flux_rewards.rewards.image.face_similarity import FaceSimilarity
from flux_rewards.testing import reward_checks
from flux_rewards.wrappers.mask_errors import MaskErrors

SIZE = 160


def scene(seed: int, size: int = SIZE) -> np.ndarray:
    """A picture without a face."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)).copy()


def portrait(
    seed: int, angle: float = 15, scale: float = 0.8, *, size: int = SIZE, face: int | None = None
) -> np.ndarray:
    """A picture in which a face is marked, about in the middle; what is there is the picture itself, or another's."""
    image = scene(seed, size)
    if face is not None:
        image[32:] = scene(face, size)[32:]
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (TEMPLATE - 56) @ matrix.T * scale + size / 2
    draw(image, (1, 0), (size / 4, size / 4, size * 3 / 4, size * 3 / 4), points)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return antelope(tmp_path_factory.mktemp("antelopev2"))


def reward(folder: Path, **options: Any) -> FaceSimilarity:
    return FaceSimilarity(str(folder), device="cpu", **{"detection_size": SIZE, **options})


def pixels(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def insightface_cosine(folder: Path, image: np.ndarray, reference: np.ndarray) -> float:
    """The same score by insightface's own detector, alignment and embedder, on BGR as they take it."""
    scrfd = pytest.importorskip("insightface.model_zoo.scrfd")
    arcface = pytest.importorskip("insightface.model_zoo.arcface_onnx").ArcFaceONNX(str(folder / EMBEDDER))
    align = pytest.importorskip("insightface.utils.face_align")
    detector = scrfd.SCRFD(str(folder / DETECTOR))
    detector.prepare(-1)
    features = []
    for picture in (image, reference):
        bgr = np.ascontiguousarray(picture[..., ::-1])
        boxes, points = detector.detect(bgr, input_size=(SIZE, SIZE))
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its own calls of scikit-image
            features.append(arcface.get_feat(align.norm_crop(bgr, points[areas.argmax()]))[0])
    return float(arcface.compute_sim(*features))


@pytest.mark.parametrize("marked", [True, False])
def test_scores_are_those_of_insightface(tmp_path: Path, marked: bool) -> None:
    """Detection, alignment, embedding and cosine, all by insightface on the same files, but for rounding."""
    folder = antelope(tmp_path, marked=marked)
    images = [portrait(seed, angle) for seed, angle in ((0, 15), (1, -40), (2, 100), (3, 0))]
    batch = reward(folder)(image=images[:3], condition_images=[[images[3]]] * 3)
    wanted = [insightface_cosine(folder, image, images[3]) for image in images[:3]]
    np.testing.assert_allclose(batch.rewards, wanted, atol=3e-3)  # its crops are bytes, and weights are random
    swapped = reward(folder)(image=[image[..., ::-1] for image in images[:1]], condition_images=[[images[3]]])
    if not marked:  # a mark is not found in other colours
        assert abs(swapped.rewards[0] - wanted[0]) > 0.01


def test_the_same_face_turned_is_alike(folder: Path) -> None:
    """A face that is turned and scaled gives the crop that it gives upright; another's does not."""
    upright = portrait(0, angle=0, scale=0.7)
    turned = np.asarray(Image.fromarray(scene(0)).rotate(-90))  # clockwise
    turned = turned.copy()
    matrix = np.array([[0, -1], [1, 0]])
    points = (TEMPLATE - 56) @ matrix.T * 0.7 + (SIZE - 1 - SIZE / 2, SIZE / 2)
    draw(turned, (1, 0), (40, 40, 120, 120), points)
    scores = reward(folder)(image=[upright, turned, portrait(1)], condition_images=[upright] * 3).rewards
    assert scores[0] == pytest.approx(1, abs=1e-6)
    assert scores[1] == pytest.approx(1, abs=1e-4)
    assert scores[2] < 0.999


def test_what_does_not_apply(folder: Path) -> None:
    """No face in the image: no score, with counts; a reference without one is left out."""
    batch = reward(folder)(
        image=[portrait(0), scene(1)],
        condition_images=[[portrait(2), scene(3)], [portrait(2)]],
    )
    assert np.isnan(batch.rewards).tolist() == [False, True]
    assert not batch.errors
    assert [dict(row) for row in batch.metadata] == [
        {"frames": 1, "frames_with_face": 1, "references": 2, "reference_faces": 1},
        {"frames": 1, "frames_with_face": 0, "references": 1, "reference_faces": 1},
    ]
    alone = reward(folder)(image=[portrait(0)], condition_images=[[portrait(2)]])
    assert batch.rewards[0] == pytest.approx(alone.rewards[0], abs=1e-6)


def test_references_without_any_face(folder: Path) -> None:
    """They are an error that names the sample, and takes no other along."""
    columns: dict[str, Any] = {
        "image": [portrait(0), portrait(1)],
        "condition_images": [[portrait(2)], [scene(3), scene(4)]],
    }
    with pytest.raises(InputError, match=r"'FaceSimilarity', sample 1, field 'condition_images'.*2 reference images"):
        reward(folder)(**columns)
    batch = MaskErrors(reward(folder), max_failure_rate=1.0)(**columns)
    assert list(batch.errors) == [1]
    assert np.isfinite(batch.rewards[0])
    with pytest.raises(InputError, match="sample 1"):
        reward(folder).forward(pixels(*columns["image"]), condition_images=columns["condition_images"])


def test_several_references_are_averaged(folder: Path) -> None:
    """The mean of the cosines, from images or all frames of videos."""
    one, two = portrait(1), portrait(2)
    alone = reward(folder)(image=[portrait(0)] * 2, condition_images=[[one], [two]]).rewards
    both = reward(folder)(image=[portrait(0)], condition_images=[[one, two]]).rewards
    video = reward(folder, against="condition_videos")(image=[portrait(0)], condition_videos=[[[one, two]]]).rewards
    plain = reward(folder, against="reference")(image=[portrait(0)], reference=[[one, two]]).rewards
    for found in (both, video, plain):
        assert found[0] == pytest.approx(alone.mean(), abs=1e-6)


def test_videos_are_averaged_over_frames_with_a_face(folder: Path) -> None:
    """The mean over the frames that show one, whatever the batches; none at all: no score."""
    frames = [portrait(0), scene(5), portrait(1, -30), portrait(2, 60)]
    reference = [portrait(7)]
    each = reward(folder)(image=frames, condition_images=[reference] * 4).rewards
    videos = [frames, [scene(5), scene(6)], frames[2:]]
    for size in (1, 3, 32):
        scoring = reward(folder, media="video", frame_batch_size=size)
        batch = scoring(video=videos, condition_images=[reference] * 3)
        np.testing.assert_allclose(batch.rewards, [np.nanmean(each), np.nan, each[2:].mean()], atol=1e-6)
        assert [row["frames_with_face"] for row in batch.metadata] == [3, 0, 2]


def test_shared_references_are_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group's reference is detected and embedded once in a call."""
    seen = 0
    real = FaceDetector.largest

    def counting(self: FaceDetector, frames: Any, **options: Any) -> Any:
        nonlocal seen
        seen += len(frames)
        return real(self, frames, **options)

    monkeypatch.setattr(FaceDetector, "largest", counting)
    images = [portrait(seed) for seed in range(4)]
    references = [[portrait(7)], [portrait(7)], [portrait(8)], [portrait(7)]]
    reward(folder)(image=images, condition_images=references)
    assert seen == 4 + 2


@pytest.mark.parametrize("media", ["image", "video"])
def test_both_paths_agree(folder: Path, media: str) -> None:
    """`forward` gives what a call gives, NaN where it does not apply, and `scale` with it."""
    images = [portrait(0), scene(1), portrait(2), portrait(3)]
    scoring = reward(folder, media=media, scale=0.5)
    given, held = pixels(*images), list[Any](images)
    if media == "video":
        given, held = given.view(2, 2, 3, SIZE, SIZE), [images[:2], images[2:]]
    references = [[portrait(7)]] * len(held)
    wanted = scoring(None, **{media: held}, condition_images=references).rewards
    found = scoring.forward(given, condition_images=references)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


@pytest.mark.filterwarnings("ignore:In CPU autocast")  # it knows no float64
def test_finite_differences(tmp_path: Path) -> None:
    """The gradient of a score in float64 is that of finite differences, along several directions."""
    model = reward(antelope(tmp_path, smooth=True)).model
    model.embedder.module.double()
    model.embedder.dtype = torch.float64
    frames = pixels(portrait(0), portrait(1, -30)).double()
    target = model.faces(pixels(portrait(2)), Detection(SIZE), 4).features[0]

    def score(x: torch.Tensor) -> Any:
        return (model.faces(x, Detection(SIZE), 4).features * target).sum()

    x = frames.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(x), x)
    for seed in range(3):
        direction = torch.randn(frames.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        direction[:, :, :32] = 0  # the marks stay
        step = 1e-5 * direction
        difference = (score(frames + step) - score(frames - step)) / 2e-5
        assert float(difference) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_raises_the_score(folder: Path, checkpointing: bool) -> None:
    """Along the gradient the score rises, where there is a face; frames without one, and marks, get none."""
    scoring = reward(folder, activation_checkpointing=checkpointing)
    x = pixels(portrait(0), scene(1), portrait(2)).requires_grad_()
    references = [[portrait(7)]] * 3
    before = scoring.forward(x, condition_images=references)
    scoring.loss(x, condition_images=references).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad[0].abs().sum() > 0
    assert x.grad[1].abs().sum() == 0
    with torch.no_grad():
        stepped = (x + 0.02 * x.grad.sign().neg()).clamp(0, 1)
        stepped[:, :, :32] = x[:, :, :32]
    after = scoring.forward(stepped, condition_images=references)
    assert (after > before).tolist() == [True, False, True]


def test_checkpointing_gives_the_same_gradient(folder: Path) -> None:
    """What is computed again is the same."""
    gradients: list[Any] = []
    for checkpointing in (False, True):
        x = pixels(portrait(0), portrait(1)).requires_grad_()
        scoring = reward(folder, activation_checkpointing=checkpointing, frame_batch_size=1)
        scoring.loss(x, condition_images=[[portrait(7)]] * 2).backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("media", ["image", "video"])
def test_a_loss_over_nothing(folder: Path, media: str) -> None:
    """Where no sample has a face, the loss is zero and goes back as zero."""
    x = pixels(scene(0), scene(1))
    x = (x if media == "image" else x[:, None]).requires_grad_()
    loss = reward(folder, media=media, clip=1).loss(x, condition_images=[[portrait(7)]] * 2)
    loss.backward()
    assert float(loss.detach()) == 0
    assert x.grad is not None
    assert x.grad.abs().sum() == 0


def test_half_precision(folder: Path) -> None:
    """In bfloat16 scores stay close, on both paths, with a finite gradient."""
    images, references = [portrait(0), portrait(1)], [[portrait(7)]] * 2
    full, half = (
        reward(folder, dtype=dtype)(image=images, condition_images=references).rewards
        for dtype in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(half, full, atol=0.01)
    x = pixels(*images).to(torch.bfloat16).requires_grad_()
    scores = reward(folder, dtype="bfloat16").forward(x, condition_images=references)
    np.testing.assert_allclose(scores.detach().numpy(), full, atol=0.01)
    scores.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "expected condition_images=.* each of the 1 samples, found none"),
        ({"condition_images": []}, "found 0"),
        ({"condition_images": [["nowhere.png"]]}, "nowhere.png"),
    ],
)
def test_forward_wants_references(folder: Path, columns: dict[str, Any], message: str) -> None:
    """One entry a sample, that can be read."""
    with pytest.raises(InputError, match=message):
        reward(folder).forward(pixels(portrait(0)), **columns)


def test_an_unreadable_reference_takes_no_others_along(folder: Path) -> None:
    """One sample fails, with its position."""
    columns: dict[str, Any] = {"image": [portrait(0), portrait(1)], "reference": ["nowhere.png", portrait(7)]}
    batch = MaskErrors(reward(folder, against="reference"), max_failure_rate=1.0)(**columns)
    assert list(batch.errors) == [0]
    assert np.isfinite(batch.rewards[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"media": "images"}, "media must be one of image, video"),
        ({"against": "image"}, "against must be one of"),
        ({"detection_size": 100}, "multiple of 32"),
        ({"detection_size": 0}, "detection_size"),
        ({"detection_threshold": 0}, "detection_threshold"),
        ({"detection_overlap": 2}, "detection_overlap"),
        ({"frame_batch_size": 0}, "frame_batch_size"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigError, match=message):
        FaceSimilarity("antelopev2", **options)


@pytest.mark.parametrize("missing", [DETECTOR, EMBEDDER])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    """With the layout that is expected."""
    (antelope(tmp_path) / missing).unlink()
    with pytest.raises(WeightsError, match=rf"holds no {missing}.*antelopev2 layout.*{DETECTOR}.*{EMBEDDER}"):
        reward(tmp_path).load()


def test_files_may_have_other_names(tmp_path: Path) -> None:
    """As in insightface's other packs; the same weights give the same scores, and another identity."""
    random_detector(tmp_path / "det_10g.onnx", bias=4.0)
    random_embedder(tmp_path / "w600k_r50.onnx")
    scoring = reward(tmp_path, detector="det_10g.onnx", embedder="w600k_r50.onnx")
    assert [checkpoint.file for checkpoint in scoring.checkpoints()] == ["det_10g.onnx", "w600k_r50.onnx"]
    scoring.load()
    assert np.isfinite(scoring([Sample(image=scene(0), condition_images=[scene(1)])]).rewards).all()
    scoring.close()
    known = scoring.decided_by
    random_embedder(tmp_path / "w600k_r50.onnx", seed=5, normalises=True)
    assert scoring.decided_by != known


@pytest.mark.slow
def test_contract(tmp_path: Path) -> None:
    """The contract of every reward."""
    for check in reward_checks(FaceSimilarity(**config(tmp_path))):
        check()
