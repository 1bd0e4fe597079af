"""ProcessReward against a pass for every prefix, and the layouts of published process reward models."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_text_models as tiny
import torch
from tiny_vlm import library, randomised

from flux_rewards import ConfigError, InputError, Sample, WeightsError
from flux_rewards.models.text_models import CAUSAL, TextModel
from flux_rewards.rewards.learned.direction import check_left_to_right
from flux_rewards.rewards.learned.process_reward import ProcessReward
from flux_rewards.rewards.learned.step_texts import StepFormat

PROMPT = "What is 2 + 2 * 3?"
STEPS = ["we think 2 * 3 = 6.", "so 2 + 6 = 8", "therefore the answer is 8!", "maybe"]
RESPONSE = "\n\n".join(STEPS)
SAMPLES = [Sample(PROMPT, RESPONSE), Sample("1?", "1"), Sample("2?", "so\n\n\n\n  we get 日本 2.\n\n")]
SPLIT = [STEPS, ["1"], ["so", "we get 日本 2."]]


def reward(folder: Path, **parameters: Any) -> ProcessReward:
    return ProcessReward(str(folder), **{"device": "cpu", **parameters})


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def by_prefix(folder: Path, kind: str, step_end: str = "\n") -> list[list[float]]:
    """A pass for every prefix, the score at its last token, laid out as TRL's PRM trainer does."""
    model = getattr(library, f"AutoModelFor{kind}").from_pretrained(folder).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    good_bad = [*ids(tokenizer, "+"), *ids(tokenizer, "-")]
    found = []
    for sample, steps in zip(SAMPLES, SPLIT, strict=True):
        tokens = [tokenizer.bos_token_id, *ids(tokenizer, str(sample.prompt))]
        scores = []
        for step in steps:
            tokens = [*tokens, *ids(tokenizer, step), *ids(tokenizer, step_end)]
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0]
            if kind == "CausalLM":
                scores.append(logits[-1, good_bad].softmax(0)[0].item())
            elif kind == "TokenClassification":
                scores.append(logits[-1].softmax(0)[1].item())
            else:
                scores.append(logits[0].sigmoid().item())
        found.append(scores)
    return found


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("TokenClassification", tiny.token_classifier),
        ("SequenceClassification", tiny.reward_model),
        ("CausalLM", tiny.causal),
    ],
)
@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_one_pass_gives_what_a_pass_for_every_prefix_gives(tmp_path: Path, kind: str, make: Any, family: str) -> None:
    """For each kind of head; in whatever batch."""
    path = make(tmp_path, family)
    for step_end in ("\n", " good"):
        expected = by_prefix(path, kind, step_end)
        for tokens in (4096, 1):
            batch = reward(path, step_end=step_end, max_batch_tokens=tokens)(SAMPLES)
            for row, scores in zip(batch.metadata, expected, strict=True):
                np.testing.assert_allclose(row["step_rewards"], scores, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(batch.rewards, [min(scores) for scores in expected], rtol=1e-5, atol=1e-6)


def test_turns_are_those_of_rlhflow(tmp_path: Path) -> None:
    """Its script: a step is a message of the user, each answered by "+", asked anew for every step."""
    path = tiny.causal(tmp_path)
    model = library.AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(path)
    good_bad = [*ids(tokenizer, "+"), *ids(tokenizer, "-")]
    expected, messages = [], []
    for place, step in enumerate(STEPS):
        messages.append({"role": "user", "content": f"{PROMPT} {step}" if place == 0 else step})
        messages.append({"role": "assistant", "content": "+"})
        tokens = tokenizer.apply_chat_template(messages)["input_ids"]
        answer = len(tokens) - 1 - tokens[::-1].index(good_bad[0])
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, answer - 1, good_bad]
        expected.append(logits.softmax(0)[0].item())
    batch = reward(path, template="turns")(SAMPLES[:1])
    np.testing.assert_allclose(batch.metadata[0]["step_rewards"], expected, rtol=1e-5)


SHEPHERD = {"template": "{prompt} ", "step_end": " ки", "step_joint": "\n", "tokenized": "text", "separator": "\n"}
NUMBERED = ["Step 1: we get 3.", "Step 2: so 4.", "Step 3: the answer is 4."]


