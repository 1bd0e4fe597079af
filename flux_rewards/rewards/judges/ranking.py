"""All responses of a group, scored side by side in one reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, InputError, JudgeError
from flux_rewards.rewards.judges.group import SHARED, check_shared, compared_fields, contents_of
from flux_rewards.rewards.judges.judge import Judge, JudgeOptions
from flux_rewards.rewards.judges.material import NOTICE, Part, message
from flux_rewards.rewards.judges.verdicts.rankings import read_ranking
from flux_rewards.rewards.judges.verdicts.scale import Scale
from flux_rewards.rewards.judges.verdicts.spoken import spoken
from flux_rewards.validation import whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.rewards.judges.exchange import Exchange, Verdict

__all__ = ["RankingJudge"]


class RankingJudge(Judge):
    """The score of each response of a group, from one reply that scores them all side by side.

    One request a group, and scores that were given in view of each other. The responses are shown under ids, in an
    order that the seed and their content decide, and the scores are read by id: in whatever order they come back, each
    response gets its own.

    Args:
        vlm_model: The model's name at the endpoint.
        criteria: What makes a response good; ``{prompt}`` and ``{reference}`` stand for the group's own. None
            where each group brings its own.
        fields: What is shown; see `Judge`. ``prompt``, ``reference`` and ``condition_images`` are shown once.
        score_range: (worst, best).
        scaling: What becomes of a score; see `RatingJudge`.
        max_group: Responses in one request, at most; a larger group is an error, not a worse judgement.
        seed: For the order in which they are shown.
        criteria_key: Where the samples' `metadata` have the criteria of their group, in place of `criteria`.
        **options: Of every judge; see `Judge`. `max_tokens` must hold all scores.

    Equal responses are shown once, and get one score. An id that is missing from the reply, or comes twice with
    different scores, fails alone; an id that nobody gave makes the reply useless. Metadata, beside that of every judge
    (the request is the group's): ``id``, ``scores``.

    Raises:
        ConfigError: An argument is out of its range, or `fields` has nothing to compare.
        InputError: At a call: the samples of a group differ in what is shown once.

    Source: the idea of ART's RULER, one call a group; which reads the scores by position.

    Examples:
        >>> RankingJudge("judge", "Which answers are right, and well explained?").bounds
        (0.0, 1.0)
    """

    scope = "group"
    optional_fields: Sequence[str] | None = ()
    example_config: ClassVar[Mapping[str, Any]] = {**Judge.example_config, "criteria": "Is it right and clear?"}

    def __init__(
        self,
        vlm_model: str,
        criteria: str | None = None,
        fields: Sequence[str] = ("prompt", "response"),
        *,
        score_range: tuple[float, float] = (0, 10),
        scaling: str = "unit",
        max_group: int = 32,
        seed: int = 0,
        criteria_key: str | None = None,
        **options: Unpack[JudgeOptions],
    ) -> None:
        self._scale = Scale.of(score_range, scaling, options.get("name") or type(self).__name__)
        self.bounds = self._scale.bounds
        options.setdefault("max_tokens", 4096)
        super().__init__(vlm_model, fields=fields, **options)
        self.check_criteria(criteria, criteria_key)
        self.criteria = criteria
        self.criteria_key = criteria_key
        self._compared = compared_fields(self.fields, self.name)
        self.max_group = whole_number(max_group, "max_group", self.name, low=1)
        self.seed = whole_number(seed, "seed", self.name, low=0)

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One group, one request."""
        if len(samples) > self.max_group:
            raise ConfigError(
                f"a group of {len(samples)} is more than max_group={self.max_group} responses in one request; raise "
                "it, or use PairwiseJudge",
                reward=self.name,
            )
        check_shared(samples, [field for field in self.required_fields if field in SHARED], self.criteria_key)
        order, like, unread = contents_of(samples, self._compared, self.seed)
        ids = {row: f"R{place}" for place, row in enumerate(order, 1)}
        shown = self.readable([samples[row] for row in order], [ids[row] for row in order], self._compared)
        parts: list[Part] = []
        for row, of_row in zip(order, shown, strict=True):
            if isinstance(of_row, InputError):
                unread[row] = of_row
                del ids[row]
            else:
                parts += of_row
        outcome = self._ask(samples[0], ids, parts) if ids else {}
        scores = outcome if isinstance(outcome, dict) else dict.fromkeys(ids, outcome)
        by_row: dict[int, Any] = {**scores, **unread}
        return [by_row[like.get(row, row)] for row in range(len(samples))]

    def _ask(self, sample: Sample, ids: Mapping[int, str], parts: Sequence[Part]) -> Any:
        """A row by position, or what they all failed of."""

        async def judged(exchange: Exchange) -> Verdict[dict[str, float | JudgeError]]:
            return await exchange.ask(
                lambda: [self._message(sample, list(ids.values()), parts)],
                lambda reply: read_ranking(spoken(reply), list(ids.values()), self._scale),
                {"response_format": _form(list(ids.values()))},
            )

        (verdict,) = self.ask_side_by_side([judged])
        if verdict is None or isinstance(verdict, Exception):
            return verdict
        return {row: self._row(verdict, name) for row, name in ids.items()}

    def _row(self, verdict: Verdict[dict[str, float | JudgeError]], name: str) -> RewardOutput | JudgeError:
        score = verdict.value[name]
        if isinstance(score, JudgeError):
            said = verdict.metadata["verdict"]
            return JudgeError(f"{score.args[0]}; the reply: {said!r}", score.problem, retryable=self.temperature != 0)
        metadata = {**verdict.metadata, "id": name, "scores": {"score": score}}
        return RewardOutput(self._scale.scaled(score), metadata=metadata)

    def _message(self, sample: Sample, ids: Sequence[str], parts: Sequence[Part]) -> dict[str, Any]:
        once = [field for field in self.fields if field in SHARED]
        task = (
            f"You are a careful and impartial judge. {len(ids)} candidates are shown below, each under its id. "
            f"Score every one of them on a scale of {self._scale}, where {self._scale.high:g} is best, in view of the "
            "others, by these criteria; neither their order nor their length counts by itself:\n\n"
            f"{self.criteria_text(sample, self.criteria, self.criteria_key)}\n\n{NOTICE}"
        )
        shared = self.shown(sample, fields=once) if once else []
        how = (
            f"Answer with JSON of this form, with one entry for each of {', '.join(ids)}: "
            '{"reasoning": "<in short>", "scores": [{"id": "R1", "score": <number>}, ...]}'
        )
        return message(task, *shared, *parts, how)


def _form(ids: Sequence[str]) -> dict[str, Any]:
    entry = {
        "type": "object",
        "properties": {"id": {"type": "string", "enum": list(ids)}, "score": {"type": "number"}},
        "required": ["id", "score"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, "scores": {"type": "array", "items": entry}},
        "required": ["reasoning", "scores"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "ranking", "strict": True, "schema": schema}}
