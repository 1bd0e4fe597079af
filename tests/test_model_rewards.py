"""What goes wrong around rewards with weights: bad samples, overflow, changed files, forks, settings of callers."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import tiny_image_reward
import torch
from safetensors.torch import load_file, save_file
from tiny_rewards import CONFIGS

from flux_rewards import (
    AestheticScore,
    Cached,
    CLIPScore,
    CompositeReward,
    ComputeError,
    ConfigError,
    ImageReward,
    ImageSimilarity,
    InputError,
    MaskErrors,
    MissingDependencyError,
    PickScore,
    RewardFunction,
    Sample,
    VideoReward,
    WeightsError,
    load_rewards,
)
from flux_rewards.testing import example_samples

SAMPLES = example_samples(4)
BAD_PROMPTS: list[Any] = [[{"role": "system", "content": "x"}], "half \ud800 a character", 7]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.transformers_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> dict[str, RewardFunction]:
    return {
        "CLIPScore": CLIPScore(str(clip)),
        "ImageReward": ImageReward(**tiny_image_reward.config(tmp_path_factory.mktemp("image_reward"))),
    }


@pytest.mark.parametrize("name", ["CLIPScore", "ImageReward"])
@pytest.mark.parametrize("prompt", BAD_PROMPTS, ids=["no user", "surrogate", "number"])
def test_a_prompt_that_cannot_be_read_fails_alone(name: str, prompt: Any, rewards: dict[str, RewardFunction]) -> None:
    """By its index; on both paths."""
    prompts = ["a cat", prompt, "red"]
    images = [sample.image for sample in SAMPLES[:3]]
    with pytest.raises(InputError, match=f"reward '{name}', sample 1, field 'prompt'"):
        rewards[name](image=images, prompt=prompts)
    batch = MaskErrors(rewards[name])(image=images, prompt=prompts)
    assert list(batch.errors) == [1]
    expected = rewards[name](image=images[::2], prompt=prompts[::2]).rewards
    np.testing.assert_allclose(batch.rewards[::2], expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match=f"reward '{name}', sample 1, field 'prompt'"):
        rewards[name].forward(torch.rand(3, 3, 40, 40), prompts)


def test_a_reference_that_cannot_be_read_fails_alone(clip: Path) -> None:
    """It takes no neighbours along."""
    images = [sample.image for sample in SAMPLES[:3]]
    reward = ImageSimilarity(str(clip), against="reference")
    batch = MaskErrors(reward)(image=images, reference=[images[0], "nowhere.png", images[2]])
    assert list(batch.errors) == [1]
    np.testing.assert_allclose(batch.rewards[::2], 1.0, atol=1e-6)
    assert (batch.rewards[::2] <= 1.0).all()


def test_an_overflow_in_half_precision_is_a_failure(tmp_path: Path) -> None:
    """Not "does not apply", which a composite would leave out without a word."""
    folder = tiny_clip.transformers_clip(tmp_path)
    state = load_file(folder / "model.safetensors")
    state["visual_projection.weight"] *= 3e5
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    reward = CLIPScore(str(folder), dtype="float16")
    with pytest.raises(ComputeError, match="nan"):
        CompositeReward([(reward, 1.0)])(SAMPLES)
    with pytest.raises(ComputeError, match="overflowed in"):
        reward.forward(torch.rand(1, 3, 40, 40), ["a"])


@pytest.mark.parametrize("name", CONFIGS)
def test_callers_autocast_and_default_dtype_change_no_score(name: str, tmp_path: Path) -> None:
    """Trainers score within autocast, and transformers changes the default type while it loads another model."""
    reward = load_rewards([{"reward_model": name, **CONFIGS[name](tmp_path)}]).train.children[0]
    expected = reward(SAMPLES).rewards
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_allclose(reward(SAMPLES).rewards, expected, rtol=1e-6)
    for dtype in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            np.testing.assert_allclose(reward(SAMPLES).rewards, expected, rtol=1e-6)
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "PickScore_Rank"])
def test_scores_of_models_can_be_cached(name: str, tmp_path: Path) -> None:
    """Also those of another object of the same parameters, and in a file."""
    config = [{"reward_model": name, **CONFIGS[name](tmp_path)}]
    first = Cached(load_rewards(config).train.children[0], tmp_path / "scores.db")
    expected = first(SAMPLES)
    again = Cached(load_rewards(config).train.children[0], tmp_path / "scores.db")
    found = again(SAMPLES)
    assert sum(stats.cache_hits for stats in found.stats.values()) == len(SAMPLES)
    np.testing.assert_array_equal(found.rewards, expected.rewards)
    assert vars(again.reward).get("_model") is None  # not even loaded


def test_scores_of_videos_can_be_cached(clip: Path, tmp_path: Path) -> None:
    """By the weights of the image reward, too."""
    reward = Cached(VideoReward(PickScore(str(clip), processor_name_or_path=str(clip))), tmp_path / "scores.db")
    reward(SAMPLES)
    assert next(iter(reward(SAMPLES).stats.values())).cache_hits == len(SAMPLES)


def replace_weights(folder: Path, seed: int) -> None:
    other = tiny_clip.transformers_clip(folder.parent / f"other-{seed}", seed=seed)
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    os.utime(folder / "model.safetensors", ns=(time.time_ns(), time.time_ns()))


def test_weights_that_were_replaced_are_read_by_whoever_loads_next(tmp_path: Path) -> None:
    """While others still hold the old ones, whose scores stay theirs, in a cache as well."""
    folder = tiny_clip.transformers_clip(tmp_path / "latest")
    database = tmp_path / "scores.db"
    old = CLIPScore(str(folder))
    before = Cached(old, database)(SAMPLES).rewards
    replace_weights(folder, seed=1)
    new = CLIPScore(str(folder))
    after = Cached(new, database)(SAMPLES).rewards
    assert not np.allclose(after, before)
    np.testing.assert_array_equal(Cached(old, database)(SAMPLES).rewards, before)
    np.testing.assert_array_equal(Cached(CLIPScore(str(folder)), database)(SAMPLES).rewards, after)


def test_one_cache_follows_weights_that_were_replaced_and_loaded_again(tmp_path: Path) -> None:
    """After `close`, the next call reads the new file, and is not served old scores."""
    folder = tiny_clip.transformers_clip(tmp_path / "latest")
    cached = Cached(CLIPScore(str(folder)))
    before = cached(SAMPLES).rewards
    replace_weights(folder, seed=1)
    cached.close()
    assert vars(cached.reward)["_model"] is None
    assert not np.allclose(cached(SAMPLES).rewards, before)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["tokenizer.json"], "holds no tokenizer.*processor_name_or_path"),
        (["preprocessor_config.json"], "says how images are prepared"),
    ],
)
def test_a_checkpoint_without_its_processor_is_refused(files: list[str], message: str, tmp_path: Path) -> None:
    """Transformers would make up a tokenizer that reads all prompts alike."""
    folder = tiny_clip.transformers_clip(tmp_path / "whole")
    whole = shutil.copytree(folder, tmp_path / "copy")
    for file in files:
        (folder / file).unlink()
    with pytest.raises(WeightsError, match=message):
        CLIPScore(str(folder))(SAMPLES)
    found = CLIPScore(str(folder), processor_name_or_path=str(whole))(SAMPLES).rewards
    np.testing.assert_allclose(found, CLIPScore(str(whole))(SAMPLES).rewards)


def test_the_tokenizer_of_another_model_is_refused(clip: Path, tmp_path: Path) -> None:
    """By its end of text, or its size."""
    import json

    folder = shutil.copytree(clip, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="ends texts with"):
        CLIPScore(str(folder))(SAMPLES)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("preprocessor_config.json", "{bad"),
        ("preprocessor_config.json", "[]"),
        ("preprocessor_config.json", '{"do_normalize": false, "size": 32}'),
        ("preprocessor_config.json", '{"rescale_factor": 0.5, "size": 32}'),
        ("preprocessor_config.json", '{"image_processor_type": "ViTImageProcessor", "size": 32}'),
        ("config.json", "{bad"),
    ],
)
def test_a_broken_checkpoint_is_no_failure_of_samples(file: str, text: str, clip: Path, tmp_path: Path) -> None:
    """Which could be masked."""
    folder = shutil.copytree(clip, tmp_path / "copy")
    (folder / file).write_text(text)
    with pytest.raises(WeightsError):
        MaskErrors(CLIPScore(str(folder)), max_failure_rate=1.0)(SAMPLES)


def test_an_aesthetic_head_wants_a_clip_model(tmp_path: Path) -> None:
    """A DINO model of the same width gives numbers, too."""
    dino = tiny_clip.dino(tmp_path / "dino", "vit")
    with pytest.raises(WeightsError, match="expected a CLIPModel"):
        AestheticScore(str(dino), head=str(tiny_clip.aesthetic_head(tmp_path, width=32)))(SAMPLES)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_was_forked_during_a_call_can_call(clip: Path) -> None:
    """It has none of the threads that held a lock."""
    reward = CLIPScore(str(clip))
    reward.load()
    with reward.model._one_at_a_time, reward._opening:
        child = os.fork()
        if child == 0:
            lock, opening = reward.model._one_at_a_time, reward._opening
            free = lock._lock.acquire(timeout=2) and opening._lock.acquire(timeout=2)
            os._exit(0 if free else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize(
    ("module", "extra", "name"),
    [
        ("rapidocr", "ocr", "ocr"),
        ("onnxruntime", "face", "face_similarity"),
        ("onnx2torch", "face", "face_similarity"),
    ],
)
def test_a_missing_extra_names_the_line_that_installs_it(
    module: str, extra: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first call."""
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    config = {} if name == "ocr" else CONFIGS[name](tmp_path)
    reward = load_rewards([{"reward_model": name, **config}]).train
    with pytest.raises(MissingDependencyError, match=rf'pip install "flux_rewards\[{extra}\]"'):
        reward(SAMPLES)


