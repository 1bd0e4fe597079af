"""Configurations: what loads, what is shared, what comes back, and what is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rewards_of_our_own
import yaml
from rewards_of_our_own import Told, Watched, told

from flux_rewards import (
    Batched,
    Clip,
    CompositeReward,
    ConfigError,
    FunctionReward,
    Gate,
    GroupRank,
    LengthReward,
    Map,
    MaskErrors,
    NumericAnswerReward,
    Product,
    RewardFunction,
    Sample,
    Scale,
    UnknownRewardError,
    load_rewards,
    register_reward,
    to_config,
)

LENGTH = {"reward_model": "length", "target": 3}

YAML = """
rewards:
  - name: correct
    reward_model: numeric_answer
    weight: 1.0
  - name: brief
    reward_model: length
    weight: 0.2
    target: 4
    batch_size: 2
  - name: rank
    reward_model: group_rank
    weight: -0.5
    reward: {reward_model: Length, target: 4, unit: words}
eval_rewards:
  reward_model: length
  target: 4
  unit: words
  batch_size: 64
"""


def test_a_yaml_file_loads(tmp_path: Path) -> None:
    """Training and evaluation, in the layout of the documentation."""
    path = tmp_path / "rewards.yaml"
    path.write_text(YAML)
    loaded = load_rewards(path)
    assert loaded.train.weights == {"correct": 1.0, "brief": 0.2, "rank": -0.5}
    samples = [Sample("q", "A: 4", reference="4"), Sample("q", "that is a 4", reference="4")]
    batch = loaded.train(samples)
    # correct is 1 and 1; two words of four are 0.5, four are 1; ranked 0 and 1
    np.testing.assert_allclose(batch.rewards, [1 + 0.2 * 0.5 - 0.0, 1 + 0.2 - 0.5])
    assert list(loaded.eval.weights) == ["LengthReward"]
    assert load_rewards(str(path)).train.weights == loaded.train.weights


def test_the_training_rewards_serve_evaluation() -> None:
    """When there is no section for it."""
    for eval_section in ({}, {"eval_rewards": None}):
        loaded = load_rewards({"rewards": {"reward_model": "length", "target": 3}, **eval_section})
        assert loaded.eval is loaded.train
    assert load_rewards([{"reward_model": "length", "target": 3}]).train.weights == {"LengthReward": 1.0}


def leaves(reward: RewardFunction) -> list[RewardFunction]:
    """Everything that computes, in order."""
    if not reward.children:
        return [reward]
    return [leaf for child in reward.children for leaf in leaves(child)]


def test_entries_of_one_class_and_parameters_share_one_object() -> None:
    """Whatever their names, weights and batch sizes are, in both sections, nested or not."""
    loaded = load_rewards(yaml.safe_load(YAML))
    _, brief, ranked = leaves(loaded.train)
    (evaluated,) = leaves(loaded.eval)
    assert brief is not ranked  # only one of them says `unit`
    assert ranked is evaluated
    entry = {"reward_model": "length", "target": 5}
    same = load_rewards(
        [entry, {**entry, "name": "b", "weight": 2, "batch_size": 3}, {**entry, "name": "c", "unit": "auto"}]
    )
    assert len({id(leaf) for leaf in leaves(same.train)}) == 1  # a default that is written out is the same parameter
    other = load_rewards([entry, {"reward_model": "length", "target": 6, "name": "six"}])
    assert len({id(leaf) for leaf in leaves(other.train)}) == 2


def test_batch_sizes_of_a_shared_object_hold_for_their_own_section() -> None:
    """Training in small batches, evaluation in large ones, one model in memory."""
    entry = {"reward_model": "rewards_of_our_own.Watched"}
    loaded = load_rewards({"rewards": {**entry, "batch_size": 2}, "eval_rewards": {**entry, "batch_size": 3}})
    (leaf,) = leaves(loaded.train)
    assert isinstance(leaf, Watched)
    loaded.train([Sample(response="a")] * 6)
    loaded.eval([Sample(response="a")] * 6)
    assert leaf.calls == [2, 2, 2, 3, 3]


def test_factories_that_differ_make_different_objects() -> None:
    """Even where what they make was constructed alike."""
    entry = {"reward_model": "rewards_of_our_own.set_afterwards"}
    loaded = load_rewards([{**entry, "name": "a", "threshold": 1}, {**entry, "name": "b", "threshold": 100}])
    assert loaded.train(response=["xx"]).rewards.tolist() == [1.0]
    assert loaded.train(response=["xx"]).parts["b"].rewards.tolist() == [0.0]


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as text."""
    path = tmp_path / "rewards.yaml"
    path.write_text("rewards: {reward_model: length, target: 4e2, weight: 1e-3}")
    assert load_rewards(path).train.weights == {"LengthReward": 0.001}


