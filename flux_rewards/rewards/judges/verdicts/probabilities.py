"""What the first token of a reply would have been, and how likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.errors import JudgeError
from flux_rewards.rewards.judges.verdicts.spoken import check_ended

if TYPE_CHECKING:
    from flux_rewards.chat.reply import Reply

__all__ = ["probabilities_of", "shares"]


def probabilities_of(reply: Reply, answers: Sequence[str], *, merge_variants: bool = True) -> list[float]:
    """The probability that the reply begins with each answer, of those that the endpoint lists.

    Args:
        reply: With the likeliest first tokens.
        answers: One token each.
        merge_variants: Whether `` Yes``, ``yes`` and ``YES`` count as ``Yes``.

    Returns:
        One number an answer; 0 for one that is not listed.

    Raises:
        JudgeError: There are no log-probabilities.

    Examples:
        >>> from flux_rewards.chat.reply import Reply
        >>> reply = Reply("Yes", first_token=[("Yes", -0.5), (" yes", -2.0), ("No", -3.0)])
        >>> [round(share, 3) for share in probabilities_of(reply, ["Yes", "No"])]
        [0.742, 0.05]
    """
    check_ended(reply, may_be_cut=True)
    if reply.first_token is None:
        raise JudgeError(
            "the endpoint sent no log-probabilities: it does not support logprobs, or leaves them out; serve the "
            "judge with vLLM, SGLang or llama.cpp (--logits_all), or use a judge that reads text",
            "no_logprobs",
        )

    def form(token: str) -> str:
        return token.strip().casefold() if merge_variants else token

    return [
        sum(math.exp(value) for token, value in reply.first_token if form(token) == form(answer)) for answer in answers
    ]


def shares(reply: Reply, answers: Sequence[str], *, merge_variants: bool = True, min_mass: float = 0.0) -> list[float]:
    """The same, divided by their sum.

    Raises:
        JudgeError: There are no log-probabilities, or the sum is 0 or below `min_mass`: the model would have said
            something else.

    Examples:
        >>> from flux_rewards.chat.reply import Reply
        >>> reply = Reply("Yes", first_token=[("Yes", -0.5), ("No", -0.5), ("Well", -2.0)])
        >>> shares(reply, ["Yes", "No"])
        [0.5, 0.5]
    """
    found = probabilities_of(reply, answers, merge_variants=merge_variants)
    mass = sum(found)
    likeliest = max(reply.first_token or [("", 0.0)], key=lambda entry: entry[1])[0].strip().casefold()
    for answer in answers:
        folded = answer.strip().casefold()
        if likeliest and folded != likeliest and folded.startswith(likeliest) and max(found) < 0.5:
            raise JudgeError(
                f"the reply would begin with {likeliest!r}, the beginning of {answer!r}: answers must be one token each"
            )
    if mass <= 0 or mass < min_mass:
        listed = ", ".join(f"{token!r} {math.exp(value):.2g}" for token, value in (reply.first_token or ())[:5])
        wanted = " or ".join(map(repr, answers))
        raise JudgeError(
            f"the reply would begin with {wanted} with a probability of {mass:.2g}; likelier are {listed}. A reasoning "
            "model? Switch that off, often by extra_body={'chat_template_kwargs': {'enable_thinking': False}}. "
            f"min_mass={min_mass:g} is the least that is taken"
        )
    return [share / mass for share in found]
