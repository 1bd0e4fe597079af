"""`MathReward`: which answer, what is refused, what is killed, and the verdicts of math-verify itself."""

import asyncio
import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from math_verify import parse, verify
from workers.processes import children_of, left_after

from flux_rewards import ConfigError, InputError, MaskErrors, NumericAnswerReward, RewardBatch, Sample
from flux_rewards.rewards.text.math import MathReward
from flux_rewards.rewards.text.math_limits import over_limit
from flux_rewards.rewards.text.math_reading import exact_value, final_answer, formulas_of, stated_reference
from flux_rewards.rewards.text.math_simplified import unsimplified
from flux_rewards.testing import reward_checks

GSM8K = Path(__file__).parents[2] / "examples" / "gsm8k" / "samples.jsonl"
CASES = Path(__file__).parents[1] / "data" / "text_cases" / "math.jsonl"

ORDINARY = [(rf"So it is $\boxed{{\frac{{{n}}}{{7}}+x}}$.", rf"x+\frac{{{n}}}{{7}}") for n in range(60)]
POISON = [
    (r"\boxed{(1+x)^{5000}(1-x)^{5000}}", "(1-x^2)^{5000}"),
    (r"\boxed{9^{9^{9}}}", "x+3"),
    (r"\boxed{10000000!}", "x+3"),
    (r"\boxed{(1+y)^{4000}(1-y)^{4000}}", "(1-y^2)^{4000}"),
]


def scores(reward: Any, pairs: list[tuple[str, str]]) -> RewardBatch:
    """Of responses and references."""
    batch: RewardBatch = reward([Sample(response=response, reference=reference) for response, reference in pairs])
    return batch


@pytest.mark.parametrize("check", reward_checks(MathReward(timeout=60, num_workers=2)), ids=str)
def test_contract(check: Any) -> None:
    """What every reward must keep."""
    check()


@pytest.mark.slow
@pytest.mark.parametrize(("guards", "why"), [(True, "OverLimitError"), (False, "TimeoutError")])
def test_a_poisoned_batch_costs_its_limit_and_nothing_else(guards: bool, why: str) -> None:
    """From a worker thread: all ordinary answers right, the others named, nothing left; also without the guards."""
    workers, limit = (
        3,
        1.0,
    )  # a number that no other reward here has: equal ones share a pool, which outlives one of them
    before = children_of(os.getpid())
    inner = MathReward(timeout=limit, guards=guards, num_workers=workers)
    reward = MaskErrors(inner, max_failure_rate=1.0)
    inner.load()
    pairs = [*ORDINARY[:30], *POISON, *ORDINARY[30:]]
    found: list[Any] = []

    def call() -> None:
        started = time.monotonic()
        found.extend([scores(reward, pairs), time.monotonic() - started])

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    batch, seconds = found
    assert [batch[row].reward for row in range(len(pairs)) if not 30 <= row < 34] == [1.0] * 60
    assert {row: reason.partition(":")[0] for row, reason in batch.errors.items()} == dict.fromkeys(range(30, 34), why)
    assert (
        seconds < limit * len(POISON) / workers + 20
    )  # the limits share the workers; the rest is room for a busy machine
    started = children_of(os.getpid()) - before
    inner.close()
    assert left_after(started) == set()


def test_within_an_event_loop_and_from_many_threads() -> None:
    """The limit holds there too, and nobody gets another's verdict."""
    reward = MaskErrors(MathReward(timeout=0.5, guards=False, num_workers=2), max_failure_rate=1.0)

    async def program() -> RewardBatch:
        return scores(reward, [POISON[1], ORDINARY[0]])

    batch = asyncio.run(program())
    assert batch.errors[0].startswith("TimeoutError")
    assert batch.rewards[1] == 1.0
    patient = MathReward(timeout=60, num_workers=2)
    with ThreadPoolExecutor(8) as pool:
        calls = [[(response, ORDINARY[n][1]) for response, _ in ORDINARY[:8]] for n in range(8)]
        for n, found in enumerate(pool.map(lambda pairs: scores(patient, pairs), calls)):
            np.testing.assert_array_equal(found.rewards, np.arange(8) == n)


