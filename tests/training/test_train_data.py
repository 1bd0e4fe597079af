"""From pairs to tokens: what training reads is what scoring reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_training as tiny
import transformers

from flux_rewards.errors import ConfigError, InputError
from flux_rewards.models.reward_model_file import RewardModelFile
from flux_rewards.models.text_format import TextFormat
from flux_rewards.rewards.learned.reward_model import RewardModelReward
from flux_rewards.training.preferences import PreferencePair
from flux_rewards.training.preferences_data import PreferenceData
from flux_rewards.training.settings import TrainingSettings
from flux_rewards.training.train_data import check_pairs, encode_pairs, format_for, parts_of

library: Any = transformers  # half of it has no types
QUESTION = [{"role": "user", "content": "which w1 ?"}]
TALK = [*QUESTION, {"role": "assistant", "content": "w2"}, {"role": "user", "content": "which w3 ?"}]
SAID = [{"role": "assistant", "content": "good w4"}]
WRONG = [{"role": "assistant", "content": "w5 w6 w7"}]


@pytest.mark.parametrize(
    ("kind", "template", "max_length", "pair"),
    [
        ("llama", "{prompt}\n{response}{eos_token}", 64, PreferencePair("which w1 ?", "good w4", "w5")),
        ("llama", "{response}", 64, PreferencePair("which w1 ?", "good w4", "w5")),
        ("llama", "{prompt} {response}{eos_token}", 6, PreferencePair("which w1 ?", "good w4 w5 w6", "w5 </s> w7 w8")),
        ("llama", "chat", 64, PreferencePair("which w1 ?", "good w4", "w5")),
        ("llama", "chat", 64, PreferencePair(TALK, SAID, WRONG)),
        ("llama", "chat", 9, PreferencePair(TALK, SAID, WRONG)),
        ("bert", "pair", 64, PreferencePair("which w1 ?", "good w4", "w5")),
        ("bert", "pair", 7, PreferencePair("which w1 w2 ?", "good w4", "w5 w6")),
        ("bert", "pair", 64, PreferencePair(QUESTION, SAID, WRONG)),
    ],
)
def test_training_reads_what_scoring_reads(
    tmp_path: Path, kind: str, template: str, max_length: int, pair: PreferencePair
) -> None:
    """Token by token, kinds of tokens too, for texts and conversations, cut or whole."""
    words, format_ = tiny.tokenizer(kind, chat=template == "chat"), TextFormat(template, max_length)
    auto = library.AutoModelForSequenceClassification
    auto.from_config(tiny.config(kind, num_labels=1)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    RewardModelFile(format_).save(tmp_path)
    reward = RewardModelReward(str(tmp_path), device="cpu")
    found = encode_pairs(PreferenceData([pair]), format_, words, TrainingSettings(long_pairs="cut"))
    for sample, text in ((pair.chosen_sample, found.chosen[0]), (pair.rejected_sample, found.rejected[0])):
        scored = reward.encode(reward.model, sample)
        assert not isinstance(scored, InputError)
        assert (text.token_ids, text.token_type_ids) == (scored.token_ids, scored.token_type_ids)
        assert len(text) <= max_length
    assert found.cut == (max_length < 64)


def test_the_tokens_of_a_template_by_hand() -> None:
    """Each word's number in the vocabulary; the end of the text is the tokenizer's own."""
    words = tiny.tokenizer()
    pairs = PreferenceData([PreferencePair("which w1 ?", "good w2", "w3", margin=2.0)])
    columns = encode_pairs(pairs, TextFormat("{prompt}\n{response} </s>"), words, TrainingSettings()).columns()
    numbers = {word: words.convert_tokens_to_ids(word) for word in ("which", "w1", "?", "good", "w2", "w3")}
    asked = [numbers["which"], numbers["w1"], numbers["?"]]
    assert columns["chosen_ids"] == [[*asked, numbers["good"], numbers["w2"], 3]]
    assert columns["rejected_ids"] == [[*asked, numbers["w3"], 3]]
    assert columns["margin"] == [2.0]


@pytest.mark.parametrize(
    ("kind", "chat", "prompts", "template"),
    [
        ("llama", False, True, "{prompt}\n{response}{eos_token}"),
        ("llama", True, True, "chat"),
        ("bert", False, True, "pair"),
        ("llama", False, False, "{response}{eos_token}"),
        ("bert", False, False, "{response}"),
    ],
)
def test_the_format_that_suits(kind: str, chat: bool, prompts: bool, template: str) -> None:
    """By the tokenizer, the model and the pairs; no longer than the model reads."""
    pairs = PreferenceData([PreferencePair("q" if prompts else None, "a", "b")])
    words = tiny.tokenizer(kind, chat=chat)
    found = format_for(TrainingSettings(), pairs, words, 64, encoder=kind == "bert")
    assert found == TextFormat(template, 64)
    asked = TrainingSettings(max_length=1024)  # which is refused as any other length is
    with pytest.raises(ConfigError, match="max_length is 1024, and the model reads 64"):
        format_for(asked, pairs, words, 64, encoder=False)
    assert format_for(TrainingSettings(), pairs, words, None, encoder=False).max_length == 1024
    assert format_for(TrainingSettings(max_length=32), pairs, words, 64, encoder=False).max_length == 32
    with pytest.raises(ConfigError, match="the model reads 64 tokens at most"):
        format_for(TrainingSettings(max_length=65), pairs, words, 64, encoder=False)


def test_no_prompt_is_on_two_sides() -> None:
    """Held-out and validation pairs are split off by prompt, and of the sizes that were asked for."""
    pairs = PreferenceData(
        PreferencePair(f"prompt {number % 50}", f"good {number}", f"bad {number}") for number in range(200)
    )
    parts = parts_of(pairs, None, TrainingSettings(held_out=0.2, validation=0.1))
    assert parts.validation is not None
    assert parts.test is not None
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (140, 20, 40)
    three = (parts.train, parts.validation, parts.test)
    assert all(first.shared_prompts(second) == 0 for first in three for second in three if first is not second)
    given = parts_of(pairs[:100], pairs[100:], TrainingSettings(held_out=0.2))
    assert (len(given.train), given.shared) == (100, 50)


def test_an_error_names_the_pair() -> None:
    """A conversation where the template has room for one text."""
    pairs = check_pairs([PreferencePair("q", "a", "b"), PreferencePair(TALK, SAID, WRONG)])
    with pytest.raises(InputError, match=r"pairs 1, chosen: .*conversation of 3 messages"):
        encode_pairs(pairs, TextFormat("{prompt} {response}"), tiny.tokenizer(), TrainingSettings())
