"""Sample, RewardOutput, RewardBatch, and the errors that name what is wrong with them."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flux_rewards import ContractError, InputError, RewardBatch, RewardOutput, Sample, Trajectory, errors
from flux_rewards.errors import FluxRewardsError, RemoteError
from flux_rewards.fingerprint import fingerprint, same
from flux_rewards.grouping import split_groups

NAN = float("nan")


def test_trajectory_is_sample() -> None:
    """The seed's name works."""
    assert Trajectory is Sample


def test_a_sample_is_frozen_and_compares_by_content() -> None:
    """Arrays inside a sample don't make the comparison ambiguous."""
    one, other = (Sample("p", image=np.zeros((2, 2, 3), np.uint8)) for _ in range(2))
    assert one == other
    assert one != Sample("p", image=np.ones((2, 2, 3), np.uint8))
    assert one != "p"
    with pytest.raises(AttributeError):
        one.prompt = "q"  # type: ignore[misc]


def test_a_sample_prints_no_pixels() -> None:
    """Neither images nor long texts end up whole in a log."""
    text = repr(Sample("p" * 5000, image=Image.new("RGB", (640, 480)), video=np.zeros((9, 2, 2, 3))))
    assert len(text) < 300
    assert "<image RGB 640x480>" in text
    assert "(9, 2, 2, 3)" in text


def test_from_columns_reads_lists_arrays_and_tensors() -> None:
    """Columns are cut along their first axis."""
    samples = Sample.from_columns(prompt=["a", "b"], image=np.zeros((2, 4, 5, 3)), video=torch.zeros(2, 3, 3, 4, 5))
    assert [sample.prompt for sample in samples] == ["a", "b"]
    assert samples[1].image.shape == (4, 5, 3)
    assert tuple(samples[1].video.shape) == (3, 3, 4, 5)
    assert Sample.from_columns() == []
    assert Sample.from_columns(prompt=["a"], response=None)[0].response is None
    assert Sample.from_columns(prompt=["a"], metadata=[None])[0].metadata == {}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": {"a", "b"}}, "one entry a sample"),
        ({"prompt": ["a"], "response": ["b", "c"]}, "differ in length"),
        ({"respones": ["a"]}, "did you mean 'response'"),
        ({"prompt": "a cat"}, r"write prompt=\[\.\.\.\]"),
        ({"metadata": {"a": 1}}, "one entry a sample"),
        ({"prompt": 3}, "expected a column"),
    ],
)
def test_bad_columns_are_refused(columns: dict[str, Any], message: str) -> None:
    """The error says which column and what to write instead."""
    with pytest.raises(InputError, match=message):
        Sample.from_columns(**columns)


ASSISTANT = {"role": "assistant", "content": "It is 4."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("plain", "plain"),
        ([ASSISTANT], "It is 4."),
        (
            [{"role": "assistant", "content": "Let me see."}, CALL, {"role": "tool", "content": "4"}, ASSISTANT],
            "It is 4.",
        ),
        ([ASSISTANT, CALL], "It is 4."),
        ([CALL], ""),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}]}], "ab"),
    ],
)
def test_the_last_assistant_text_is_judged(response: Any, text: str) -> None:
    """Tool calls and tool results around it don't count."""
    assert Sample(response=response).response_text == text


@pytest.mark.parametrize("response", [None, 3, [], [{"role": "user", "content": "hi"}], ["text"]])
def test_a_response_that_is_no_response_is_refused(response: Any) -> None:
    """It is not read as an empty answer."""
    with pytest.raises(InputError) as caught:
        _ = Sample(response=response).response_text
    assert caught.value.field == "response"


@pytest.mark.parametrize("value", [1, 1.0, True, np.float32(1), np.array(1.0), torch.tensor(1.0)])
def test_an_output_holds_a_float(value: Any) -> None:
    """Numbers of any library become a plain float."""
    output = RewardOutput(value)
    assert type(output.reward) is float
    assert output.reward == 1.0


