"""From the logits of a classifier to scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, brief, close_match
from flux_rewards.validation import number

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.text_models import TextModel

__all__ = ["OUTPUTS", "excluding", "label_position", "label_scores", "lone_token", "weights_of"]

OUTPUTS = ("logit", "probability", "log_odds")


def label_position(model: TextModel, label: str | int, reward: str) -> int:
    """Where a label stands, by its name in whatever case, or by its number.

    Raises:
        ConfigError: The model has no such label; the message lists those that it has.
    """
    labels = model.labels
    if isinstance(label, int) and not isinstance(label, bool) and label in labels:
        return label
    found = [position for position, name in labels.items() if name.casefold() == str(label).casefold()]
    if len(found) != 1:
        known = ", ".join(map(repr, labels.values()))
        hint = close_match(label, labels.values()) if isinstance(label, str) else ""
        raise ConfigError(f"{model.label} has no label {brief(label)}{hint}; it has {known}", reward=reward)
    return found[0]


def label_scores(logits: torch.Tensor, position: int, output: str, model: TextModel) -> torch.Tensor:
    """(N,) of (N, labels), in float64: what a head says of one of its labels.

    Args:
        logits: As the model gives them.
        position: Of the label.
        output: ``"logit"``: as it is. ``"probability"``: of the softmax; of the sigmoid for a head with one output, or
            whose labels don't exclude one another (``problem_type`` is ``"multi_label_classification"``).
            ``"log_odds"``: ``log(p / (1 - p))`` of that probability, without its rounding near 0 and 1.
        model: For the kind of its labels.
    """
    import torch  # noqa: PLC0415  # loaded already

    logits = logits.double()
    odds = logits[:, position]
    if output != "logit" and excluding(model, logits.shape[1]):
        others = [other for other in range(logits.shape[1]) if other != position]
        odds = odds - torch.logsumexp(logits[:, others], dim=1)
    return odds.sigmoid() if output == "probability" else odds


def excluding(model: TextModel, count: int) -> bool:
    """Whether the labels share one probability."""
    config: Any = model.network.config
    return count > 1 and config.problem_type != "multi_label_classification"


def lone_token(model: TextModel, text: str, rule: str, reward: str) -> int:
    """The token of a text that must be one.

    Raises:
        ConfigError: It is none, or several; the message begins with the rule.
    """
    with model.one_at_a_time:
        found = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(found) != 1:
        read = model.tokenizer.convert_ids_to_tokens(found)
        raise ConfigError(f"{rule}; {model.label} reads {text!r} as {read}", reward=reward)
    return int(found[0])


def weights_of(labels: Any, reward: str) -> dict[str | int, float]:
    """Weights by label, of one label or of a mapping.

    Raises:
        ConfigError: They are neither.

    Examples:
        >>> weights_of("POSITIVE", "sentiment")
        {'POSITIVE': 1.0}
    """
    if isinstance(labels, (str, int)) and not isinstance(labels, bool) and labels != "":
        return {labels: 1.0}
    ok = isinstance(labels, Mapping) and labels and all(isinstance(label, (str, int)) for label in labels)
    if not ok:
        raise ConfigError(f"labels must be a label, or {{label: weight}}, found {brief(labels)}", reward=reward)
    return {label: number(weight, f"the weight of {label!r}", reward) for label, weight in labels.items()}
