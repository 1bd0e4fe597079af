"""Flow-Factory: against its contract as written out in flow_factory_contract.py, not against the package."""

import inspect
import json
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from integrations import flow_factory_contract as contract
from integrations import trainer_pages
from integrations.flow_factory_contract import FlowSample, RewardArguments, pixels, processed
from scripted_server import Asked, Reply, scripted

from flux_rewards import (
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    ExactMatch,
    FunctionReward,
    GroupRank,
    InputError,
    JPEGCompressibility,
    MissingDependencyError,
    RewardFunction,
    Sample,
    TemporalFlicker,
)
from flux_rewards.integrations import flow_factory
from flux_rewards.integrations.flow_factory import foreign
from flux_rewards.testing import Check, reward_checks


@pytest.fixture(autouse=True)
def _flow_factory() -> Iterator[None]:
    with contract.installed():
        yield


def model_of(reward: RewardFunction, **given: Any) -> Any:
    """An instance, as Flow-Factory makes it."""
    return flow_factory.reward_model_class(reward, **given)(RewardArguments(batch_size=2), accelerator=None)


def arguments(model: Any) -> list[str]:
    """What Flow-Factory may pass."""
    return list(inspect.signature(model.__call__).parameters)


class Redness(RewardFunction):
    """The mean of red, in tensors; reads the prompt where there is one."""

    required_fields = ("image",)
    optional_fields = ("prompt",)
    use_tensor_inputs = True

    def compute_reward(self, sample: Sample) -> float | None:
        if sample.prompt == "skip":
            return None
        if sample.prompt == "fail":
            raise ValueError("no red in this")
        return float(sample.image[0].mean())


def test_scores_are_those_of_a_direct_call() -> None:
    """In batches of two, from tensors; the pixels that the reward sees are the policy's own."""
    samples = [FlowSample(prompt="a cat", image=pixels(seed, 3, 24, 16)) for seed in range(5)]
    reward = CompositeReward([(Redness(), 2.0), (JPEGCompressibility(), 0.5)])
    got = processed(model_of(reward), samples)
    direct = reward([Sample(sample.prompt, image=sample.image) for sample in samples])
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, direct.rewards, rtol=1e-6)


def test_values_between_the_levels_of_pil_are_not_rounded() -> None:
    """A VAE's output has more than 256 levels."""
    image = torch.full((3, 4, 4), 0.5 + 0.3 / 255)
    assert processed(model_of(Redness()), [FlowSample(prompt="a", image=image)]).item() == pytest.approx(
        0.5 + 0.3 / 255, abs=1e-7
    )


@pytest.mark.parametrize(
    ("reward", "fields", "expected"),
    [
        (JPEGCompressibility(), None, ["image"]),
        (Redness(), None, ["prompt", "image"]),
        (TemporalFlicker(), None, ["video"]),
        (ExactMatch(), {"response": "caption", "reference": "answer"}, ["caption", "answer", "metadata"]),
        (CompositeReward([(Redness(), 1.0), (JPEGCompressibility(), 1.0)]), None, ["prompt", "image"]),
        (GroupRank(Redness()), None, ["image"]),
        (GroupRank(Redness()), {"prompt": "prompt"}, ["prompt", "image"]),
        (
            FunctionReward(len),
            None,
            ["prompt", "image", "video", "condition_images", "condition_videos", "metadata"],
        ),
    ],
    ids=["image", "optional", "video", "columns", "parts", "group", "group-asked", "any"],
)
def test_the_signature_names_what_the_reward_reads(
    reward: RewardFunction, fields: dict[str, str | None] | None, expected: list[str]
) -> None:
    """Flow-Factory goes by it: nothing else is moved, converted or gathered, latents least of all."""
    model = model_of(reward, fields=fields)
    assert sorted(arguments(model)) == sorted(expected)
    assert sorted(model.required_fields) == sorted(expected)