def test_names_are_distinct_where_none_are_given() -> None:
    """As in a composite; a nested reward keeps a name of its own."""
    ranked = {"reward_model": "group_rank", "reward": {**LENGTH, "name": "size"}}
    loaded = load_rewards([LENGTH, {**LENGTH, "target": 4}, ranked])
    assert list(loaded.train.weights) == ["LengthReward", "LengthReward_2", "GroupRank(size)"]
    assert list(load_rewards(to_config(loaded)).train.weights) == list(loaded.train.weights)


def test_settings_of_the_object_are_set() -> None:
    """`num_workers` and `async_reward` belong to the object; different wishes for a shared one are refused."""
    entry = {"reward_model": "rewards_of_our_own.QualityReward", "num_workers": 3, "async_reward": False}
    loaded = load_rewards({"rewards": entry, "eval_rewards": {"reward_model": "rewards_of_our_own.QualityReward"}})
    (leaf,) = leaves(loaded.train)
    assert (leaf.num_workers, leaf.async_reward) == (3, False)
    assert leaves(loaded.eval) == [leaf]
    with pytest.raises(ConfigError, match=r"num_workers is 4, but rewards\[0\].*has 3"):
        load_rewards([entry, {**entry, "name": "again", "num_workers": 4}])


class OnDevice(RewardFunction):
    """Takes a device, as models do."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def compute_reward(self, sample: Sample) -> float:
        return 1.0


def test_device_and_dtype_go_to_rewards_that_take_them() -> None:
    """Others are spared them, as shared YAML anchors give them to all."""
    register_reward("test_config_on_device")(OnDevice)
    common = {"device": "cuda", "dtype": "bfloat16"}
    loaded = load_rewards(
        [{"reward_model": "test_config_on_device", **common}, {"reward_model": "length", "target": 3, **common}]
    )
    on_device, length = leaves(loaded.train)
    assert isinstance(on_device, OnDevice)
    assert on_device.device == "cuda"
    assert length == LengthReward(target=3)


GOOD: list[RewardFunction] = [
    CompositeReward({"brief": (LengthReward(target=40), 0.2), "correct": (NumericAnswerReward(), -1.0)}),
    CompositeReward([(LengthReward(40, batch_size=4, num_workers=2, scale=0.5, clip=(0, 0.25)), 1.0)]),
    CompositeReward([(CompositeReward([(LengthReward(40), 3.0)], normalize_weights=True), 2.0)]),
    CompositeReward([(LengthReward(40), 3.0)], normalize_weights=True),
    LengthReward(40),
    Batched(LengthReward(40), 7),
    Product({"a": LengthReward(40), "b": LengthReward(50)}),
    Product([LengthReward(40), LengthReward(50)]),
    Product({"a": LengthReward(40, name="same"), "b": LengthReward(50, name="same")}),
    Batched(LengthReward(40, batch_size=4), 8),
    Gate(LengthReward(40), when=NumericAnswerReward(), at_least=1.0, otherwise=None),
    GroupRank(Clip(Scale(LengthReward(40), 2.0), low=0.0, high=1.0), "max"),
    MaskErrors(FunctionReward("rewards_of_our_own.brevity"), 0.1),
    MaskErrors(FunctionReward(rewards_of_our_own.brevity), 0.1, on_error=0.0),
    Map(LengthReward(40), math.exp),
    CompositeReward([(Batched(Told(), 3), 1.0)]),
]


@pytest.mark.parametrize("reward", GOOD, ids=repr)
def test_a_configuration_comes_back(reward: RewardFunction) -> None:
    """Through YAML text, with the same scores and the same configuration."""
    config = to_config(reward)
    loaded = load_rewards(yaml.safe_load(yaml.safe_dump(config)))
    assert to_config(loaded) == config
    samples = [
        Sample("q", "a b 4", reference="4", metadata={"told": 1.0}),
        Sample("q", "5", reference="4", metadata={"told": 2}),
    ]
    np.testing.assert_allclose(loaded.train(samples).rewards, reward(samples).rewards)


def test_both_sections_come_back() -> None:
    """Evaluation rewards of their own are written out, shared ones are not."""
    both = {
        "rewards": [{"name": "a", "reward_model": "length", "weight": 1.0, "target": 3}],
        "eval_rewards": [{"name": "b", "reward_model": "length", "weight": 1.0, "target": 4}],
    }
    assert to_config(load_rewards(both)) == both
    assert to_config(load_rewards({"rewards": both["rewards"]})) == {"rewards": both["rewards"]}


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (FunctionReward(lambda sample: 1.0), "'function' is <function"),
        (Map(LengthReward(3), lambda value: value), "dotted path"),
    ],
)
def test_what_cannot_be_written_down_is_refused(reward: RewardFunction, message: str) -> None:
    """With the parameter and what to do."""
    with pytest.raises(ConfigError, match=message):
        to_config(reward)


def test_a_local_class_cannot_be_named() -> None:
    """Nobody could import it again."""

    class Local(OnDevice):
        pass

    with pytest.raises(ConfigError, match="register it"):
        to_config(Local())


BAD: list[tuple[Any, str]] = [
    ({}, "expected a mapping with 'rewards'"),
    ({"rewards": []}, "expected a list of entries"),
    ({"rewards": None}, "expected a list of entries"),
    ({"rewards": "length"}, "expected a list of entries"),
    (3, "expected a mapping"),
    ({"rewards": LENGTH, "eval_reward": LENGTH}, "unknown section 'eval_reward'.*did you mean 'eval_rewards'"),
    ([3], r"rewards\[0\]: expected a mapping"),
    ([{"name": "x"}], r"rewards\[0\]: has no 'reward_model'"),
    ([{"reward_modle": "length"}], "did you mean 'reward_model' by 'reward_modle'"),
    ([{**LENGTH, "weigth": 2}], r"rewards\[0\] \(length\): length has no parameter 'weigth'.*did you mean 'weight'"),
    ([LENGTH, {**LENGTH, "name": "b", "tolerence": 2}], r"rewards\[1\] \(b\).*did you mean 'tolerance'"),
    ([{"reward_model": "length"}], "length needs target"),
    ([{**LENGTH, "target": "many"}], r"rewards\[0\] \(length\).*target"),
    ([{**LENGTH, "target": -1}], "target"),
    ([{**LENGTH, "weight": "heavy"}], "weight must be a finite number"),
    ([{**LENGTH, "weight": True}], "weight must be"),
    ([{**LENGTH, "weight": float("inf")}], "weight must be"),
    ([{**LENGTH, "batch_size": 0}], "batch_size must be a whole number"),
    ([{**LENGTH, "num_workers": "4"}], "num_workers must be a whole number"),
    ([{"reward_model": "group_rank", "reward": LENGTH, "num_workers": 2}], "for rewards that compute"),
    ([{**LENGTH, "async_reward": "yes"}], "async_reward must be true or false"),
    ([{**LENGTH, "name": 3}], "name must be text"),
    ([{**LENGTH, "name": "a"}, {**LENGTH, "name": "a"}], "the name 'a' is taken"),
    ([{"reward_model": "group_rank", "reward": {**LENGTH, "weight": 2}}], r"reward \(length\): has a weight"),
    ([{"reward_model": "product", "rewards": [{**LENGTH, "weight": 2}]}], "a product has none"),
    ([{**LENGTH, "name": "a"}, {"reward_model": "exact_match", "name": "a"}], "the name 'a' is taken"),
    ([{"reward_model": "group_rank", "reward": {"reward_model": "lenght"}}], r"rewards\[0\] \(group_rank\): reward"),
    ([{"reward_model": "group_rank", "reward": "length"}], "must be a reward"),
    (
        [{"reward_model": "composite", "rewards": [{**LENGTH, "weight": "x"}]}],
        r"rewards\[0\] \(composite\): rewards\[0\]",
    ),
    ([{"reward_model": "rewards_of_our_own.told"}], "returned .*not a reward"),
    ([{"reward_model": 3}], "name is text"),
    ([{"reward_model": "format"}], "format"),
    ([{"reward_model": "regex", "pattern": "("}], "pattern"),
]


@pytest.mark.parametrize(("config", "message"), BAD)
def test_bad_configurations_are_refused(config: Any, message: str) -> None:
    """With the entry, the key and the close match."""
    with pytest.raises(ConfigError, match=message):
        load_rewards(config)


def test_an_unknown_reward_names_its_entry() -> None:
    """And stays an UnknownRewardError."""
    with pytest.raises(UnknownRewardError, match=r"rewards\[0\] \(x\).*did you mean 'length'"):
        load_rewards([{"name": "x", "reward_model": "lenght"}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rewards: [", "not valid YAML.*line 1"),
        ("rewards:\n  - reward_model: length\n    target: 3\n    target: 4\n", "'target' appears twice.*line 4"),
        ("rewards: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("", "expected a mapping"),
        ("rewards:\n  - reward_model: lenght\n", r"rewards.yaml: rewards\[0\] \(lenght\)"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """With the file and the line."""
    path = tmp_path / "rewards.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"(?s){message}") as caught:
        load_rewards(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    """Not a traceback of the operating system."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_rewards(tmp_path / "nowhere.yaml")


