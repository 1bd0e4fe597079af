"""ClassifierReward and SentimentReward against transformers' own pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_text_models as tiny
import torch
from tiny_vlm import library

from flux_rewards import ConfigError, Sample
from flux_rewards.rewards.learned.classifier import ClassifierReward, SentimentReward
from flux_rewards.rewards.learned.reward_model import RewardModelReward

TEXTS = ["a very good answer", "awful!", "so, maybe the answer is bad because 2 + 2 = 5?", "great " * 90, "日本"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentiment classifier, written once."""
    return tiny.classifier(tmp_path_factory.mktemp("sentiment"))


def pipeline(folder: Path, texts: list[str], **options: Any) -> list[dict[str, float]]:
    """Scores by label."""
    classify = library.pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    rows = [classify([text], truncation=True, **options)[0] for text in texts]
    return [{entry["label"]: entry["score"] for entry in row} for row in rows]


def test_sentiment_is_that_of_the_pipeline(folder: Path) -> None:
    """A text that is too long included, of which both read the beginning."""
    expected = [row["POSITIVE"] for row in pipeline(folder, TEXTS)]
    batch = SentimentReward(str(folder), device="cpu")(response=TEXTS)
    np.testing.assert_allclose(batch.rewards, expected, rtol=1e-5)
    labels = ["POSITIVE" if score > 0.5 else "NEGATIVE" for score in expected]
    assert [row["label"] for row in batch.metadata] == labels
    assert [row.get("truncated") for row in batch.metadata] == [None, None, None, 90 + 2 - 64, None]


def test_a_logit_is_the_pipelines(folder: Path) -> None:
    """As TRL's example rewards sentiment."""
    expected = [row["POSITIVE"] for row in pipeline(folder, TEXTS, function_to_apply="none")]
    found = SentimentReward(str(folder), output="logit", device="cpu")(response=TEXTS).rewards
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_labels_are_weighed(tmp_path: Path, kind: str) -> None:
    """The sum, and each label as a part; labels that don't exclude one another have a sigmoid each."""
    path = tiny.classifier(tmp_path, "calm", "toxic", "insult", problem_type=kind)
    rows = pipeline(path, TEXTS)
    expected = [-row["toxic"] - 0.5 * row["insult"] for row in rows]
    reward = ClassifierReward(str(path), {"Toxic": -1.0, "insult": -0.5}, device="cpu")
    batch = reward(response=TEXTS)
    np.testing.assert_allclose(batch.rewards, expected, rtol=1e-5)
    np.testing.assert_allclose(batch.parts["insult"].rewards, [row["insult"] for row in rows], rtol=1e-5)
    assert reward.bounds == (-1.5, 0.0)
    assert ("label" in batch.metadata[0]) == (kind == "single_label_classification")


def test_a_pair_has_its_own_types(folder: Path) -> None:
    """Prompt and response as a cross-encoder was trained to read them."""
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    model = library.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for text in TEXTS[:3]:
        inputs = tokenizer("the prompt", text, return_tensors="pt")
        assert inputs["token_type_ids"].max() == 1
        with torch.no_grad():
            expected.append(model(**inputs).logits[0, 1].item())
    reward = RewardModelReward(str(folder), label="POSITIVE", template="pair", device="cpu")
    found = reward(prompt=["the prompt"] * 3, response=TEXTS[:3]).rewards
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_special_tokens_of_a_template_are_not_doubled(folder: Path) -> None:
    """``[CLS]`` and ``[SEP]`` that the template writes are those of the tokenizer."""
    plain = RewardModelReward(str(folder), label=1, template="{prompt} {sep_token} {response}", device="cpu")
    explicit = "{cls_token} {prompt} {sep_token} {response} {sep_token}"
    written = RewardModelReward(str(folder), label=1, template=explicit, device="cpu")
    samples = [Sample("what is 2", text) for text in TEXTS[:3]]
    np.testing.assert_allclose(written(samples).rewards, plain(samples).rewards, rtol=1e-6)


@pytest.mark.parametrize("labels", [(), ("pos", "neg"), ("LABEL_0", "LABEL_1")])
def test_the_positive_label_is_found_or_asked_for(tmp_path: Path, labels: tuple[str, ...]) -> None:
    """By its usual names; another one is told, not guessed."""
    path = tiny.classifier(tmp_path, *labels)
    reward = SentimentReward(str(path), device="cpu")
    if labels == ("LABEL_0", "LABEL_1"):
        with pytest.raises(ConfigError, match="it has 'LABEL_0', 'LABEL_1'"):
            reward(response=TEXTS)
        return
    name = labels[0] if labels else "POSITIVE"
    expected = [row[name] for row in pipeline(path, TEXTS[:2])]
    np.testing.assert_allclose(reward(response=TEXTS[:2]).rewards, expected, rtol=1e-5)


def test_positions_that_begin_behind_the_padding_token_end_sooner(tmp_path: Path) -> None:
    """RoBERTa's, of which the configuration counts one more than can be read where the padding token is 0."""
    reward = RewardModelReward(str(tiny.roberta(tmp_path)), template="{response}", device="cpu")
    batch = reward(response=["good " * 90, "bad", "so we get 4"])
    assert batch.metadata[0]["truncated"] == 90 + 2 - 33
    expected = [reward(response=[text]).rewards[0] for text in ("good " * 31, "bad", "so we get 4")]
    np.testing.assert_allclose(batch.rewards, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("labels", [{}, {"a": "b"}, None, True, ""])
def test_bad_labels_are_refused(labels: Any) -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigError):
        ClassifierReward("nowhere", labels)


def test_a_label_named_twice_is_refused(folder: Path) -> None:
    """By its name and by its number."""
    with pytest.raises(ConfigError, match="twice"):
        ClassifierReward(str(folder), {"POSITIVE": 1.0, 1: 1.0}, device="cpu")(response=TEXTS)  # type: ignore[dict-item]
