"""CUDA streams for scoring beside a producer: a worker waits for what the producer had begun, not for what follows."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from flux_rewards.data import MEDIA_FIELDS, Sample

if TYPE_CHECKING:
    import torch

__all__ = ["Produced", "adopted", "adopter", "beside", "produced"]

Produced = dict[int, "torch.cuda.Event"]
"""By device: when the producer's work so far is done there."""

_lock = threading.Lock()
_streams: dict[int, torch.cuda.Stream] = {}  # one a device: rewards on one device share it


def produced(samples: Iterable[Sample]) -> Produced:
    """Mark, on each device in use, what the calling thread has begun; empty where CUDA is not in use.

    Covers the current device, where rewards may hold weights, and every device that holds media of the samples.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    devices = {torch.cuda.current_device()}
    for sample in samples:
        for field in MEDIA_FIELDS:
            devices.update(_devices_of(getattr(sample, field)))
    return {device: torch.cuda.current_stream(device).record_event() for device in sorted(devices)}


def beside(marks: Produced) -> AbstractContextManager[None]:
    """Run on the scoring streams, behind the marks; when it ends, nothing of it is left on the devices."""
    return _beside(marks) if marks else _NOWHERE


_NOWHERE: AbstractContextManager[None] = contextlib.nullcontext()


@contextlib.contextmanager
def _beside(marks: Produced) -> Iterator[None]:
    import torch  # noqa: PLC0415  # loaded already, or there were no marks

    streams = {device: _stream_of(device) for device in marks}
    with contextlib.ExitStack() as stack:
        current = torch.cuda.current_device()
        for device in sorted(streams, key=lambda device: device == current):  # the current device stays current
            streams[device].wait_event(marks[device])
            stack.enter_context(torch.cuda.stream(streams[device]))
        stack.enter_context(torch.cuda.device(current))
        try:
            yield
        finally:
            # What was loaded or computed here may next be used in another stream.
            for device, stream in streams.items():
                with torch.cuda.device(device):
                    stream.record_event().synchronize()


def adopted() -> AbstractContextManager[object]:
    """The calling thread's device, stream and gradient mode, for a helper thread to enter in its place."""
    return adopter()()


def adopter() -> Callable[[], AbstractContextManager[object]]:
    """The same for any number of helper threads: each call makes a context for one of them."""
    torch = sys.modules.get("torch")
    if torch is None:
        return lambda: _NOWHERE
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

    def adopt() -> AbstractContextManager[object]:
        stack = contextlib.ExitStack()

        def enter() -> None:
            stack.enter_context(torch.inference_mode(inference))
            stack.enter_context(torch.set_grad_enabled(grad))
            if stream is not None:
                stack.enter_context(torch.cuda.stream(stream))  # and its device

        return _Entered(enter, stack)

    return adopt


class _Entered(AbstractContextManager[object]):
    """Enters where it is used: all of this belongs to one thread."""

    def __init__(self, enter: Callable[[], None], stack: contextlib.ExitStack) -> None:
        self._enter = enter
        self._stack = stack

    def __enter__(self) -> object:
        self._enter()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _stream_of(device: int) -> torch.cuda.Stream:
    import torch  # noqa: PLC0415

    with _lock:
        if device not in _streams:
            _streams[device] = torch.cuda.Stream(device)
        return _streams[device]


def _devices_of(value: Any) -> Iterator[int]:
    if getattr(value, "is_cuda", False):
        yield value.device.index
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _devices_of(item)
