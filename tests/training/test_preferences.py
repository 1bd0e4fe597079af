"""Preference pairs, and sets of them."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flux_rewards import InputError, Sample
from flux_rewards.errors import ConfigError
from flux_rewards.training.preferences import PreferencePair, prompt_key
from flux_rewards.training.preferences_data import PreferenceData, key_of
from flux_rewards.training.preferences_messages import split_shared_prompt
from flux_rewards.training.sources import load_preferences

USER = {"role": "user", "content": "2 + 2?"}
GOOD = {"role": "assistant", "content": "4"}
BAD = {"role": "assistant", "content": "5"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}


def tool(text: str) -> dict[str, str]:
    return {"role": "tool", "content": text}


def ask(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def numbered(count: int, prompts: int) -> PreferenceData:
    return PreferenceData(
        PreferencePair(f"{number % prompts} + 1?", str(number), "?", metadata={"number": number})
        for number in range(count)
    )


@pytest.mark.parametrize(
    ("pair", "field", "message"),
    [
        ({"prompt": " "}, "prompt", "is empty"),
        ({"prompt": []}, "prompt", "is an empty list"),
        ({"prompt": 3}, "prompt", "expected text or chat messages, found 3"),
        ({"prompt": [{"content": "x"}]}, "prompt", "message 0 has no 'role'"),
        ({"prompt": [{"from": "human", "value": "x"}]}, "prompt", "rename 'from' to 'role'"),
        ({"prompt": [{"role": "usr", "content": "x"}]}, "prompt", "did you mean 'user'"),
        ({"prompt": [{"role": "user", "content": 3}]}, "prompt", "must be text or a list of parts"),
        ({"prompt": [{"role": "user", "content": ["x"]}]}, "prompt", "parts that are no mappings"),
        ({"prompt": ["x"]}, "prompt", "message 0 must be a mapping"),
        ({"chosen": None}, "chosen", "is missing"),
        ({"chosen": ""}, "chosen", "is empty"),
        ({"chosen": [GOOD]}, "rejected", "chosen is messages and rejected is text"),
        ({"chosen": [USER], "rejected": [USER]}, "chosen", "no message is an assistant's"),
        ({"chosen": Sample("q"), "rejected": Sample("q")}, "chosen", "no response, image or video"),
        ({"prompt": None, "chosen": Sample("q", "4"), "rejected": Sample("r", "5")}, "prompt", "different prompts"),
        ({"margin": True}, "margin", "expected a number"),
        ({"margin": float("nan")}, "margin", "finite"),
        ({"margin": -1.0}, "margin", "swap the two"),
        ({"shared": {"respnse": 1}}, "shared", "no field that two answers share"),
        ({"metadata": 3}, "metadata", "expected a mapping"),
    ],
)
def test_a_bad_pair_is_refused(pair: dict[str, Any], field: str, message: str) -> None:
    """What is no pair raises, with the field."""
    with pytest.raises(InputError, match=message) as caught:
        PreferencePair(**{"prompt": "2 + 2?", "chosen": "4", "rejected": "5", **pair})
    assert caught.value.field == field


def test_samples_have_what_both_share() -> None:
    """Prompt, shared fields and metadata are in both samples; a sample's own fields go first."""
    pair = PreferencePair(
        None,
        Sample("a cat", image="a.png", metadata={"model": "one"}),
        Sample(image="b.png", reference="dog"),
        metadata={"model": "any", "set": 1},
        shared={"reference": "cat"},
    )
    assert pair.prompt == "a cat"
    assert pair.chosen_sample == Sample("a cat", image="a.png", reference="cat", metadata={"model": "one", "set": 1})
    assert pair.rejected_sample == Sample("a cat", image="b.png", reference="dog", metadata={"model": "any", "set": 1})
    assert not pair.is_text
    assert PreferencePair("q", "a", "b").is_text
    assert pickle.loads(pickle.dumps(pair)) == pair


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt_length"),
    [
        ([USER, GOOD], [USER, BAD], 1),
        ([USER, GOOD], [USER, GOOD], 1),
        ([USER, GOOD, ask("sure?"), GOOD], [USER, GOOD, ask("sure?"), BAD], 3),
        ([USER, CALL, tool("4"), GOOD], [USER, CALL, tool("4"), BAD], 3),
        ([USER, CALL, tool("4"), GOOD], [USER, CALL, tool("9"), BAD], 1),
        ([USER, CALL], [USER, CALL, tool("4"), GOOD], 1),
        ([GOOD], [BAD], 0),
    ],
)
def test_the_shared_prompt(chosen: list[Any], rejected: list[Any], prompt_length: int) -> None:
    """Conversations part at an assistant's message."""
    assert split_shared_prompt(chosen, rejected) == (
        chosen[:prompt_length],
        chosen[prompt_length:],
        rejected[prompt_length:],
    )


