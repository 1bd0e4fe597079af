"""A sample as an author sees it: media as PIL images or as tensors, whatever the caller passed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from flux_rewards import media
from flux_rewards.data import MEDIA_FIELDS, Sample

__all__ = ["MEDIA_FORMS", "Reading", "any_media", "position_of", "view_of"]

MEDIA_FORMS = ("pil", "float", "pixels", "given")
"""In which a reward may ask for media."""


class Reading(NamedTuple):
    """Who reads a sample, and how: for the right form, and for messages."""

    form: str
    reward: str
    position: int


class _Media:
    """A media field that is decoded when it is read, and kept; one that nobody reads costs nothing."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, view: Any, owner: type | None = None) -> Any:
        if view is None:
            return None
        state = vars(view)
        reading: Reading = state["_reading"]
        given = state["_given"][self._name]
        if reading.form == "given":
            value = given
        else:
            place = media.Place(self._name, reading.position, reading.reward)
            value = media.read_media(self._name, given, reading.form, place)
        state[self._name] = value  # found before this descriptor from now on
        return value


class _View(Sample):
    """A sample as an author sees it: media as PIL images or as tensors, whatever the caller passed."""

    image = _Media()
    video = _Media()
    condition_images = _Media()
    condition_videos = _Media()


def view_of(sample: Sample, reading: Reading) -> Sample:
    """The sample, with media that are decoded when they are read."""
    view = object.__new__(_View)
    state = vars(view)
    state.update(vars(sample))
    if isinstance(sample, _View):  # handed on by the reward that received it
        state.update(vars(sample)["_given"])
    state["_given"] = {field: state.pop(field) for field in MEDIA_FIELDS if state.get(field) is not None}
    state["_reading"] = reading
    return view


def position_of(sample: Sample) -> int | None:
    """The position of a sample in the batch that its caller passed, or None where it is no view."""
    reading: Reading | None = vars(sample).get("_reading")
    return None if reading is None else reading.position


def any_media(samples: Iterable[Sample]) -> bool:
    """Whether any of the samples holds media; nothing is decoded to find out."""
    for sample in samples:
        held = vars(sample)
        if (
            held.get("image") is not None
            or held.get("video") is not None
            or held.get("condition_images") is not None
            or held.get("condition_videos") is not None
            or held.get("_given")  # a view, whose media are not decoded yet
        ):
            return True
    return False
