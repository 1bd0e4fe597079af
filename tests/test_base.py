"""What an author may write and return, and what a caller gets."""

import copy
import multiprocessing
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rewards_of_our_own import Aspects, Characters, GroupMean, QualityReward, Returns, Told, told

from flux_rewards import (
    Combinator,
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    FunctionReward,
    InputError,
    LengthReward,
    RewardBatch,
    RewardFunction,
    RewardOutput,
    Sample,
)

NAN = float("nan")


async def a_coroutine_function(sample: Sample) -> float:
    """What a user may pass by mistake."""
    return 1.0


def test_the_seeds_example_works_unchanged() -> None:
    """No super().__init__() call, alone and in a composite."""
    reward = QualityReward()
    samples = [Sample(response="Because of this example"), Sample(response="idk")]
    batch = reward(samples)
    np.testing.assert_allclose(batch.rewards, [0.7, 0.4])
    assert batch.metadata[0] == {"raw_score": pytest.approx(0.7)}
    composite = CompositeReward([(reward, 2.0)])(samples)
    np.testing.assert_allclose(composite.rewards, [1.4, 0.8])
    assert list(composite.parts) == ["QualityReward"]
    assert reward.compute_reward(samples[0]).reward == pytest.approx(0.7)


def test_samples_or_columns_always_give_a_batch() -> None:
    """One return type, whatever the call."""
    reward = Characters()
    assert reward(response=["ab", "c"]).rewards.tolist() == [2.0, 1.0]
    assert reward([Sample(response="ab")]).rewards.tolist() == [2.0]
    assert reward((Sample(response="ab"),)).rewards.tolist() == [2.0]
    assert reward([]).rewards.shape == (0,)
    assert reward.compute_reward(Sample(response="abc")).reward == 3.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "bad",
    [Sample(response="a"), "text", {"response": ["a"]}, iter([]), [Sample(response="a"), "b"], [{"response": "a"}]],
)
def test_what_is_not_a_list_of_samples_is_refused(bad: Any) -> None:
    """The error names the reward and what was found."""
    with pytest.raises(InputError, match="Characters"):
        Characters()(bad)


def test_a_call_without_anything_is_refused() -> None:
    """An empty batch is passed as one."""
    with pytest.raises(InputError, match="pass samples, or columns"):
        Characters()()


def test_samples_and_columns_together_are_refused() -> None:
    """One of them would be ignored."""
    with pytest.raises(InputError, match="not both"):
        Characters()([Sample(response="a")], response=["a"])


def test_a_missing_field_names_reward_field_and_index() -> None:
    """And no sample is scored before."""
    with pytest.raises(InputError) as caught:
        Characters()(response=["a", None, "c"])
    assert (caught.value.reward, caught.value.field, caught.value.index) == ("Characters", "response", 1)


ROWS: list[tuple[Any, list[float]]] = [
    ([1, 2.5, True], [1.0, 2.5, 1.0]),
    ((1, None, 0), [1.0, NAN, 0.0]),
    ([np.float32(0.5), np.int64(2), np.bool_(True)], [0.5, 2.0, 1.0]),
    ([torch.tensor(0.5), RewardOutput(1), None], [0.5, 1.0, NAN]),
    ([RewardOutput(None), RewardOutput(), 3], [NAN, NAN, 3.0]),  # type: ignore[arg-type]
    (list(RewardBatch(np.array([1.0, NAN, 3.0]))), [1.0, NAN, 3.0]),
    (np.array([1, 2, 3]), [1.0, 2.0, 3.0]),
    (np.array([1.5, 2, 3], dtype=np.float16), [1.5, 2.0, 3.0]),
    (np.array([True, False, True]), [1.0, 0.0, 1.0]),
    (torch.tensor([1.5, 2.0, 3.0], dtype=torch.bfloat16, requires_grad=True), [1.5, 2.0, 3.0]),
    (RewardBatch(np.array([1.0, NAN, 3.0])), [1.0, NAN, 3.0]),
]