def test_a_reward_of_videos_is_no_reward_of_frames() -> None:
    """Said when it is made."""
    from flux_rewards import LengthReward, TemporalFlicker

    for inner in (TemporalFlicker(), LengthReward(target=3)):
        with pytest.raises(ConfigError, match="must be one that reads an image"):
            VideoReward(inner)


def test_an_image_that_a_processor_refuses_fails_alone(tmp_path: Path) -> None:
    """Qwen's takes no image of more than 200 to 1."""
    reward = load_rewards([{"reward_model": "vqa_score", **CONFIGS["vqa_score"](tmp_path)}]).train.children[0]
    images = [SAMPLES[0].image, np.zeros((300, 1, 3), dtype=np.uint8), SAMPLES[1].image]
    batch = MaskErrors(reward)(image=images, prompt=["a", "b", "c"])
    assert list(batch.errors) == [1]
    expected = reward(image=images[::2], prompt=["a", "c"]).rewards
    np.testing.assert_allclose(batch.rewards[::2], expected, rtol=1e-4)


def test_samples_scored_outside_the_executor_share_nothing(clip: Path) -> None:
    """Author code may call `compute_rewards` itself."""
    reward = CLIPScore(str(clip))
    tensors = [Sample("a cat", image=torch.rand(3, 40, 40)) for _ in range(2)]
    rows = reward.compute_rewards(tensors)
    np.testing.assert_allclose([row.reward for row in rows], reward(tensors).rewards, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_logit_scale_keeps_its_precision(clip: Path, tmp_path: Path, dtype: str) -> None:
    """Its logarithm in bfloat16 would make every PickScore one per cent too low."""
    weight = torch.tensor(4.6052)  # of the published models: a scale of 100
    folder = shutil.copytree(clip, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    save_file({**state, "logit_scale": weight}, folder / "model.safetensors", metadata={"format": "pt"})
    reward = CLIPScore(str(folder), dtype=dtype, scaling="logit")
    reward.load()
    assert reward.model.logit_scale == pytest.approx(100.0, rel=1e-4)
    path = tiny_clip.open_clip_folder(tmp_path / "open_clip")
    state = load_file(path / "open_clip_model.safetensors")
    save_file({**state, "logit_scale": weight}, path / "open_clip_model.safetensors")
    other = CLIPScore(str(path), dtype=dtype)
    other.load()
    assert other.model.logit_scale == pytest.approx(100.0, rel=1e-4)


def test_a_cache_goes_by_the_pixels_of_a_reference(clip: Path, tmp_path: Path) -> None:
    """Not by the name of its file."""
    from PIL import Image

    file = tmp_path / "reference.png"
    Image.fromarray(SAMPLES[0].image).save(file)
    reward = Cached(ImageSimilarity(str(clip), against="reference"))
    before = reward(image=[SAMPLES[1].image], reference=[str(file)]).rewards
    Image.fromarray(SAMPLES[1].image).save(file)
    assert reward(image=[SAMPLES[1].image], reference=[str(file)]).rewards[0] == pytest.approx(1.0, abs=1e-6)
    assert before[0] < 0.999


def test_an_adapter_is_no_model(clip: Path, tmp_path: Path) -> None:
    """It would be applied where peft is installed, and left out without a word elsewhere."""
    folder = shutil.copytree(clip, tmp_path / "copy")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="merge it"):
        CLIPScore(folder)(SAMPLES)  # type: ignore[arg-type]  # a Path will do, too
    assert np.isfinite(CLIPScore(clip)(SAMPLES).rewards).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["meta", "mps", "nowhere"])
def test_a_device_that_computes_nothing_is_refused(device: str, clip: Path) -> None:
    """As a mistake in the set-up."""
    with pytest.raises(ConfigError, match="'cpu', 'cuda'"):
        CLIPScore(str(clip), device=device)(SAMPLES)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "PickScore_Rank"])
def test_every_reward_says_which_fields_it_reads(name: str, tmp_path: Path) -> None:
    """Else a cache would go by all of them, and tell equal images apart by their metadata."""
    reward = load_rewards([{"reward_model": name, **CONFIGS[name](tmp_path)}]).train.children[0]
    assert reward.optional_fields is not None