def test_the_kind_of_model_is_the_scope_of_the_reward() -> None:
    """A group is scored whole, whatever the batch size, and by its unique_id, whatever its prompts."""
    images = [pixels(0, 3, 8, 8) * level for level in (0.1, 0.9, 0.5, 0.3, 0.2)]
    samples = [
        FlowSample(prompt="a", image=image, unique_id=group)
        for image, group in zip(images, (7, 7, 7, 8, 8), strict=True)
    ]
    model = model_of(GroupRank(Redness()))
    assert isinstance(model, contract.GroupwiseRewardModel)
    assert processed(model, samples).tolist() == [0.0, 1.0, 0.5, 1.0, 0.0]
    assert isinstance(model_of(Redness()), contract.PointwiseRewardModel)


def test_videos_and_condition_images_arrive() -> None:
    """As tensors (T, C, H, W), and (N, C, H, W) or a list of images whose sizes differ."""
    clip = pixels(1, 4, 3, 8, 8)
    got = processed(model_of(TemporalFlicker()), [FlowSample(prompt="a", video=clip)])
    np.testing.assert_allclose(got, TemporalFlicker()(video=[clip]).rewards, rtol=1e-6)

    count = FunctionReward(lambda sample: len(sample.condition_images), fields=["condition_images"], name="count")
    sources = [pixels(2, 2, 3, 8, 8), [pixels(3, 3, 8, 8), pixels(4, 3, 6, 4), pixels(5, 3, 2, 2)]]
    given = [FlowSample(prompt="a", condition_images=source) for source in sources]
    assert processed(model_of(count), given).tolist() == [2.0, 3.0]


def test_columns_of_the_data_set_come_from_the_json_in_the_metadata() -> None:
    """Where they are no attribute of the sample."""
    rows = [
        FlowSample(prompt="q", extra_kwargs={"caption": said, "metadata": json.dumps({"answer": "4", "level": 2})})
        for said in ("4", "5")
    ]
    model = model_of(ExactMatch(), fields={"response": "caption", "reference": "answer"})
    assert processed(model, rows).tolist() == [1.0, 0.0]


def test_a_field_that_one_sample_lacks_is_named() -> None:
    """Flow-Factory leaves it out for the whole batch, without a word."""
    samples = [FlowSample(prompt="a", image=pixels(0, 3, 8, 8)), FlowSample(prompt="a")]
    with pytest.raises(InputError, match=r"Redness.*'image'.*only where every sample"):
        processed(model_of(Redness()), samples)
    with pytest.raises(InputError, match="'reference'"):
        processed(
            model_of(ExactMatch(), fields={"response": "prompt", "reference": "answer"}),
            [FlowSample(prompt="a", extra_kwargs={"metadata": "{}"})],
        )
    with pytest.raises(InputError, match=r"sample 0, field 'metadata'.*JSON"):
        processed(
            model_of(ExactMatch(), fields={"response": "prompt", "reference": "answer"}),
            [FlowSample(prompt="a", extra_kwargs={"metadata": "not json"})],
        )


def test_no_score_is_a_number_only_by_name() -> None:
    """Flow-Factory checks no NaN."""
    samples = [FlowSample(prompt=prompt, image=pixels(0, 3, 8, 8) * 0 + 0.5) for prompt in ("a", "skip", "fail")]
    with pytest.raises(ComputeError, match="does not apply"):
        processed(model_of(Redness(), on_error=-1.0), samples[:2])
    with pytest.raises(ComputeError, match="no red in this"):
        processed(model_of(Redness(), not_applicable=0.0), samples[::2])
    assert processed(model_of(Redness(), not_applicable=0.0, on_error=-1.0), samples).tolist() == [0.5, 0.0, -1.0]


def test_the_output_has_the_parts() -> None:
    """Flow-Factory reads the rewards only; the parts are there for who looks."""
    model = model_of(CompositeReward({"red": (Redness(), 2.0)}))
    output = model(prompt=["a"], image=[torch.full((3, 2, 2), 0.5)])
    assert isinstance(output, contract.RewardModelOutput)
    assert output.extra_info == {"parts": {"red": [0.5]}}