@pytest.mark.parametrize(("returned", "expected"), ROWS)
def test_rows_of_every_kind_are_read(returned: Any, expected: list[float]) -> None:
    """Lists, arrays, tensors and batches; None is 'does not apply'."""
    batch = Returns(returned)([Sample()] * 3)
    np.testing.assert_array_equal(batch.rewards, expected)
    assert batch.rewards.dtype == np.float64
    assert batch.errors == {}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0, 2.0], "2 rows for 3 samples"),
        (np.zeros(2), r"\(3,\)"),
        (np.zeros((3, 1)), r"\(3, 1\)"),
        (np.array(["1", "2", "3"]), "expected numbers"),
        (np.array([1j, 2, 3]), "expected numbers"),
        (torch.zeros(3, 1), r"\(3, 1\)"),
        (RewardBatch(np.zeros(4)), "4 rows for 3"),
        (1.0, "expected a list of 3 rows"),
        (None, "expected a list of 3 rows"),
        ({0: 1.0}, "expected a list of 3 rows"),
        ("123", "expected a list of 3 rows"),
        (RewardBatch(np.array([1.0, np.inf, 2.0])), "sample 1.*finite"),
        (RewardBatch(np.array([1.0, 2.0, 3.0]), errors={2: "late"}), "sample 2.*NaN where"),
        ([1.0, "2.0", 3.0], "sample 1"),
        ([1.0, 10**400, 3.0], "too large"),
        ([RewardOutput(1.0), 10**400, 3.0], "sample 1"),
        ([1.0, [2.0], 3.0], "sample 1"),
        ([1.0, 2.0, (3.0, {})], "sample 2"),
        ([1.0, 2.0, np.zeros(2)], "sample 2"),
        ([RewardOutput(1.0, token_rewards=["a"]), 1.0, 1.0], "sample 0.*token_rewards"),  # type: ignore[list-item]
        ([RewardOutput(1.0, token_rewards=[NAN]), 1.0, 1.0], "finite"),
        ([RewardOutput(1.0, token_rewards=[[1.0]]), 1.0, 1.0], "token_rewards"),  # type: ignore[list-item]
    ],
)
def test_other_rows_are_refused(returned: Any, message: str) -> None:
    """Nothing is guessed, cut or spread."""
    with pytest.raises(ContractError, match=message) as caught:
        Returns(returned)([Sample()] * 3)
    assert caught.value.reward == "Returns"


@pytest.mark.parametrize(
    "returned",
    [
        [1.0, NAN, 2.0],
        [1.0, RewardOutput(NAN), 2.0],
        np.array([1.0, NAN, 2.0]),
        torch.tensor([1.0, NAN, 2.0]),
        [0.0, float("inf"), 1.0],
    ],
)
def test_a_bare_nan_is_a_failure(returned: Any) -> None:
    """A model that overflowed must not pass for a reward that does not apply."""
    with pytest.raises(ComputeError, match="not a finite score") as caught:
        Returns(returned)([Sample()] * 3)
    assert caught.value.index == 1


def test_an_infinite_output_is_a_failure() -> None:
    """Sums with it would be NaN without a reason."""
    with pytest.raises(ComputeError, match="inf"):
        Returns([RewardOutput(float("-inf"))])([Sample()])


def test_a_failure_raises_with_reward_index_and_cause() -> None:
    """It never becomes a number."""
    cause = KeyError("gone")
    with pytest.raises(ComputeError, match="KeyError") as caught:
        Told()(told(1.0, 2.0, cause, 3.0))
    assert (caught.value.reward, caught.value.index) == ("Told", 2)
    assert caught.value.__cause__ is cause


def test_a_failed_batch_blames_no_single_sample() -> None:
    """An exception out of compute_rewards concerns all samples of the call."""

    class Broken(RewardFunction):
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            raise OSError("no GPU")

    with pytest.raises(ComputeError, match="no GPU") as caught:
        Broken()([Sample()] * 3)
    assert caught.value.index is None
    assert isinstance(caught.value.__cause__, OSError)