@pytest.fixture(scope="session")
def shepherd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model whose tokenizer writes a space before each text, written once."""
    return tiny.sentencepiece_causal(tmp_path_factory.mktemp("shepherd"))


def test_steps_are_those_of_math_shepherd(shepherd: Path) -> None:
    """As its model card reads them: the whole text tokenized at once, the scores at the tag's token."""
    model = library.AutoModelForCausalLM.from_pretrained(shepherd).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(shepherd)
    good_bad, tag = tokenizer.encode("+ -")[1:], tokenizer.encode("ки")[-1]
    assert tokenizer.convert_ids_to_tokens([*good_bad, tag]) == ["▁+", "▁-", "▁ки"]
    tokens = torch.tensor([tokenizer.encode(f"{PROMPT} " + "\n".join(f"{step} ки" for step in NUMBERED))])
    with torch.no_grad():
        scores = model(tokens).logits[..., good_bad].softmax(-1)[..., 0]
    expected = scores[tokens == tag].tolist()
    sample = Sample(PROMPT, "\n".join(NUMBERED))
    assert len(expected) == 3
    assert reward(shepherd, **SHEPHERD)([sample]).metadata[0]["step_rewards"] == pytest.approx(expected, rel=1e-5)
    by_steps = reward(shepherd, **{**SHEPHERD, "tokenized": "steps"})([sample]).metadata[0]["step_rewards"]
    assert np.abs(np.subtract(by_steps, expected)).max() > 1e-3


@pytest.mark.parametrize(
    ("tokenized", "joint", "expected"),
    [
        ("text", "\n", "<s> ▁1 ? ▁Step ▁1 ▁ки <0x0A> Step ▁2 ▁ки"),
        ("text", "", "<s> ▁1 ? ▁Step ▁1 ▁ки Step ▁2 ▁ки"),
        ("steps", "", "<s> ▁1 ? ▁ ▁Step ▁1 ▁ки ▁Step ▁2 ▁ки"),
        ("steps", "\n", "<s> ▁1 ? ▁ ▁Step ▁1 ▁ки ▁ <0x0A> ▁Step ▁2 ▁ки"),
    ],
)
def test_what_is_tokenized_at_once(tokenized: str, joint: str, expected: str) -> None:
    """Piece by piece, as TRL's PRM trainer does, a SentencePiece tokenizer puts a space before each."""
    tokenizer = tiny.sentencepiece_tokenizer("Step", "ки")
    form = StepFormat("{prompt} ", " ки", "+", step_joint=joint, tokenized=tokenized)
    found = form.encode(tokenizer, "1?", ["Step 1", "Step 2"], None)
    tokens = tokenizer.convert_ids_to_tokens(found.text.token_ids)
    assert tokens == expected.split()
    assert found.places == [place for place, read in enumerate(tokens) if read == "▁ки"]


def test_one_text_is_cut_before_its_first_step(shepherd: Path) -> None:
    """Down to no prompt at all; a token less is an error."""
    tokenizer = tiny.sentencepiece_tokenizer("Step", "ки")
    form = StepFormat("{prompt} ", " ки", "+", tokenized="text")
    found = form.encode(tokenizer, "1?", ["Step 1"], 4)
    assert tokenizer.convert_ids_to_tokens(found.text.token_ids) == ["<s>", "▁Step", "▁1", "▁ки"]
    assert (found.text.truncated, found.places) == (2, [3])
    with pytest.raises(InputError, match="raise max_length"):
        form.encode(tokenizer, "1?", ["Step 1"], 3)


@pytest.mark.parametrize("template", ["chat", "{prompt}\n"])
def test_one_text_of_a_byte_level_model_has_the_steps_tokens(folder: Path, template: str) -> None:
    """Where nothing joins, both ways give the same."""
    for step_end in ("\n", " good"):
        settings = {"template": template, "step_end": step_end}
        whole, parts = (reward(folder, **settings, tokenized=way)(SAMPLES) for way in ("text", "steps"))
        for one, other in zip(whole.metadata, parts.metadata, strict=True):
            assert one["step_rewards"] == pytest.approx(other["step_rewards"], rel=1e-5)


def test_a_tag_that_is_joined_with_the_next_step_is_told() -> None:
    """Its score would know the step behind it."""
    tokenizer = tiny.llama_tokenizer()
    form = StepFormat("{prompt}", " the", "+", tokenized="text")
    assert "Ġtherefore" in tokenizer.get_vocab()
    with pytest.raises(InputError, match="joins ' the' with the step behind it"):
        form.encode(tokenizer, "1?", ["so", "refore 2"], None)