@pytest.mark.parametrize(
    ("chosen", "rejected", "place"),
    [
        ([USER, GOOD], [ask("3 + 3?"), BAD], 0),
        ([USER, GOOD, ask("a"), GOOD], [USER, GOOD, ask("b"), GOOD], 2),
        ([USER, GOOD], [USER, GOOD, ask("a"), GOOD], 2),
        ([USER], [USER, GOOD], 1),
        ([{"role": "system", "content": "x"}, USER, GOOD], [USER, BAD], 0),
    ],
)
def test_conversations_of_different_prompts(chosen: list[Any], rejected: list[Any], place: int) -> None:
    """Conversations that part where no assistant speaks answer different prompts."""
    with pytest.raises(InputError, match=f"part at message {place}"):
        split_shared_prompt(chosen, rejected)


@pytest.mark.slow
@pytest.mark.parametrize("turns", [1, 2])
def test_the_shared_prompt_is_that_of_trl(turns: int) -> None:
    """Where TRL finds a prompt that ends before an answer, so do we."""
    data_utils = pytest.importorskip("trl.data_utils")
    asked = [entry for turn in range(turns) for entry in (ask(f"{turn}?"), {"role": "assistant", "content": str(turn)})]
    chosen, rejected = [*asked[:-1], GOOD], [*asked[:-1], BAD]
    theirs = data_utils.extract_prompt({"chosen": chosen, "rejected": rejected})
    assert split_shared_prompt(chosen, rejected) == (theirs["prompt"], theirs["chosen"], theirs["rejected"])


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("2 + 2?", " 2 +\n2? ", True),
        ("What?", "WHAT?", True),
        ("2 + 2?", [{"role": "system", "content": "x"}, USER], True),
        ("2 + 2?", [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}], True),
        (
            "2 + 2?",
            [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}, {"type": "image", "image": 1}]}],
            False,
        ),
        ("2 + 2?", "2 + 3?", False),
        ("2 + 2?", [USER, GOOD, ask("sure?")], False),
    ],
)
def test_what_is_one_prompt(one: Any, other: Any, alike: bool) -> None:
    """Case, blanks, system messages and form make no difference; words and images do."""
    keys = [prompt_key(PreferencePair(prompt, "4", "5")) for prompt in (one, other)]
    assert (keys[0] == keys[1]) is alike


def test_condition_images_make_a_prompt() -> None:
    """An edit of another image is another prompt."""
    images = [np.full((2, 2, 3), value, dtype=np.uint8) for value in (0, 1)]
    keys = {prompt_key(PreferencePair("red", "a", "b", shared={"condition_images": [image]})) for image in images}
    assert len(keys) == 2


def test_without_a_prompt_repetitions_stay_together() -> None:
    """Pairs of the same answers without a prompt, in either order, are one prompt to a split."""
    keys = [prompt_key(PreferencePair(None, *both)) for both in (("a", "b"), ("b", "a"), ("a", "c"))]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("test", [0.001, 0.1, 0.25, 0.5, 0.999])
def test_a_split_leaks_no_prompt(test: float) -> None:
    """No prompt is on both sides, nothing is lost, and the share is of prompts, one at least on each side."""
    data = numbered(100, 20)
    train, held_out = data.split(test, seed=3)
    assert train.shared_prompts(held_out) == 0
    assert sorted(pair.metadata["number"] for part in (train, held_out) for pair in part) == list(range(100))
    assert held_out.prompts == min(max(round(test * 20), 1), 19)
    numbers = [pair.metadata["number"] for pair in train]
    assert numbers == sorted(numbers)


def test_a_split_goes_by_content() -> None:
    """The order of the pairs does not matter, the seed does, and one more prompt moves at most one."""
    data = numbered(40, 20)
    held_out = {pair.prompt for pair in data.split(0.25)[1]}
    assert {pair.prompt for pair in PreferenceData(reversed(list(data))).split(0.25)[1]} == held_out
    assert {pair.prompt for pair in data.split(0.25, seed=1)[1]} != held_out
    more = PreferenceData([*data, PreferencePair("new?", "a", "b")])
    assert len({pair.prompt for pair in more.split(0.25)[1]} ^ held_out) <= 2


