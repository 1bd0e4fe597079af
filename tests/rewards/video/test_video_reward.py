"""Image rewards on the frames of videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tiny_clip
import torch

from flux_rewards import (
    ComputeError,
    ConfigError,
    FrameConsistency,
    FunctionReward,
    GroupRank,
    InputError,
    MaskErrors,
    PickScore,
    Retry,
    RewardFunction,
    Sample,
    VideoReward,
)


class Brightness(RewardFunction):
    """The mean of the pixels; None for black, an error for white. Remembers how many came at once."""

    required_fields = ("image",)
    optional_fields = ()
    use_tensor_inputs = True
    differentiable = True
    batch_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        self.seen.append(len(samples))
        means = [float(sample.image.mean()) for sample in samples]
        return [None if mean == 0 else ValueError("too bright") if mean == 1 else mean for mean in means]

    def forward(self, pixels: torch.Tensor, prompts: Any = None, **columns: Any) -> torch.Tensor:
        means = pixels.flatten(1).mean(dim=1)
        return torch.where(means == 0, torch.nan, means)


def clip(*levels: int) -> np.ndarray[Any, Any]:
    """A video of plain frames, uint8 (T, H, W, C)."""
    return np.stack([np.full((6, 8, 3), level, dtype=np.uint8) for level in levels])


@pytest.mark.parametrize(
    ("frames", "reduce", "expected"),
    [
        ("all", "mean", (51 + 102 + 153 + 204) / 4 / 255),
        ("all", "min", 51 / 255),
        ("all", "max", 204 / 255),
        ("first", "mean", 51 / 255),
        ("last", "mean", 204 / 255),
        (2, "mean", (51 + 204) / 2 / 255),
        ([1, -1], "mean", (102 + 204) / 2 / 255),
    ],
)
@pytest.mark.parametrize("form", ["array", "list", "tensor", "floats"])
def test_chosen_frames_are_scored_and_reduced(frames: Any, reduce: str, expected: float, form: str) -> None:
    """Whatever the video is given as; on both paths."""
    video: Any = clip(51, 102, 153, 204)
    tensor = torch.from_numpy(video).permute(0, 3, 1, 2)
    forms = {"array": video, "list": list(video), "tensor": tensor, "floats": tensor / 255}
    reward = VideoReward(Brightness(), frames=frames, reduce=reduce)
    assert reward(video=[forms[form]]).rewards[0] == pytest.approx(expected)
    assert float(reward.forward(tensor[None] / 255)[0]) == pytest.approx(expected)


def test_frames_of_all_videos_fill_the_batches() -> None:
    """Three videos of different lengths: nine frames in batches of four."""
    inner = Brightness()
    batch = VideoReward(inner)(video=[clip(51, 51), clip(102, 102, 102, 102), clip(153, 153, 153)])
    assert inner.seen == [4, 4, 1]
    np.testing.assert_allclose(batch.rewards, [0.2, 0.4, 0.6])


def test_metadata_tell_each_frame() -> None:
    """Which were scored, and how; None where the reward does not apply."""
    batch = VideoReward(Brightness(), frames=[0, 2])(video=[clip(0, 255, 102)])
    assert batch.metadata[0]["frames"] == [0, 2]
    assert batch.metadata[0]["frame_rewards"] == [None, pytest.approx(0.4)]
    assert batch.rewards[0] == pytest.approx(0.4)


def test_a_video_to_none_of_whose_frames_it_applies_has_no_score() -> None:
    """NaN on both paths, without an error, and the gradient of the others stays finite."""
    reward = VideoReward(Brightness())
    videos = [clip(0, 0), clip(102, 0)]
    batch = reward(video=videos)
    assert np.isnan(batch.rewards[0])
    assert batch.errors == {}
    assert batch.rewards[1] == pytest.approx(0.4)
    pixels = (torch.from_numpy(np.stack(videos)).permute(0, 1, 4, 2, 3) / 255).requires_grad_()
    scores = reward.forward(pixels)
    assert torch.isnan(scores[0])
    reward.loss(pixels).backward()
    assert pixels.grad is not None
    assert torch.isfinite(pixels.grad).all()
    assert pixels.grad[1].abs().sum() > 0


def test_a_frame_that_fails_fails_its_video_and_no_other() -> None:
    """By the frame's number in the video, and the reason."""
    videos = [clip(51, 51), clip(51, 102, 255, 255)]
    with pytest.raises(ComputeError, match=r"sample 1.*frame 2: .*too bright.* \(and 1 more frames\)"):
        VideoReward(Brightness())(video=videos)
    batch = MaskErrors(VideoReward(Brightness()), max_failure_rate=1.0)(video=videos)
    assert batch.rewards[0] == pytest.approx(0.2)
    assert list(batch.errors) == [1]


def test_a_video_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    """With its sample's number."""
    videos = [clip(51), str(tmp_path / "missing.mp4")]
    with pytest.raises(InputError, match="sample 1, field 'video': cannot read the video file"):
        VideoReward(Brightness())(video=videos)
    batch = MaskErrors(VideoReward(Brightness()), max_failure_rate=1.0)(video=videos)
    assert list(batch.errors) == [1]
    with pytest.raises(InputError, match="there is no frame 3 in a video of 1"):
        VideoReward(Brightness(), frames=[3])(video=videos[:1])


