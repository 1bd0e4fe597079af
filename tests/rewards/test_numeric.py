"""NumericAnswerReward: which number, what it is worth, and 800 labelled solutions of GSM8K."""

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flux_rewards import ConfigError, InputError, NumericAnswerReward, Sample
from flux_rewards.rewards.text.numbers import stated_number

GSM8K = Path(__file__).parents[2] / "examples" / "gsm8k" / "samples.jsonl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18", 18),
        ("18.", 18),
        ("18.0", 18),
        ("018", 18),
        ("3.5", Fraction(7, 2)),
        (".5", Fraction(1, 2)),
        ("0.1", Fraction(1, 10)),
        ("1,234", 1234),
        ("1,234,567.80", Fraction(6172839, 5)),
        ("$1,800.50", Fraction(3601, 2)),
        (r"1{,}234", 1234),
        ("-3", -3),
        ("+3", 3),
        ("\u22123", -3),
        ("-$18", -18),
        ("$-18", -18),
        ("\u20ac 18", 18),
        ("£18", 18),
        ("18 dollars", 18),
        ("5km", 5),
        ("$18/day", 18),
        ("50%", 50),
        (r"50\%", 50),
        ("3/4", Fraction(3, 4)),
        ("1 / 2", Fraction(1, 2)),
        ("1 3/4", Fraction(7, 4)),
        ("-1 3/4", Fraction(-7, 4)),
        ("1\u00be", Fraction(7, 4)),
        ("\u00bd", Fraction(1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        (r"\tfrac{-1}{2}", Fraction(-1, 2)),
        (r"\frac12", Fraction(1, 2)),
        (r"2\frac{1}{2}", Fraction(5, 2)),
        ("1e3", 1000),
        ("1.5E-3", Fraction(3, 2000)),
        ("1.5 \u00d7 10^3", 1500),
        (r"1.5 \times 10^{-3}", Fraction(3, 2000)),
        ("1.5 x 10^3", 1500),
        ("1.5 \u00d7 10³", 1500),
        ("10^6", 1_000_000),
        ("2 million", 2_000_000),
        (r"2.5\text{ million}", 2_500_000),
        ("**18**", 18),
        ("$18$", 18),
        (r"\(18\)", 18),
        ("\uff11\uff18", 18),  # full-width digits
        # what is no number, and must not lend a part of itself
        ("3,5", None),
        ("1,2", None),
        ("1,23,456", None),
        ("1.2.3", None),
        ("3:30", None),
        ("12/25/2024", None),
        ("10-12", None),
        ("2024-01-05", None),
        ("1/0", None),
        ("5^2", None),
        ("5²", None),
        (r"\sqrt{2}", None),
        (r"\sqrt[3]{8}", None),
        (r"2\pi", None),
        ("x2", None),
        ("x23.4", None),
        ("H2O", None),
        ("1e999999999", None),
        ("10^999999999", None),
        ("1.5 x 10^99999", None),
        pytest.param("9" * 5000, None, id="5000 digits"),
        pytest.param("1e" + "9" * 5000, None, id="5000 digits of exponent"),
        ("eighteen", None),
        ("nan", None),
        ("", None),
    ],
)
def test_what_a_number_is(text: str, expected: Fraction | int | None) -> None:
    """Exact values, the same alone, on a marked line and in a box."""
    assert stated_number(text) == expected
    assert stated_number(f"There are 7.\nA: {text}\n") == expected
    assert stated_number(rf"There are 7 of \boxed{{{text}}}") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the last marker decides
        ("#### 18", 18),
        ("3 * 6 = 18\n#### 18\n", 18),
        ("A: 17\nno, wait\nA: 18", 18),
        ("#### 17\nThe answer is 18.", 18),
        ("The answer is 17.\nA: 18 (of 30)", 18),
        (r"\boxed{17}, no: \boxed{18}. Checked twice with 5 apples.", 18),
        (r"The final answer is $\boxed{18\text{ dollars}}$.", 18),
        ("**Answer:** 18 apples, 3 each", 18),
        ("Final Answer: $18", 18),
        ("answer = -18", -18),
        ("Answer:\n\n  18 apples", 18),
        ("the answer is therefore x = 18, as 3 people said", 18),
        # calculations
        ("A: 3 * 6 = 18", 18),
        ("A: 5 + 5 + 8 = 10 + 8 = $18 in all", 18),
        ("A: 3*6=$<<3*6=18>>18", 18),
        ("A: 18 = 3 * 6", 18),
        ("A: 3 * 6", None),
        # prose and headings
        ("The answer is 18. The answer is easy to check.", 18),
        ("A: 18\nThe answer is not 17.", 18),
        ("#### Step 3\nThere are 18", 18),
        ("#### 1. Count them\nThere are 18", 18),
        ("Option A: 5 apples. There are 18", 18),
        ("DNA: 5. There are 18", 18),
        # boxes
        (r"\boxed{x = 18}", 18),
        (r"\boxed{\text{about } 18\,\text{m}^2}", 18),
        (r"\boxed{90^\circ}", 90),
        (r"\boxed{\frac{36}{2}}", 18),
        (r"\boxed{{18}}", 18),
        (r"\fbox{18}", 18),
        (r"\boxed{18, 20}", None),
        (r"\boxed{(3, 4)}", None),
        (r"\boxed{\text{no}} with 18", None),
        (r"\boxed{}", None),
        (r"so 18 and \boxed{18", None),
        # cut off, or without an answer
        ("There are 18.\nA:", None),
        ("There are 18.\n#### ", None),
        ("There are 18. The answer is", None),
        ("A: eighteen, not 18 ", 18),
        ("There are 18.\nA: nobody knows", None),
        ("Kylar needs to pay 5 * 1", None),
        ("so it is $41.472+$8.2944 = $<<41.472+8.", None),
        # the last number
        ("She has 5 and buys 13, so she has 18 eggs.", 18),
        ("- 5 apples\n- 6 pears", 6),
        ("16 - 3", None),
        ("答案是-18。", -18),
        ("about...18", 18),
        ("She thinks.", None),
    ],
)
def test_which_number(text: str, expected: int | None) -> None:
    """The last marker decides; without one the last number does."""
    assert stated_number(text) == expected


