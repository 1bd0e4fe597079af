"""What judges write, and what is read from it: every reply of the corpus."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_rewards import JudgeError
from flux_rewards.chat.reply import Reply
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
