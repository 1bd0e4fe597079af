"""Ask a judge about images or responses, at any OpenAI-compatible endpoint: one that serve_judge.sh started, say.

    python examples/judge.py --api-base-url http://127.0.0.1:8000/v1 --model Qwen2.5-VL-7B-Instruct \
        --prompt "a red cat" --image one.png two.png --kind yes_no

Images or responses of one call are a group: `pairwise` and `ranking` compare them. A key is taken from OPENAI_API_KEY.
"""

import argparse
import sys
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from flux_rewards import (
    FluxRewardsError,
    PairwiseJudge,
    RankingJudge,
    RatingJudge,
    RewardFunction,
    RubricJudge,
    YesNoJudge,
)

QUALITY = {"quality": "Is it well made, without flaws?"}
FAITHFULNESS = {"faithfulness": "Does it show or say what the prompt asks for, in every detail?"}


def judge_of(kind: str, field: str, prompted: bool, model: str, **options: Any) -> RewardFunction:
    """A judge of images or of responses, each beside its prompt where there is one."""
    fields = ("prompt", field) if prompted else (field,)
    aspects = {**FAITHFULNESS, **QUALITY} if prompted else QUALITY
    criteria = " ".join(aspects.values())
    if kind == "yes_no":
        return YesNoJudge(model, f"{criteria} Please answer Yes or No.", fields=fields, **options)
    if kind == "rubric":
        return RubricJudge(model, aspects, fields=fields, **options)
    judges: dict[str, type[Any]] = {"rating": RatingJudge, "pairwise": PairwiseJudge, "ranking": RankingJudge}
    judge: RewardFunction = judges[kind](model, criteria, fields=fields, **options)
    return judge


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Ask a judge about images or responses.")
    parser.add_argument("--api-base-url", required=True, metavar="URL", help="such as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", required=True, metavar="NAME", help="the model's name at the endpoint")
    parser.add_argument("--prompt", metavar="TEXT", help="what the images or responses were made for")
    judged = parser.add_mutually_exclusive_group(required=True)
    judged.add_argument("--image", nargs="+", metavar="FILE", help="images to judge")
    judged.add_argument("--response", nargs="+", metavar="TEXT", help="responses to judge")
    kinds = ("yes_no", "rating", "rubric", "pairwise", "ranking")
    parser.add_argument("--kind", choices=kinds, default="yes_no", help="how to judge (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Ask, and print a row for each image or response."""
    given = arguments()
    field = "image" if given.image else "response"
    names = given.image or given.response
    judge = judge_of(given.kind, field, given.prompt is not None, given.model, api_base_url=given.api_base_url)
    try:
        shown: dict[str, Any] = {field: [Image.open(name) for name in names] if given.image else names}
        batch = judge(prompt=[given.prompt] * len(names), group_id=["all"] * len(names), **shown)
    except (FluxRewardsError, OSError) as error:  # no answer, one that cannot be read; no such file, no image
        print(error, file=sys.stderr)
        return 1
    details = list(dict.fromkeys(key for row in batch for key in row.metadata))
    table = Table(field, "score", *details, title=f"{given.kind} by {given.model}")
    for name, row in zip(names, batch, strict=True):
        table.add_row(name, f"{row.reward:.4f}", *(" ".join(str(row.metadata.get(key, "")).split()) for key in details))
    Console(markup=False, emoji=False).print(table)  # [8] and :x: are the judge's own
    return 0


if __name__ == "__main__":
    sys.exit(main())