def test_a_marker_may_be_required() -> None:
    """Then the numbers of a response that was cut off are no answers."""
    reward = NumericAnswerReward(require_marker=True)
    batch = reward(response=["She has 18", "The answer is plain.\nShe has 18", "A: 18"], reference=[18, 18, "18"])
    assert batch.rewards.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("response", "reference", "tolerance", "expected"),
    [
        ("3.5", "35", 0, 0.0),
        ("35", "3.5", 0, 0.0),
        ("18.0", "18", 0, 1.0),
        ("1/2", 0.5, 0, 1.0),
        ("0.1", 0.1, 0, 1.0),  # as it is written, not as binary holds it
        ("0.30000000000000004", 0.3, 0, 0.0),
        ("12345678901234567891", 12345678901234567890, 0, 0.0),  # beyond a float
        ("1,234", 1234, 0, 1.0),
        ("18", "So she has 18.\n#### 18", 0, 1.0),
        ("18", Decimal("18.0"), 0, 1.0),
        ("18", np.int64(18), 0, 1.0),
        ("0.5", np.float32(0.5), 0, 1.0),
        ("1000", 1e3, 0, 1.0),
        ("3.14", "3.15", 0.01, 1.0),
        ("3.14", "3.151", 0.01, 0.0),
        ("0.3", "1/3", 0, 0.0),
        ("0.33", "1/3", 0.01, 1.0),
        ("", "18", 0, 0.0),
        ("no idea", "18", 0, 0.0),
        ("no idea", "0", 100, 0.0),
    ],
)
def test_score(response: str, reference: Any, tolerance: float, expected: float) -> None:
    """Equal as exact numbers, or no further apart than the tolerance."""
    assert NumericAnswerReward(tolerance)(response=[response], reference=[reference]).rewards[0] == expected


