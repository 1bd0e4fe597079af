"""What judges write, and what is read from it: every reply of the corpus."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, in_turn, said

from flux_rewards import (
    JudgeError,
    RatingJudge,
    RationalRewardsEdit,
    RationalRewardsT2I,
    RubricJudge,
    Sample,
    UnifiedReward,
)
from flux_rewards.chat.reply import Reply
from flux_rewards.rewards.judges.judge import Judge
from flux_rewards.rewards.judges.rating import read_score
from flux_rewards.rewards.judges.rational_rewards import read_rational
from flux_rewards.rewards.judges.rubric import aspects_of, read_aspects
from flux_rewards.rewards.judges.unified_reward import read_unified
from flux_rewards.rewards.judges.verdicts.choices import read_better_image, read_choice
from flux_rewards.rewards.judges.verdicts.labelled import read_rating
from flux_rewards.rewards.judges.verdicts.rankings import read_ranking
from flux_rewards.rewards.judges.verdicts.scale import Scale
from flux_rewards.rewards.judges.verdicts.spoken import spoken

CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "judge_replies.jsonl").read_text(encoding="utf-8").splitlines()
]

PIXEL = np.zeros((1, 1, 3), dtype=np.uint8)


def read_in_ranking(text: str, ids: list[str], scale: Scale) -> dict[str, Any]:
    scores = read_ranking(text, ids, scale)
    return {
        name: {"error": score.problem} if isinstance(score, JudgeError) else score for name, score in scores.items()
    }


def read_in_rubric(text: str, aspects: dict[str, Any]) -> dict[str, Any]:
    described = {
        name: {"description": "?", "score_range": entry["scale"], "optional": entry["optional"]}
        for name, entry in aspects.items()
    }
    return read_aspects(text, aspects_of(described, (1, 5), "raw", ""))


def read_rational_of(text: str, *, edit: bool) -> dict[str, Any]:
    source = ["image_faithfulness"] if edit else []
    return read_rational(text, ["text_faithfulness", *source, "physical_quality", "text_rendering"])


READERS: dict[str, Callable[..., Any]] = {
    "rating_text": lambda text, scale, label="Score", allow_na=False: read_rating(
        text, Scale(*scale), label, allow_na=allow_na
    ),
    "rating_json": lambda text, scale, allow_na=False: read_score(text, Scale(*scale), allow_na=allow_na),
    "rubric_json": read_in_rubric,
    "rational": lambda text, edit: read_rational_of(text, edit=edit),
    "unified": lambda text: read_unified(text, "1.5")["final"],
    "unified_v2": lambda text: read_unified(text, "2.0"),
    "pairwise": read_choice,
    "unified_pairwise": read_better_image,
    "ranking": lambda text, ids, scale: read_in_ranking(text, ids, Scale(*scale)),
}


def named(value: Any) -> Any:
    """As the corpus writes what does not apply."""
    if isinstance(value, dict):
        return {name: named(entry) for name, entry in value.items()}
    return "N/A" if value is None else value


@pytest.mark.parametrize("entry", CORPUS, ids=[entry["id"] for entry in CORPUS])
def test_reply(entry: dict[str, Any]) -> None:
    """A score where it says one, and an error of the right kind where it does not."""
    reply = Reply(entry["reply"], finish_reason=entry["finish_reason"])
    outcome: tuple[Any, str | None]
    try:
        outcome = named(READERS[entry["kind"]](spoken(reply), **entry["settings"])), None
    except JudgeError as error:
        outcome = None, error.problem
    assert outcome == (entry["expected"], entry["error"]), entry["why"]


def judge_of(entry: dict[str, Any], url: str) -> Judge:
    """The judge whose reply it could be."""
    kind, settings = entry["kind"], entry["settings"]
    options: dict[str, Any] = {"vlm_model": "m", "api_base_url": url}
    if kind.startswith("rating"):
        options |= {name: settings[name] for name in ("label", "allow_na") if name in settings}
        answer = kind.removeprefix("rating_")
        return RatingJudge(criteria="?", answer=answer, score_range=tuple(settings["scale"]), **options)
    if kind == "rubric_json":
        aspects = [
            {"name": name, "description": "?", "score_range": told["scale"], "optional": told["optional"]}
            for name, told in settings["aspects"].items()
        ]
        return RubricJudge(aspects=aspects, **options)
    if kind == "rational":
        return RationalRewardsEdit(**options) if settings["edit"] else RationalRewardsT2I(**options)
    return UnifiedReward(version="2.0" if kind == "unified_v2" else "1.5", **options)


@pytest.mark.parametrize("kind", ["rating_text", "rating_json", "rubric_json", "rational", "unified", "unified_v2"])
def test_replies_of_a_server(kind: str) -> None:
    """What the judge itself makes of each, over HTTP: the scores, or the error, and no number beside it."""
    entries = [entry for entry in CORPUS if entry["kind"] == kind]
    sample = Sample("q", "r", image=PIXEL, condition_images=[PIXEL])
    with ChatServer(
        in_turn(*(said(entry["reply"], finish_reason=entry["finish_reason"]) for entry in entries))
    ) as server:
        for entry in entries:
            outcome: tuple[Any, str | None]
            try:
                row = judge_of(entry, server.url)([sample])[0]
                scores = named(row.metadata["scores"])
                outcome = (
                    (next(iter(scores.values())) if kind.startswith("rating") or kind == "unified" else scores),
                    None,
                )
            except JudgeError as error:
                outcome = None, error.problem
            assert outcome == (entry["expected"], entry["error"]), entry["id"]


def test_the_corpus_is_large() -> None:
    """Each kind has its share."""
    kinds = [entry["kind"] for entry in CORPUS]
    assert len(CORPUS) >= 120
    assert all(kinds.count(kind) >= 10 for kind in set(kinds))


JUNK = (
    "*\n", "\n", ">\n", "| | |\n", "<think>", "so it is good ", "1.\n",
    "{", '{"a": "', "final score ", "image * ", "<answer>",
    "\\boxed{", "Score: * ", "<start_of_", "8", "\\", "between 7 and ", "[[", "Score: 8 (", "Final * ",
    '{"score": ', '"score', "Score:\n", "Score:\n\n",
)  # fmt: skip


@pytest.mark.parametrize("junk", JUNK, ids=repr)
@pytest.mark.parametrize("kind", dict.fromkeys(entry["kind"] for entry in CORPUS))
def test_a_long_reply_is_read_in_passing(kind: str, junk: str) -> None:
    """So much of what makes careless patterns go back and forth: hours, where they do."""
    settings = next(entry["settings"] for entry in CORPUS if entry["kind"] == kind)
    for before in ("", "Score: 8\n"):
        with contextlib.suppress(JudgeError):
            READERS[kind](spoken(Reply(before + junk * (200_000 // len(junk)))), **settings)