def test_none_and_errors_are_nan() -> None:
    """Neither 'does not apply' nor a failure is a number."""
    assert math.isnan(RewardOutput(None).reward)  # type: ignore[arg-type]
    assert math.isnan(RewardOutput(0.5, error="timed out").reward)
    assert math.isnan(RewardOutput(error="timed out").reward)


@pytest.mark.parametrize("value", ["1.0", b"1", [1.0], {}])
def test_an_output_refuses_what_is_no_number(value: Any) -> None:
    """Text that looks like a number is a mistake."""
    with pytest.raises(ContractError, match="number or None"):
        RewardOutput(value)


def test_a_batch_iterates_as_rows() -> None:
    """Columns and rows hold the same."""
    batch = RewardBatch([1, NAN, NAN], [np.array([1.0]), None, None], [{"a": 1}, {}, {}], {1: "late"})  # type: ignore[arg-type]
    rows = list(batch)
    assert batch.rewards.dtype == np.float64
    assert [row.error for row in rows] == [None, "late", None]
    assert rows[0].metadata == {"a": 1}
    assert rows[0].token_rewards is not None
    assert rows[-1].token_rewards is None
    assert batch.failed.tolist() == [False, True, False]
    assert batch.not_applicable.tolist() == [False, False, True]
    assert batch[-1].metadata == {}
    with pytest.raises(IndexError):
        batch[3]


def test_rows_are_selected_with_all_that_belongs_to_them() -> None:
    """By a slice, or by positions."""
    part = RewardBatch(np.array([7.0, 8.0, 9.0]))
    batch = RewardBatch(
        np.array([1, NAN, 3]), [np.array([1.0]), None, None], [{"a": 1}, {}, {}], {1: "late"}, {"p": part}
    )
    assert batch[1:].errors == {0: "late"}
    assert batch[1:].parts["p"].rewards.tolist() == [8.0, 9.0]
    picked = batch.select([2, 0])
    assert picked.rewards.tolist() == [3.0, 1.0]
    assert picked.metadata == [{}, {"a": 1}]
    assert picked.errors == {}
    assert picked.token_rewards is not None
    assert picked.token_rewards[0] is None
    assert len(batch[:0]) == 0


@pytest.mark.parametrize(
    "arguments",
    [([[1.0]],), ([1.0], [None, None]), ([1.0, 2.0], None, [{}]), ([1.0], None, [], {1: "late"})],
    ids=["2-D", "tokens", "metadata", "errors"],
)
def test_a_batch_checks_its_columns(arguments: Any) -> None:
    """Columns of another length are refused."""
    with pytest.raises(ContractError):
        RewardBatch(*arguments)


def test_scatter_puts_everything_back() -> None:
    """Rewards, tokens, metadata, errors and parts find their positions."""
    part = RewardBatch([7.0, 8.0])  # type: ignore[arg-type]
    first = RewardBatch([1.0, NAN], [np.array([5.0]), None], [{"k": 0}, {"k": 1}], {1: "bad"}, {"p": part})  # type: ignore[arg-type]
    second = RewardBatch([3.0])  # type: ignore[arg-type]
    whole = RewardBatch.scatter(4, [([3, 0], first), ([1], second)])
    np.testing.assert_array_equal(whole.rewards, [NAN, 3.0, NAN, 1.0])
    assert whole.errors == {0: "bad"}
    assert whole.metadata == [{"k": 1}, {}, {}, {"k": 0}]
    assert whole.token_rewards is not None
    assert [row is None for row in whole.token_rewards] == [True, True, True, False]
    np.testing.assert_array_equal(whole.parts["p"].rewards, [8.0, NAN, NAN, 7.0])


