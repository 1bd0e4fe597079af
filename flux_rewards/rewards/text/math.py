"""Whether the final answer of a response is the right one, as mathematics."""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import InputError, MissingDependencyError
from flux_rewards.rewards.text.math_limits import over_limit
from flux_rewards.rewards.text.math_reading import exact_value, final_answer, formulas_of
from flux_rewards.rewards.text.math_verdict import Formulas, Verdict, compare, prepare
from flux_rewards.rewards.text.numeric import reference_text
from flux_rewards.shared import shared
from flux_rewards.validation import number, whole_number
from flux_rewards.workers.outcome import OverLimitError
from flux_rewards.workers.pool import KillablePool, usable_cpus

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MathReward"]

MEMORY = 4 << 30
"""Bytes of address space for a worker: one that multiplies out a power must not take the machine along."""

Pair = tuple[Formulas, "Formulas | None"]


class MathReward(RewardFunction):
    r"""1.0 where the response's final answer equals the reference as mathematics, else 0.0.

    Which answer. Of a response with thinking, what follows ``</think>``. In it:

    - The last ``\boxed{...}`` or ``\fbox{...}``, wherever it stands. Boxes side by side (with "and", "or" or a comma
      between them) are one answer, a set. An empty box, or one that is never closed, is no answer.
    - Else the whole text, where it is a formula and no prose.
    - Else what stands behind the last ``<answer>``, ``####``, ``A:`` at the start of a line, ``answer is``,
      ``answer:`` or ``answer =``: a formula in ``$...$``, ``\(...\)``, ``\[...\]`` or bare, else the number on that
      line.
    - Else, unless `require_marker`, the last formula in ``$...$`` and the like, or the last number after it.

    Numbers in prose are read as `NumericAnswerReward` reads them. Bare formulas may be plain: ``x**2``, ``sqrt(2)``,
    ``3/4``, ``1 3/4``, ``½``, ``π``, ``x²``.

    When answers are equal is math-verify's word: fractions, decimals (to `float_rounding` places), percentages (``50%``
    is ``0.5``, and ``50``), units are dropped, sets, intervals, tuples, matrices, equations (``x = 5`` is ``5``),
    inequalities, and expressions by simplification. Whole numbers and simple fractions are compared here, exactly, with
    the same verdict.

    Time. Reading and comparing runs in worker processes that are killed at the limit (`KillablePool`), from any thread;
    a pair of reference and answer is compared once a batch. Before that, `guards` look at sizes: 4,096 characters, 64
    levels of brackets, numbers of 256 digits, 512 terms, towers of powers, powers and factorials of thousands. Where a
    guard refuses (`OverLimitError`), the time is over (`TimeoutError`) or the worker dies (`WorkerCrashError`), the
    sample has failed, with the reason; it is not scored 0.

    Args:
        timeout: Seconds for one pair of reference and answer.
        require_marker: Without a box or one of the other markers a response has no answer.
        float_rounding: Decimal places to which a number with a decimal point is compared.
        guards: Whether sizes are looked at before anything is computed.
        **options: Of every reward; see `RewardFunction`. `num_workers` is the number of worker processes, the usable
            CPUs by default; rewards of the same number share them.

    The reference is a number, or a text that is read in the same way: a bare formula, or a whole solution. One in which
    math-verify finds nothing to compare with, such as a word, makes the reward not applicable (None).

    Bounds: (0, 1); only these two values. A response without an answer, an empty one too, or with one that cannot be
    read, scores 0.0. Metadata: ``answer`` and ``reference`` as they were found, and ``status``: ``right``, ``wrong``,
    ``no_answer``, ``unreadable_answer`` or ``unreadable_reference``.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: The reference is neither a number nor a text.
        MissingDependencyError: math-verify is not installed: ``pip install "flux_rewards[math]"``.

    Does not judge the way to the answer, and does not convert units. Sources: Math-Verify (Hugging Face), whose boxed
    answers come first as in TRL's ``accuracy_reward``; static limits in the manner of Inspect's ``math`` scorer.

    Examples:
        >>> responses = [r"so \boxed{\frac{2}{4}}", "The answer is $(x+1)^2$.", "#### 1,800", "no idea"]
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
        guards: bool = True,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.timeout = number(timeout, "timeout", self.name, above=0.0, high=threading.TIMEOUT_MAX)
        self.require_marker = require_marker
        self.float_rounding = whole_number(float_rounding, "float_rounding", self.name, low=0)
        self.guards = guards

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
        jobs = [(reference, answer, self.float_rounding) for reference, answer in open_pairs]
        outcomes = dict(
            zip(open_pairs, self._pool.run(compare, jobs, timeout=self.timeout) if jobs else (), strict=True)
        )
        scored: list[RewardOutput | Exception] = []
        for row in rows:
            if isinstance(row, Exception):
                scored.append(row)
            elif row.verdict is not None:
                scored.append(row.scored(row.verdict))
            else:
                outcome = outcomes[row.pair]
                scored.append(row.scored(outcome.value) if outcome.error is None else outcome.error)
        return scored

    def _read(self, sample: Sample) -> _Row | Exception:
        try:
            stated = _stated_reference(reference_text(sample.reference))
            answer = final_answer(sample.response_text, require_marker=self.require_marker)
        except InputError as error:
            return error
        if stated is None:
            return _Row(None, answer, ((), None), Verdict("unreadable_reference"))
        pair = (formulas_of(stated), None if answer is None else formulas_of(answer))
        verdict = _plain_verdict(*pair)
        for what, formulas in (("reference", pair[0]), ("answer", pair[1] or ())):
            refused = next(filter(None, map(over_limit, formulas)), None) if self.guards and verdict is None else None
            if refused:
                return OverLimitError(f"the {what} is over the limit and was not computed: {refused}")
        return _Row(stated, answer, pair, verdict)


class _Row:
    """What was read of a sample, and the verdict where it needs no worker."""

    def __init__(self, reference: str | None, answer: str | None, pair: Pair, verdict: Verdict | None) -> None:
        self.reference, self.answer, self.pair, self.verdict = reference, answer, pair, verdict

    def scored(self, verdict: Verdict) -> RewardOutput:
        status = "no_answer" if self.answer is None and verdict.status == "unreadable_answer" else verdict.status
        score = None if status == "unreadable_reference" else float(status == "right")
        noted = {"answer": self.answer, "reference": self.reference, "status": status}
        return RewardOutput(score, metadata=noted)  # type: ignore[arg-type]  # None: does not apply


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
def _stated_reference(text: str) -> str | None:
    """Cached: a group of responses shares its reference."""
    return final_answer(text)
