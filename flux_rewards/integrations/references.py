"""References of trainers that have no word for "none"."""

from __future__ import annotations

from typing import Any

__all__ = ["given_reference"]


def given_reference(reference: Any) -> Any:
    """The reference of a sample, where its trainer passes an empty text for a data set that has none.

    OpenRLHF does without ``label_key``, verifiers without an ``answer``. A reward that needs a reference then says that
    it is missing, instead of comparing with nothing.

    Examples:
        >>> given_reference("42"), given_reference(""), given_reference(0)
        ('42', None, 0)
    """
    return None if isinstance(reference, str) and not reference else reference
