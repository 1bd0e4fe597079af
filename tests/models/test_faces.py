"""Finding, aligning and embedding faces, against insightface and against geometry worked by hand."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_faces import draw, marked_detector, random_detector, random_embedder

from flux_rewards.errors import MissingDependencyError, WeightsError
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.faces.alignment import TEMPLATE, crop_faces, similarity
from flux_rewards.models.faces.detection import FaceDetector, open_face_detector
from flux_rewards.models.faces.embedding import open_face_embedder

rng = np.random.default_rng(0)
KINDS = ("float32", "bfloat16")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with some grain, as in a photograph: (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return np.clip(large + random.normal(0, 6, large.shape), 0, 255).astype(np.uint8)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def placed(angle: float, scale: float, centre: tuple[float, float]) -> np.ndarray:
    """The template's points turned (clockwise on the screen), scaled about (56, 56), and moved there."""
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points: np.ndarray = (TEMPLATE - 56) @ matrix.T * scale + centre
    return points


def detector(path: Path) -> FaceDetector:
    return open_face_detector(Checkpoint(str(path)), device="cpu")


def insightface_detector(path: Path) -> Any:
    found = pytest.importorskip("insightface.model_zoo.scrfd").SCRFD(str(path))
    found.prepare(-1)
    return found


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("size", [(640, 640), (1280, 960)])
def test_detections_are_those_of_insightface(tmp_path: Path, batched: bool, size: tuple[int, int]) -> None:
    """Where a resize is exact, boxes, points and scores of random weights agree to float32 in every detail."""
    path = random_detector(tmp_path / "det.onnx", batched=batched)
    image = picture(*size)
    found = detector(path).detect([tensor(image)])[0]
    boxes, points = insightface_detector(path).detect(image[..., ::-1], input_size=(640, 640))  # it takes BGR
    assert len(found) == len(boxes) > 20
    np.testing.assert_allclose([face.box for face in found], boxes[:, :4], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose([face.score for face in found], boxes[:, 4], rtol=1e-5)
    np.testing.assert_allclose([face.points for face in found], points, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("size", [(512, 512), (333, 711), (720, 405), (90, 200), (1000, 3)])
def test_the_input_is_that_of_insightface(tmp_path: Path, size: tuple[int, int]) -> None:
    """At any ratio the detector sees what insightface's sees, but for levels that its integers round otherwise."""
    path = random_detector(tmp_path / "det.onnx")
    ours, theirs = detector(path), insightface_detector(path)
    seen: list[np.ndarray] = []

    class Spy:
        def __init__(self, session: Any) -> None:
            self.session = session

        def run(self, names: Any, inputs: dict[str, np.ndarray]) -> Any:
            seen.append(next(iter(inputs.values())))
            return self.session.run(names, inputs)

    image = picture(*size)
    ours._session, spied = Spy(ours._session), Spy(theirs.session)
    theirs._session_for_input_size = lambda _: spied
    ours.detect([tensor(image)])
    theirs.detect(image[..., ::-1], input_size=(640, 640))
    apart = np.abs(seen[0] - seen[1]) * 128
    assert seen[0].shape == (1, 3, 640, 640)
    assert apart.max() <= 1.01
    assert apart.mean() < 0.2


def test_swapped_colours_would_be_noticed(tmp_path: Path) -> None:
    """The agreement above is none of symmetric weights: with swapped channels other faces are found."""
    path = random_detector(tmp_path / "det.onnx")
    image = picture(640, 640)
    boxes, _ = insightface_detector(path).detect(image, input_size=(640, 640))  # RGB where it takes BGR
    found = detector(path).detect([tensor(image)])[0]
    assert len(found) != len(boxes)


@pytest.mark.parametrize("batched", [False, True])
def test_frames_together_or_alone(tmp_path: Path, batched: bool) -> None:
    """Frames of several sizes and types, in one call, give what each gives alone."""
    ours = detector(random_detector(tmp_path / "det.onnx", batched=batched))
    frames = [tensor(picture(96, 64)), tensor(picture(64, 96, 1)).float() / 255, tensor(picture(128, 128, 2))]
    together = ours.detect(frames, size=128)
    for frame, faces in zip(frames, together, strict=True):
        (alone,) = ours.detect([frame], size=128)
        assert len(alone) == len(faces) > 0
        np.testing.assert_allclose([face.box for face in faces], [face.box for face in alone], atol=1e-3)


def test_a_drawn_face_is_found_where_it_is(tmp_path: Path) -> None:
    """Box, score and points come back as drawn, and scaled in a frame of twice the detector's size."""
    ours = detector(marked_detector(tmp_path / "det.onnx"))
    box, points = np.array([100.5, 80.25, 300.0, 330.75]), placed(25, 1.5, (200.0, 200.0))
    frame = picture(480, 640)
    draw(frame, (2, 1), box, points, 0.8)
    large = frame.repeat(2, axis=0).repeat(2, axis=1)
    for image, scale in ((frame, 1), (large, 2)):
        (face,) = ours.detect([tensor(image)])[0]
        np.testing.assert_allclose(face.box, box * scale, atol=0.02 * scale)
        np.testing.assert_allclose(face.points, points * scale, atol=0.02 * scale)
        assert face.score == pytest.approx(0.8, abs=0.01)


def test_thresholds_and_the_largest(tmp_path: Path) -> None:
    """Unsure faces are left out, of two that overlap the surer stays, and the largest counts."""
    ours = detector(marked_detector(tmp_path / "det.onnx"))
    frame = np.zeros((640, 640, 3), dtype=np.uint8)
    points = placed(0, 1, (100.0, 100.0))
    draw(frame, (0, 0), (50, 50, 149, 149), points, 0.9)
    draw(frame, (10, 0), (50, 50, 149, 189), points, 0.7)  # 100 of 140 rows in common
    draw(frame, (20, 0), (300, 300, 349, 499), points + 200, 0.6)
    draw(frame, (30, 0), (400, 100, 599, 199), points + 300, 0.4)
    image = tensor(frame)

    def scores(**options: float) -> list[float]:
        return [round(face.score, 1) for face in ours.detect([image], **options)[0]]  # type: ignore[arg-type]

    assert scores() == [0.9, 0.6]
    assert scores(overlap=0.75) == [0.9, 0.7, 0.6]
    assert scores(overlap=0.70) == [0.9, 0.6]
    assert scores(threshold=0.3) == [0.9, 0.6, 0.4]
    areas = {0.5: 0.9, 0.3: 0.4}  # 99 * 99 > 49 * 199; 199 * 99
    for threshold, surest in areas.items():
        (face,) = ours.largest([image], threshold=threshold)
        assert face is not None
        assert round(face.score, 1) == surest
    assert ours.largest([image], threshold=0.95) == [None]


def test_a_graph_of_fixed_size(tmp_path: Path) -> None:
    """Where the graph fixes its size, that is used."""
    ours = detector(random_detector(tmp_path / "det.onnx", size=64))
    assert len(ours.detect([tensor(picture(100, 80))], size=640)[0]) > 0


def test_similarity_by_hand() -> None:
    """A face at twice the size, turned a quarter, at (300, 400): the way back is a turn the other way at half size."""
    points = placed(90, 2, (300.0, 400.0))
    # u = (y - 400) / 2 + 56, v = -(x - 300) / 2 + 56
    found = similarity(points)
    assert found is not None
    np.testing.assert_allclose(found, np.array([[0, 0.5, -144], [-0.5, 0, 206]]), atol=1e-9)


def test_similarity_and_crop_are_those_of_insightface() -> None:
    """With noisy points: the matrix to 1e-4, crops to the rounding of insightface's bytes."""
    face_align = pytest.importorskip("insightface.utils.face_align")
    image = picture(480, 640)
    for _ in range(8):
        centre = (float(rng.uniform(60, 580)), float(rng.uniform(60, 420)))
        points = placed(rng.uniform(-60, 60), rng.uniform(0.5, 3), centre) + rng.normal(0, 4, (5, 2))
        points = points.astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its own calls of scikit-image
            wanted = face_align.estimate_norm(points)
            crop = face_align.norm_crop(image, points)
        found = similarity(points)
        assert found is not None
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        ours = crop_faces(tensor(image)[None].float(), found[None])[0].permute(1, 2, 0).numpy()
        apart = np.abs(ours - crop)
        assert apart.mean() < 0.3
        assert apart.max() < 1.5


@pytest.mark.parametrize("points", [np.full((5, 2), 3.0), np.full((5, 2), np.nan)])
def test_points_that_give_no_crop(points: np.ndarray) -> None:
    """Points in one place, or none."""
    assert similarity(points) is None


@pytest.mark.parametrize("angle", [0, 30, -75, 180])
@pytest.mark.parametrize("scale", [0.8, 2.5])
def test_points_land_on_the_template(angle: float, scale: float) -> None:
    """Soft spots that are drawn at the five points of a turned face are at the template's places in the crop."""
    points = placed(angle, scale, (310.3, 255.7))
    rows, columns = np.mgrid[:480, :640]
    transform = similarity(points)
    assert transform is not None
    for (x, y), wanted in zip(points, TEMPLATE, strict=True):
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (2 * scale) ** 2))
        pixels = torch.from_numpy(np.stack([spot] * 3)).float()
        crop = crop_faces(pixels[None], transform[None])[0, 0].numpy()
        v, u = np.mgrid[:112, :112]
        centroid = np.array([(crop * u).sum(), (crop * v).sum()]) / crop.sum()
        np.testing.assert_allclose(centroid, wanted, atol=0.05)