def test_without_flow_factory_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported late, and only here."""
    monkeypatch.setitem(sys.modules, "flow_factory.rewards", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        flow_factory.reward_model_class(Redness())


@pytest.mark.parametrize(
    ("reward", "given", "message"),
    [
        (len, {}, "expected a reward"),
        (ExactMatch(), {}, r"needs 'response'.*fields="),
        (Redness(), {"fields": {"imagee": "x"}}, r"imagee.*did you mean 'image'"),
        (Redness(), {"on_error": "zero"}, "on_error must be a finite number"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(reward: Any, given: dict[str, Any], message: str) -> None:
    """Before a training begins."""
    with pytest.raises(ConfigError, match=message):
        flow_factory.reward_model_class(reward, **given)


# The other way


class Sharpness(contract.PointwiseRewardModel):
    """As a user of Flow-Factory writes them: PIL images, and any further field."""

    required_fields = ("prompt", "image")

    def __init__(self, config: Any, accelerator: Any) -> None:
        super().__init__(config, accelerator)
        self.offset = config.extra_kwargs.get("offset", 0.0)
        self.seen: list[dict[str, Any]] = []

    def __call__(self, prompt: list[str], image: Any = None, **kwargs: Any) -> Any:
        self.seen.append({"prompt": prompt, "size": len(image), **kwargs})
        scores = torch.tensor(
            [len(text) + float(np.asarray(one).mean()) for text, one in zip(prompt, image, strict=True)]
        )
        return contract.RewardModelOutput(scores + self.offset, {"raw": scores.tolist(), "note": "one"})


class Best(contract.GroupwiseRewardModel):
    """One for the brightest of a group."""

    required_fields = ("image",)
    use_tensor_inputs = True

    def __call__(self, image: Any) -> Any:
        values = torch.stack([one.mean() for one in image])
        return (values == values.max()).float().numpy()


class Overflowing(contract.PointwiseRewardModel):
    """A model that gives no number for some, and too few where it is told to."""

    required_fields = ("prompt",)

    def __call__(self, prompt: list[str]) -> Any:
        return [float("nan") if text == "bad" else 1.0 for text in prompt if text != "lost"]


def test_a_model_is_a_reward() -> None:
    """From the class: made with what the config says, called in its batch size, with PIL images."""
    config = {"dtype": "float32", "batch_size": 2, "offset": 10.0}
    reward = flow_factory.from_flow_factory(Sharpness, config, accelerator=object(), name="sharp")
    samples = [Sample("ab", image=np.full((4, 4, 3), 51, np.uint8), metadata={"level": 3}) for _ in range(3)]
    batch = reward(samples)
    assert batch.rewards.tolist() == [63.0] * 3
    assert batch[0].metadata == {"raw": 53.0}
    made = reward._made()
    assert (made.dtype, made.config.reward_model is not None) == ("float32", True)
    assert [call["size"] for call in made.seen] == [2, 1]
    assert json.loads(made.seen[0]["metadata"][0]) == {"level": 3}
    assert (reward.required_fields, reward.scope, reward.batch_size) == (("prompt", "image"), "sample", 2)


CHECKED = [Sample(prompt, image=pixels(seed, 3, 8, 8).numpy()) for seed, prompt in enumerate(("a", "bb", "a", "bb"))]


@pytest.mark.parametrize(
    "check",
    reward_checks(flow_factory.from_flow_factory(f"{contract.__name__}.Warmth", {"offset": 1.0}, "none"), CHECKED),
    ids=str,
)
def test_the_contract_of_a_reward_is_kept(check: Check) -> None:
    """As by any reward of the library."""
    check()


def test_a_groupwise_model_is_a_reward_of_groups() -> None:
    """Called once a group, with tensors."""
    reward = flow_factory.from_flow_factory(Best(RewardArguments(), None))
    images = [np.full((2, 2, 3), level) for level in (0.1, 0.9, 0.5, 0.3)]
    batch = reward([Sample(image=image, group_id=group) for image, group in zip(images, (1, 1, 2, 2), strict=True)])
    assert (reward.scope, batch.rewards.tolist()) == ("group", [0.0, 1.0, 1.0, 0.0])


def test_what_the_model_cannot_score_failed() -> None:
    """Flow-Factory lets a NaN pass."""
    reward = flow_factory.from_flow_factory(Overflowing(RewardArguments(), None))
    with pytest.raises(ComputeError, match=r"sample 1.*nan"):
        reward(prompt=["good", "bad"])
    with pytest.raises(ContractError, match="2 samples"):
        reward(prompt=["good", "lost"])


@pytest.mark.parametrize("model", [f"{__name__}.Sharpness", Sharpness], ids=["path", "class"])
def test_a_model_by_name_pickles_and_prints(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To another process, or into a configuration."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Sharpness.__module__])
    reward = flow_factory.from_flow_factory(model, {"offset": 1.0})
    again = pickle.loads(pickle.dumps(reward))
    assert again == reward
    assert again.name == "Sharpness"
    assert "offset" in repr(again)


def test_a_model_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name that Flow-Factory has for it."""
    monkeypatch.setitem(contract.REGISTRY, "sharp", Sharpness)
    reward = flow_factory.from_flow_factory("Sharp", {}, accelerator=object(), required_fields=["prompt", "image"])
    assert reward(prompt=["a"], image=[np.zeros((2, 2, 3))]).rewards.tolist() == [1.0]


