"""From the columns of a trainer to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from flux_rewards.data import FIELDS, Sample
from flux_rewards.errors import ConfigError, InputError, brief, close_match
from flux_rewards.tree import fields_read

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction

__all__ = ["REFERENCES", "Columns"]

REFERENCES = dict.fromkeys(("solution", "answer", "ground_truth", "reference"), "reference")
"""What data sets call the reference; one table for all trainers."""
LISTS = ("condition_images", "condition_videos")


class Columns:
    """Says which column of a trainer becomes which field of a `Sample`; one that becomes none is metadata.

    Args:
        defaults: Field by column, where the user says nothing. Of several columns for one field the first that is there
            is taken, and the others are metadata; a field of the user's own replaces all of them.
        given: The user's own: column by field, such as ``{"reference": "ground_truth"}``; None for a field that stays
            empty.
        adapter: Whose they are, for messages.
        reward: What reads the samples. What it needs must be there, and of two columns for a field that it reads one
            must be chosen.

    Raises:
        ConfigError: A field is none of `Sample`'s, or a column is not text.

    Examples:
        >>> defaults = {"solution": "reference", "answer": "reference"}
        >>> columns = Columns(defaults, {"response": "completion"}, "my adapter")
        >>> columns.samples({"completion": ["4"], "answer": ["4"], "level": [2]}, 1)
        [Sample(response='4', reference='4', metadata={'level': 2})]
    """

    def __init__(
        self,
        defaults: Mapping[str, str],
        given: Mapping[str, str | None] | None,
        adapter: str,
        reward: RewardFunction | None = None,
    ) -> None:
        self.adapter = adapter
        self.reward = reward
        self.given: dict[str, str | None] = dict(given or {})
        for field, column in self.given.items():
            if field not in FIELDS:
                hint = (
                    f"; did you mean {{{column!r}: {field!r}}}?"
                    if column in FIELDS
                    else close_match(str(field), FIELDS)
                )
                raise ConfigError(
                    f"{adapter}: fields has {field!r}, not a field of Sample{hint}; write {{field: column}}, such as "
                    "{'reference': 'ground_truth'}"
                )
            if not (column is None or isinstance(column, str)):
                raise ConfigError(f"{adapter}: fields[{field!r}] must be the name of a column, found {brief(column)}")
        taken = set(self.given.values())
        self.defaults = {
            column: field for column, field in defaults.items() if field not in self.given and column not in taken
        }

    def samples(self, columns: Mapping[str, Any], count: int) -> list[Sample]:
        """The samples.

        Args:
            columns: Lists with one entry a sample. A value of another kind is for all samples, and goes to none.
            count: How many samples there are.

        Raises:
            InputError: A column that the user named, or that the reward needs, is not there, or has another length.
            ConfigError: There are several columns for a field that the reward reads, and they differ.
        """
        fields: dict[str, Sequence[Any]] = {}
        used = set(self.given.values())
        for field, column in self.given.items():
            if column is not None:
                fields[field] = self._column(columns, column, field, count)
        for column, field in self.defaults.items():
            if columns.get(column) is None or field in fields:
                continue
            if _is_column(columns[column], count) or isinstance(columns[column], (list, tuple)):
                fields[field] = self._column(columns, column, field, count)
                used.add(column)
                self._check_only(columns, column, field)
        self._check_needs(fields, columns)
        metadata = {
            column: values for column, values in columns.items() if column not in used and _is_column(values, count)
        }
        return [self._sample(fields, metadata, row) for row in range(count)]

    def _check_only(self, columns: Mapping[str, Any], chosen: str, field: str) -> None:
        """Two columns may be the same to a reader of the data set, and are not: a solution, and its last line."""
        for other, same in self.defaults.items():
            if same != field or other == chosen or columns.get(other) is None or field not in self._declared("named"):
                continue
            if not _equal(columns[other], columns[chosen]):
                raise ConfigError(
                    f"{self.adapter}: {chosen!r} and {other!r} could both be the {field}, and differ; say which: "
                    f"fields={{{field!r}: {chosen!r}}}"
                )

    def _check_needs(self, fields: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        for field in self._declared("required"):
            if field in fields or field == "metadata" or (field in self.given and self.given[field] is None):
                continue  # metadata are what remains
            usual = [column for column, becomes in self.defaults.items() if becomes == field]
            taken = (
                f" ({field!r} has become {self.defaults[field]})" if field in columns and field in self.defaults else ""
            )
            there = ", ".join(name for name, value in columns.items() if value is not None and not callable(value))
            raise InputError(
                f"the reward needs this field, and there is no column {' or '.join(usual) or field}{taken}; "
                f"the columns are {there}: write fields={{{field!r}: COLUMN}}",
                reward=None if self.reward is None else self.reward.name,
                field=field,
            )

    def _declared(self, what: Literal["required", "named"]) -> Sequence[str]:
        """What the reward says that it reads."""
        if self.reward is None:
            return ()
        read = fields_read(self.reward)
        return read.required if what == "required" else read.named

    def _column(self, columns: Mapping[str, Any], column: str, field: str, count: int) -> Sequence[Any]:
        if column not in columns:
            raise InputError(
                f"{self.adapter}: there is no column {column!r}{close_match(column, columns)}; "
                f"the columns are {', '.join(columns)}",
                field=field,
            )
        if not _is_column(columns[column], count):
            raise InputError(
                f"{self.adapter}: the column {column!r} must be a list with {count} entries, "
                f"found {brief(columns[column])}",
                field=field,
            )
        values: Sequence[Any] = columns[column]
        return values

    @staticmethod
    def _sample(fields: Mapping[str, Sequence[Any]], metadata: Mapping[str, Sequence[Any]], row: int) -> Sample:
        own = {field: values[row] for field, values in fields.items()}
        for field in LISTS:  # a trainer may hold one image where a sample has a list
            if (
                own.get(field) is not None
                and not isinstance(own[field], (list, tuple))
                and not hasattr(own[field], "ndim")
            ):
                own[field] = [own[field]]
        rest = {column: values[row] for column, values in metadata.items() if values[row] is not None}
        nested = own.pop("metadata", None)
        return Sample(**own, metadata={**rest, **(nested or {})})


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # arrays and tensors
        return False


def _is_column(values: Any, count: int) -> bool:
    if values is None or isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
        return False
    return hasattr(values, "__getitem__") and len(values) == count