def test_a_failure_names_the_sample() -> None:
    """Where nothing masks it, it ends the call."""
    with pytest.raises(Exception, match=r"'MathReward', sample 1: the answer is over the limit.*tower"):
        scores(MathReward(num_workers=2), [ORDINARY[0], POISON[1]])


def test_metadata_tell_what_was_read() -> None:
    """The answer, the reference, and the verdict in a word."""
    pairs = [
        (r"\boxed{8}", "#### 7"), ("hm", "x"), (r"\boxed{)(}", "x"), (r"\boxed{1}", "Rome"), (r"\boxed{7}", "7"),
        (r"\boxed{3+4}", "7"), (r"\boxed{3+4}", "Rome"),
    ]  # fmt: skip
    told = scores(MathReward(timeout=60, simplified=True, num_workers=2), pairs).metadata
    assert [entry["status"] for entry in told] == [
        "wrong",
        "no_answer",
        "unreadable_answer",
        "unreadable_reference",
        "right",
        "unsimplified",
        "unreadable_reference",
    ]
    assert told[0] == {"answer": "8", "reference": "7", "status": "wrong"}
    assert told[5]["why"] == "addition"


@pytest.mark.parametrize("guards", [True, False])
def test_an_answer_over_the_limit_may_have_a_score(guards: bool) -> None:
    """Where it is the answer's fault; a reference over the limit is a failure, and one that is no formula says so."""
    reward = MaskErrors(MathReward(timeout=1.0, guards=guards, over_limit=0.25, num_workers=2), max_failure_rate=1.0)
    reward.children[0].load()
    batch = scores(reward, [*POISON[1:3], ORDINARY[0], (POISON[1][0], "Rome"), (r"\boxed{x}", "9^{9^{9}}")])
    # Unguarded, that reference does no harm to an answer with which there is nothing to compute.
    np.testing.assert_array_equal(batch.rewards, [0.25, 0.25, 1.0, np.nan, np.nan if guards else 0.0])
    assert list(batch.errors) == ([4] if guards else [])
    assert batch[0].metadata["status"] == "over_limit"
    assert batch[3].metadata["status"] == "unreadable_reference"


def test_what_is_noted_has_an_end() -> None:
    """A long answer is not kept whole."""
    (noted,) = scores(MathReward(simplified=True, num_workers=2), [(f"\\boxed{{{'7' * 40_000}}}", "7")]).metadata
    assert (noted["status"], len(noted["answer"])) == ("unsimplified", 1000)


