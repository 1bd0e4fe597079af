"""``flux-rewards evaluate``: how well the rewards of a configuration agree with a file of preferences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.cli.output import check_output, complete_or_absent
from flux_rewards.cli.score import Progress
from flux_rewards.config import load_rewards
from flux_rewards.errors import ConfigError
from flux_rewards.training.evaluate import evaluate_preferences
from flux_rewards.training.sources import load_preferences
from flux_rewards.wrappers.cached import Cached

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.training.evaluate_report import PreferenceReport

__all__ = ["evaluate_file", "parse_columns", "unescaped"]


def parse_columns(given: Iterable[str]) -> dict[str, str | None]:
    """Columns from ``NAME=COLUMN``; ``NAME=`` says that there is none.

    Raises:
        ConfigError: One has no ``=``.

    Examples:
        >>> parse_columns(["chosen=better", "prompt="])
        {'chosen': 'better', 'prompt': None}
    """
    columns: dict[str, str | None] = {}
    for entry in given:
        name, equals, column = entry.partition("=")
        if not equals or not name:
            raise ConfigError(f"expected NAME=COLUMN, such as chosen=better, found {entry!r}")
        columns[name] = column or None
    return columns


def unescaped(text: str | None) -> str | None:
    r"""A text of the command line, in which a shell hardly writes a new line: ``\n`` and ``\t`` are read as in Python.

    Examples:
        >>> unescaped(r"\n\nAssistant:")
        '\n\nAssistant:'
    """
    return None if text is None else text.replace(r"\n", "\n").replace(r"\t", "\t")


def evaluate_file(
    rewards: Path,
    pairs: Path,
    *,
    out: Path | None = None,
    columns: Sequence[str] = (),
    json_columns: Sequence[str] = (),
    prompt_ends_with: str | None = None,
    use_eval: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> PreferenceReport:
    """Evaluate the rewards of a configuration on a file of preference pairs: one by itself, several as their sum.

    What is wrong with the files is found before the first answer is scored.

    Args:
        rewards: A configuration of rewards; see `load_rewards`.
        pairs: A file of pairs; see `load_preferences`.
        out: A ``.json`` file for the report. Replaced when everything is scored, and untouched until then.
        columns: Which column holds what, ``NAME=COLUMN``; ``prompt=`` where there are no prompts.
        json_columns: Columns of text that hold JSON.
        prompt_ends_with: How the prompt ends that two texts begin with; see `load_preferences`, and `unescaped`.
        use_eval: Evaluate ``eval_rewards``.
        cache: A file that keeps the scores; see `Cached`.
        progress: Is told how far it is.
        **options: Of `evaluate_preferences`.

    Raises:
        ConfigError: The rewards cannot be built, or an option is out of its range.
        InputError: The file cannot be read, by file and line.
        ComputeError: An answer could not be scored.
    """
    told = progress or Progress()
    if out is not None:
        check_output(out, [pairs, rewards, *([] if cache is None else [cache])])
    data = load_preferences(
        pairs,
        columns=parse_columns(columns),
        json_columns=list(json_columns) or None,
        prompt_ends_with=unescaped(prompt_ends_with),
    )
    loaded = load_rewards(rewards)
    composite = loaded.eval if use_eval else loaded.train
    alone = list(composite.weights.values()) == [1.0]  # one reward by itself is itself, and not a sum of one
    reward: RewardFunction = composite.children[0] if alone else composite
    if cache is not None:
        reward = Cached(reward, cache)
    done = 0

    def advance(scored: int, total: int) -> None:
        nonlocal done
        if not scored:
            told.scoring(total)
        told.advance(scored - done)
        done = scored

    report = evaluate_preferences(reward, data, advance=advance, **options)
    if out is not None:
        text = json.dumps({**report.to_dict(), "source": str(pairs)}, indent=2, allow_nan=False, ensure_ascii=False)
        with complete_or_absent(out) as file:
            file.write(f"{text}\n".encode())
    return report
