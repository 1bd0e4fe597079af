"""The base of judges that score one sample by one reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.data import RewardOutput
from flux_rewards.rewards.judges.judge import Judge

if TYPE_CHECKING:
    from flux_rewards.chat.client import Messages
    from flux_rewards.chat.reply import Reply
    from flux_rewards.data import Sample
    from flux_rewards.rewards.judges.exchange import Exchange

__all__ = ["SampleJudge"]


class SampleJudge(Judge, abstract=True):
    """A judge that asks once for each sample; a subclass says what, and reads the reply.

    Examples:
        >>> from flux_rewards import JudgeError
        >>> from flux_rewards.rewards.judges.material import NOTICE, message
        >>> from flux_rewards.rewards.judges.verdicts.spoken import spoken
        >>> class Politeness(SampleJudge):
        ...     def __init__(self, vlm_model, **options):
        ...         super().__init__(vlm_model, fields=("response",), **options)
        ...     def messages(self, sample):
        ...         return [message(NOTICE, *self.shown(sample), "Is this polite? Answer with POLITE or RUDE.")]
        ...     def read(self, reply, sample):
        ...         answer = spoken(reply)  # whole, and without its reasoning
        ...         if answer not in ("POLITE", "RUDE"):
        ...             raise JudgeError("neither POLITE nor RUDE")
        ...         return float(answer == "POLITE")
        >>> Politeness("judge").required_fields
        ('response',)
    """

    def messages(self, sample: Sample) -> Messages:
        """What the judge is asked about a sample: messages as the API has them."""
        raise NotImplementedError

    def read(self, reply: Reply, sample: Sample) -> RewardOutput | float | None:
        """The row of a sample, by the reply; what the reply took is added to its metadata.

        Raises:
            JudgeError: The reply cannot be read.
        """
        raise NotImplementedError

    def form(self, sample: Sample) -> dict[str, Any]:  # noqa: ARG002  # for those that ask in the sample's own form
        """More of the request, such as a ``response_format``."""
        return {}

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One request a sample, all of them side by side."""
        return self.ask_side_by_side([self._job(sample) for sample in samples])

    def _job(self, sample: Sample) -> Any:
        async def judged(exchange: Exchange) -> RewardOutput:
            verdict = await exchange.ask(
                lambda: self.messages(sample),
                lambda reply: self.read(reply, sample),
                self.form(sample),
                slow_to_build=self.shows_media,
            )
            value: Any = verdict.value  # a subclass may return what every reward may
            row = value if isinstance(value, RewardOutput) else RewardOutput(value)
            row.metadata = {**verdict.metadata, **row.metadata}
            return row

        return judged
