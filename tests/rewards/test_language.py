"""LanguageReward: texts in languages that nobody would mistake, mixed in known proportions."""

import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from flux_rewards import ConfigError, InputError, MissingDependencyError, Sample
from flux_rewards.rewards.text import language
from flux_rewards.rewards.text.language import LanguageReward
from flux_rewards.rewards.text.language_parts import parts_of
from flux_rewards.rewards.text.language_prose import letters_in, prose_of
from flux_rewards.testing import reward_checks

pytest.importorskip("lingua")

LANGUAGES = ["en", "de", "fr", "es", "zh", "ja", "ko", "ru", "ar", "he", "hi"]
TEXTS = {
    "en": "Let us add the numbers first. Two and three make five. So the answer is three.",
    "de": "Zuerst addieren wir die Zahlen. Zwei und drei ergeben fünf. Die Antwort ist drei.",
    "fr": "Additionnons d'abord les nombres. Deux et trois font cinq. La réponse est trois.",
    "es": "Primero sumamos los números. Dos y tres son cinco. Por eso la respuesta es tres.",
    "zh": "首先我们把数字相加。二加三等于五。所以一共有五个苹果,答案是三。",
    "ja": "まず数字を足します。二足す三は五です。したがって、答えは三です。",
    "ko": "먼저 숫자를 더합니다. 둘과 셋을 더하면 다섯입니다. 따라서 답은 셋입니다.",
    "ru": "Сначала сложим числа. Два и три будет пять. Следовательно, ответ будет три.",
    "ar": "أولاً نجمع الأعداد. اثنان وثلاثة يساوي خمسة. إذن الجواب هو ثلاثة.",
    "he": "קודם נחבר את המספרים. שתיים ועוד שלוש הן חמש. לכן התשובה היא שלוש.",
    "hi": "पहले हम संख्याओं को जोड़ते हैं। दो और तीन पाँच होते हैं। इसलिए उत्तर तीन है।",
}


def alphabetic(text: str) -> int:
    """Letters, as Python tells them."""
    return sum(map(str.isalpha, text))


def score(text: Any, wanted: str = "en", **parameters: Any) -> float:
    """The reward of one response."""
    return float(LanguageReward(wanted, languages=LANGUAGES, **parameters)(response=[text]).rewards[0])