def test_an_authors_own_library_error_keeps_its_type() -> None:
    """A retryable error stays retryable, and learns where it happened."""
    from flux_rewards import RemoteError

    with pytest.raises(RemoteError) as caught:
        Told()(told(1.0, RemoteError("busy", retryable=True)))
    assert caught.value.retryable
    assert (caught.value.reward, caught.value.index) == ("Told", 1)


def test_an_error_that_an_author_reports_raises_too() -> None:
    """A row with an error is a failure like any other."""
    with pytest.raises(ComputeError, match="timed out") as caught:
        Returns([1.0, RewardOutput(error="timed out")])([Sample()] * 2)
    assert caught.value.index == 1


def test_token_rewards_must_line_up() -> None:
    """One value a token where the sample has tokens; the author's own units where it has none."""
    row = RewardOutput(1.0, token_rewards=[0.5, 0.5])
    assert Returns([row])([Sample()])[0].token_rewards is not None
    assert Returns([row])([Sample(token_ids=[1, 2])]).token_rewards[0].tolist() == [0.5, 0.5]  # type: ignore[index, union-attr]
    with pytest.raises(ContractError, match="2 token_rewards for 3 token_ids") as caught:
        Returns([row])([Sample(token_ids=[1, 2, 3])])
    assert caught.value.index == 0


def test_tensors_of_token_rewards_are_read() -> None:
    """Whatever device and dtype they have."""
    row = RewardOutput(1.0, token_rewards=torch.ones(3, dtype=torch.bfloat16, requires_grad=True))  # type: ignore[arg-type]
    tokens = Returns([row])([Sample()]).token_rewards
    assert tokens is not None
    assert tokens[0] is not None
    assert tokens[0].dtype == np.float64


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "must override compute_reward"),
        ({"compute_reward": lambda self, s: 1.0, "compute_rewards": lambda self, s: [1.0]}, "overrides both"),
        ({"compute_reward": lambda self, s: 1.0, "required_fields": "prompt"}, "tuple of Sample fields"),
        ({"compute_reward": lambda self, s: 1.0, "required_fields": ("respones",)}, "respones"),
    ],
)
def test_a_class_that_breaks_the_rules_is_refused_when_it_is_created(body: dict[str, Any], message: str) -> None:
    """Not at three in the morning."""
    with pytest.raises(ContractError, match=message):
        type("Mine", (RewardFunction,), body)


def test_a_coroutine_method_is_refused() -> None:
    """It would return a coroutine for a score."""
    with pytest.raises(ContractError, match="coroutine"):

        class Mine(RewardFunction):
            async def compute_reward(self, sample: Sample) -> float:  # type: ignore[override]
                return 1.0


def test_a_reward_is_no_torch_module() -> None:
    """It holds one: it pickles by its parameters, and a module's weights would be lost."""
    with pytest.raises(ContractError, match="hold one"):
        type("Mine", (RewardFunction, torch.nn.Module), {"compute_reward": lambda self, s: 1.0})


def test_a_tensor_with_a_gradient_is_read_without_a_warning() -> None:
    """As an author returns it who forgot no_grad."""
    value = torch.tensor(0.5, requires_grad=True)
    assert Told()(told(value, RewardOutput(value))).rewards.tolist() == [0.5, 0.5]  # type: ignore[arg-type]


def test_an_abstract_base_of_ones_own_is_possible() -> None:
    """A family of rewards may share one."""

    class Family(RewardFunction, abstract=True):
        bounds = (0.0, 1.0)

    class Member(Family):
        def compute_reward(self, sample: Sample) -> float:
            return 1.0

    assert Member().bounds == (0.0, 1.0)
    assert Member.name == "Member"


def test_the_most_derived_method_wins() -> None:
    """A subclass may turn a reward of samples into one of batches."""

    class Batched(Told):
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            return [7.0] * len(samples)

    class Single(Characters):
        def compute_reward(self, sample: Sample) -> Any:
            return 8.0

    class Mixin:
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            return [float(len(samples))] * len(samples)

    class Mixed(Mixin, RewardFunction):
        pass

    assert Mixed()([Sample()] * 3).rewards.tolist() == [3.0] * 3
    assert Batched()([Sample()]).rewards.tolist() == [7.0]
    assert Single()([Sample(response="a")]).rewards.tolist() == [8.0]


