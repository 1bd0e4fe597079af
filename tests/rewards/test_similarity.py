"""Rewards of similarity against the libraries' own numbers."""

import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sacrebleu
from rapidfuzz import distance
from rouge_score.rouge_scorer import RougeScorer

from flux_rewards import ConfigError, InputError, MaskErrors, MissingDependencyError, RewardFunction
from flux_rewards.rewards.text.bleu import BLEUReward, ChrFReward
from flux_rewards.rewards.text.edit_similarity import EditSimilarity
from flux_rewards.rewards.text.rouge import ROUGEReward, unicode_words
from flux_rewards.rewards.text.similarity import SimilarityReward

ALL: list[SimilarityReward] = [BLEUReward(), ChrFReward(), ROUGEReward(), ROUGEReward("rouge2"), EditSimilarity()]
Score = Callable[[str, Sequence[str]], float]


def some_texts(seed: int, count: int = 60) -> tuple[list[str], list[list[str]]]:
    """Responses that share much with one to three references, in several scripts, with empty ones among them."""
    generator = random.Random(seed)
    words = ["the", "The", "cat", "cats", "sat", "on", "a", "mat.", "mat,", "1,200", "3.5", "étude", "e\u0301tude",
             "東京", "に", "行く。", "القاهرة", "мир", "🙂", "&amp;", "x-ray", "-", "\n"]  # fmt: skip
    references = [
        [" ".join(generator.choices(words, k=generator.randrange(0, 14))) for _ in range(generator.randrange(1, 4))]
        for _ in range(count)
    ]
    responses = []
    for several in references:
        said = [word for word in several[0].split(" ") if generator.random() < 0.8]
        responses.append(" ".join(said + generator.choices(words, k=generator.randrange(0, 3))))
    return responses, references


def bleu(**options: Any) -> Score:
    """Sacrebleu's sentence score."""
    metric = sacrebleu.BLEU(**{"effective_order": True, **options})
    return lambda text, several: min(1.0, metric.sentence_score(text, several).score / 100)


def chrf(**options: Any) -> Score:
    """Sacrebleu's sentence score."""
    metric = sacrebleu.CHRF(**options)
    return lambda text, several: min(1.0, metric.sentence_score(text, several).score / 100)


def rouge(kind: str, measure: str = "fmeasure", **options: Any) -> Score:
    """The best of rouge-score's."""
    scorer = RougeScorer([kind], **options)
    return lambda text, several: max(getattr(scorer.score(one, text)[kind], measure) for one in several)


def edits(kind: Any) -> Score:
    """The best of rapidfuzz's."""
    return lambda text, several: max(kind.normalized_similarity(text, one) for one in several)


@pytest.mark.parametrize(
    ("reward", "score"),
    [
        (BLEUReward(), bleu()),
        (BLEUReward(2, "intl", lowercase=True), bleu(max_ngram_order=2, tokenize="intl", lowercase=True)),
        (BLEUReward(tokenize="char"), bleu(tokenize="char")),
        (BLEUReward(tokenize="zh", smoothing="none"), bleu(tokenize="zh", smooth_method="none")),
        (BLEUReward(tokenize="none", smoothing="floor"), bleu(tokenize="none", smooth_method="floor")),
        (BLEUReward(smoothing="add-k", smooth_value=2), bleu(smooth_method="add-k", smooth_value=2)),
        (ChrFReward(), chrf()),
        (ChrFReward(word_order=2), chrf(word_order=2)),
        (ChrFReward(4, 1, 1, lowercase=True, whitespace=True),
         chrf(char_order=4, word_order=1, beta=1, lowercase=True, whitespace=True)),
        (ROUGEReward("rouge1"), rouge("rouge1")),
        (ROUGEReward("rouge2", "recall"), rouge("rouge2", "recall")),
        (ROUGEReward("rougeL"), rouge("rougeL")),
        (ROUGEReward("rougeL", "precision", stem=True), rouge("rougeL", "precision", use_stemmer=True)),
        (ROUGEReward("rougeLsum"), rouge("rougeLsum")),
        (EditSimilarity(), edits(distance.Levenshtein)),
        (EditSimilarity("osa"), edits(distance.OSA)),
        (EditSimilarity("indel"), edits(distance.Indel)),
        (EditSimilarity("lcs"), edits(distance.LCSseq)),
    ],
    ids=lambda given: repr(given) if isinstance(given, RewardFunction) else "",
)  # fmt: skip
def test_equals_the_library(reward: RewardFunction, score: Score) -> None:
    """Number by number, against one and several references, in several scripts."""
    texts, references = some_texts(len(repr(reward)))
    expected = [score(text, several) for text, several in zip(texts, references, strict=True)]
    assert reward(response=texts, reference=references).rewards.tolist() == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) >= 10  # it says something


def test_edits_of_words() -> None:
    """As rapidfuzz has them for lists."""
    texts, references = some_texts(5)
    expected = [
        max(distance.Levenshtein.normalized_similarity(text.split(), one.split()) for one in several)
        for text, several in zip(texts, references, strict=True)
    ]
    assert EditSimilarity(unit="words")(response=texts, reference=references).rewards.tolist() == expected


