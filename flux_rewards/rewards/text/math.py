"""Whether the final answer of a response is the right one, as mathematics."""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import InputError, MissingDependencyError, OverLimitError
from flux_rewards.rewards.text.math_limits import MOST_CHARACTERS, over_limit
from flux_rewards.rewards.text.math_reading import exact_value, final_answer, formulas_of, stated_reference
from flux_rewards.rewards.text.math_simplified import unsimplified
from flux_rewards.rewards.text.math_verdict import Formulas, Verdict, compare, prepare
from flux_rewards.rewards.text.numeric import reference_text
from flux_rewards.shared import shared
from flux_rewards.validation import number, whole_number
from flux_rewards.workers.pool import KillablePool, usable_cpus

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MathReward"]

MEMORY = 4 << 30
"""Bytes of address space for a worker: one that multiplies out a power must not take the machine along."""

LONGEST = 4 * MOST_CHARACTERS
"""Characters of an answer that is looked at."""
MOST_NOTED = 1000
"""Characters of an answer in the metadata."""

Pair = tuple[Formulas, "Formulas | None"]


class MathReward(RewardFunction):
    r"""1.0 where the response's final answer equals the reference as mathematics, else 0.0.

    Which answer. Of a response with thinking, what follows ``</think>``. In it:

    - The last ``\boxed{...}`` or ``\fbox{...}``, wherever it stands. Boxes side by side (with "and", "or" or a comma
      between them) are one answer, a set; so are formulas behind a marker. An empty box, or one that is never closed,
      is no answer.
    - Else the whole text, where it is a formula and no prose.
    - Else what stands behind the last ``<answer>``, ``####``, ``A:`` at the start of a line, ``answer is``,
      ``answer:`` or ``answer =``: a formula in ``$...$``, ``\(...\)``, ``\[...\]`` or bare, else the number on that
      line.
    - Else, unless `require_marker`, the last formula in ``$...$`` and the like, or the last number after it.

    Numbers in prose are read as `NumericAnswerReward` reads them. Bare formulas may be plain: ``x**2``, ``sqrt(2)``,
    ``3/4``, ``1 3/4``, ``½``, ``π``, ``x²``.

    When answers are equal is math-verify's word: fractions, decimals (to `float_rounding` places), percentages (``50%``
    is ``0.5``, and ``50``), units are dropped, sets, intervals, tuples, matrices, equations (``x = 5`` is ``5``; the
    last side counts, so ``1 = 7`` is 7), inequalities, and expressions by simplification. Whole numbers and simple
    fractions are compared here, exactly, with the same verdict.

    Worked out. math-verify computes both sides, so whoever boxes the question, ``\boxed{3+4}`` or ``\boxed{\int_0^7 1
    dx}`` for 7, is right, here as in TRL. Where prompts hold the expression to compute, a policy finds that: say
    ``simplified=True``, and an answer must be as simple as the reference, or it is not compared and scores 0.0. What
    stands behind its last ``=`` is judged:

    - Sums, products, integrals, limits, derivatives, roundings, gcd, lcm, remainders, maxima, determinants, and
      functions such as sin and log: only where the reference has one of that kind.
    - Where the reference is made of numbers, with no letters but e and i: no more additions, multiplications of
      numbers, powers and roots, factorials and binomials, absolute values and quotients than the reference has.
      ``1/2``, ``3\frac12``, ``-5``, ``50\%``, ``7\cdot 10^3``, ``18\text{ km}`` have none of these; a quotient of whole
      numbers counts unless it is in lowest terms: ``14/2`` and ``2/4`` do. So ``2^{10}`` is not 1024, ``\sqrt{8}`` is
      ``2\sqrt{2}``, ``\frac{1}{\sqrt{2}}`` is ``\frac{\sqrt{2}}{2}``, and ``\sqrt{16}`` is not 4.
    - Where it has letters, any arithmetic will do: ``(x+1)^2`` is ``x^2+2x+1``, whichever of them was the question.

    Time. Reading and comparing runs in worker processes that are killed at the limit (`KillablePool`), from any thread;
    a pair of reference and answer is compared once a batch. Before that, `guards` look at sizes: 4,096 characters, 20
    levels of brackets, numbers of 256 digits, 512 terms, towers of powers, powers and factorials of thousands. Where a
    guard refuses (`OverLimitError`), the time is over (`TimeoutError`) or the worker dies (`WorkerCrashError`), the
    sample has failed, with the reason; it is not scored 0, unless `over_limit` says so. Under `MaskErrors` a policy may
    learn to fail rather than to be wrong: then give `over_limit`.

    Args:
        timeout: Seconds for one pair of reference and answer.
        require_marker: Without a box or one of the other markers a response has no answer.
        float_rounding: Decimal places to which a number with a decimal point is compared.
        guards: Whether sizes are looked at before anything is computed.
        simplified: Whether an answer must be as simple as the reference. By default math-verify's verdict stands.
        over_limit: The score, 0 to 1, of an answer that a guard refuses or for which the time is over. None: a failure.
            What is the reference's fault stays one (after a timeout the reference is read alone, which costs up to
            `timeout` once more), and so does a worker that died.
        **options: Of every reward; see `RewardFunction`. `num_workers` is the number of worker processes, the usable
            CPUs by default; rewards of the same number share them.

    The reference is a number, or a text: a whole solution with a box or another marker, read in the same way; or a
    formula, several of them (``2 or 3``: both together are the answer), or a number with words behind it (``18 eggs``),
    of which all is read. Letters side by side are a product, ``2xy``. Anything else, such as a word or ``Case 2 has no
    solution``, makes the reward not applicable (None).

    Bounds: (0, 1); only these two values, and `over_limit`. A response without an answer, an empty one too, or with one
    that cannot be read, scores 0.0. Metadata: ``answer`` and ``reference`` as they were found, up to 1,000 characters,
    and ``status``: ``right``, ``wrong``, ``no_answer``, ``unreadable_answer``, ``unsimplified``, ``over_limit`` or
    ``unreadable_reference``; ``why``, with ``unsimplified`` and ``over_limit``.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: The reference is neither a number nor a text.
        MissingDependencyError: math-verify is not installed: ``pip install "flux_rewards[math]"``.

    Does not judge the way to the answer, and does not convert units. Sources: Math-Verify (Hugging Face), whose boxed
    answers come first as in TRL's ``accuracy_reward``; static limits in the manner of Inspect's ``math`` scorer.

    Examples:
        >>> responses = [r"so \boxed{\frac{1}{2}}", "The answer is $(x+1)^2$.", "#### 1,800", "no idea"]
        >>> MathReward(timeout=60)(response=responses, reference=["0.5", "x^2+2x+1", 1800, "Rome"]).rewards
        array([ 1.,  1.,  1., nan])
    """

    required_fields = ("response", "reference")
    optional_fields = ()
    bounds = (0.0, 1.0)
    num_workers = usable_cpus()
    example_config = {"timeout": 10, "num_workers": 2}

    def __init__(
        self,
        timeout: float = 5.0,
        require_marker: bool = False,
        float_rounding: int = 6,
        *,
        guards: bool = True,
        simplified: bool = False,
        over_limit: float | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.timeout = number(timeout, "timeout", self.name, above=0.0, high=threading.TIMEOUT_MAX)
        self.require_marker = require_marker
        self.float_rounding = whole_number(float_rounding, "float_rounding", self.name, low=0)
        self.guards = guards
        self.simplified = simplified
        self.over_limit = None if over_limit is None else number(over_limit, "over_limit", self.name, low=0, high=1)

    @functools.cached_property
    def _pool(self) -> KillablePool:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingDependencyError(
                'formulas are compared by math-verify, which is not installed: pip install "flux_rewards[math]"',
                reward=self.name,
            )
        workers = self.num_workers
        return shared(("MathReward", workers), lambda: KillablePool(workers, prepare=prepare, memory=MEMORY))

    def load(self) -> None:
        """Start the workers now."""
        self._pool.run(compare, [((), None, self.float_rounding)], timeout=60.0)

    def close(self) -> None:
        """Let go of the workers; those that no other reward uses end."""
        vars(self).pop("_pool", None)

    def compute_rewards(self, samples: Sequence[Sample]) -> list[RewardOutput | Exception]:
        """Read all answers, compare what is left to compare, each pair once."""
        rows: list[_Row | Exception] = [self._read(sample) for sample in samples]
        open_pairs = dict.fromkeys(row.pair for row in rows if isinstance(row, _Row) and row.verdict is None)
        outcomes = self._compared(list(open_pairs))
        if self.over_limit is not None:
            self._blame(outcomes)
        scored: list[RewardOutput | Exception] = []
        for row in rows:
            if isinstance(row, Exception):
                scored.append(row)
                continue
            verdict = row.verdict or outcomes[row.pair]
            scored.append(verdict if isinstance(verdict, Exception) else row.scored(verdict, self.over_limit))
        return scored

    def _compared(self, pairs: list[Pair]) -> dict[Pair, Verdict | Exception]:
        if not pairs:
            return {}
        jobs = [(reference, answer, self.float_rounding) for reference, answer in pairs]
        outcomes = self._pool.run(compare, jobs, timeout=self.timeout)
        return {pair: outcome.error or outcome.value for pair, outcome in zip(pairs, outcomes, strict=True)}

    def _blame(self, outcomes: dict[Pair, Verdict | Exception]) -> None:
        """Where the time was over, and the reference alone is read in time, the answer is over the limit."""
        late = {pair: error for pair, error in outcomes.items() if isinstance(error, TimeoutError) and pair[1]}
        alone = self._compared(list(dict.fromkeys((reference, None) for reference, _ in late)))
        for pair, error in late.items():
            read = alone[pair[0], None]
            if isinstance(read, Verdict):
                unread = read.status == "unreadable_reference"
                outcomes[pair] = read if unread else Verdict("over_limit", str(error))

    def _read(self, sample: Sample) -> _Row | Exception:
        try:
            stated, reference = _stated_reference(reference_text(sample.reference))
            answer = final_answer(sample.response_text, require_marker=self.require_marker)
        except InputError as error:
            return error
        if stated is None:
            return _Row(None, answer, ((), None), Verdict("unreadable_reference"))
        # An answer that is too long in any case need not be rewritten first.
        given = None if answer is None else formulas_of(answer) if len(answer) < LONGEST else (answer,)
        left = unsimplified(given, reference) if self.simplified and given is not None else None
        instead = Verdict("no_answer") if given is None else Verdict("unsimplified", left) if left else None
        # Whether the reference can be read is to be seen even where there is nothing to compare it with.
        pair = (reference, None if instead else given)
        verdict = _plain_verdict(*pair)
        if self.guards and verdict is None:
            refused = _refused(reference)
            if refused:
                return OverLimitError(f"the reference is over the limit and was not computed: {refused}")
            refused = _refused(pair[1] or ())
            if refused and self.over_limit is None:
                return OverLimitError(f"the answer is over the limit and was not computed: {refused}")
            if refused:
                instead, pair = Verdict("over_limit", refused), (reference, None)
                verdict = _plain_verdict(*pair)
        return _Row(stated, answer, pair, verdict, instead)


class _Row:
    """What was read of a sample, the verdict where it needs no worker, and what to say where there is no comparison."""

    def __init__(
        self,
        reference: str | None,
        answer: str | None,
        pair: Pair,
        verdict: Verdict | None,
        instead: Verdict | None = None,
    ) -> None:
        self.reference, self.answer, self.pair, self.verdict, self.instead = reference, answer, pair, verdict, instead

    def scored(self, verdict: Verdict, over_limit: float | None) -> RewardOutput:
        if verdict.status == "unreadable_answer" and self.instead is not None:
            verdict = self.instead
        answer, reference = (text if text is None else text[:MOST_NOTED] for text in (self.answer, self.reference))
        noted = {"answer": answer, "reference": reference, "status": verdict.status}
        if verdict.why:
            noted["why"] = verdict.why
        if verdict.status == "unreadable_reference":
            return RewardOutput(None, metadata=noted)  # type: ignore[arg-type]  # does not apply
        if verdict.status == "over_limit" and over_limit is not None:
            return RewardOutput(over_limit, metadata=noted)
        return RewardOutput(float(verdict.status == "right"), metadata=noted)


def _refused(formulas: Formulas) -> str | None:
    return next(filter(None, map(over_limit, formulas)), None)


def _plain_verdict(reference: Formulas, answer: Formulas | None) -> Verdict | None:
    """The verdict on whole numbers and fractions, where math-verify's is the same."""
    expected = exact_value(reference[0]) if len(reference) == 1 else None
    if expected is None:
        return None
    if answer is None:
        return Verdict("unreadable_answer")
    found = exact_value(answer[0]) if len(answer) == 1 else None
    return None if found is None else Verdict("right" if found == expected else "wrong")


@functools.lru_cache(maxsize=1024)
def _stated_reference(text: str) -> tuple[str | None, Formulas]:
    """Cached: a group of responses shares its reference."""
    stated = stated_reference(text)
    return stated, () if stated is None else formulas_of(stated)