def test_a_combinator_must_combine() -> None:
    """It never computes."""
    with pytest.raises(ContractError, match="must override combine"):
        type("Mine", (Combinator,), {})


def test_own_scale_and_clip_hold_wherever_the_reward_stands() -> None:
    """Alone, in a composite, and for token rewards: the seed ignored them in composites."""
    reward = Told(scale=0.1, clip=0.5)
    np.testing.assert_allclose(reward(told(10.0, -2.0)).rewards, [0.5, -0.2])
    np.testing.assert_allclose(CompositeReward([(reward, 2.0)])(told(10.0, -2.0)).rewards, [1.0, -0.4])
    tokens = reward(told(RewardOutput(1.0, token_rewards=[1.0, 100.0]))).token_rewards
    assert tokens is not None
    assert tokens[0] is not None
    np.testing.assert_allclose(tokens[0], [0.1, 0.5])
    assert Told(clip=(0, 2)).bounds == (0.0, 2.0)
    assert not Told(scale=-1.0).higher_is_better


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"num_workers": -1},
        {"batch_size": 2.5},
        {"clip": (1, 0)},
        {"scale": NAN},
        {"clip": (1, 2, 3)},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """In the constructor, by name."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        Told(**options)


def test_a_parameter_that_was_set_later_travels_along() -> None:
    """A curriculum sets it as an attribute; a copy, in another process too, scores as the original does."""
    reward = LengthReward(target=2)
    reward.target = 4
    samples = [Sample(response="one two three four")]
    assert reward(samples).rewards.tolist() == [1.0]
    for other in (pickle.loads(pickle.dumps(reward)), copy.deepcopy(reward)):
        assert other(samples).rewards.tolist() == [1.0]
        assert other == reward
    assert reward != LengthReward(target=2)


def test_a_reward_prints_compares_copies_and_rebuilds() -> None:
    """It is its constructor's arguments, whatever it holds besides."""
    reward = Told("told", name="mine", batch_size=3)
    reward.weights = np.zeros(1000)  # type: ignore[attr-defined]  # what an author loads late
    assert repr(reward) == "Told(key='told', name='mine', batch_size=3)"
    for other in (
        pickle.loads(pickle.dumps(reward)),
        copy.copy(reward),
        copy.deepcopy(reward),
        Told(**reward.parameters),
    ):
        assert other == reward
        assert not hasattr(other, "weights")
    assert Told("told") == Told()
    assert Told("a") != Told("b")
    assert Told() != Characters()
    assert len({Told(), Told()}) == 1
    reward.num_workers = 5
    assert pickle.loads(pickle.dumps(reward)).num_workers == 5