def test_video_files_are_scored(tmp_path: Path) -> None:
    """Decoded as they are needed."""
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (40, 120, 200):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    batch = VideoReward(Brightness())(video=[str(tmp_path / "clip.mp4"), tmp_path / "clip.mp4"])
    np.testing.assert_allclose(batch.rewards, 120 / 255, atol=0.02)
    each = batch.metadata[0]["frame_rewards"]
    np.testing.assert_allclose(each, [40 / 255, 120 / 255, 200 / 255], atol=0.02)


def test_a_long_video_goes_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all frames of all videos are held at once."""
    monkeypatch.setattr("flux_rewards.rewards.video.video_reward._FRAMES_AT_ONCE", 3)
    inner = Brightness()
    batch = VideoReward(inner)(video=[clip(51, 51), clip(102, 102), clip(153)])
    assert inner.seen == [4, 1]
    np.testing.assert_allclose(batch.rewards, [0.2, 0.4, 0.6])


def test_prompts_and_other_fields_reach_the_frames() -> None:
    """All that a sample holds, but its group."""
    seen: list[Sample] = []

    def score(sample: Sample) -> float:
        seen.append(sample)
        return 1.0

    inner = FunctionReward(score, fields=["image", "prompt", "reference"])
    reward = VideoReward(inner)
    assert set(reward.required_fields) == {"video", "prompt", "reference"}
    reward([Sample("a cat", video=clip(1, 2), reference=7, group_id="g", metadata={"n": 1})])
    assert [(sample.prompt, sample.reference, sample.metadata["n"]) for sample in seen] == [("a cat", 7, 1)] * 2
    assert all(sample.video is None and sample.group_id is None for sample in seen)
    with pytest.raises(InputError, match="reference"):
        reward(prompt=["a"], video=[clip(1)])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"frames": "some"}, "frames must be"),
        ({"frames": 0}, "frames must be"),
        ({"reduce": "sum"}, "reduce"),
        ({"reward": GroupRank(Brightness())}, "put it around this reward"),
        ({"reward": 3}, "must be a reward"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], named: str) -> None:
    """When it is made."""
    with pytest.raises(ConfigError, match=named):
        VideoReward(**{"reward": Brightness(), **options})


def test_published_rewards_score_videos(tmp_path: Path) -> None:
    """As frame by frame; the prompt is encoded once; and the gradient path agrees."""
    path = str(tiny_clip.transformers_clip(tmp_path))
    inner = PickScore(path, processor_name_or_path=path)
    videos = torch.rand(2, 3, 3, 40, 36, generator=torch.Generator().manual_seed(0))
    found = VideoReward(inner)(video=list(videos), prompt=["a cat", "red"]).rewards
    expected = [
        inner(image=list(video), prompt=[prompt] * 3).rewards.mean()
        for video, prompt in zip(videos, ["a cat", "red"], strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    forward = VideoReward(inner).forward(videos, ["a cat", "red"])
    np.testing.assert_allclose(forward.detach(), expected, rtol=1e-4)


def test_frame_consistency_is_that_of_its_definition(tmp_path: Path) -> None:
    """By hand, from the features of each frame; a still video has 1, one frame does not apply."""
    path = str(tiny_clip.dino(tmp_path, "vit"))
    reward = FrameConsistency(path, frame_batch_size=2)
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(4, 3, 30, 30, generator=generator)
    still = torch.rand(1, 3, 30, 30, generator=generator).expand(3, -1, -1, -1)
    features = reward.model.features(list(video))
    terms = []
    for t in range(1, 4):
        before, first = (float(features[t] @ features[t - 1]), float(features[t] @ features[0]))
        terms.append((max(0.0, before) + max(0.0, first)) / 2)
    batch = reward(video=[video, still, video[:1]])
    assert batch.rewards[0] == pytest.approx(sum(terms) / 3, rel=1e-5)
    assert batch.rewards[1] == pytest.approx(1.0, abs=1e-5)
    assert np.isnan(batch.rewards[2])
    assert batch.errors == {}
    loss = reward.loss(video[None, :1].requires_grad_())
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_a_failure_that_may_pass_is_tried_again() -> None:
    """The error of a frame keeps its kind, and whether it may pass."""
    asked: list[int] = []

    def flaky(sample: Sample) -> float:
        asked.append(1)
        if len(asked) == 1:
            raise ConnectionError("gone")
        return 1.0

    reward = VideoReward(FunctionReward(flaky, fields=["image"]))
    assert Retry(reward, attempts=2, wait=0.0)(video=[clip(1, 2)]).rewards[0] == 1.0
    with pytest.raises(InputError, match=r"sample 0, field 'video': frame 1: .*cannot read the image file"):
        reward(video=[[clip(1)[0], "nowhere.png"]])
    batch = MaskErrors(reward)(video=[clip(1), [clip(1)[0], None], clip(1)])
    assert list(batch.errors) == [1]
    assert "frame 1: expected an image, found None" in batch.errors[1]
