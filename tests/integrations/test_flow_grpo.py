"""flow_grpo and its kin: against the calls of their trainers, written out here, not against the packages."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from integrations.rewards_elsewhere import brightness
from PIL import Image

from flux_rewards import (
    CLIPScore,
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    ExactMatch,
    FunctionReward,
    GroupRank,
    InputError,
    JPEGCompressibility,
    LengthReward,
    RewardFunction,
    Sample,
    TemporalFlicker,
)
from flux_rewards.integrations import flow_grpo
from flux_rewards.testing import Check, reward_checks

N = 4
PROMPTS = ("a cat", "a dog", "", "a cat")  # a tuple, as ddpo-pytorch has it
BYTES = np.random.default_rng(0).integers(0, 256, (N, 24, 16, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(BYTES).permute(0, 3, 1, 2).float() / 255
SAMPLES = [Sample(prompt, image=image) for prompt, image in zip(PROMPTS, BYTES, strict=True)]


class Level(RewardFunction):
    """The mean of all pixels; says nothing about dogs, and fails at an empty prompt."""

    required_fields = ("image", "prompt")
    optional_fields = ("metadata",)
    use_tensor_inputs = True

    def compute_reward(self, sample: Sample) -> float | None:
        if "dog" in sample.prompt_text:
            return None
        if not sample.prompt:
            raise ValueError("no prompt")
        return float(sample.image.mean() + sample.metadata.get("plus", 0.0))


def as_flow_grpo_submits(fn: Any, *args: Any, **kwargs: Any) -> Any:
    """From a pool of threads, with the argument that GenEval has."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return pool.submit(fn, *args, **kwargs, only_strict=True).result(timeout=60)


def as_multi_score_makes(factory: Any, device: str) -> Any:
    """flow_grpo looks into the code for the word device."""
    return factory(device) if "device" in factory.__code__.co_varnames else factory()


@pytest.mark.parametrize(
    "images", [BYTES, TENSOR, TENSOR.half().float(), list(BYTES)], ids=["nhwc", "nchw", "half", "list"]
)
def test_scores_are_those_of_a_direct_call(images: Any) -> None:
    """Whatever the form of the pixels, and without the last bits of a round trip."""
    reward = JPEGCompressibility()
    fn = flow_grpo.reward_fn(reward)
    scores, info = as_flow_grpo_submits(fn, images, PROMPTS, [{}] * N)
    assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(scores, reward(SAMPLES).rewards, rtol=1e-9)
    assert info == {}
    assert torch.as_tensor(scores).shape == (N,)


def test_pixels_stay_where_they_are_until_they_are_read() -> None:
    """What a reward is given are views of the trainer's own tensor."""
    seen: list[Any] = []

    class Given(RewardFunction):
        required_fields = ("image",)
        media_form = "given"

        def compute_reward(self, sample: Sample) -> float:
            seen.append(sample.image)
            return 0.0

    flow_grpo.reward_fn(Given())(TENSOR, PROMPTS, [{}] * N)
    assert [one.data_ptr() for one in seen] == [one.data_ptr() for one in TENSOR]


def test_the_form_of_multi_score() -> None:
    """Parts by name, and their weighted sum as avg."""
    short = LengthReward(2, unit="words", name="short")
    reward = CompositeReward({"jpeg": (JPEGCompressibility(), 0.5), "short": (short, 2.0)})
    fn = flow_grpo.reward_fn(reward, form="dict", fields={"response": "caption"})
    scores, info = fn(BYTES, PROMPTS, [{"caption": "one two"}] * N)
    assert sorted(scores) == ["avg", "jpeg", "short"]
    np.testing.assert_allclose(scores["avg"], 0.5 * scores["jpeg"] + 2.0, rtol=1e-9)
    assert info == {}
    totals, parts = flow_grpo.reward_fn(reward, fields={"response": "caption"})(
        BYTES, PROMPTS, [{"caption": "a b"}] * N
    )
    np.testing.assert_array_equal(totals, scores["avg"])
    np.testing.assert_array_equal(parts["jpeg"], scores["jpeg"])


