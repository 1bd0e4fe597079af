"""Comparisons of the responses of a group, two by two."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import InputError
from flux_rewards.rewards.judges.group import SHARED, check_shared, compared_fields, in_content_order
from flux_rewards.rewards.judges.judge import Judge, JudgeOptions
from flux_rewards.rewards.judges.material import NOTICE, Part, message, text_of
from flux_rewards.rewards.judges.verdicts.choices import TIE, read_choice
from flux_rewards.rewards.judges.verdicts.probabilities import shares
from flux_rewards.rewards.judges.verdicts.spoken import spoken
from flux_rewards.validation import number, one_of, whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.chat.reply import Reply
    from flux_rewards.rewards.judges.exchange import Exchange

__all__ = ["PairwiseJudge", "chosen_pairs", "win_rates"]

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
    # A round-robin tournament of shuffled players: each round has everybody once, but for one where they are odd.
    players: list[int | None] = random.Random(seed).sample(range(count), count)  # noqa: S311  # repeatable, not secret
    if count % 2:
        players.append(None)
    chosen: list[Pair] = []
    while len(chosen) < at_most:
        half = len(players) // 2
        for one, other in zip(players[:half], reversed(players[half:]), strict=True):
            if one is not None and other is not None and len(chosen) < at_most:
                chosen.append((min(one, other), max(one, other)))
        players = [players[0], players[-1], *players[1:-1]]
    return sorted(chosen)


def win_rates(count: int, wins: Mapping[Pair, float]) -> list[float | None]:
    """For each thing the mean of what it won in its pairs; None for one that was in none.

    Args:
        count: How many things.
        wins: By pair (i, j), what i won: 1, 0, or 1/2 for a tie; j won the rest.

    Examples:
        >>> win_rates(3, {(0, 1): 1.0, (0, 2): 0.5, (1, 2): 0.0})
        [0.75, 0.0, 0.75]
    """
    won: list[list[float]] = [[] for _ in range(count)]
    for (one, other), share in wins.items():
        won[one].append(share)
        won[other].append(1.0 - share)
    return [sum(shares) / len(shares) if shares else None for shares in won]


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

    Of a group of one, the reward does not apply. Equal texts tie without being asked about. A comparison that fails
    makes its two responses fail, and no other; a sample that cannot be read fails alone. Metadata: ``wins``,
    ``comparisons``, ``disagreements`` (pairs in which the order decided), ``tokens`` and ``attempts`` of its
    comparisons.

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
        min_mass: float = 0.01,
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
        order, unread = in_content_order(samples, self.compared, self.seed)
        candidates = [samples[row] for row in order]
        # Each is read and encoded once for each name, however many pairs it is in.
        shown = {
            name: dict(zip(order, self.readable(candidates, [name] * len(order), self.compared), strict=True))
            for name in "AB"
        }
        unread |= {row: parts for row, parts in shown["A"].items() if isinstance(parts, InputError)}
        order = [row for row in order if row not in unread]
        places = chosen_pairs(len(order), self.max_pairs, self.seed)
        pairs = [(order[one], order[other]) for one, other in places]
        known = {pair: 0.5 for pair in pairs if self._equal(samples[pair[0]], samples[pair[1]])}
        asked: list[tuple[Pair, bool]] = []
        for pair, at in zip(pairs, places, strict=True):
            # In one order only, each is shown first about as often as second.
            orders = (False, True) if self.both_orders else (sum(at) % 2 == 0,)
            asked += [(pair, turned) for turned in orders if pair not in known]
        jobs = []
        for pair, turned in asked:
            first, second = reversed(pair) if turned else pair
            jobs.append(self._job(samples[first], shown["A"][first], shown["B"][second]))
        answers = list(zip(asked, self.ask_side_by_side(jobs), strict=True))
        return self._rows(len(samples), known, answers, unread)

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

    def _equal(self, one: Sample, other: Sample) -> bool:
        return self.compared == ["response"] and text_of(one, "response") == text_of(other, "response")

    def _job(self, sample: Sample, one: Any, other: Any) -> Any:
        async def compare(exchange: Exchange) -> Any:
            return await exchange.ask(lambda: self.message_for(sample, one, other), self.read, self.form())

        return compare

    def _rows(
        self,
        count: int,
        known: Mapping[Pair, float],
        answers: Sequence[tuple[tuple[Pair, bool], Any]],
        unread: Mapping[int, Exception],
    ) -> list[Any]:
        won: dict[Pair, list[float]] = {}
        failed: dict[int, Exception | None] = dict(unread)
        verdicts: dict[int, list[Any]] = {row: [] for row in range(count)}
        for (pair, turned), answer in answers:
            for row in pair:
                if answer is None or isinstance(answer, Exception):
                    failed.setdefault(row, answer)
                else:
                    verdicts[row].append(answer)
            if answer is not None and not isinstance(answer, Exception):
                won.setdefault(pair, []).append(1.0 - answer.value if turned else answer.value)
        # Where both orders name a winner, and not the same one, the place decided.
        split = {pair for pair, shares in won.items() if len(shares) == 2 and (shares[0] - 0.5) * (shares[1] - 0.5) < 0}
        wins = {**known, **{pair: sum(shares) / len(shares) for pair, shares in won.items()}}
        rates = win_rates(count, wins)
        rows: list[Any] = []
        for row, rate in enumerate(rates):
            if row in failed:
                rows.append(failed[row])
                continue
            own = [pair for pair in wins if row in pair]
            share = [wins[pair] if pair[0] == row else 1.0 - wins[pair] for pair in own]
            metadata = {
                "wins": sum(share),
                "comparisons": len(own),
                "disagreements": sum(pair in split for pair in own),
                "tokens": total_tokens(verdicts[row]),
                "attempts": sum(verdict.attempts for verdict in verdicts[row]),
            }
            rows.append(RewardOutput(rate, metadata=metadata))  # type: ignore[arg-type]
        return rows


def total_tokens(verdicts: Sequence[Any]) -> dict[str, int | None]:
    """The tokens of several requests; None where an endpoint does not tell."""
    found = {}
    for kind in ("prompt", "completion"):
        counts = [getattr(verdict, f"{kind}_tokens") for verdict in verdicts]
        found[kind] = None if None in counts else sum(counts)
    return found