def test_there_and_back() -> None:
    """A reward as a model as a reward says the same."""
    reward = Redness()
    model = model_of(reward)
    samples = [Sample("a", image=pixels(seed, 3, 8, 8)) for seed in range(3)]
    back = flow_factory.from_flow_factory(model)
    np.testing.assert_allclose(back(samples).rewards, reward(samples).rewards, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((3,), "must be a reward model"),
        ((Best(RewardArguments(), None), {}), "this model is made"),
    ],
)
def test_what_is_no_model_is_refused(given: tuple[Any, ...], message: str) -> None:
    """When it is wrapped."""
    with pytest.raises(ConfigError, match=message):
        flow_factory.from_flow_factory(*given)


def test_a_server_of_groups_is_asked_about_one_group_a_request() -> None:
    """As RemoteGroupwiseRewardModel asks; the server sees which samples belong together."""

    def ranks(asked: Asked) -> Reply:
        prompts = json.loads(asked.body)["prompt"]
        return Reply(body={"rewards": [float(row) for row in range(len(prompts))]})

    with scripted(ranks) as server:
        reward = foreign.FlowFactoryGroupServer(server.url, required_fields=["prompt"], num_workers=1)
        batch = reward([Sample("a"), Sample("b"), Sample("a"), Sample("a"), Sample("b")])
        asked = [json.loads(asked.body)["prompt"] for asked in server.to("/compute")]
    assert batch.rewards.tolist() == [0.0, 0.0, 1.0, 2.0, 1.0]
    assert sorted(asked) == [["a", "a", "a"], ["b", "b"]]


def test_the_pages_of_the_documentation_run(capsys: pytest.CaptureFixture[str]) -> None:
    """As programs; the YAML names what the module has."""
    found = trainer_pages.ran("flow_factory.md", "my_rewards.py")
    assert capsys.readouterr().out.splitlines() == [
        "MyReward PointwiseRewardModel ('prompt', 'image')",
        "MyRank GroupwiseRewardModel ('prompt', 'image')",
    ]
    entries = yaml.safe_load(trainer_pages.script("flow_factory.md", "train.yaml"))["rewards"]
    assert all(entry["reward_model"].removeprefix("my_rewards.") in found for entry in entries)
    reward = trainer_pages.ran("flow_factory.md", "from_flow_factory.py")["reward"]
    assert list(reward.weights) == ["Sharpness", "JPEGCompressibility"]
