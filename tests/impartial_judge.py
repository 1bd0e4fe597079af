"""A chat server that answers every judge of the library in its form, and decides by the content of the request."""

import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any

from chat_answers import Answer, first_token, said
from chat_server import Request

JUDGES: dict[str, dict[str, Any]] = {
    "yes_no_judge": {},
    "rating_judge": {"criteria": "Is it right?"},
    "rubric_judge": {"aspects": {"clear": "Is it clear?", "right": "Is it right?"}},
    "pairwise_judge": {"criteria": "Which is clearer?"},
    "ranking_judge": {"criteria": "Is it clear?"},
    "vllm_evaluate": {},
    "rational_rewards_t2i": {},
    "rational_rewards_edit": {},
    "unified_reward": {},
    "unified_reward_pairwise": {},
}
"""By registered name, what a configuration says beside the model and the address."""


def config(name: str, url: str) -> dict[str, Any]:
    """A judge's entry in a configuration."""
    return {"reward_model": name, "vlm_model": "judge", "api_base_url": url, **JUDGES[name]}


def decides(request: Request) -> Answer:
    """The same answer to the same request."""
    drawn = int(hashlib.sha256(json.dumps(request.body, sort_keys=True).encode()).hexdigest()[:8], 16)
    if request.body.get("logprobs"):
        share = (1 + drawn % 98) / 100
        return first_token({"Yes": math.log(share), "No": math.log(1 - share)})
    if "response_format" in request.body:
        properties = request.body["response_format"]["json_schema"]["schema"]["properties"]
        return said(
            json.dumps({name: _value(entry, drawn + at) for at, (name, entry) in enumerate(properties.items())})
        )
    for pattern, write in FORMS.items():
        if re.search(pattern, request.text):
            return said(write(drawn))
    raise AssertionError(request.text)


def _value(entry: dict[str, Any], drawn: int) -> Any:
    if entry["type"] == "string":
        return "because"
    if entry["type"] == "array":
        ids = entry["items"]["properties"]["id"]["enum"]
        return [{"id": name, "score": (drawn + 7 * at) % 11} for at, name in enumerate(ids)]
    return 1 + drawn % 5


FAITHFUL, QUALITY, WRITING = "Text Faithfulness", "Physical and Visual Quality", "Text Rendering"


def _sections(drawn: int, headings: list[str]) -> str:
    return "".join(
        f"{number}. {heading}:\n## Justification: so.\n## Score: {1 + (drawn + number) % 31 / 10:.1f}\n"
        for number, heading in enumerate(headings, 1)
    )


FORMS: dict[str, Callable[[int], str]] = {
    "Image 1 is better": lambda drawn: f"<think>Well.</think><answer>Image {1 + drawn % 2} is better</answer>",
    "Final Score:": lambda drawn: f"Final Score: {1 + drawn % 5}",
    "two images:": lambda drawn: _sections(drawn, [FAITHFUL, "Image Faithfulness", QUALITY, WRITING]),
    "# Detailed Judgement": lambda drawn: _sections(drawn, [FAITHFUL, QUALITY, WRITING]),
    "Verdict: A": lambda drawn: f"Verdict: {('A', 'B', 'tie')[drawn % 3]}",
    "Score: <a number": lambda drawn: f"Fine.\nScore: {1 + drawn % 10}",
}
