"""From the columns of a trainer to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flux_rewards.data import FIELDS, Sample
from flux_rewards.errors import ConfigError, InputError, brief, close_match

__all__ = ["Columns"]

LISTS = ("condition_images", "condition_videos")


class Columns:
    """Says which column of a trainer becomes which field of a `Sample`; one that becomes none is metadata.

    Args:
        defaults: Field by column, where the user says nothing. Of several columns for one field the first that is there
            is taken, and the others are metadata; a field of the user's own replaces all of them.
        given: The user's own: column by field, such as ``{"reference": "ground_truth"}``; None for a field that stays
            empty.
        adapter: Whose they are, for messages.

    Raises:
        ConfigError: A field is none of `Sample`'s, or a column is not text.

    Examples:
        >>> defaults = {"solution": "reference", "answer": "reference"}
        >>> columns = Columns(defaults, {"response": "completion"}, "my adapter")
        >>> columns.samples({"completion": ["4"], "answer": ["4"], "level": [2]}, 1)
        [Sample(response='4', reference='4', metadata={'level': 2})]
    """

    def __init__(self, defaults: Mapping[str, str], given: Mapping[str, str | None] | None, adapter: str) -> None:
        self.adapter = adapter
        self.given: dict[str, str | None] = dict(given or {})
        for field, column in self.given.items():
            if field not in FIELDS:
                raise ConfigError(
                    f"{adapter}: fields has {field!r}, not a field of Sample{close_match(str(field), FIELDS)}; write "
                    " {field: column}, such as {'reference': 'ground_truth'}"
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
            InputError: A column that the user named is not there, or has another length.
        """
        fields: dict[str, Sequence[Any]] = {}
        used = set(self.given.values())
        for field, column in self.given.items():
            if column is not None:
                fields[field] = self._column(columns, column, field, count)
        for column, field in self.defaults.items():
            if _is_column(columns.get(column), count) and field not in fields:
                fields[field] = columns[column]
                used.add(column)
        metadata = {
            column: values for column, values in columns.items() if column not in used and _is_column(values, count)
        }
        return [self._sample(fields, metadata, row) for row in range(count)]

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


def _is_column(values: Any, count: int) -> bool:
    if values is None or isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
        return False
    return hasattr(values, "__getitem__") and len(values) == count
