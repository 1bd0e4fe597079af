"""The README.md of a trained reward model: data, settings and accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flux_rewards import __version__
from flux_rewards.training.prompts import count_of_prompts

if TYPE_CHECKING:
    from flux_rewards.models.text_format import TextFormat

__all__ = ["model_card"]


def model_card(name: str, format_: TextFormat, facts: Mapping[str, Any]) -> str:
    """Markdown with the front matter that the Hugging Face hub reads.

    Args:
        name: Of the model.
        format_: How prompt and response become tokens.
        facts: As `TrainedRewardModel.facts`.
    """
    pairs, versions = facts["pairs"], facts["versions"]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags: [reward-model, flux-rewards, trl]",
        "---",
        "",
        f"# {name}",
        "",
        "A reward model: one score for a prompt and a response, higher for the better one.",
        f"Trained from {facts['base_model']} on {pairs['trained_on']} preference pairs.",
        "Scores have no unit and no zero: compare those of one prompt.",
        "",
        "```python",
        "from flux_rewards import RewardModelReward",
        "",
        f'reward = RewardModelReward("{name}")  # the path of this directory',
        'batch = reward(prompt=["2 + 2?", "2 + 2?"], response=["4", "5"])',
        "```",
        "",
        "## Accuracy",
        "",
        *_accuracy(facts.get("held_out"), pairs),
        "",
        "## Data",
        "",
        "| | |",
        "|---|---|",
        *_rows(
            {
                "source": pairs["source"] or "not named",
                "pairs trained on": pairs["trained_on"],
                "left out as too long": pairs["too_long"],
                "left out as the same tokens": pairs["alike_as_tokens"],
                "cut": pairs["cut"],
                "control tokens made plain text": pairs["control_tokens_set_apart"],
                "with a margin": pairs["with_margin"],
                "without a prompt": pairs["without_prompt"],
                "watched for early stopping": pairs["validation"],
                "held out": pairs["held_out"],
                **{f"left out before: {reason}": count for reason, count in pairs["left_out_before"].items()},
            }
        ),
        "",
        "## Text",
        "",
        f"`{json.dumps(format_.to_dict(), ensure_ascii=False)}`",
        "",
        "`RewardModelReward` reads this from `reward_model.json`; another format gives other scores.",
        "",
        "## Training",
        "",
        f"{facts['steps']} updates in {facts['seconds']:g} s, mean loss {facts['final_loss']:.4f}"
        + (f"; the weights are those of update {facts['best_step']}." if facts["best_step"] else ".")
        + (f" Drawn by chance before the training: {', '.join(facts['drawn_anew'])}." if facts["drawn_anew"] else ""),
        "",
        "| setting | |",
        "|---|---|",
        *_rows(
            {
                key: value
                for key, value in facts["settings"].items()
                if value is not None and key not in ("format", "max_length")
            }
        ),
        "",
        f"flux_rewards {__version__}, " + ", ".join(f"{package} {version}" for package, version in versions.items()),
        "",
    ]
    return "\n".join(lines)


def _accuracy(held_out: Mapping[str, Any] | None, pairs: Mapping[str, Any]) -> list[str]:
    if held_out is None:
        return ["Not measured: no pairs were held out."]
    rule = f"the {held_out['length_rule']} answer"
    without = held_out["without_prompt"]
    told = count_of_prompts(held_out["prompts"] or 0, without)
    lines = [
        f"On {held_out['pairs']} pairs{', ' if held_out['prompts'] is None else ' of '}{told}.",
        "They decided nothing in the training.",
        "Ties count half; intervals are of 95%, by the bootstrap over prompts.",
        "",
        "| | accuracy | interval |",
        "|---|---|---|",
        f"| this model | {held_out['accuracy']:.3f} | {_interval(held_out['interval'])} |",
        f"| {rule} (by characters) | {held_out['length_accuracy']:.3f} | {_interval(held_out['length_interval'])} |",
        "| chance | 0.500 | |",
    ]
    low, high = held_out["interval"] or (0.0, 1.0)
    if low <= 0.5 <= high:
        lines += ["", "**The interval holds 0.5: nothing shows that this model is better than chance.**"]
    if held_out["accuracy"] <= held_out["length_accuracy"]:
        lines += ["", f"**Always preferring {rule} does as well.**"]
    if held_out["cut"]:
        lines += ["", f"{held_out['cut']} pairs have an answer that is longer than the model reads, scored in part."]
    if pairs["held_out_prompts_trained_on"] is None:
        lines += [
            "",
            "**Pairs have no prompt: what was asked may have been trained on, too. The accuracy may flatter.**",
        ]
    elif pairs["held_out_prompts_trained_on"]:
        lines += [
            "",
            f"**{pairs['held_out_prompts_trained_on']} of these prompts were trained on, too: the accuracy flatters.**",
        ]
    return lines


def _interval(bounds: Any) -> str:
    return "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def _rows(values: Mapping[str, Any]) -> list[str]:
    return [f"| {key} | {_cell(value)} |" for key, value in values.items()]


def _cell(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, (dict, list, tuple)) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
