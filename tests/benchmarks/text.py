"""Text rewards beside the libraries that people use today: how long a batch takes, and whether the scores agree.

    python tests/benchmarks/text.py [math|ngrams|similarity ...]

Each table is one function; all run by default. Contenders take turns in one process, on the same new texts in each
round, so that neither finds the other's caches; a table has the median time of each and the ratio of the medians.
"""

from __future__ import annotations

import functools
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from flux_rewards import RewardFunction, Sample
from flux_rewards.rewards.text.bleu import BLEUReward, ChrFReward
from flux_rewards.rewards.text.edit_similarity import EditSimilarity
from flux_rewards.rewards.text.math import MathReward
from flux_rewards.rewards.text.repetition import RepetitionPenalty
from flux_rewards.rewards.text.rouge import ROUGEReward
from flux_rewards.workers.pool import usable_cpus

T = TypeVar("T")

PROMPTS = 64
RESPONSES = 8
ROUNDS = 5

REASONING = (
    "Let us write the condition as an equation, $a_{n+1} = 2a_n + %d$, and see what follows for $n = %d$. "
    "Dividing by %d leaves a remainder of %d, so that only two cases are left. "
)


class Timing(NamedTuple):
    """Two contenders over some rounds, in seconds."""

    ours: list[float]
    theirs: list[float]

    def cells(self) -> list[str]:
        """Medians, and how many times faster ours is."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        return [f"{theirs:.3f}", f"{ours:.3f}", f"{theirs / ours:.2f}"]


def timed(call: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """Seconds, and what came of it."""
    started = time.perf_counter()
    found = call(*arguments)
    return time.perf_counter() - started, found


def scores(reward: RewardFunction, samples: Sequence[Sample]) -> list[float]:
    """Ours, as the list that others return."""
    found: list[float] = reward(samples).rewards.tolist()
    return found


def one_by_one(score: Callable[[str, str], float], samples: Sequence[Sample]) -> list[float]:
    """A library's, in a loop."""
    return [score(sample.response_text, sample.reference) for sample in samples]


def reasoning(generator: random.Random) -> str:
    """About 1,500 characters that lead nowhere, with formulas in them."""
    return "".join(REASONING % tuple(generator.randint(2, 99) for _ in range(4)) for _ in range(8))


def expression(generator: random.Random) -> tuple[str, list[str], list[str]]:
    """A reference that is no plain number, other forms of it, and wrong answers."""
    a, b, c = generator.randint(2, 999), generator.randint(2, 99), generator.randint(2, 99)
    return generator.choice(
        [
            (rf"\frac{{{a}}}{{{b}}}+x", [rf"x+\frac{{{a}}}{{{b}}}"], [rf"\frac{{{a + 1}}}{{{b}}}+x", rf"{a}x"]),
            (rf"{a}\sqrt{{{b}}}", [rf"\sqrt{{{b}}}\cdot {a}"], [rf"{a + 1}\sqrt{{{b}}}", rf"\sqrt{{{a}}}"]),
            (rf"({a},{b})", [rf"\left({a}, {b}\right)"], [rf"({b},{a})", rf"{a}"]),
            (rf"\{{{a},{b},{c}\}}", [rf"\{{{c},{b},{a}\}}"], [rf"\{{{a},{b}\}}", rf"{b}"]),
            (rf"{a}\pi", [rf"\pi\cdot {a}"], [rf"{a + 1}\pi", rf"\frac{{\pi}}{{{a}}}"]),
            (rf"x^2+{2 * a}x+{a * a}", [rf"(x+{a})^2"], [rf"(x-{a})^2", rf"x^2+{a}"]),
            (rf"[{a},{a + b})", [rf"\left[{a},{a + b}\right)"], [rf"[{a},{a + b}]", rf"({a},{b})"]),
            (rf"\frac{{x+{a}}}{{x-{b}}}", [rf"1+\frac{{{a + b}}}{{x-{b}}}"], [rf"\frac{{x-{a}}}{{x-{b}}}"]),
        ]
    )


