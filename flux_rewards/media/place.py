"""Where in a batch a value stands, for messages."""

from __future__ import annotations

from typing import NamedTuple

from flux_rewards.errors import InputError

__all__ = ["Place"]


class Place(NamedTuple):
    """Where in a batch a value stands, for messages."""

    field: str
    sample: int | None = None
    reward: str | None = None
    within: str = ""  # such as "frame 3: "

    def error(self, message: str) -> InputError:
        """An error that says where."""
        return InputError(f"{self.within}{message}", field=self.field, index=self.sample, reward=self.reward)

    def at(self, what: str, position: int) -> Place:
        """A place within this one, such as a frame."""
        return self._replace(within=f"{self.within}{what} {position}: ")