def test_metadata_and_reference_images_arrive() -> None:
    """Keys of the metadata are columns; a reference image is a condition image."""
    seen: list[Sample] = []

    def look_at(sample: Sample) -> float:
        seen.append(sample)
        return 1.0

    look = FunctionReward(look_at, fields=["reference", "condition_images"])
    references = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue", "black")]
    metadata = ({"answer": "4", "prompt": "of GenEval"}, {"answer": "5"}, {"answer": "6"}, {"answer": "7"})
    flow_grpo.reward_fn(look, fields={"reference": "answer"})(TENSOR, PROMPTS, metadata, ref_images=references)
    assert [sample.reference for sample in seen] == ["4", "5", "6", "7"]
    assert [sample.prompt for sample in seen] == list(PROMPTS)
    assert seen[0].metadata == {"prompt": "of GenEval"}
    assert seen[0].condition_images[0].getpixel((0, 0)) == (255, 0, 0)


def test_five_axes_are_videos() -> None:
    """As the trainers of video models pass them."""
    clips = np.stack([BYTES[:3], BYTES[1:]])
    scores, _ = flow_grpo.reward_fn(TemporalFlicker())(clips, ["a", "b"], None)
    np.testing.assert_allclose(scores, TemporalFlicker()(video=list(clips)).rewards)


def test_no_score_is_a_number_only_by_name() -> None:
    """flow_grpo's own word for a sample to which a reward does not apply is -10."""
    fn = flow_grpo.reward_fn(Level(), not_applicable=-10.0, on_error=-20.0)
    scores, _ = fn(TENSOR, PROMPTS, [{"plus": 1.0}] * N)
    mean = (TENSOR.mean((1, 2, 3)) + 1).tolist()
    np.testing.assert_allclose(scores, [mean[0], -10.0, -20.0, mean[3]], rtol=1e-6)
    with pytest.raises(ComputeError, match=r"sample 1.*not_applicable="):
        flow_grpo.reward_fn(Level())(TENSOR[:2], PROMPTS[:2], None)
    with pytest.raises(ComputeError, match="no prompt"):
        flow_grpo.reward_fn(Level(), not_applicable=0.0)(TENSOR, PROMPTS, None)


def test_a_part_that_does_not_apply_decides_nothing() -> None:
    """It is NaN beside the total, or the number that was chosen."""
    reward = CompositeReward([(Level(), 1.0), (JPEGCompressibility(), 1.0)])
    _, parts = flow_grpo.reward_fn(reward)(TENSOR[:2], PROMPTS[:2], None)
    assert np.isnan(parts["Level"]).tolist() == [False, True]
    _, parts = flow_grpo.reward_fn(reward, not_applicable=-10.0)(TENSOR[:2], PROMPTS[:2], None)
    assert parts["Level"][1] == -10.0


def test_factories_are_told_the_device() -> None:
    """flow_grpo tells, ddpo-pytorch does not."""
    made: list[Any] = []

    def make(device: Any) -> RewardFunction:
        made.append(device)
        return JPEGCompressibility()

    fn = as_multi_score_makes(flow_grpo.score_factory(make), "cuda:3")
    assert fn(BYTES, PROMPTS, [{}] * N)[0].shape == (N,)
    flow_grpo.score_factory(make)()
    as_multi_score_makes(flow_grpo.score_factory(JPEGCompressibility()), "cpu")
    assert made == ["cuda:3", None]


class OnDevice(RewardFunction):
    """Its first parameter is not the device."""

    required_fields = ("image",)

    def __init__(self, level: float = 0.5, *, device: str | None = None) -> None:
        super().__init__()
        self.level, self.device = level, device

    def compute_reward(self, sample: Sample) -> float:
        return self.level if self.device == "cuda:3" else -self.level


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (OnDevice, 0.5),
        (lambda device: OnDevice(0.25, device=device), 0.25),
        (lambda where: OnDevice(0.25, device=where), 0.25),
        (lambda level=1.0, device=None: OnDevice(level, device=device), 1.0),
        (lambda: OnDevice(0.75), -0.75),
    ],
    ids=["class", "device", "other name", "by keyword", "nothing"],
)
def test_what_makes_a_reward_is_told_the_device(make: Any, expected: float) -> None:
    """By name where it has the parameter; a class's first parameter is none."""
    scores, _ = as_multi_score_makes(flow_grpo.score_factory(make), "cuda:3")(BYTES, PROMPTS, None)
    assert scores.tolist() == [expected] * N


