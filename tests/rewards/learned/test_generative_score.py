"""GenerativeScore against one token at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_text_models as tiny
import torch
from tiny_vlm import library

from flux_rewards import ConfigError, InputError, Sample, WeightsError
from flux_rewards.rewards.learned.generative_score import GenerativeScore

SAMPLES = [
    Sample("What is 2 + 2?", "so we get 4", reference="4"),
    Sample("1?", "because of 日本 and {reference} the answer is 1 " * 5, reference=1),
    Sample("think", "three", reference="two, three four and very great"),
]


@pytest.fixture(scope="session", params=["Llama", "Qwen3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model of each family, written once."""
    return tiny.causal(tmp_path_factory.mktemp("causal"), request.param)


def reward(folder: Path, **parameters: Any) -> GenerativeScore:
    return GenerativeScore(str(folder), **{"device": "cpu", "dtype": "float32", **parameters})


def naive(folder: Path, messages: list[dict[str, Any]], answer: str) -> list[float]:
    """The log-probability of each token of an answer, a pass for each."""
    model = library.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    found = []
    for token in tokenizer(answer, add_special_tokens=False)["input_ids"]:
        with torch.no_grad():
            found.append(model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(0)[token].item())
        tokens.append(token)
    return found


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("output", "fold"),
    [("mean_log_likelihood", np.mean), ("log_likelihood", np.sum), ("probability", lambda row: np.exp(np.sum(row)))],
)
@pytest.mark.parametrize("field", ["response", "reference"])
def test_an_answer_is_as_likely_as_its_tokens(folder: Path, output: str, fold: Any, field: str) -> None:
    """In whatever batch."""
    rows = [naive(folder, user(sample.prompt), str(getattr(sample, field))) for sample in SAMPLES]
    for tokens in (4096, 1):
        one = reward(folder, answer=f"{{{field}}}", output=output, max_batch_tokens=tokens)
        batch = one(SAMPLES)
        np.testing.assert_allclose(batch.rewards, [fold(row) for row in rows], rtol=1e-5)
        assert [row["tokens"] for row in batch.metadata] == [len(row) for row in rows]


def test_yes_against_no(folder: Path) -> None:
    """The softmax of their logits alone."""
    question = "Is this good? {response} Yes or No?"
    expected = []
    for sample in SAMPLES:
        asked = user(question.replace("{response}", str(sample.response)))
        yes, no = (naive(folder, asked, word)[0] for word in ("Yes", "No"))
        expected.append(1 / (1 + np.exp(no - yes)))
    one = reward(folder, question=question, answer="Yes", alternatives=["No"], output="probability")
    np.testing.assert_allclose(one(SAMPLES).rewards, expected, rtol=1e-5)
    assert one.required_fields == ("response",)
    for others in (["Yes"], ["a very long one"]):
        with pytest.raises((ConfigError, InputError), match="one token"):
            reward(folder, question=question, answer="Yes", alternatives=others)(SAMPLES)


def test_a_conversation_is_asked_whole(folder: Path) -> None:
    """Where the question is the prompt; a question around it has room for one text."""
    talk = [{"role": "system", "content": "think"}, *user("2?"), {"role": "assistant", "content": "2"}, *user("why?")]
    found = reward(folder)([Sample(talk, reference="because")]).rewards[0]
    assert found == pytest.approx(np.mean(naive(folder, talk, "because")), rel=1e-5)
    with pytest.raises(InputError, match="conversation of 4 messages"):
        reward(folder, question="Q: {prompt}")([Sample(talk, reference="because")])


def test_a_model_that_does_not_chat(tmp_path: Path) -> None:
    """Reads the question as a text, behind the beginning of one."""
    path = tiny.causal(tmp_path, chat=False)
    tokenizer = library.AutoTokenizer.from_pretrained(path)
    model = library.AutoModelForCausalLM.from_pretrained(path).eval()
    with pytest.raises(ConfigError, match="no chat template"):
        reward(path)(SAMPLES)
    tokens = [*tokenizer("Q: 1?\n")["input_ids"], *tokenizer("1", add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0, -2].log_softmax(0)[tokens[-1]].item()
    found = reward(path, template="Q: {question}\n")([SAMPLES[1]]).rewards[0]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_long_question_loses_its_beginning_and_a_long_answer_fails(folder: Path) -> None:
    """For a token that is not read has no likelihood."""
    batch = reward(folder, max_length=40)([Sample("good " * 90, reference="4"), SAMPLES[0]])
    assert batch.metadata[0]["truncated"] > 50
    assert "truncated" not in batch.metadata[1]
    with pytest.raises(InputError, match="raise max_length"):
        reward(folder, max_length=40)([Sample("4", reference="good " * 60)])
    with pytest.raises(InputError, match="tokens more than"):
        reward(folder, max_length=40, on_truncation="error")([Sample("good " * 90, reference="4")])


@pytest.mark.parametrize("reference", ["", ["4"], True, {"answer": "4"}])
def test_a_reference_that_is_no_answer_fails(folder: Path, reference: Any) -> None:
    """Named with its field."""
    with pytest.raises(InputError, match="field 'reference'"):
        reward(folder)([Sample("2 + 2?", reference=reference)])


@pytest.mark.parametrize(
    "parameters",
    [{"question": ""}, {"answer": " "}, {"output": "nats"}, {"alternatives": []}, {"template": "{prompt}"}],
)
def test_bad_arguments_are_refused_at_once(parameters: dict[str, Any]) -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigError):
        reward(Path("nowhere"), **parameters)


@pytest.mark.parametrize("closing", ["", "</s>"])
def test_a_question_is_not_closed_before_the_answer(tmp_path: Path, closing: str) -> None:
    """A tokenizer that ends its texts ends what is whole only; what the template writes stays."""
    from tokenizers import processors

    tokenizer = tiny.llama_tokenizer(chat=False)
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    closes = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=ends)
    tokenizer.backend_tokenizer.post_processor = closes
    path = tiny.saved(tmp_path, "LlamaForCausalLM", tiny.decoder_config("Llama", tokenizer), tokenizer)
    model = library.AutoModelForCausalLM.from_pretrained(path).eval()
    assert library.AutoTokenizer.from_pretrained(path)("so")["input_ids"][-1] == tokenizer.eos_token_id
    ids = tokenizer(f"<s>what is 2?{closing}", add_special_tokens=False)["input_ids"]
    (answer,) = tokenizer(" 4", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(0)[answer].item()
    one = reward(path, template=f"{{question}}{closing}")
    assert one([Sample("what is 2?", reference=" 4")]).rewards[0] == pytest.approx(expected, rel=1e-5)


def test_a_model_that_sees_the_answer_is_refused(tmp_path: Path) -> None:
    """A masked one knows the token that it is asked for."""
    tokenizer = tiny.bert_tokenizer()
    path = tiny.saved(tmp_path, "BertLMHeadModel", tiny.bert_config(tokenizer), tokenizer)
    with pytest.raises(WeightsError, match="from left to right"):
        reward(path, template="{question}")([Sample("2?", reference="4")])