EVERY_ERROR = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_pickles_and_is_a_builtin_too(kind: type[FluxRewardsError]) -> None:
    """Errors cross process borders whole."""
    error = kind("what to do", reward="r", index=3)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.reward, copy.index, copy.retryable) == (str(error), "r", 3, False)
    assert "'r'" in str(copy)
    assert "sample 3" in str(copy)
    assert kind is FluxRewardsError or len(kind.__mro__) > 4  # a builtin besides Exception


def test_a_remote_error_keeps_its_advice() -> None:
    """`retryable` and `retry_after` survive a pickle."""
    copy = pickle.loads(pickle.dumps(RemoteError("503", retryable=True, retry_after=2.5)))
    assert (copy.retryable, copy.retry_after) == (True, 2.5)


IMAGE = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (IMAGE, IMAGE.copy(), True),
        (IMAGE, IMAGE.astype(np.float32), False),
        (IMAGE, IMAGE.reshape(2, 3, 2), False),
        (torch.from_numpy(IMAGE), torch.from_numpy(IMAGE.copy()), True),
        (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.float16), False),
        (Image.fromarray(IMAGE), Image.fromarray(IMAGE.copy()), True),
        (Image.fromarray(IMAGE), Image.fromarray(IMAGE.transpose(1, 0, 2)), False),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        ([1, 2], [12], False),
        (["a", "b"], ["ab"], False),
        ("1", 1, False),
        (True, 1, False),
        (None, "None", False),
    ],
)
def test_fingerprints_tell_content_apart(one: Any, other: Any, equal: bool) -> None:
    """Equal content has an equal digest; other content, types and shapes have not."""
    assert (fingerprint(one) == fingerprint(other)) is equal


def test_group_ids_of_tensors_are_their_values() -> None:
    """Elements of a tensor hash by identity, and every sample would be a group of its own."""
    for ids in (torch.tensor([0, 0, 1]), np.array([0, 0, 1]), [0, 0, 1]):
        assert split_groups(Sample.from_columns(prompt=["a", "b", "c"], group_id=ids)) == [[0, 1], [2]]
    bad: Any
    for bad in (NAN, np.float64(NAN), [1], torch.tensor([1, 2])):
        with pytest.raises(InputError, match="text or a number") as caught:
            split_groups([Sample("a", group_id=1), Sample("b", group_id=bad)])
        assert (caught.value.field, caught.value.index) == ("group_id", 1)


def test_a_sample_of_no_group_is_an_error() -> None:
    """Samples without a prompt are not a group because they lack the same thing."""
    with pytest.raises(InputError, match="neither a group_id nor a prompt") as caught:
        split_groups([Sample("q"), Sample(response="r")])
    assert caught.value.index == 1


def test_same_never_answers_with_an_array() -> None:
    """Nested arrays compare by content."""
    assert same({"x": [np.zeros(3)]}, {"x": [np.zeros(3)]})
    assert not same({"x": np.zeros(3)}, {"x": np.ones(3)})
    assert not same(np.zeros(3), None)


def test_groups_go_by_id_then_by_prompt_and_condition_media() -> None:
    """Never by position."""
    image = np.zeros((2, 2, 3), np.uint8)
    samples = [
        Sample("x", group_id=1),
        Sample("x"),
        Sample("y", group_id=1),
        Sample("x", condition_images=[image]),
        Sample("x", condition_images=[image.copy()]),
        Sample("x"),
        Sample("x", condition_images=[image + 1]),
        Sample([{"role": "user", "content": "x"}]),
        Sample([{"content": "x", "role": "user"}]),
    ]
    assert split_groups(samples) == [[0, 2], [1, 5], [3, 4], [6], [7, 8]]


def test_columns_that_are_all_missing_are_no_empty_batch() -> None:
    """A trainer whose column has another name must hear of it."""
    with pytest.raises(InputError, match="every column is None: prompt, response"):
        Sample.from_columns(prompt=None, response=None)
    assert Sample.from_columns(response=[]) == []