def test_a_reward_reaches_a_spawned_process() -> None:
    """As a trainer with a spawned worker needs it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        batch = pool.apply_async(CompositeReward([(Characters(), 0.5)]), ([Sample(response="abcd")],)).get(120)
    assert batch.rewards.tolist() == [2.0]


def test_groups_reach_their_author_whole() -> None:
    """Whatever the batch size and the order."""
    samples = [Sample(response="a" * size, group_id=group) for group, size in [(0, 1), (1, 5), (0, 3), (1, 7), (2, 2)]]
    reward = GroupMean(batch_size=1)
    batch = reward(samples)
    assert batch.rewards.tolist() == [2.0, 6.0, 2.0, 6.0, 2.0]
    assert [row["group_size"] for row in batch.metadata] == [2, 2, 2, 2, 1]


def test_a_group_reward_needs_groups() -> None:
    """The error names the reward and the sample."""
    with pytest.raises(InputError, match="neither a group_id") as caught:
        GroupMean()([Sample("q", "a"), Sample(response="b")])
    assert (caught.value.reward, caught.value.index) == ("GroupMean", 1)


def test_parts_of_a_leaf_survive_chunking() -> None:
    """As those of a judge with several aspects."""
    reward = Aspects(batch_size=2)
    batch = reward([Sample()] * 3)
    assert batch.rewards.tolist() == [0.0, 1.0, 0.0]
    assert batch.parts["aspect"].rewards.tolist() == [0.0, 2.0, 0.0]


class Seen(RewardFunction):
    """Records in what form its media arrive."""

    required_fields = ("image",)

    def __init__(self, use_tensor_inputs: bool = False) -> None:
        self.use_tensor_inputs = use_tensor_inputs
        self.seen: list[Sample] = []

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        self.seen.extend(samples)
        return [1.0] * len(samples)


def test_media_arrive_as_the_author_asked() -> None:
    """PIL images or float tensors in [0, 1], whatever the caller passed."""
    pixels = np.full((4, 6, 3), 51, dtype=np.uint8)
    sample = Sample(image=pixels, video=[pixels, pixels], condition_images=[pixels], condition_videos=[[pixels]])
    for tensors in (False, True):
        reward = Seen(tensors)
        reward([sample])
        (seen,) = reward.seen
        forms = (seen.image, seen.video[0], seen.condition_images[0], seen.condition_videos[0][0])
        for form in forms:
            if tensors:
                assert form.dtype == torch.float32
                assert tuple(form.shape) == (3, 4, 6)
                torch.testing.assert_close(form, torch.full((3, 4, 6), 0.2))
            else:
                assert isinstance(form, Image.Image)
                assert (form.mode, form.size, form.getpixel((0, 0))) == ("RGB", (6, 4), (51, 51, 51))
        assert isinstance(seen, Sample)
        assert seen.image is seen.image
    assert sample.image is pixels


def test_media_that_nobody_reads_are_not_decoded() -> None:
    """A text reward must not fail, or wait, for an image."""
    sample = Sample(response="abc", image="/nowhere/at/all.png")
    assert Characters()([sample]).rewards.tolist() == [3.0]
    with pytest.raises(InputError) as caught:
        FunctionReward(lambda s: float(s.image is not None), name="optional")([sample])
    assert (caught.value.reward, caught.value.field, caught.value.index) == ("optional", "image", 0)


def test_an_unreadable_image_names_its_sample() -> None:
    """In a batch, the index is the caller's."""
    good = np.zeros((2, 2, 3), np.uint8)
    samples = [Sample(image=good), Sample(image=good), Sample(image=good.astype(np.float32) + 7.0)]
    for batch_size in (None, 1, 2):
        reward = Seen()
        reward.batch_size = batch_size
        with pytest.raises(InputError) as caught:
            reward(samples)
        assert (caught.value.reward, caught.value.field, caught.value.index) == ("Seen", "image", 2)


def test_function_rewards_call_as_they_are_told() -> None:
    """Per sample, per batch, by columns."""
    samples = [Sample("p", "ab"), Sample("q", "c")]
    assert FunctionReward(lambda s: len(s.response))(samples).rewards.tolist() == [2.0, 1.0]
    assert FunctionReward(lambda batch: np.arange(len(batch)), call="batch")(samples).rewards.tolist() == [0.0, 1.0]
    by_columns = FunctionReward(
        lambda prompt, response: [f"{p}{r}" == "pab" for p, r in zip(prompt, response, strict=True)],
        call="columns",
        fields=["prompt", "response"],
    )
    assert by_columns(samples).rewards.tolist() == [1.0, 0.0]
    with pytest.raises(InputError, match="response"):
        by_columns([Sample("p")])
    by_path = FunctionReward("rewards_of_our_own.brevity")
    assert by_path(samples).rewards.tolist() == [1 / 3, 1 / 2]
    assert by_path.name == "brevity"
    assert pickle.loads(pickle.dumps(by_path)) == by_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"function": 3}, "callable or a dotted path"),
        ({"function": len, "call": "row"}, "call must be one of"),
        ({"function": len, "call": "columns"}, "needs fields"),
        ({"function": a_coroutine_function}, "coroutine"),
        ({"function": len, "fields": ["promt"]}, "did you mean 'prompt'"),
        ({"function": len, "fields": "prompt"}, "list of Sample fields"),
    ],
)
def test_bad_function_rewards_are_refused(arguments: dict[str, Any], message: str) -> None:
    """When they are made."""
    with pytest.raises(ConfigError, match=message):
        FunctionReward(**arguments)