def test_a_class_without_a_device() -> None:
    """It is made as it is."""
    scores, _ = flow_grpo.score_factory(JPEGCompressibility)("cuda:3")(BYTES, PROMPTS, None)
    np.testing.assert_allclose(scores, JPEGCompressibility()(SAMPLES).rewards, rtol=1e-9)


@pytest.mark.slow
def test_gradients_reach_the_pixels(tmp_path: Path) -> None:
    """As AlignProp wants it: the same scores, and the metadata handed back."""
    reward = CLIPScore(str(tiny_clip.transformers_clip(tmp_path)), device="cpu")
    images = TENSOR.clone().requires_grad_()
    metadata = ({"level": 1},) * N
    scores, back = flow_grpo.differentiable_reward_fn(reward)(images, PROMPTS, metadata)
    np.testing.assert_allclose(scores.detach(), reward(prompt=PROMPTS, image=list(TENSOR)).rewards, atol=1e-5)
    assert back is metadata
    (10 - scores.mean()).backward()
    assert images.grad is not None
    assert bool((images.grad.abs().sum((1, 2, 3)) > 0).all())


def test_a_sample_without_a_gradient_has_a_number_by_name(tmp_path: Path) -> None:
    """Or it is an error."""

    class Sometimes(RewardFunction):
        differentiable = True

        def compute_reward(self, sample: Sample) -> float:
            return 0.0

        def forward(self, pixels: torch.Tensor, prompts: Any = None, **columns: Any) -> torch.Tensor:
            scores = pixels.mean((1, 2, 3))
            return torch.where(torch.arange(len(scores)) == 1, torch.nan, scores)

    with pytest.raises(ComputeError, match="sample 1"):
        flow_grpo.differentiable_reward_fn(Sometimes())(TENSOR, PROMPTS, None)
    images = TENSOR.clone().requires_grad_()
    scores, _ = flow_grpo.differentiable_reward_fn(Sometimes(), not_applicable=0.25)(images, PROMPTS, None)
    assert scores[1] == 0.25
    scores.sum().backward()
    assert images.grad is not None
    assert images.grad[1].abs().sum() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: flow_grpo.reward_fn(GroupRank(Level())), ConfigError, "half a group"),
        (lambda: flow_grpo.reward_fn(Level(), form="both"), ConfigError, "form must be one of"),
        (
            lambda: flow_grpo.reward_fn(CompositeReward({"avg": (Level(), 1.0)}), form="dict"),
            ConfigError,
            "called 'avg'",
        ),
        (
            lambda: flow_grpo.score_factory(3),  # type: ignore[arg-type]
            ConfigError,
            "expected a reward or what makes one",
        ),
        (lambda: flow_grpo.score_factory(GroupRank(Level())), ConfigError, "half a group"),
        (lambda: flow_grpo.differentiable_reward_fn(JPEGCompressibility()), ConfigError, "no gradient"),
        (lambda: flow_grpo.reward_fn(Level())(TENSOR, PROMPTS[:2], None), InputError, "4 images for 2 prompts"),
        (lambda: flow_grpo.reward_fn(Level())(TENSOR, "a cat", None), InputError, "list of prompts"),
        (lambda: flow_grpo.reward_fn(Level())(TENSOR, PROMPTS, ["x"] * N), InputError, "expected a mapping"),
        (lambda: flow_grpo.reward_fn(Level())(TENSOR * 255, PROMPTS, None), InputError, "divide by 255"),
        (
            lambda: flow_grpo.reward_fn(ExactMatch(), fields={"response": "captoin"})(
                TENSOR, PROMPTS, [{"caption": "x"}] * N
            ),
            InputError,
            "did you mean 'caption'",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(call: Any, error: type[Exception], message: str) -> None:
    """With the setting to change."""
    with pytest.raises(error, match=message):
        call()


# The other way


def brightness_score(device: str) -> Any:
    """As flow_grpo writes them: a factory, tensors, a list as info."""

    def _fn(images: torch.Tensor, prompts: Any, metadata: Any, only_strict: bool = False) -> Any:
        assert only_strict
        assert len(prompts) == len(metadata) == len(images)
        return images.to(device).mean((1, 2, 3)), {"texts": list(prompts)}

    return _fn


def multi(images: torch.Tensor, prompts: Any, metadata: Any) -> Any:
    """As multi_score answers, with elements of tensors."""
    first = list(images.mean((1, 2, 3)))
    return {"level": first, "avg": [0.5 * one for one in first]}, {}


def geneval(images: torch.Tensor, prompts: Any, metadata: Any, only_strict: bool) -> Any:
    """Five values; -10 for what does not apply."""
    return [1.0, -10.0], [0.5, -10.0], [1.0, 0.0], {"colors": [1.0, -10.0]}, {}


def nothing_good(images: torch.Tensor, prompts: Any, metadata: Any) -> Any:
    """NaN, or too few."""
    return torch.full((len(images),), torch.nan) if prompts[0] == "nan" else [1.0], {}


def edit(images: torch.Tensor, prompts: Any, metadata: Any, ref_images: Any) -> Any:
    """Of an editing model: reference images as PIL."""
    return [float(np.asarray(image).mean()) for image in ref_images], {}


IMAGES = [np.full((4, 4, 3), level, np.uint8) for level in (51, 102)]


def test_functions_of_both_kinds_are_rewards() -> None:
    """Bytes or tensors, from a function or a factory."""
    assert flow_grpo.from_flow_grpo(brightness, "nhwc")(prompt=["a", "b"], image=IMAGES).rewards.tolist() == [51, 102]
    batch = flow_grpo.from_flow_grpo(brightness_score, factory=True, device="cpu")(prompt=["a", "b"], image=IMAGES)
    np.testing.assert_allclose(batch.rewards, [0.2, 0.4], rtol=1e-6)
    assert [note["texts"] for note in batch.metadata] == ["a", "b"]


@pytest.mark.parametrize(
    "check",
    reward_checks(flow_grpo.from_flow_grpo("integrations.rewards_elsewhere.brightness", "nhwc"), SAMPLES),
    ids=str,
)
def test_the_contract_of_a_reward_is_kept(check: Check) -> None:
    """As by any reward of the library."""
    check()


def test_images_of_several_sizes_are_scored() -> None:
    """In calls of their own, and in order."""
    wide = [np.full((4, size, 3), level, np.uint8) for level, size in ((1, 4), (2, 8), (3, 4))]
    assert flow_grpo.from_flow_grpo(brightness, "nhwc")(prompt=["a"] * 3, image=wide).rewards.tolist() == [1, 2, 3]


def test_videos_are_stacked() -> None:
    """An axis more."""
    shapes: list[Any] = []

    def look(images: Any, prompts: Any, metadata: Any) -> Any:
        shapes.append(tuple(images.shape))
        return [0.0] * len(images)

    clips = [BYTES[:3], BYTES[1:]]
    for images in ("nchw", "nhwc"):
        flow_grpo.from_flow_grpo(look, images, required_fields=["video"])(video=clips)
    assert shapes == [(2, 3, 3, 24, 16), (2, 3, 24, 16, 3)]


def test_the_form_of_multi_score_comes_back() -> None:
    """The total as the score, the rest as parts."""
    batch = flow_grpo.from_flow_grpo(multi)(prompt=["a", "b"], image=IMAGES)
    np.testing.assert_allclose(batch.rewards, [0.1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(batch.parts["level"].rewards, [0.2, 0.4], rtol=1e-6)
    with pytest.raises(ContractError, match="it gave level, avg"):
        flow_grpo.from_flow_grpo(multi, total="sum")(prompt=["a"], image=IMAGES[:1])


def test_the_five_values_of_geneval() -> None:
    """Its own word for what does not apply is understood when it is told."""
    batch = flow_grpo.from_flow_grpo(geneval, not_applicable=-10)(prompt=["a", "b"], image=IMAGES)
    assert batch.not_applicable.tolist() == [False, True]
    assert batch[0].metadata == {"rewards": 0.5, "strict_rewards": 1.0}
    raw = flow_grpo.from_flow_grpo(geneval)(prompt=["a", "b"], image=IMAGES)
    assert raw.rewards.tolist() == [1.0, -10.0]


def test_reference_images_are_passed() -> None:
    """The first of the condition images, as PIL."""
    reward = flow_grpo.from_flow_grpo(edit, required_fields=["image", "prompt", "condition_images"])
    got = reward(prompt=["a"], image=IMAGES[:1], condition_images=[[np.full((2, 2, 3), 7, np.uint8)]])
    assert got.rewards.tolist() == [7.0]


def test_what_is_no_score_failed() -> None:
    """A NaN, and a list of another length."""
    reward = flow_grpo.from_flow_grpo(nothing_good)
    with pytest.raises(ComputeError, match="nan"):
        reward(prompt=["nan", "b"], image=IMAGES)
    with pytest.raises(ContractError, match="for 2 samples"):
        reward(prompt=["few", "b"], image=IMAGES)


def test_there_and_back() -> None:
    """A reward as a function as a reward says the same."""
    reward = JPEGCompressibility()
    for images in ("nchw", "nhwc"):
        back = flow_grpo.from_flow_grpo(flow_grpo.reward_fn(reward), images)
        np.testing.assert_array_equal(back(SAMPLES).rewards, reward(SAMPLES).rewards)


@pytest.mark.parametrize("form", ["scores", "dict"])
def test_parts_come_back(form: str) -> None:
    """From either form; one that does not apply to a sample is none there, and no failure."""
    reward = CompositeReward([(Level(), 1.0), (JPEGCompressibility(), 1.0)])
    samples = [SAMPLES[0], SAMPLES[1]]
    back = flow_grpo.from_flow_grpo(flow_grpo.reward_fn(reward, form=form))(samples)
    direct = reward(samples)
    np.testing.assert_allclose(back.rewards, direct.rewards, rtol=1e-6)
    assert list(back.parts) == list(direct.parts) == ["Level", "JPEGCompressibility"]
    assert back.parts["Level"].not_applicable.tolist() == [False, True]
    for name, part in direct.parts.items():
        np.testing.assert_allclose(back.parts[name].rewards, part.rewards, rtol=1e-6)


def test_an_infinite_part_failed() -> None:
    """And is named."""

    def endless(images: Any, prompts: Any, metadata: Any) -> Any:
        return [1.0], {"level": [float("inf")]}

    with pytest.raises(ComputeError, match="inf for 'level'"):
        flow_grpo.from_flow_grpo(endless)(prompt=["a"], image=IMAGES[:1])


def test_a_function_of_a_file(tmp_path: Path) -> None:
    """By the path of the file."""
    (tmp_path / "mine.py").write_text("def size(images, prompts, metadata):\n    return [float(images.shape[2])], {}\n")
    reward = flow_grpo.from_flow_grpo(f"{tmp_path / 'mine.py'}:size")
    assert (reward.name, reward(prompt=["a"], image=IMAGES[:1]).rewards.tolist()) == ("size", [4.0])


def test_one_by_its_path_pickles() -> None:
    """The factory, not what it made."""
    reward = flow_grpo.from_flow_grpo("flow_grpo.rewards.pickscore_score", factory=True, device="cuda", batch_size=8)
    again = pickle.loads(pickle.dumps(reward))
    assert (again, again.name, again.batch_size) == (reward, "pickscore_score", 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"function": 3}, "callable or a dotted path"),
        ({"function": multi, "images": "hwc"}, "images must be one of"),
        ({"function": multi, "device": "cuda"}, "factory=True"),
        ({"function": multi, "required_fields": ["image", "promt"]}, "did you mean 'prompt'"),
        ({"function": multi, "required_fields": ["prompt"]}, "one of image and video"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(given: dict[str, Any], message: str) -> None:
    """When it is wrapped."""
    with pytest.raises(ConfigError, match=message):
        flow_grpo.from_flow_grpo(**given)