def test_a_split_keeps_a_key_together() -> None:
    """With `by`, neither a prompt nor a key is on both sides."""
    data = PreferenceData(
        PreferencePair(f"{number // 2}?", str(number), "?", metadata={"problem": 99 if number == 1 else number // 8})
        for number in range(40)
    )
    train, held_out = data.split(0.3, by="metadata.problem")
    assert train.shared_prompts(held_out) == 0
    for key in ("metadata.problem", "problem"):
        assert not {key_of(pair, key) for pair in train} & {key_of(pair, key) for pair in held_out}


def test_prompts_that_are_unknown(tmp_path: Path) -> None:
    """They are no prompts to count, and stay unknown in what is made of the pairs; images to edit stand for one."""
    data = PreferenceData([PreferencePair(None, "a", str(number)) for number in range(10)], no_prompts=True)
    assert repr(data) == "<PreferenceData: 10 pairs, prompts unknown>"
    train, test = data.split(0.3)
    assert [repr(part) for part in (train, test)] == [
        "<PreferenceData: 7 pairs, prompts unknown>",
        "<PreferenceData: 3 pairs, prompts unknown>",
    ]
    assert train.no_prompts
    assert test[:1].no_prompts
    found = data.check()
    assert (found.prompts, len(found.without_prompt)) == (0, 10)
    assert "unknown" in str(found)
    data.save(tmp_path / "pairs.jsonl")
    again = load_preferences(tmp_path / "pairs.jsonl", columns={"prompt": None})
    assert again == data
    assert again.no_prompts
    edits = PreferenceData([PreferencePair(None, "a", "b", shared={"condition_images": ["a.png"]}), *data[:2]])
    assert repr(edits) == "<PreferenceData: 3 pairs of 1 prompts and 2 unknown>"


@pytest.mark.parametrize("test", [0, 1, -0.5, 1.5, True, "0.1", float("nan")])
def test_a_bad_share_is_refused(test: Any) -> None:
    """A share is in (0, 1)."""
    with pytest.raises(ConfigError, match="test must be"):
        numbered(4, 4).split(test)


def test_one_prompt_cannot_be_split() -> None:
    """Two parts need two prompts."""
    with pytest.raises(InputError, match="has 1 prompts"):
        numbered(4, 1).split(0.5)


def test_balance() -> None:
    """As many of each kind as the rarest has, or a limit; by lot, in order."""
    data = PreferenceData(
        PreferencePair(f"{number}?", "a", "b", metadata={"kind": "rare" if number % 10 == 0 else "common"})
        for number in range(50)
    )
    balanced = data.balance("metadata.kind")
    assert Counter(pair.metadata["kind"] for pair in balanced) == {"rare": 5, "common": 5}
    assert balanced.notes == {"pairs balanced away": 40}
    limited = data.balance(lambda pair: pair.metadata["kind"], limit=7, seed=1)
    assert Counter(pair.metadata["kind"] for pair in limited) == {"rare": 5, "common": 7}
    assert [pair.prompt for pair in balanced] == [pair.prompt for pair in data if pair in list(balanced)]
    with pytest.raises(InputError, match=r"pair 0 has no 'metadata.knd' \(did you mean 'metadata.kind'\?\)"):
        data.balance("metadata.knd")


def test_cleaned_keeps_what_can_be_learned_from() -> None:
    """Identical answers, repetitions and contradictions go; the count of each is noted."""
    pairs = [
        PreferencePair("q", "a", "b"),
        PreferencePair("Q ", "a", "b"),
        PreferencePair("q", "c", "c"),
        PreferencePair("r", "a", "b"),
        PreferencePair("r", "b", "a"),
    ]
    cleaned = PreferenceData(pairs).cleaned()
    assert list(cleaned) == pairs[:1]
    assert cleaned.notes == {"identical pairs": 1, "repeated pairs": 1, "contradicting pairs": 2}


def test_a_set_is_a_sequence_of_pairs() -> None:
    """Slices are sets with the same source; anything but a pair is refused."""
    data = PreferenceData(numbered(5, 5), source="ours")
    assert data[1:3].source == "ours"
    assert list(data[1:3]) == [data[1], data[2]]
    with pytest.raises(InputError, match="pair 1: expected a PreferencePair, found 'x'"):
        PreferenceData([data[0], "x"])  # type: ignore[list-item]


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    """Texts, messages and samples with paths come back as they were."""
    sets = {
        "text": [PreferencePair("q \u2028", "ä", "b", 0.5, {"set": {"deep": [1]}}, {"reference": "ä", "group_id": 3})],
        "chat": [PreferencePair([USER], [GOOD], [BAD])],
        "media": [
            PreferencePair(
                "a cat",
                Sample(image=str(tmp_path / "a.png"), metadata={"model": "one"}),
                Sample(image=str(tmp_path / "b.png")),
                shared={"condition_images": [str(tmp_path / "c.png")]},
            )
        ],
    }
    for name, pairs in sets.items():
        path = tmp_path / f"{name}.jsonl"
        PreferenceData(pairs).save(path)
        read = load_preferences(path)
        assert list(read) == pairs, name
        assert read.source == str(path)


def test_what_json_cannot_hold_is_not_saved(tmp_path: Path) -> None:
    """Pixels do not go into JSON, and no file is begun."""
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    data = PreferenceData([PreferencePair("q", Sample(image=image), Sample(image=image))])
    with pytest.raises(InputError, match="pair 0 cannot be written as JSON"):
        data.save(tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []
