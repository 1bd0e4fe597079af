"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Metrics"]


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self, waiting: Callable[[], float], busy: Callable[[], float]) -> None:
        import prometheus_client as prometheus  # noqa: PLC0415  # part of the extra

        self._prometheus = prometheus
        self._registry = prometheus.CollectorRegistry()
        made: dict[str, Any] = {"registry": self._registry, "namespace": "flux_rewards"}
        self.requests = prometheus.Counter("requests", "Requests, by path and status.", ["path", "status"], **made)
        self.seconds = prometheus.Histogram("request_seconds", "From a request to its answer.", ["path"], **made)
        self.samples = prometheus.Counter("samples", "Samples that were scored.", **made)
        self.failures = prometheus.Counter("failures", "Samples that could not be scored.", **made)
        self.batches = prometheus.Histogram(
            "batch_samples", "Samples of a batch.", buckets=[2**power for power in range(13)], **made
        )
        self.merged = prometheus.Histogram(
            "batch_requests",
            "Requests that were merged into a batch.",
            buckets=[2**power for power in range(10)],
            **made,
        )
        self.scoring = prometheus.Histogram("batch_seconds", "Scoring a batch.", **made)
        prometheus.Gauge("waiting_samples", "Samples in the queue.", **made).set_function(waiting)
        prometheus.Gauge("busy_batches", "Batches that are being scored.", **made).set_function(busy)

    def batch(self, requests: int, samples: int, seconds: float) -> None:
        """A batch was scored."""
        self.merged.observe(requests)
        self.batches.observe(samples)
        self.scoring.observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """The page, and its content type."""
        return self._prometheus.generate_latest(self._registry), self._prometheus.CONTENT_TYPE_LATEST