def test_crops_have_a_gradient_to_the_pixels() -> None:
    """Finite differences agree, beyond the frame's edge, too; a pixel that the crop does not touch has none."""
    pixels = torch.rand(2, 3, 12, 9, dtype=torch.float64, requires_grad=True)
    transforms = np.array([[[9.0, 1, -3], [-1, 9, 5]], [[14.0, 0, 0], [0, 14, 0]]])
    assert torch.autograd.gradcheck(lambda x: crop_faces(x, transforms)[:, :, ::16, ::16], pixels)
    (gradient,) = torch.autograd.grad(crop_faces(pixels, transforms).sum(), pixels)
    assert gradient[1, 0, 0, 0] > 0
    assert gradient[1, 0, 11, 8] == 0  # at 14 * 8 = 112 and beyond


@pytest.mark.parametrize("normalises", [False, True])
def test_embeddings_are_those_of_insightface(tmp_path: Path, normalises: bool) -> None:
    """Unit features agree to 1e-5, with either normalisation; with swapped colours they would be far apart."""
    path = random_embedder(tmp_path / "arc.onnx", normalises=normalises)
    ours = open_face_embedder(Checkpoint(str(path)), device="cpu", dtype="float32")
    theirs = pytest.importorskip("insightface.model_zoo.arcface_onnx").ArcFaceONNX(str(path))
    assert ours.takes_levels == (theirs.input_mean == 0)
    crops = [picture(112, 112, seed) for seed in range(3)]
    found = ours.encode(torch.stack([tensor(crop) for crop in crops]).float() / 255)

    def unit(features: Any) -> Any:
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    wanted = unit(theirs.get_feat([crop[..., ::-1] for crop in crops]))  # it takes BGR
    swapped = unit(theirs.get_feat(crops))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
    assert np.abs(found.numpy() - swapped).max() > 0.02