def whole_number(generator: random.Random) -> tuple[str, list[str], list[str]]:
    """As in GSM8K."""
    a = generator.randint(2, 99_999)
    return str(a), [f"{a:,}", rf"\${a}"], [str(a + 1), str(-a)]


def math_batch(generator: random.Random, kind: str) -> list[Sample]:
    """Groups of responses, of which about half are right."""
    samples = []
    for prompt in range(PROMPTS):
        make = whole_number if kind == "whole numbers" or (kind == "mixed" and prompt % 5 < 2) else expression
        reference, others, wrong = make(generator)
        for index in range(RESPONSES):
            answer = generator.choice([reference, *others] if index % 2 else wrong)
            if kind == "expressions, all different":
                answer = f"{answer}+{generator.randint(1, 10**6)}y"
            text = rf"{reasoning(generator)}Therefore the answer is $\boxed{{{answer}}}$."
            samples.append(Sample(str(prompt), text, reference=f"${reference}$", group_id=prompt))
    return samples


def math() -> Table:
    """`MathReward` beside TRL's `accuracy_reward`, in the main thread, where that has time limits."""
    from trl.rewards import accuracy_reward

    title = f"{PROMPTS} prompts x {RESPONSES} responses, {usable_cpus()} CPUs, {ROUNDS} interleaved rounds, seconds"
    table = Table("answers", title=title)
    for column in ("TRL accuracy_reward", "MathReward", "times faster", "verdicts that differ"):
        table.add_column(column, justify="right")
    reward = MathReward(timeout=30)
    reward.load()
    for kind in ("mixed", "expressions", "expressions, all different", "whole numbers"):
        timing, differing = Timing([], []), []
        for seed in range(ROUNDS + 1):
            samples = math_batch(random.Random(f"{kind} {seed}"), kind)
            completions = [[{"role": "assistant", "content": sample.response}] for sample in samples]
            references = [sample.reference for sample in samples]
            theirs, peer = timed(accuracy_reward, completions, references)
            ours, own = timed(scores, reward, samples)
            if seed:  # the first one is for imports and tables
                timing.ours.append(ours)
                timing.theirs.append(theirs)
            verdicts = [float("nan") if verdict is None else verdict for verdict in peer]
            unlike = ~np.isclose(verdicts, own, equal_nan=True)
            differing += [(samples[row], verdicts[row], own[row]) for row in np.flatnonzero(unlike)]
        table.add_row(kind, *timing.cells(), f"{len(differing)} of {PROMPTS * RESPONSES * (ROUNDS + 1)}")
        for sample, verdict, score in differing[:20]:
            said = sample.response_text[-60:]
            print(f"{kind}: {said!r} against {sample.reference!r}: TRL {verdict}, MathReward {score}")
    reward.close()
    return table