def test_yaml_anchors_and_merges_work(tmp_path: Path) -> None:
    """A merge is no duplicate."""
    path = tmp_path / "rewards.yaml"
    path.write_text("rewards:\n  - &base {reward_model: length, target: 3}\n  - {<<: *base, name: b, target: 4}\n")
    assert [leaf.parameters["target"] for leaf in leaves(load_rewards(path).train)] == [3, 4]
    assert told(1.0)[0].response == "r"


FLOW_FACTORY = """
# A training file as Flow-Factory reads it: what trains, and what scores.
launcher: accelerate
config_file: config/deepspeed/deepspeed_zero2.yaml
num_processes: 8
main_process_port: 29500
mixed_precision: bf16
run_name: null
project: Flow-Factory
logging_backend: wandb
data:
  dataset_dir: dataset/pickscore
  sampler_type: auto
model:
  finetune_type: lora
  model_name_or_path: stabilityai/stable-diffusion-3.5-medium
log: {save_dir: saves/, save_freq: 20}
train:
  trainer_type: grpo
  advantage_aggregation: gdpo
  clip_range: 1.0e-4
  group_size: 16
scheduler: {dynamics_type: Flow-SDE, noise_level: 1.0}
eval: {resolution: 512, eval_freq: 20}
rewards:
  - name: pick_score
    reward_model: PickScore
    weight: 1
    batch_size: 16
    device: cuda
    dtype: bfloat16
  - name: rank
    reward_model: pickscore_rank
    dtype: fp32
  - name: text_alignment
    reward_model: clip
    weight: 0.5
    model_name_or_path: openai/clip-vit-large-patch14
  - name: text
    reward_model: OCR
    async_reward: true
    num_workers: 2
  - name: quality
    reward_model: vllm_evaluate
    api_base_url: http://localhost:8000/v1
    api_key: EMPTY
    max_concurrent: 100
    max_retries: 10
    timeout: 60
    top_logprobs: 20
    canonicalize: true
    max_cache_size: 1024
    async_reward: true
    num_workers: 4
  - name: rational
    reward_model: rational_rewards_t2i
    api_base_url: http://localhost:8000/v1
    vlm_model: RationalRewards-8B-T2I
    temperature: 0.1
  - name: edit
    reward_model: rational_rewards_edit
  - name: hps
    reward_model: hpsv2
    hps_version: v2.1
  - name: remote
    reward_model: flow_factory.rewards.my_reward_remote.RemotePointwiseRewardModel
    server_url: http://localhost:8000
    timeout: 60.0
    retry_attempts: 5
    async_reward: true
    num_workers: 8
  - name: ranking
    reward_model: flow_factory.rewards.my_reward_remote.RemoteGroupwiseRewardModel
    server_url: http://localhost:8001
eval_rewards:
  name: pick_score
  reward_model: PickScore
  dtype: bfloat16
  device: cuda
optimizers:
  - {name: default, learning_rate: 3.0e-4}
"""