@pytest.mark.parametrize("wanted", LANGUAGES)
def test_each_language_is_told(wanted: str) -> None:
    """1 in the wanted language, 0 in all others."""
    rewards = LanguageReward(wanted, languages=LANGUAGES)(response=[TEXTS[code] for code in LANGUAGES]).rewards
    assert rewards.tolist() == [float(code == wanted) for code in LANGUAGES]


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        # each script is a part of its own
        (TEXTS["en"] + TEXTS["zh"], "en", alphabetic(TEXTS["en"]) / alphabetic(TEXTS["en"] + TEXTS["zh"])),
        (TEXTS["en"] + TEXTS["zh"], "zh", alphabetic(TEXTS["zh"]) / alphabetic(TEXTS["en"] + TEXTS["zh"])),
        # inside one sentence: 35 Latin letters and 7 Han
        ("The answer is 五 because of the 二加三等于五 rule, I believe.", "en", 35 / 42),
        ("I think that this is the right answer\nОтвет на этот вопрос равен пяти", "ru", 26 / 56),  # noqa: RUF001
    ],
)
def test_mixtures(text: str, wanted: str, expected: float) -> None:
    """The share of the letters."""
    assert score(text, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(
    "left_out",
    [
        "```python\nfor number in numbers:\n    print('the answer is', number)\n```",
        "`the_answer_is_the_number`",
        "```python\nimport numpy as np  # the usual name\n```",
        r"\[ \text{the answer} = x \]",
        r"$$ the = answer + is $$",
        r"\begin{align} the answer &= is \end{align}",
        "$the=answer$",
        "https://example.com/the/answer/is/here",
        "someone.who.answers@example.com",
        "<think></think><answer_of_the_question>",
        "1234 5678 9,000.50",
    ],
)
def test_what_is_in_no_language_is_left_out(left_out: str) -> None:
    """Code, formulas, tags, addresses and numbers: German stays German."""
    assert score(f"{TEXTS['de']} {left_out}", "de") == 1.0
    assert np.isnan(score(left_out, "de"))


def test_prices_are_no_formula() -> None:
    """Nothing between two dollar signs of prices is lost."""
    prose = prose_of("I paid $5 and $6 for the two books.")
    assert [letters_in(part) for part in parts_of(prose.text)] == [22]
    assert prose.left_out == 0


@pytest.mark.parametrize(
    "opening", ["$$", r"\(", r"\[", "```", "````", "~~~", r"\begin{align}", "`", "$", "<a ", "<|", r"\boxed{"]
)
@pytest.mark.parametrize("other", ["zh", "de"])
def test_an_opening_delimiter_hides_nothing(opening: str, other: str) -> None:
    """All that follows is judged as if it were not there, but for the letters of its own name."""
    said, hidden = TEXTS["en"], TEXTS[other] * 3
    assert score(f"{said} {opening}{hidden}", "en") == pytest.approx(score(f"{said} {hidden}", "en"), abs=0.05)
    assert score(f"{said} {opening}{hidden}", "en") < 0.5


@pytest.mark.parametrize(
    "hiding",
    [
        "```\n{}\n```",
        "$${}$$",
        r"\[ \text{{{}}} \]",
        "`{}`",
        "${}$",
        r"\begin{{x}}{}\end{{x}}",
        "<a {}>",
        "<a href='{}'>",
    ],
)
@pytest.mark.parametrize("other", ["zh", "de"])
def test_a_sentence_between_two_delimiters_is_judged(hiding: str, other: str) -> None:
    """One in another script, or of five words in a row."""
    sentence = {"zh": "因为二加三等于五所以答案是五", "de": "Die Antwort auf diese Frage ist also drei"}[other]
    said = TEXTS["en"]
    open_to_all = score(f"{said} {sentence}", "en")
    assert open_to_all < 0.9
    assert score(f"{said} {hiding.format(sentence)}", "en") == pytest.approx(open_to_all, abs=0.05)


LONG = re.findall(
    r"\w+",
    "Zuerst addieren wir die beiden Zahlen und erhalten dadurch eine Zwischensumme danach ziehen wir von dieser jenen "
    "Betrag ab welchen Anna bereits ausgegeben hatte schliesslich teilen wir alles durch vier weil genau so viele "
    "Freunde gemeinsam bezahlen wollten",
)


@pytest.mark.parametrize(
    "hiding",
    [
        "https://{}",
        "{}@ist.de",
        "${}$",
        "`{}`",
        "\\{}",
        "<{}>",
        "<a b='{}'>",
        "\\boxed{{{}}}",
        "$$ {}\n$$",
        "```\n{}\n```",
    ],
)
def test_what_is_left_out_is_bounded(hiding: str) -> None:
    """A whole answer, a word at a time: more letters than the rest has, and in words that are all different."""
    assert letters_in(" ".join(LONG)) > 190
    said = "So it is three then."
    batch = LanguageReward("en", languages=LANGUAGES)(
        response=[f"{said} {' '.join(map(hiding.format, words))}" for words in (LONG, LONG[:6])]
    )
    assert batch.rewards[0] < 0.3
    assert batch.metadata[0]["left_out"] == 0.0
    assert batch.rewards[1] == 1.0  # a few are what formulas and addresses are made of
    assert batch.metadata[1]["left_out"] > 0.5


def test_how_much_is_left_out_is_noted() -> None:
    """As a share of all letters."""
    batch = LanguageReward("en", languages=LANGUAGES)(response=["So it is three. " + "$x + y$ `and_that`"])
    assert batch.metadata[0]["left_out"] == 9 / 20


@pytest.mark.parametrize(
    "piece",
    [
        "`",
        "``` ",
        "$$ ",
        "$a",
        r"\[ ",
        r"\begin{a}",
        r"\boxed{",
        "<a b=",
        "<a ",
        "a@",
        "a.",
        "http",
        "word ",
        "猫",
        "1",
        "(",
        "-",
        "~~~~",
    ],
)
def test_any_text_takes_time_that_grows_with_its_length(piece: str) -> None:
    """Delimiters that are never closed, a hundred thousand characters of them: if not, this would take minutes."""
    text = piece * (100_000 // len(piece))
    assert prose_of(text).left_out <= len(text)


def test_names_in_another_alphabet_are_no_language() -> None:
    """A few letters, fewer than of the rest."""
    assert score("我们使用GPU和CUDA来训练模型,然后用PyTorch计算。", "zh") == 1.0


@pytest.mark.parametrize("text", ["", " \n", "OK", "42", "...", "五", "🙂" * 50, "<br>" * 20])
def test_too_short_to_tell(text: str) -> None:
    """Does not apply, which is not 0."""
    assert np.isnan(score(text))


def test_least_letters() -> None:
    """As many as the caller says."""
    assert np.isnan(score("Das ist gut so.", "de", min_letters=13))
    assert score("Das ist gut so.", "de", min_letters=11) == 1.0


def test_a_conversation_is_judged_by_its_last_answer() -> None:
    """Tool calls and earlier turns don't count."""
    said = [
        {"role": "assistant", "content": TEXTS["de"]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "add"}}]},
        {"role": "tool", "content": TEXTS["fr"]},
        {"role": "assistant", "content": [{"type": "text", "text": TEXTS["en"]}]},
    ]
    assert score(said) == 1.0