# As simple as the reference: (reference, answer).
WORKED_OUT = [
    ("7", "+7"), ("7", "7.0"), ("0.5", r"\frac{1}{2}"), ("1/2", r"\frac12"), ("3.5", r"3\frac12"), ("3.5", "3 1/2"),
    ("7000", r"7\times10^{3}"), ("0.007", r"7\times10^{-3}"), ("1000000", "10^6"), ("7000", "7e3"), ("7", "x=7"),
    ("18", r"18\text{ km}"), ("18", "18 km/h"), ("18", "18m^2"), ("90", r"90^\circ"), ("18", r"\$18.00"),
    ("1234", "1,234"), ("10000", "10{,}000"), ("10000", r"10\,000"), (r"2\sqrt{3}", r"2\cdot\sqrt{3}"),
    (r"\frac{1+\sqrt5}{2}", r"\frac12+\frac{\sqrt5}{2}"), (r"\{3,5\}", r"x=3 \text{ or } x=5"), ("(2,-3)", "(2,-3)"),
    (r"(-\infty,2)\cup(3,4]", r"(-\infty,2)\cup(3,4]"), ("2+3i", "3i+2"), ("101_2", "101_{2}"), ("3:4", "3:4"),
    (r"\begin{pmatrix}1&-2\\3&-4\end{pmatrix}", r"\begin{bmatrix}1&-2\\3&-4\end{bmatrix}"), ("x<3", "3>x"),
    (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"), (r"2^3\cdot 3^2", r"2^3\cdot3^2"), ("2024!", "2024!"),
    ("7", r"\left(7\right)"),
    ("7", r"\mathbf{7}"), ("e^{x}", r"\exp(x)"), (r"\pm 2", r"x = \pm 2"), ("12.5", r"12.5\text{ cm}^{2}"),
    ("5", "5 min"), (r"\frac{2}{4}", r"\frac{2}{4}"), (r"-2-\sqrt3", r"-\sqrt3-2"), (r"\frac{d}{2}", r"\frac{d}{2}"),
    (r"\frac{3\sqrt{5}}{7}", r"\frac{3}{7}\sqrt{5}"), ("0.333333", r"0.\overline{3}"), ("7", r"\gcd(14,21) = 7"),
    (r"\left(\frac{3}{5},\frac{8}{3}\right]", "(3/5, 8/3]"), (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"),
    (r"\text{(A)}", r"\text{(A)}"), (r"\sum_{k=1}^n k", r"\sum_{k=1}^{n} k"), ("y = 2x + 3", "y=2x+3"),
]  # fmt: skip
LEFT_TO_DO = [
    ("7", "3+4"), ("7", "14/2"), ("7", "21/3"), ("56088", "123*456"), ("56088", r"123\cdot456"), ("7", "--7"),
    ("7", r"\prod_{k=1}^{1} 7"), ("7", r"\lim_{x\to0} 7"), ("7", "|-7|"), ("7", r"15\bmod 8"), ("1024", "2^10"),
    ("0.5", r"\sin 30^\circ"), ("3", r"\log_2 8"), ("7", "(7)(1)"), ("7", "7(1)"), ("1/2", "2/4"),
    ("0.75", r"\frac{1.5}{2}"), ("1/6", r"\frac{\frac12}{3}"), ("1/6", r"\frac12\cdot\frac13"),
    ("1/6", r"\frac12\frac13"),
    ("7", r"7\div1"), ("-1", "i^2"), ("-1", r"e^{i\pi}"), (r"7+\sqrt5", r"3+4+\sqrt5"), ("(2,7)", "(2,3+4)"),
    ("x=7", "x=3+4"), (r"5\text{ cm}", r"3+2\text{ cm}"), ("5 cm", "3+2 cm"), ("7", "7.5-0.5"), ("7", r"3\tfrac{8}{2}"),
    (r"\{3,5\}", r"\{1+2,5\}"), ("7", "7" + " " * 5000 + "+0"), ("7", r"70\%*10"), (r"\sqrt{6}", r"\sqrt2\cdot\sqrt3"),
    ("x^2", r"e^{2\ln x}"), ("7", r"\text{lcm}(7,1)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "answer", "refused"),
    [*((*pair, False) for pair in WORKED_OUT), *((*pair, True) for pair in LEFT_TO_DO)],
)
def test_an_answer_is_as_simple_as_the_reference(reference: str, answer: str, refused: bool) -> None:
    """Ways to write a number are no operations; what the question would hold is."""
    assert (unsimplified(formulas_of(answer), formulas_of(reference)) is not None) is refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"$\frac{ab}{2}$", r"\frac{ab}{2}"),
        ("x^2+2xy+y^2", "x^2+2xy+y^2"),
        ("x = 2 and y = 3", r"\boxed{x = 2} and \boxed{y = 3}"),
        ("$2$ or $3$", r"\boxed{2} and \boxed{3}"),
        ("12 cm and 5 cm", None),
        ("3 and a half", None),
        ("18 km/h", "18"),
        ("$18 a day", "18"),
        ("Either $2$ or $3$", None),
        ("The result is $x^2$.", "x^2"),
        ("Rome", None),
        ("", None),
    ],
)
def test_a_reference_is_read_as_a_whole(text: str, expected: str | None) -> None:
    """Nothing is picked out of its middle."""
    assert stated_reference(text) == expected


