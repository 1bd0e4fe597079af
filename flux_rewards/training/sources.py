"""Preference pairs from files and tables, whatever their columns are called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flux_rewards.data import FIELDS, Sample
from flux_rewards.errors import InputError, brief, close_match
from flux_rewards.records.fields import sample_of
from flux_rewards.training.preferences import PreferencePair
from flux_rewards.training.preferences_data import PreferenceData
from flux_rewards.training.preferences_messages import (
    check_conversation,
    is_conversation,
    split_shared_prompt,
    texts_of,
)
from flux_rewards.training.prompts import says_no_prompts
from flux_rewards.training.sources_rows import Source, read_rows

__all__ = ["load_preferences", "pair_of_row"]

_COLUMNS = ("prompt", "chosen", "rejected", "margin")
_SHARED = tuple(name for name in FIELDS if name not in ("prompt", "response", "metadata", "token_ids", "token_offsets"))


def load_preferences(
    source: Source,
    *,
    columns: Mapping[str, str | None] | None = None,
    json_columns: Collection[str] | None = None,
    prompt_ends_with: str | None = None,
) -> PreferenceData:
    r"""Read preference pairs from a file or a table.

    A row has ``chosen`` and ``rejected``: texts, lists of chat messages, or, for media, objects of the fields of a
    `Sample` (``{"image": "a.png"}``, paths relative to the file's folder) and PIL images; ``prompt``: text or messages;
    and ``margin``, optional. Other fields of a `Sample` (``reference``, ``condition_images``, ...) are shared by both
    answers; every other column goes into the pair's metadata.

    Without a ``prompt``, or where both are whole conversations that begin with the prompt, the prompt is the messages
    that both begin with (TRL's implicit prompt). Two texts without a prompt stay whole, unless `prompt_ends_with` says
    where their prompt ends.

    Args:
        source: A ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file, a list of mappings, or a split of a
            `datasets.Dataset`.
        columns: Which column holds what, where it is called otherwise: ``{"chosen": "better"}``. None says that there
            is no such column, whatever resembles it; to train without prompts, ``{"prompt": None}`` must be said.
        json_columns: Columns of text that hold JSON, as chat messages in a CSV file do. None: those that a file of
            samples has. A text that looks like messages is an error, unless ``()`` says that it is text.
        prompt_ends_with: The last text of a prompt that two texts begin with, as ``"\n\nAssistant:"`` in dialogues.

    Raises:
        InputError: Something that cannot be read, with the file, the row and the column.
        ConfigError: `columns` has a name that no pair has.
        MissingDependencyError: A ``.parquet`` file without pyarrow.

    Examples:
        >>> load_preferences([{"question": "2 + 2?", "better": "4", "worse": "5"}],
        ...                  columns={"prompt": "question", "chosen": "better", "rejected": "worse"})[0]
        PreferencePair(prompt='2 + 2?', chosen='4', rejected='5')
    """
    if isinstance(source, PreferenceData):
        return source
    rows = read_rows(source, "preference pairs", columns, json_columns, names=_COLUMNS, required=("chosen", "rejected"))
    pairs: list[PreferencePair] = []
    first: dict[str, tuple[Any, str]] = {}
    for where, values in rows:
        with rows.naming(where):
            pair = pair_of_row(values, rows.folder, prompt_ends_with)
            for what, found in (("kind", _kind(pair)), ("margin", pair.margin is not None)):
                known, at = first.setdefault(what, (found, where))
                if known != found:
                    raise InputError(_differs(what, found, known, at))
        pairs.append(pair)
    if not pairs:
        raise InputError(f"{rows.label}: holds no preference pairs")
    return PreferenceData(pairs, source=rows.label, no_prompts=says_no_prompts(columns))


def _kind(pair: PreferencePair) -> str:
    if isinstance(pair.chosen, Sample):
        return "samples"
    return "texts" if isinstance(pair.chosen, str) else "messages"


def _differs(what: str, found: Any, known: Any, at: str) -> str:
    if what == "kind":
        return f"the answers are {found}, and those of {at} are {known}; write all in one way"
    there, missing = ("has a margin", "has none") if found else ("has no margin", "has one")
    return f"the row {there}, and {at} {missing}; write 0 for no demand"


def pair_of_row(values: Mapping[str, Any], folder: Path | None, prompt_ends_with: str | None = None) -> PreferencePair:
    """Build the pair of a row whose columns have our names; see `load_preferences`.

    Args:
        values: Column to value.
        folder: What relative paths of media are relative to; None for values in memory.
        prompt_ends_with: As for `load_preferences`.

    Raises:
        InputError: A value that cannot be read, with its field.

    Examples:
        >>> pair_of_row({"chosen": "4", "rejected": "5", "source": "ours"}, None)
        PreferencePair(chosen='4', rejected='5', metadata={'source': 'ours'})
    """
    prompt, chosen, rejected = (values.get(name) for name in ("prompt", "chosen", "rejected"))
    chosen, rejected = (_answer(value, name, folder) for value, name in ((chosen, "chosen"), (rejected, "rejected")))
    if is_conversation(chosen) and is_conversation(rejected):
        prompt, chosen, rejected = _explicit(prompt, chosen, rejected)
    elif prompt is None and prompt_ends_with and isinstance(chosen, str) and isinstance(rejected, str):
        prompt, chosen, rejected = _cut(chosen, rejected, prompt_ends_with)
    shared = {name: values[name] for name in _SHARED if values.get(name) is not None}
    if folder is not None:
        shared = {name: getattr(sample_of({name: value}, folder), name) for name, value in shared.items()}
    given = values.get("metadata")
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"expected an object, found {brief(given)}", field="metadata")
    others = {name: value for name, value in values.items() if name not in (*_COLUMNS, *_SHARED, "metadata")}
    margin = values.get("margin")
    return PreferencePair(prompt, chosen, rejected, margin, {**(given or {}), **others}, shared)


def _answer(value: Any, name: str, folder: Path | None) -> Any:
    if isinstance(value, Mapping):
        if folder is not None:
            return sample_of(value, folder)
        unknown = [key for key in value if key not in FIELDS]
        if unknown:
            hint = close_match(str(unknown[0]), FIELDS)
            raise InputError(f"{unknown[0]!r} is no field of a sample{hint}", field=name)
        return Sample(**value)
    if hasattr(value, "mode") and hasattr(value, "size"):
        return Sample(image=value)
    return value


def _explicit(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Whole conversations are cut where the answers begin; answers alone stay as they are."""
    for value, name in ((chosen, "chosen"), (rejected, "rejected")):
        check_conversation(value, name)
    whole = [messages[0]["role"] != "assistant" for messages in (chosen, rejected)]
    if whole[0] != whole[1]:
        raise InputError("one answer begins with the prompt and the other does not", field="rejected")
    if not whole[0]:
        return prompt, chosen, rejected
    found, chosen, rejected = split_shared_prompt(chosen, rejected)
    if not found:
        raise InputError("the conversation begins with no prompt", field="chosen")
    asked = [text.strip() for _, text in texts_of(found)]
    if isinstance(prompt, str) and prompt.strip() not in asked:
        raise InputError(f"the prompt is {brief(prompt)}, and the answers begin with {brief(found)}", field="prompt")
    if is_conversation(prompt):
        check_conversation(prompt, "prompt")
        if [text.strip() for _, text in texts_of(prompt)] != asked:
            raise InputError(
                f"the prompt is {brief(prompt)}, and the answers begin with {brief(found)}", field="prompt"
            )
    return found, chosen, rejected


def _cut(chosen: str, rejected: str, mark: str) -> tuple[str, str, str]:
    """At the last mark within what both texts begin with."""
    length = next((at for at, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    alike = chosen[: min(len(chosen), len(rejected)) if length is None else length]
    at = alike.rfind(mark)
    if at < 0:
        raise InputError(f"{mark!r} is not in what both texts begin with, {brief(alike)}", field="chosen")
    end = at + len(mark)
    return chosen[:end], chosen[end:], rejected[end:]