@pytest.mark.parametrize("reward", ALL, ids=repr)
def test_a_broken_sample_does_not_harm_its_neighbours(reward: SimilarityReward) -> None:
    """It alone fails, by its name."""
    batch = MaskErrors(reward, max_failure_rate=1.0)(response=["a b", "a b", "a b"], reference=["a b", {}, "x"])
    assert batch.rewards[0] == pytest.approx(1.0)
    assert batch.rewards[2] < 1.0
    assert list(batch.errors) == [1]
    with pytest.raises(InputError, match="sample 1, field 'reference'"):
        reward(response=["a", "a"], reference=["a", []])


@pytest.mark.parametrize("reward", ALL, ids=repr)
def test_parts_and_conversations(reward: SimilarityReward) -> None:
    """What is judged is the part of the last answer."""
    messages = [{"role": "assistant", "content": "no"}, {"role": "assistant", "content": "<think>x</think>a b c d"}]
    final = type(reward)(**{**reward.parameters, "part": "final"})
    batch = final(response=[messages, "<think>a b c d"], reference=["a b c d"] * 2)
    assert batch.rewards.tolist() == pytest.approx([1.0, 0.0])
    assert final([]).rewards.tolist() == []


@pytest.mark.parametrize("reward", ALL, ids=repr)
def test_threads_agree(reward: SimilarityReward) -> None:
    """Nothing is shared between calls."""
    texts, references = some_texts(7)
    expected = reward(response=texts, reference=references).rewards.tolist()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(reward, response=texts, reference=references) for _ in range(16)]
        assert all(call.result().rewards.tolist() == expected for call in calls)


@pytest.mark.parametrize(
    ("reward", "module"),
    [(BLEUReward(), "sacrebleu.metrics.bleu"), (ChrFReward(), "sacrebleu.metrics.chrf"), (ROUGEReward(), "rouge_score"),
     (EditSimilarity(), "rapidfuzz")],
    ids=repr,
)  # fmt: skip
def test_without_the_library(reward: RewardFunction, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r'pip install "flux_rewards\[text\]"'):
        reward(response=["a"], reference=["a"])


@pytest.mark.parametrize("tokenize", ["13a", "zh", "intl", "char"])
def test_no_text_is_kept(tokenize: str) -> None:
    """Sacrebleu's tokenizers remember 65,536 texts each, for good; a trainer would fill its memory with them."""
    from sacrebleu.tokenizers import tokenizer_13a, tokenizer_char, tokenizer_intl, tokenizer_re, tokenizer_zh

    kinds: list[Any] = [
        tokenizer_13a.Tokenizer13a,
        tokenizer_zh.TokenizerZh,
        tokenizer_intl.TokenizerV14International,
        tokenizer_char.TokenizerChar,
        tokenizer_re.TokenizerRegexp,
    ]
    before = [kind.__call__.cache_info().currsize for kind in kinds]
    texts, references = some_texts(11)
    BLEUReward(tokenize=tokenize)(response=texts, reference=references)
    assert [kind.__call__.cache_info().currsize for kind in kinds] == before


def test_words_of_any_script() -> None:
    """Marks stay with their letters; scripts without spaces go by character."""
    assert unicode_words("Cafe\u0301, naïve—x_y") == ["caf\u00e9", "naïve", "x", "y"]
    assert unicode_words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert unicode_words("2024年、東京") == ["2024", "年", "東", "京"]
    assert unicode_words("أهلا بك! 🙂") == ["أهلا", "بك"]


def test_long_texts_by_their_longest_common_subsequence() -> None:
    """20,000 words against 20,000: the library's table would have 400 million cells."""
    generator = random.Random(3)
    words = generator.choices(["a", "b", "c", "d"], k=20_000)
    score = ROUGEReward()(response=[" ".join(words[1:])], reference=[" ".join(words)]).rewards[0]
    assert score == pytest.approx(2 * 19_999 / 39_999)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BLEUReward(0), "max_n must be a whole number >= 1"),
        (lambda: BLEUReward(tokenize="spm"), "tokenize must be one of 13a, intl"),
        (lambda: BLEUReward(smoothing="exp", smooth_value=1), "smooth_value is of smoothing 'floor' and 'add-k'"),
        (lambda: BLEUReward(smoothing="floor", smooth_value=0), "smooth_value must be a finite number > 0"),
        (lambda: ChrFReward(0), "char_order must be a whole number >= 1"),
        (lambda: ROUGEReward("rouge0"), "kind must be one of rougeL"),
        (lambda: ROUGEReward(tokenize="unicode", stem=True), "stem=True is of tokenize='ascii'"),
        (lambda: EditSimilarity("jaro"), "kind must be one of levenshtein, osa, indel, lcs"),
        (lambda: EditSimilarity(part="answers"), "part must be one of response"),
    ],
)
def test_impossible_parameters(make: Any, message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        make()
