"""Comparisons of the responses of a group, two by two."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import InputError
from flux_rewards.rewards.judges.exchange import Verdict, total
from flux_rewards.rewards.judges.group import SHARED, check_shared, compared_fields, contents_of
from flux_rewards.rewards.judges.judge import Judge, JudgeOptions
from flux_rewards.rewards.judges.material import NOTICE, Part, message
from flux_rewards.rewards.judges.verdicts.choices import TIE, read_choice
from flux_rewards.rewards.judges.verdicts.probabilities import shares
from flux_rewards.rewards.judges.verdicts.spoken import spoken
from flux_rewards.validation import number, one_of, whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.chat.reply import Reply
    from flux_rewards.rewards.judges.exchange import Exchange

__all__ = ["PairwiseJudge", "chosen_pairs", "summary_of", "wins_of"]

Pair = tuple[int, int]


def chosen_pairs(count: int, at_most: int | None, seed: int) -> list[Pair]:
    """Pairs (i, j), i < j, of `count` things: all, or so many, each thing in as many as any other, or in one more.

    Args:
        count: How many things.
        at_most: How many pairs; None for all.
        seed: Which of the many ways to choose them.

    Examples:
        >>> chosen_pairs(3, None, seed=0)
        [(0, 1), (0, 2), (1, 2)]
        >>> sorted(sum(chosen_pairs(6, 6, seed=0), ())).count(3)
        2
    """
    everyone = list(itertools.combinations(range(count), 2))
    if at_most is None or len(everyone) <= at_most:
        return everyone
    generator = random.Random(seed)  # noqa: S311  # repeatable, not secret
    players = generator.sample(range(count), count)
    places = _rounds(count, at_most) if count % 2 == 0 else _cycles(count, at_most, generator)
    return sorted((min(pair), max(pair)) for one, other in places for pair in [(players[one], players[other])])


def _rounds(count: int, at_most: int) -> list[Pair]:
    """A round-robin tournament of an even number: each round has everybody once, and the last may be cut short."""
    others = list(range(1, count))
    chosen: list[Pair] = []
    while len(chosen) < at_most:
        seats = [0, *others]
        chosen += [(seats[at], seats[-1 - at]) for at in range(count // 2)]
        others = [others[-1], *others[:-1]]
    return chosen[:at_most]


def _cycles(count: int, at_most: int, generator: random.Random) -> list[Pair]:
    """Of an odd number in a circle: everybody with the two that are so many seats away; then some of the neighbours."""
    full, left = divmod(at_most, count)
    steps = generator.sample(range(2, count // 2 + 1), full)
    chosen = [(at, (at + step) % count) for step in steps for at in range(count)]
    apart = [(at, at + 1) for at in range(0, count - 1, 2)]  # no two of them share anybody
    if left <= len(apart):
        return chosen + apart[:left]
    dropped = set(apart[: count - left])
    return chosen + [pair for at in range(count) if (pair := (at, (at + 1) % count)) not in dropped]


def wins_of(times: Mapping[int, int], shares: Mapping[Pair, float]) -> dict[int, tuple[float, int]]:
    """For each thing how often it won, and out of how many comparisons.

    Args:
        times: By thing, how many there are of it: they tie with each other, and count so often for others.
        shares: By pair (i, j), what i won: 1, 0, or 1/2 for a tie; j won the rest.

    Examples:
        >>> wins_of({0: 1, 1: 1, 2: 1}, {(0, 1): 1.0, (0, 2): 0.5, (1, 2): 0.0})
        {0: (1.5, 2), 1: (0.0, 2), 2: (1.5, 2)}
        >>> wins_of({0: 2, 1: 1}, {(0, 1): 1.0})
        {0: (1.5, 2), 1: (0.0, 2)}
    """
    won = {thing: 0.5 * (count - 1) for thing, count in times.items()}
    compared = {thing: count - 1 for thing, count in times.items()}
    for (one, other), share in shares.items():
        won[one] += share * times[other]
        won[other] += (1.0 - share) * times[one]
        compared[one] += times[other]
        compared[other] += times[one]
    return {thing: (won[thing], compared[thing]) for thing in times}


class PairwiseJudge(Judge):
    """The share of comparisons with others of its group that a response wins, in [0, 1].

    Each pair is asked about in both orders, since judges favour a place, and what a response wins is the mean of the
    two answers: 1, 0, or 1/2 for a tie. Relative to the group, so 1/2 on average.

    Args:
        vlm_model: The model's name at the endpoint.
        criteria: What makes one better; ``{prompt}`` and ``{reference}`` stand for the group's own.
            None where each group brings its own.
        fields: What is shown; see `Judge`. ``prompt``, ``reference`` and ``condition_images`` are shown once.
        answer: ``"text"``: the judge thinks aloud and ends with ``Verdict: A``, ``B`` or ``tie``; ``"logprobs"``: it
            answers with a letter, and what is won is ``P(A) / (P(A) + P(B))``, the mean of both orders.
        both_orders: Whether each pair is asked about in both; else in one, at half the price.
        max_pairs: Pairs of a group, at most; None for all ``n * (n - 1) / 2``. Each response is in as many as any
            other, or in one more.
        seed: For the choice of pairs, which also goes by content: the place in the batch makes no difference.
        min_mass: With ``"logprobs"``, see `YesNoJudge`.
        criteria_key: Where the samples' `metadata` have the criteria of their group, in place of `criteria`.
        **options: Of every judge; see `Judge`.

    Of a group of one, the reward does not apply. Equal responses tie without being asked about, and count for others as
    often as they are there. A comparison that fails makes its two responses fail, and no other; a sample that cannot be
    read fails alone. Metadata, beside that of every judge (``verdict`` is the first of several): ``wins``,
    ``comparisons`` and ``disagreements``, the pairs in which the order decided.

    Raises:
        ConfigError: An argument is out of its range, or `fields` has nothing to compare.
        InputError: At a call: the samples of a group differ in what is shown once.

    Source: the win rate as in Pref-GRPO (UnifiedReward-Think), which asks in one order only.

    Examples:
        >>> PairwiseJudge("judge", "Which image shows {prompt} better?", fields=["image"], max_pairs=16).scope
        'group'
    """

    scope = "group"
    bounds = (0.0, 1.0)
    optional_fields: Sequence[str] | None = ()
    example_config: ClassVar[Mapping[str, Any]] = {**Judge.example_config, "criteria": "Which one is clearer?"}

    def __init__(
        self,
        vlm_model: str,
        criteria: str | None = None,
        fields: Sequence[str] = ("prompt", "response"),
        *,
        answer: str = "text",
        both_orders: bool = True,
        max_pairs: int | None = None,
        seed: int = 0,
        min_mass: float = 0.5,
        criteria_key: str | None = None,
        **options: Unpack[JudgeOptions],
    ) -> None:
        self.answer = one_of(answer, "answer", options.get("name") or type(self).__name__, ("text", "logprobs"))
        if answer == "logprobs":
            options.setdefault("max_tokens", 1)
        super().__init__(vlm_model, fields=fields, **options)
        self.check_criteria(criteria, criteria_key)
        self.criteria = criteria
        self.criteria_key = criteria_key
        self.compared = compared_fields(self.fields, self.name)
        self.both_orders = bool(both_orders)
        self.max_pairs = None if max_pairs is None else whole_number(max_pairs, "max_pairs", self.name, low=1)
        self.seed = whole_number(seed, "seed", self.name, low=0)
        self.min_mass = number(min_mass, "min_mass", self.name, low=0.0, high=1.0)

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One group: a request for each pair and order, all of them side by side."""
        check_shared(samples, [field for field in self.required_fields if field in SHARED], self.criteria_key)
        order, like, unread = contents_of(samples, self.compared, self.seed)
        candidates = [samples[row] for row in order]
        # Each is read and encoded once for each name, however many pairs it is in.
        shown = {
            name: dict(zip(order, self.readable(candidates, [name] * len(order), self.compared), strict=True))
            for name in "AB"
        }
        unread |= {row: parts for row, parts in shown["A"].items() if isinstance(parts, InputError)}
        order = [row for row in order if row not in unread]
        asked: list[tuple[Pair, bool]] = []
        for one, other in chosen_pairs(len(order), self.max_pairs, self.seed):
            # In one order only, each is shown first about as often as second.
            orders = (False, True) if self.both_orders else ((one + other) % 2 == 0,)
            asked += [((order[one], order[other]), turned) for turned in orders]
        jobs = []
        for pair, turned in asked:
            first, second = reversed(pair) if turned else pair
            jobs.append(self._job(samples[first], shown["A"][first], shown["B"][second]))
        answers = list(zip(asked, self.ask_side_by_side(jobs), strict=True))
        times = Counter(like[row] for row in like if like[row] not in unread)
        rows = {**self._rows({row: times[row] for row in order}, answers), **unread}
        return [rows[like.get(row, row)] for row in range(len(samples))]

    def message_for(self, sample: Sample, one: Sequence[Part], other: Sequence[Part]) -> list[dict[str, Any]]:
        """The messages that ask which of two is better.

        Args:
            sample: One of them, for what is shown once.
            one: What is shown of the first.
            other: What is shown of the second.
        """
        once = [field for field in self.fields if field in SHARED]
        answer = (
            "Answer with the one letter A or B, and nothing else."
            if self.answer == "logprobs"
            else "Say in short what speaks for each. Then end with one line, and nothing after it: Verdict: A, "
            "Verdict: B, or Verdict: tie."
        )
        task = (
            "You are a careful and impartial judge. Two candidates, A and B, are shown below. Decide which of them is "
            "better by these criteria; neither their order nor their length counts by itself:\n\n"
            f"{self.criteria_text(sample, self.criteria, self.criteria_key)}\n\n{NOTICE}"
        )
        return [message(task, *(self.shown(sample, fields=once) if once else []), *one, *other, answer)]

    def read(self, reply: Reply) -> float:
        """What the first of two won, by a reply."""
        if self.answer == "logprobs":
            return shares(reply, ["A", "B"], min_mass=self.min_mass)[0]
        return {"A": 1.0, "B": 0.0, TIE: 0.5}[read_choice(spoken(reply))]

    def form(self) -> dict[str, Any]:
        """What a request has beside the messages."""
        return {"logprobs": True, "top_logprobs": 20} if self.answer == "logprobs" else {}

    def _job(self, sample: Sample, one: Any, other: Any) -> Any:
        async def compare(exchange: Exchange) -> Any:
            return await exchange.ask(lambda: self.message_for(sample, one, other), self.read, self.form())

        return compare

    def _rows(
        self, times: Mapping[int, int], answers: Sequence[tuple[tuple[Pair, bool], Any]]
    ) -> dict[int, RewardOutput | Exception | None]:
        won: dict[Pair, list[float]] = {}
        failed: dict[int, Exception | None] = {}
        verdicts: dict[int, list[Verdict[float]]] = {row: [] for row in times}
        for (pair, turned), answer in answers:
            if isinstance(answer, Verdict):
                won.setdefault(pair, []).append(1.0 - answer.value if turned else answer.value)
                for row in pair:
                    verdicts[row].append(answer)
                continue
            for row in pair:
                if failed.get(row) is None:  # what was given up because of another failure says nothing
                    failed[row] = answer
        # Where both orders name a winner, and not the same one, the place decided.
        split = [pair for pair, each in won.items() if len(each) == 2 and (each[0] - 0.5) * (each[1] - 0.5) < 0]
        rows: dict[int, RewardOutput | Exception | None] = {}
        for row, (wins, comparisons) in wins_of(times, {pair: fmean(each) for pair, each in won.items()}).items():
            metadata = {
                "wins": wins,
                "comparisons": comparisons,
                "disagreements": sum(row in pair for pair in split),
                **summary_of(verdicts[row]),
            }
            rate: Any = wins / comparisons if comparisons else None
            rows[row] = failed[row] if row in failed else RewardOutput(rate, metadata=metadata)
        return rows


def summary_of(verdicts: Sequence[Verdict[Any]]) -> dict[str, Any]:
    """What several requests took together: the first reply, all tokens, the longest latency, all attempts."""
    if not verdicts:
        return {}
    each = [verdict.metadata for verdict in verdicts]
    return {
        "verdict": each[0]["verdict"],
        "tokens": {kind: total(verdicts, f"{kind}_tokens") for kind in ("prompt", "completion")},
        "latency": max(one["latency"] for one in each),
        "attempts": sum(verdict.attempts for verdict in verdicts),
    }
