"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass

from flux_rewards.errors import ConfigError
from flux_rewards.validation import number, whole_number

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """The limits of a reward server.

    Attributes:
        max_body: Bytes of a request.
        max_bytes: Bytes of all requests under way; beyond it the answer is 503, and what was sent is not kept.
        max_samples: Samples of a request; counted before they are built.
        max_pixels: Pixels of all images of a request together; those in base64 are counted before they are decoded,
            and one that several samples share as often as it is named.
        max_waiting: Samples in the queue; beyond it the answer is 503 with ``Retry-After``.
        body_timeout: Seconds for a client to send its request.
        deadline: Seconds from the request to its answer, and for one batch: one that takes longer is given up, and
            until another is done ``/health`` says that the server is stuck.
        max_batch: Samples of several requests that are scored together.
        window: Seconds that a request waits for others where nothing is being scored.
        workers: Batches that are scored at once; None for as many as the reward makes calls at once, 8 at most.
        drain: Seconds at the end for what is under way.

    Examples:
        >>> Limits(max_batch=16).window
        0.002
    """

    max_body: int = 512 * 2**20
    max_bytes: int = 2**31
    max_samples: int = 4096
    max_pixels: int = 2**28
    max_waiting: int = 4096
    body_timeout: float = 60.0
    deadline: float = 600.0
    max_batch: int = 64
    window: float = 0.002
    workers: int | None = None
    drain: float = 60.0

    def __post_init__(self) -> None:
        for name in ("max_body", "max_bytes", "max_samples", "max_pixels", "max_waiting", "max_batch"):
            whole_number(getattr(self, name), name, "", low=1)
        for name in ("body_timeout", "deadline", "drain"):
            number(getattr(self, name), name, "", above=0.0)
        number(self.window, "window", "", low=0.0)
        if self.workers is not None:
            whole_number(self.workers, "workers", "", low=1)
        if self.max_waiting < self.max_batch:
            raise ConfigError(f"max_waiting={self.max_waiting} is less than max_batch={self.max_batch}")