def test_turns_of_a_tokenizer_that_begins_texts_with_a_space(shepherd: Path) -> None:
    """The conversation is one text; scores are read before the answers."""
    model = library.AutoModelForCausalLM.from_pretrained(shepherd).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(shepherd)
    messages = [{"role": "user", "content": f"{PROMPT} {NUMBERED[0]}"}, {"role": "assistant", "content": "+"}]
    messages += [{"role": "user", "content": NUMBERED[1]}, {"role": "assistant", "content": "+"}]
    tokens = tokenizer.apply_chat_template(messages)["input_ids"]
    good_bad = tokenizer.encode("+ -")[1:]
    closing = [place for place in range(len(tokens)) if tokens[place + 1 : place + 2] == good_bad[:1]][-1]
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0, closing, good_bad].softmax(0)[0].item()
    found = reward(shepherd, template="turns", separator="\n")([Sample(PROMPT, "\n".join(NUMBERED[:2]))])
    assert found.metadata[0]["step_rewards"][1] == pytest.approx(expected, rel=1e-5)


def test_turns_that_are_too_long_lose_the_beginning_of_the_prompt() -> None:
    """The head of the first turn stays, and so does the first step."""
    tokenizer = tiny.llama_tokenizer()
    form = StepFormat("turns", "", "+")
    long = form.encode(tokenizer, "bad bad bad good", ["so 1", "so 2"], None)
    short = form.encode(tokenizer, " good", ["so 1", "so 2"], None)
    found = form.encode(tokenizer, "bad bad bad good", ["so 1", "so 2"], len(short))
    assert found.text.token_ids == short.text.token_ids
    assert (found.places, found.text.truncated) == (short.places, len(long) - len(short))
    with pytest.raises(InputError, match="raise max_length"):
        form.encode(tokenizer, "bad bad bad good", ["so 1", "so 2"], len(short) - 2)


def test_a_chat_begins_where_the_model_speaks(tmp_path: Path) -> None:
    """Behind the header of its turn."""
    path = tiny.token_classifier(tmp_path)
    tokenizer = library.AutoTokenizer.from_pretrained(path)
    opening = tokenizer.apply_chat_template([{"role": "user", "content": "1?"}], add_generation_prompt=True)
    tokens = [*opening["input_ids"], *ids(tokenizer, "1"), *ids(tokenizer, "\n")]
    with torch.no_grad():
        model = library.AutoModelForTokenClassification.from_pretrained(path).eval()
        expected = model(torch.tensor([tokens])).logits[0, -1].softmax(0)[1].item()
    assert reward(path, template="chat")([SAMPLES[1]]).rewards[0] == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token classifier, written once."""
    return tiny.token_classifier(tmp_path_factory.mktemp("process"))


@pytest.mark.parametrize(
    ("aggregate", "fold"),
    [("min", min), ("mean", np.mean), ("last", lambda scores: scores[-1]), ("product", math.prod)],
)
def test_aggregates(folder: Path, aggregate: str, fold: Any) -> None:
    """Of the scores of the steps."""
    batch = reward(folder, aggregate=aggregate)(SAMPLES)
    assert batch.rewards.tolist() == pytest.approx([fold(row["step_rewards"]) for row in batch.metadata])


def test_scores_stand_at_the_last_tokens_of_steps(folder: Path) -> None:
    """The sample's own tokens; two steps that end in one token share it; without tokens, one a step."""
    sample = Sample("q", "ab\n\nc\n\nd", token_ids=[1, 2, 3, 4], token_offsets=[(0, 1), (1, 4), (4, 5), (5, 8)])
    joined = Sample("q", "ab\n\nc\n\nd", token_ids=[1, 2], token_offsets=[(0, 2), (2, 8)])
    batch = reward(folder)([sample, joined, Sample("q", "ab\n\nc\n\nd"), Sample("q", "ab", token_ids=[1])])
    first, second, third = batch.metadata[0]["step_rewards"]
    assert batch.token_rewards is not None
    expected = [[0, first, second, third], [first, second + third], [first, second, third]]
    for row, values in zip(batch.token_rewards[:3], expected, strict=True):
        assert row is not None
        assert row.tolist() == pytest.approx(values, rel=1e-5)
    assert batch.token_rewards[3] is None
    assert batch.metadata[0]["step_ends"] == [1, 2, 3]