def test_the_language_of_the_prompt() -> None:
    """That of most of its letters; a prompt that is too short decides nothing."""
    prompts = [
        "Wie viele Äpfel hat Anna noch übrig?",
        [{"role": "user", "content": "How many apples are left?"}],
        "2+3?",
    ]
    batch = LanguageReward(languages=LANGUAGES)(prompt=prompts, response=[TEXTS["de"]] * 3)
    np.testing.assert_array_equal(batch.rewards, [1.0, 0.0, np.nan])
    assert batch.metadata[0] == {"wanted": "de", "letters": {"de": alphabetic(TEXTS["de"])}, "left_out": 0.0}


def test_the_language_in_the_metadata() -> None:
    """With or without a region; None asks for none."""
    reward = LanguageReward(metadata_key="lang", languages=LANGUAGES)
    noted = [{"lang": "de"}, {"lang": "zh-Hans"}, {"lang": None}, {"lang": "EN_us"}]
    texts = [TEXTS["de"], TEXTS["zh"], TEXTS["de"], TEXTS["de"]]
    np.testing.assert_array_equal(reward(response=texts, metadata=noted).rewards, [1.0, 1.0, np.nan, 0.0])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [({}, "expected a language at 'lang'"), ({"lang": "xx"}, "expected one of ar, de"), ({"lang": 3}, "found 3")],
)
def test_metadata_without_a_language(metadata: dict[str, Any], message: str) -> None:
    """A typo in the key is no reason to score nothing."""
    reward = LanguageReward(metadata_key="lang", languages=LANGUAGES)
    with pytest.raises(InputError, match=f"sample 0, field 'metadata': .*{message}"):
        reward(response=[TEXTS["de"]], metadata=[metadata])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"language": "en", "metadata_key": "lang"}, "language or metadata_key, not both"),
        ({"language": ""}, "language must be a text"),
        ({"language": "fr", "languages": ["en", "de"]}, "language must be one of languages, found 'fr'"),
        ({"language": "en", "languages": ["en"]}, "languages must name two to tell apart"),
        ({"language": "en", "languages": "en"}, "languages must be a list"),
        ({"min_letters": 0}, "min_letters must be a whole number >= 1"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        LanguageReward(**parameters)


def test_an_unknown_language() -> None:
    """Named at the first call, when lingua is asked."""
    with pytest.raises(ConfigError, match=r"named by their codes, .*found xx"):
        LanguageReward("xx", languages=["xx", "en"])(response=["text"])


def test_one_detector_for_all_threads() -> None:
    """Made once for a set of languages, whatever the order they are named in."""
    language._detector.cache_clear()
    start = threading.Barrier(4)

    def judge(order: int) -> list[float]:
        start.wait()
        reward = LanguageReward("de", languages=["en", "de", "fr"][:: 1 if order % 2 else -1])
        return list(reward(response=[TEXTS["de"], TEXTS["en"]] * 5).rewards)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(judge, range(4))) == [[1.0, 0.0] * 5] * 4
    assert language._detector.cache_info().currsize == 1


def test_lingua_is_imported_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it is missing, the pip line says what to do."""
    code = (
        "import sys; from flux_rewards.rewards.text.language import LanguageReward\n"
        "LanguageReward('en'); print('lingua' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    monkeypatch.setitem(sys.modules, "lingua", None)
    language._codes.cache_clear()
    with pytest.raises(MissingDependencyError, match=r'pip install "flux_rewards\[language\]"'):
        LanguageReward("en")([Sample(response=TEXTS["en"])])
    language._codes.cache_clear()


@pytest.mark.parametrize(
    "check",
    [
        check
        for reward in (
            LanguageReward("en", languages=["en", "de"], min_letters=3),
            LanguageReward(languages=["en", "de"], min_letters=3),
        )
        for check in reward_checks(reward)
    ],
    ids=str,
)
def test_contract(check: Any) -> None:
    """What holds for every reward."""
    check()