def test_half_precision(tmp_path: Path) -> None:
    """In bfloat16 features are float32, of unit length and close to those of float32."""
    checkpoint = Checkpoint(str(random_embedder(tmp_path / "arc.onnx")))
    crops = torch.stack([tensor(picture(112, 112, seed)) for seed in range(3)]).float() / 255
    full, half = (open_face_embedder(checkpoint, device="cpu", dtype=name).encode(crops) for name in KINDS)
    assert half.dtype == torch.float32
    assert torch.allclose((full * half).sum(dim=-1), torch.ones(3), atol=1e-3)
    assert torch.allclose(half.norm(dim=-1), torch.ones(3), atol=1e-5)


def test_one_embedder_for_all_and_no_trace(tmp_path: Path) -> None:
    """Who names the same file shares it; its weights are frozen, and loading moves no random generator."""
    checkpoint = Checkpoint(str(random_embedder(tmp_path / "arc.onnx")))
    before = torch.get_rng_state()
    one, other = (open_face_embedder(checkpoint, device="cpu", dtype="float32") for _ in range(2))
    assert one is other
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(weight.requires_grad for weight in one.module.parameters())
    assert not one.module.training
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["arc.onnx"]


def test_files_that_are_no_such_models(tmp_path: Path) -> None:
    """A detector without points, an embedder in place of a detector and the reverse, and no ONNX at all."""
    plain = random_detector(tmp_path / "plain.onnx", kinds=2)
    with pytest.raises(WeightsError, match=r"plain\.onnx is no SCRFD with five points: .* found 1 and 6"):
        detector(plain)
    arc, det = random_embedder(tmp_path / "arc.onnx"), random_detector(tmp_path / "det.onnx")
    with pytest.raises(WeightsError, match="found 1 and 1"):
        detector(arc)
    with pytest.raises(WeightsError, match=r"is no ArcFace: expected 1 input .* 9 outputs"):
        open_face_embedder(Checkpoint(str(det)), device="cpu", dtype="float32")
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"no model" * 100)
    with pytest.raises(WeightsError, match="cannot be read as ONNX"):
        detector(junk)
    with pytest.raises(WeightsError, match="cannot be read as ONNX"):
        open_face_embedder(Checkpoint(str(junk)), device="cpu", dtype="float32")


@pytest.mark.parametrize("package", ["onnxruntime", "onnx2torch"])
def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Without a package of the extra, the message holds the line that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    det, arc = random_detector(tmp_path / "det.onnx"), random_embedder(tmp_path / "arc.onnx")
    with pytest.raises(MissingDependencyError, match=r'pip install "flux_rewards\[face\]"'):
        detector(det) if package == "onnxruntime" else open_face_embedder(
            Checkpoint(str(arc)), device="cpu", dtype="float32"
        )