def test_plain_numbers_have_the_verdict_of_math_verify() -> None:
    """What is compared without a worker, over signs, separators and fractions, against math-verify's own word."""
    generator = random.Random(8)
    texts = [str(generator.randint(-60, 60)) for _ in range(12)]
    texts += [f"{generator.randint(1000, 9_999_999):,}" for _ in range(4)] + ["+5", "007", "-0", "0", "1,000", "1000"]
    for kind in ("frac", "dfrac", "tfrac"):
        texts += [rf"\{kind}{{{generator.randint(-9, 9)}}}{{{generator.randint(1, 9)}}}" for _ in range(6)]
    texts += [f"{generator.randint(-9, 9)}/{generator.randint(1, 9)}" for _ in range(8)]
    parsed = {text: parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in texts}
    for one in texts:
        for other in texts:
            ours = exact_value(one) == exact_value(other)
            assert verify(parsed[one], parsed[other], timeout_seconds=None) is ours, (one, other)


def test_gsm8k() -> None:
    """800 labelled solutions: as often right as `NumericAnswerReward`, and where they differ, as the label says."""
    rows = [json.loads(line) for line in GSM8K.read_text().splitlines()]
    samples = [Sample(row["prompt"], row["response"], reference=row["reference"]) for row in rows]
    labels = np.array([row["metadata"]["is_correct"] for row in rows], dtype=float)
    ours = MathReward(timeout=60, num_workers=2)(samples).rewards
    numeric = NumericAnswerReward()(samples).rewards
    assert np.sum(ours != labels) <= np.sum(numeric != labels)
    np.testing.assert_array_equal(ours, numeric)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{\text{a } \{b\}} tail", r"\text{a } \{b\}"),
        (r"\boxed 5", None),
        (r"$\boxed{1}$, and $\boxed{2}$", r"\boxed{1} and \boxed{2}"),
        (r"\boxed{1}. So \boxed{2}", "2"),
        ("the answer is obvious. The answer is 5.", "5"),
        ("The answer is not 5 but 6", "6"),
        ("The answer is\n$$x^2$$", "x^2"),
        (r"answer: \(a+b\) for all a", "a+b"),
        ("A: 26", "26"),
        ("$x$ and $y$", r"\boxed{x} and \boxed{y}"),
        ("They are $x$, then $y$", "y"),
        ("$5 and $6", r"\boxed{$5} and \boxed{$6}"),
        ("It is $5 or even $6", "6"),
        ("The answer is $7$, since $3+4=7$", "7"),
        ("The answer is $x=1$ and this follows from $y=2$", "x=1"),
        ("answer: 5km", "5"),
        ("So it is ab + 1 foo", None),
        ("a+b", "a+b"),
        ("no", None),
        ("", None),
        ("***", None),
        ("<think>1</think>", None),
    ],
)
def test_the_final_answer(text: str, expected: str | None) -> None:
    """Where it stands, and nowhere else."""
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("plain", "latex"),
    [
        ("x**2", "x^2"),
        ("x^12", "x^{12}"),
        ("x^(a+b)", "x^{a+b}"),
        ("2 1/2", r"2\frac{1}{2}"),
        ("50%", r"50\%"),
        (r"50\%", r"50\%"),
        ("$18", "18"),
        ("1.5 x 10^3", r"1.5\times 10^3"),
        ("6e-5", r"6\times 10^{-5}"),
        ("x\u00b9\u2070", "x^{10}"),
        ("\u0663", "3"),
        ("18.", "18"),
    ],
)
def test_plain_writing_becomes_latex(plain: str, latex: str) -> None:
    """As people write without LaTeX."""
    assert [formula.replace(" ", "") for formula in formulas_of(plain)] == [latex.replace(" ", "")]