def test_a_training_file_of_flow_factory_loads_as_it_is(tmp_path: Path) -> None:
    """Every name of its registry that is here, its keys, and nothing of what is about training."""
    path = tmp_path / "train.yaml"
    path.write_text(FLOW_FACTORY)
    loaded = load_rewards(path)
    parts = dict(zip(loaded.train.weights, loaded.train.children, strict=True))
    assert loaded.train.weights["text_alignment"] == 0.5
    assert loaded.train.weights["rank"] == 1.0
    kinds = {name: type(leaves(part)[0]).__name__ for name, part in parts.items()}
    assert kinds == {
        "pick_score": "PickScore",
        "rank": "PickScore",
        "text_alignment": "CLIPScore",
        "text": "OCRReward",
        "quality": "VLLMEvaluate",
        "rational": "RationalRewardsT2I",
        "edit": "RationalRewardsEdit",
        "hps": "HPSv2",
        "remote": "RemoteReward",
        "ranking": "FlowFactoryGroupServer",
    }
    found: dict[str, Any] = {name: leaves(part)[0] for name, part in parts.items()}
    assert (found["pick_score"].dtype, found["pick_score"].device) == ("bfloat16", "cuda")
    assert found["pick_score"] is leaves(loaded.eval)[0]
    assert (found["rank"].dtype, parts["rank"].scope) == ("float32", "group")
    assert (found["quality"].vlm_model, found["quality"].num_workers, found["quality"].async_reward) == (
        "Qwen3-VL",
        4,
        True,
    )
    assert (found["hps"].version, found["text"].num_workers) == ("2.1", 2)
    remote = found["remote"]
    assert (remote.protocol, remote.required_fields, remote.retry_attempts) == ("flow_factory", ("prompt", "image"), 5)
    assert (found["ranking"].scope, found["ranking"].timeout) == ("group", 120.0)
    assert load_rewards(to_config(loaded)).train == loaded.train


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_reward": []}, r"unknown section 'eval_reward' \(did you mean 'eval_rewards'"),
        ({"evals": {}}, "unknown section 'evals'"),
        ({"eval": [LENGTH]}, r"'eval' holds a reward.*did you mean 'eval_rewards'"),
        ({"eval": {"eval_rewards": [LENGTH]}}, r"'eval' holds a reward.*did you mean 'eval_rewards'"),
        ({"train": {"more": [{"rewards": []}]}}, "'train' holds a reward"),
        ({"train": LENGTH}, "'train' holds a reward, and only rewards and eval_rewards are read"),
        ({"rewards": [{"reward_model": "CLAP"}]}, "'CLAP' is Flow-Factory's: wrap it.*from_flow_factory.*model: CLAP"),
        ({"rewards": [{"reward_model": "imagebind", "name": "audio"}]}, r"rewards\[0\] \(audio\).*Flow-Factory's"),
        ({"rewards": [{"reward_model": "flow_factory.rewards.clap.CLAPRewardModel"}]}, "is Flow-Factory's: wrap it"),
        ({"rewards": [{**LENGTH, "applicable_datasets": ["ocr"]}]}, "applicable_datasets.*Flow-Factory's to choose"),
        ({"rewards": [{"reward_model": "vllm_evaluate", "top_logprobs": 5}]}, "no parameter 'top_logprobs'"),
        ({"rewards": [{"reward_model": "pickscroe"}]}, "did you mean 'PickScore'"),
    ],
)
def test_typos_are_caught_beside_the_sections_of_flow_factory(changes: Any, message: str) -> None:
    """A file that has them is read no less strictly."""
    config = {"data": {}, "train": {}, "rewards": [LENGTH], **changes}
    with pytest.raises(ConfigError, match=message):
        load_rewards(config)


def test_a_reward_model_of_flow_factory_is_an_entry() -> None:
    """By its dotted path, with what its RewardArguments are to hold."""
    entry = {
        "name": "sharp",
        "reward_model": "flux_rewards.integrations.flow_factory.from_flow_factory",
        "model": "my_package.rewards.Sharpness",
        "config": {"dtype": "float32"},
        "required_fields": ["image"],
    }
    loaded = load_rewards({"rewards": [entry]})
    (reward,) = loaded.train.children
    assert (type(reward).__name__, reward.required_fields) == ("FlowFactoryModel", ("image",))
    assert load_rewards(to_config(loaded)).train == loaded.train