def test_a_path_to_nowhere_is_a_config_error() -> None:
    """It says which module or name is missing."""
    with pytest.raises(ConfigError, match="no_such_module"):
        FunctionReward("no_such_module.thing")([Sample()])
    with pytest.raises(ConfigError, match="did you mean 'brevity'"):
        FunctionReward("rewards_of_our_own.brevty")([Sample()])


def test_names_that_authors_use_are_theirs() -> None:
    """A logit scale, a CLIP model, helper methods: nothing of the library is in their way."""

    class Own(RewardFunction):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._scale, self._clip, self._rows, self._lanes = 100.0, "a model", [1], "mine"

        def _decode(self, text: str) -> str:
            return text

        def compute_reward(self, sample: Sample) -> float:
            return 0.25

    assert Own()([Sample()]).rewards.tolist() == [0.25]
    assert Own(scale=2.0)([Sample()]).rewards.tolist() == [0.5]


def test_settings_that_make_no_sense_are_refused() -> None:
    """num_workers = 0 would wait for ever, and an unknown scope would be taken for samples."""
    for attributes in ({"num_workers": 0}, {"batch_size": 0}, {"batch_size": 2.5}, {"scope": "groups"}):
        kind = type("Mine", (Characters,), attributes)
        with pytest.raises(ContractError, match=next(iter(attributes))):
            kind()(response=["a"])


def test_a_reward_may_hand_its_samples_on() -> None:
    """Media too, and those that nobody reads stay undecoded."""
    inner = Seen()

    class Outer(RewardFunction):
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            return inner(samples)

    pixels = np.full((4, 6, 3), 51, dtype=np.uint8)
    assert Outer()([Sample(image=pixels, video="nowhere.mp4")]).rewards.tolist() == [1.0]
    assert inner.seen[0].image.getpixel((0, 0)) == (51, 51, 51)


def test_a_failure_of_a_nested_call_keeps_both_places() -> None:
    """The caller's sample is the error's; the inner one is in its text."""
    inner = Told()

    class Outer(RewardFunction):
        def compute_reward(self, sample: Sample) -> Any:
            return inner([sample]).rewards[0]

    with pytest.raises(ComputeError, match="'Told', sample 0: ValueError: bad") as caught:
        Outer()(told(1.0, 2.0, ValueError("bad")))
    assert (caught.value.reward, caught.value.index) == ("Outer", 2)


def test_one_error_object_may_be_raised_twice() -> None:
    """Each time it says where."""
    from flux_rewards import JudgeError

    error = JudgeError("cannot read the verdict")
    for position in (1, 2):
        values: list[Any] = [1.0, 1.0, 1.0]
        values[position] = error
        with pytest.raises(JudgeError) as caught:
            Told()(told(*values))
        assert caught.value.index == position
    assert error.index is None


def test_credentials_are_not_printed() -> None:
    """Neither in a repr, nor in an error that shows one."""

    class Judge(RewardFunction):
        def __init__(self, api_key: str, model: str = "m") -> None:
            self.api_key = api_key

        def compute_reward(self, sample: Sample) -> float:
            return 1.0

    judge = Judge(api_key="sk-secret", model="large")
    assert repr(judge) == "Judge(api_key='...', model='large')"
    with pytest.raises(ConfigError) as caught:
        CompositeReward([judge])  # type: ignore[list-item]
    assert "sk-secret" not in str(caught.value)
    assert Judge("a") != Judge("b")


def test_a_scale_that_overflows_is_a_failure() -> None:
    """Alone too, where no fold stands above the reward."""
    with pytest.raises(ComputeError, match="too large") as caught:
        Told(scale=1e300)(told(1.0, 1e300))
    assert (caught.value.reward, caught.value.index) == ("Told", 1)
