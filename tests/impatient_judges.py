"""Judges for tests with a scripted server: they ask once unless told otherwise, and wait for nobody."""

from __future__ import annotations

from typing import Any

from flux_rewards import RatingJudge, Sample, YesNoJudge

__all__ = ["rating", "samples", "yes_no"]

IMPATIENT: dict[str, Any] = {"max_retries": 0, "timeout": 5.0, "deadline": 20.0}


def rating(url: str, criteria: str = "Is it good?", **options: Any) -> RatingJudge:
    """Rates a response from 1 to 10, by text."""
    return RatingJudge("m", criteria, api_base_url=url, **{**IMPATIENT, **options})


def yes_no(url: str, **options: Any) -> YesNoJudge:
    """Reads log-probabilities."""
    return YesNoJudge("m", "Is it good?", fields=("response",), api_base_url=url, **{**IMPATIENT, **options})


def samples(count: int) -> list[Sample]:
    """Each with a response of its own."""
    return [Sample(prompt="question", response=f"answer {number}") for number in range(count)]