def token_ids(generator: random.Random, length: int) -> list[int]:
    """Ids of a vocabulary of 150,000, a few of them frequent, with a passage that comes again."""
    ids = [min(int(generator.paretovariate(0.8)), 150_000) for _ in range(length)]
    start = generator.randrange(length // 2)
    return [*ids[: -length // 16], *ids[start : start + length // 16]]


def ngrams() -> Table:
    """`RepetitionPenalty` beside TRL's `get_repetition_penalty_reward`, on ids."""
    from trl.rewards import get_repetition_penalty_reward

    table = Table("n", title=f"512 responses of 4,096 ids, {ROUNDS} interleaved rounds, seconds")
    for column in ("TRL repetition penalty", "RepetitionPenalty", "times faster", "greatest difference"):
        table.add_column(column, justify="right")
    for n in (2, 3, 5):
        reward, peer = RepetitionPenalty(n, -1.0), get_repetition_penalty_reward(n, -1.0)
        timing, difference = Timing([], []), 0.0
        for seed in range(ROUNDS + 1):
            generator = random.Random(seed)
            ids = [token_ids(generator, 4096) for _ in range(512)]
            samples = [Sample(response="", token_ids=row) for row in ids]
            theirs, expected = timed(functools.partial(peer, prompts=None, completions=None, completion_ids=ids))
            ours, found = timed(scores, reward, samples)
            difference = max(difference, float(np.abs(np.subtract(expected, found)).max()))
            if seed:
                timing.ours.append(ours)
                timing.theirs.append(theirs)
        table.add_row(str(n), *timing.cells(), f"{difference:.1e}")
    return table


def libraries() -> dict[str, tuple[RewardFunction, Callable[[str, str], float]]]:
    """Rewards of similarity, and the calls of the libraries behind them: (response, reference) -> score."""
    import sacrebleu
    from rapidfuzz.distance import Indel, Levenshtein
    from rouge_score.rouge_scorer import RougeScorer

    bleu, chrf = sacrebleu.BLEU(effective_order=True), sacrebleu.CHRF(word_order=2)
    found: dict[str, tuple[RewardFunction, Callable[[str, str], float]]] = {
        "BLEU (sacrebleu)": (BLEUReward(), lambda text, wanted: bleu.sentence_score(text, [wanted]).score / 100),
        "chrF++ (sacrebleu)": (
            ChrFReward(word_order=2),
            lambda text, wanted: chrf.sentence_score(text, [wanted]).score / 100,
        ),
        "Levenshtein (rapidfuzz)": (EditSimilarity(), Levenshtein.normalized_similarity),
        "Indel (rapidfuzz)": (EditSimilarity("indel"), Indel.normalized_similarity),
    }
    for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        scorer = RougeScorer([kind])
        found[f"{kind} (rouge-score)"] = (ROUGEReward(kind), functools.partial(rouge_score, scorer, kind))
    return found


def rouge_score(scorer: Any, kind: str, text: str, reference: str) -> float:
    """The library's F-score."""
    score: float = scorer.score(reference, text)[kind].fmeasure
    return score


def similarity() -> Table:
    """Rewards of similarity beside a loop over the libraries that they wrap."""
    title = f"{PROMPTS} references x {RESPONSES} responses of 200 words, {ROUNDS} interleaved rounds, seconds"
    table = Table("similarity", title=title)
    for column in ("library", "reward", "times faster", "greatest difference"):
        table.add_column(column, justify="right")
    words = [f"{first}{second}" for first in "bcdfghklmnprst" for second in ("an", "elo", "ip", "ure", "ox", "ading")]
    for name, (reward, score) in libraries().items():
        timing, difference = Timing([], []), 0.0
        for seed in range(ROUNDS + 1):
            generator = random.Random(f"{name} {seed}")
            samples: list[Sample] = []
            for _ in range(PROMPTS if name[:6] != "rougeL" else PROMPTS // 8):
                reference = [generator.choice(words) for _ in range(200)]
                for _ in range(RESPONSES):
                    said = [word if generator.random() < 0.6 else generator.choice(words) for word in reference]
                    samples.append(Sample(response=" ".join(said), reference=" ".join(reference)))
            theirs, expected = timed(one_by_one, score, samples)
            ours, found = timed(scores, reward, samples)
            difference = max(difference, float(np.abs(np.subtract(expected, found)).max()))
            if seed:
                timing.ours.append(ours)
                timing.theirs.append(theirs)
        table.add_row(name, *timing.cells(), f"{difference:.1e}")
    return table


TABLES: dict[str, Callable[[], Table]] = {"math": math, "ngrams": ngrams, "similarity": similarity}


def main() -> None:
    """Print the tables that were asked for, or all."""
    console = Console(width=120)
    for name in sys.argv[1:] or TABLES:
        console.print(TABLES[name]())


if __name__ == "__main__":
    main()