@pytest.mark.parametrize(
    ("formula", "word"),
    [
        ("1" * 4097, "characters"),
        ("{" * 21 + "}" * 21, "deep"),
        ("7" * 257, "digits"),
        ("x+" * 300 + "x", "terms"),
        ("9^{9^9}", "tower"),
        ("9^{9^{9^{9}}}", "tower"),
        ("2^{100000}", "digits"),
        (r"\left(3\right)^{99999}", "digits"),
        ("(x+y)^{129}", "expression"),
        (r"\left(1+x\right)^{5000}", "expression"),
        ("x^{100000}", "power"),
        ("10000000!", "factorial"),
        ("(10!)!", "factorial of a factorial"),
        ("(9^9)!", "factorial"),
        (r"\sum_{k=1}^{1000000} k", "sum"),
        (r"\binom{1000000}{500000}", "binomial"),
    ],
)
def test_what_is_over_the_limit(formula: str, word: str) -> None:
    """Each limit, one above it, with its reason."""
    assert word in (over_limit(formula) or "")


@pytest.mark.parametrize(
    "formula",
    [
        "1" * 256,
        "{" * 20 + "}" * 20,
        "(x+y)^{128}",
        "2^{2^{3}}",
        "2^{2024}",
        "e^{x^2}",
        "x^{y^{z}}",
        "2^{2^n}",
        "5!",
        "2024!",
        r"\binom{10}{5}",
        r"\sum_{k=1}^{n} k^2",
        r"\left(\frac{2}{3}\right)^{100}",
        "10^{-3}",
        "",
    ],
)
def test_what_is_within_the_limit(formula: str) -> None:
    """Answers that contests have."""
    assert over_limit(formula) is None


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("12", Fraction(12)),
        ("-1,234", Fraction(-1234)),
        ("12,34", None),
        (r"\frac{3}{0}", None),
        ("0.5", None),
        ("x", None),
        ("\u0663", None),
        ("4/6", Fraction(2, 3)),
        ("1" * 4001, None),
    ],
)
def test_exact_values(formula: str, value: Fraction | None) -> None:
    """Only what math-verify reads in the same way."""
    assert exact_value(formula) == value


@pytest.mark.parametrize(
    "text", ["bcd" * 33_000, "\\[" * 9000, "$" * 9001, "answer is \\[ " * 4000, "\\boxed{" * 5000, "(" * 20000]
)
def test_long_nonsense_is_read_in_reasonable_time(text: str) -> None:
    """No pattern takes a time that grows with the square of the text; the suite's own limit would tell."""
    assert final_answer(f"{text} word word") is None


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": "1"}, {"float_rounding": -1}, {"over_limit": 2}, {"num_workers": 0}]
)
def test_parameters_are_checked(options: dict[str, Any]) -> None:
    """When the object is made."""
    with pytest.raises(ConfigError):
        MathReward(**options)


@pytest.mark.parametrize("reference", [True, ["1"], {"a": 1}])
def test_a_reference_is_a_number_or_a_text(reference: Any) -> None:
    """Anything else is named."""
    with pytest.raises(InputError, match="reference"):
        MathReward(num_workers=2)([Sample(response="1", reference=reference)])


@pytest.mark.slow
def test_the_cases() -> None:
    """The table of this reward, as one batch a set of parameters."""
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    groups: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        groups.setdefault(json.dumps(case["params"]), []).append(case)
    for params, group in groups.items():
        scored = [case for case in group if not str(case["expected"]).startswith("error")]
        found = MathReward(**json.loads(params))(
            [Sample(response=case["response"], reference=case["reference"]) for case in scored]
        )
        expected = [np.nan if case["expected"] is None else case["expected"] for case in scored]
        unlike = [
            case["why"]
            for case, ok in zip(scored, np.isclose(found.rewards, expected, equal_nan=True), strict=True)
            if not ok
        ]
        assert unlike == []
        assert found.errors == {}