@pytest.mark.parametrize(
    "reference", ["none", "", float("nan"), float("inf"), pytest.param(10**5000, id="huge"), "10-12"]
)
def test_a_reference_without_a_number(reference: Any) -> None:
    """The reward does not apply; the neighbour is scored."""
    batch = NumericAnswerReward()(response=["18", "18"], reference=[reference, "18"])
    assert batch.not_applicable.tolist() == [True, False]
    assert batch.rewards[1] == 1.0


@pytest.mark.parametrize("reference", [True, ["18"], b"18", 1j])
def test_what_is_no_reference(reference: Any) -> None:
    """Refused by name and place."""
    with pytest.raises(InputError, match=r"'NumericAnswerReward', sample 1, field 'reference'"):
        NumericAnswerReward()(response=["18", "18"], reference=["18", reference])


@pytest.mark.parametrize(
    ("response", "answer"),
    [("A: 1,800", "1800"), ("$3.50", "3.5"), ("1/3", "1/3"), ("1/2", "0.5"), ("1e3", "1000"), ("none", None)],
)
def test_says_what_it_found(response: str, answer: str | None) -> None:
    """A decimal where it is a short one."""
    assert NumericAnswerReward()(response=[response], reference=["18"])[0].metadata == {"answer": answer}


def test_a_conversation_is_judged_by_its_last_answer() -> None:
    """Messages are as good as text."""
    said = [
        {"role": "assistant", "content": "A: 17"},
        {"role": "tool", "content": "A: 16"},
        {"role": "assistant", "content": [{"type": "text", "text": "A: 18"}]},
    ]
    assert NumericAnswerReward()(response=[said], reference=["18"]).rewards[0] == 1.0


HOSTILE = {
    "digits": "1" * 200_000,
    "commas": "1," * 100_000,
    "newlines": "\n" * 200_000,
    "labels": "A:\n" * 60_000,
    "phrases": "the answer is " * 15_000,
    "hashes": "####\n\n\n" * 30_000,
    "open boxes": r"\boxed{" * 30_000,
    "open fractions": r"\frac{1" * 30_000,
    "sums": "A: 1" + "+1=" * 60_000,
    "mixed numbers": "1 1/1 " * 30_000,
    "currency": "$" * 200_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_length_takes_one_pass(text: str) -> None:
    """Work that grew with the square of the length would not come back from these."""
    assert NumericAnswerReward()(response=[text], reference=["18"]).rewards[0] == 0.0


def test_agrees_with_the_labels_of_gsm8k() -> None:
    """800 solutions of four models, 295 of them right, against the source's own label: no disagreement."""
    samples = [Sample(**json.loads(line)) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    labels = [float(sample.metadata["is_correct"]) for sample in samples]
    assert (len(samples), sum(labels)) == (800, 295)
    assert NumericAnswerReward()(samples).rewards.tolist() == labels


@pytest.mark.parametrize("tolerance", [-0.1, "0", float("inf"), True])
def test_impossible_tolerance(tolerance: Any) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match="tolerance must be a finite number >= 0"):
        NumericAnswerReward(tolerance)


def test_answer_tags_hold_the_answer() -> None:
    """As in the format of think and answer; what comes after the tag does not count."""
    responses = [
        "<think>2 and 2</think><answer>4</answer> (checked 9 times)",
        "<think>2 and 2</think>\n<answer>\nIt is 4.\n</answer>",
        "<answer>5</answer> although 4",
        "<answer></answer>",
    ]
    batch = NumericAnswerReward()(response=responses, reference=["4"] * 4)
    assert batch.rewards.tolist() == [1.0, 1.0, 0.0, 0.0]