def test_steps_may_be_given(folder: Path) -> None:
    """As texts of the response, in order."""
    given = Sample(PROMPT, "so 2. Then 3.", metadata={"steps": ["so 2.", "Then 3."]})
    expected = reward(folder)([Sample(PROMPT, "so 2.\n\nThen 3.")]).metadata[0]["step_rewards"]
    found = reward(folder, metadata_key="steps")([given]).metadata[0]["step_rewards"]
    assert found == pytest.approx(expected, rel=1e-6)
    for steps in (["Then 3.", "so 2."], ["other"], "so 2.", None, [""]):
        with pytest.raises(InputError, match="metadata"):
            reward(folder, metadata_key="steps")([Sample(PROMPT, "so 2. Then 3.", metadata={"steps": steps})])


def test_no_steps_no_score(folder: Path) -> None:
    """It does not apply, and nothing failed."""
    batch = reward(folder)([Sample("q", " \n\n "), SAMPLES[1]])
    assert batch.not_applicable.tolist() == [True, False]


def test_a_long_prompt_loses_its_beginning_and_long_steps_fail(folder: Path) -> None:
    """For a step that is not read has no score."""
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    short, long = Sample("good good", "so"), Sample("bad " * 50 + "good good", "so")
    room = 1 + len(ids(tokenizer, " good good")) + len(ids(tokenizer, "so")) + 1
    batch = reward(folder, max_length=room)([long])
    assert batch.rewards[0] == pytest.approx(reward(folder)([Sample(" good good", "so")]).rewards[0], rel=1e-5)
    assert batch.metadata[0]["truncated"] > 40
    assert "truncated" not in reward(folder)([short]).metadata[0]
    with pytest.raises(InputError, match="raise max_length"):
        reward(folder, max_length=8)([SAMPLES[0]])


def test_models_that_are_none_are_told(tmp_path: Path, folder: Path) -> None:
    """By the class in their configuration, and by their tokens."""
    config = tiny.decoder_config("Llama", tiny.llama_tokenizer())
    base = tiny.saved(tmp_path, "LlamaModel", config, tiny.llama_tokenizer())
    with pytest.raises(WeightsError, match="LlamaModel"):
        reward(base)(SAMPLES)
    with pytest.raises(ConfigError, match="one token each"):
        reward(tiny.causal(tmp_path / "causal"), good="unheard of")(SAMPLES)
    with pytest.raises(ConfigError, match="has no label 'right'"):
        reward(folder, label="right")(SAMPLES)


@pytest.mark.parametrize("kind", ["BertForTokenClassification", "BertForSequenceClassification"])
def test_a_model_that_sees_the_whole_text_is_refused(tmp_path: Path, kind: str) -> None:
    """Its scores would depend on the steps behind; and a head behind a pooler knows one token only."""
    tokenizer = tiny.bert_tokenizer()
    path = tiny.saved(tmp_path, kind, tiny.bert_config(tokenizer), tokenizer)
    with pytest.raises(WeightsError, match=f"{kind}.*(from left to right|whole texts)"):
        reward(path)(SAMPLES)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "Mixtral", "GPT2", "GPTNeoX", "Bert", "BertDecoder"])
def test_direction_is_asked_of_the_model(kind: str, dtype: str) -> None:
    """The class of a BERT does not say it: its configuration may make it a decoder."""
    tokenizer = tiny.bert_tokenizer()
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_attention_heads": 4}
    sizes |= {"num_hidden_layers": 2, "intermediate_size": 48, "num_key_value_heads": 2} if kind != "GPT2" else {}
    family = "Bert" if kind == "BertDecoder" else kind
    config = getattr(library, f"{family}Config")(**sizes, is_decoder=kind == "BertDecoder", bos_token_id=1)
    names = {"Bert": "BertLMHeadModel", "GPT2": "GPT2LMHeadModel"}
    network = randomised(getattr(library, names.get(family, f"{family}ForCausalLM"))(config), 0)
    precision = getattr(torch, dtype)
    model = TextModel(network.to(precision).eval(), tokenizer, torch.device("cpu"), precision, "it", kind=CAUSAL)
    if kind == "Bert":
        with pytest.raises(WeightsError, match="left to right"):
            check_left_to_right(model)
    else:
        check_left_to_right(model)


@pytest.mark.parametrize(
    "parameters",
    [
        {"separator": ""},
        {"step_end": ""},
        {"template": "none"},
        {"aggregate": "max"},
        {"good": ""},
        {"step_joint": None},
        {"tokenized": "words"},
    ],
)
def test_bad_arguments_are_refused_at_once(parameters: dict[str, Any]) -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigError):
        reward(Path("nowhere"), **parameters)
