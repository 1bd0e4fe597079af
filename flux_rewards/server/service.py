"""A reward as a service: loaded once, asked by many; what HTTP has nothing to do with."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards import __version__
from flux_rewards.batching import Batcher, Overloaded, leaves_of
from flux_rewards.errors import ConfigError
from flux_rewards.server.metrics import Metrics
from flux_rewards.server.problems import Problem, problem_of
from flux_rewards.wrappers.cache_keys import reward_digest

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.contract import Scored
    from flux_rewards.data import Sample
    from flux_rewards.server.settings import Limits

__all__ = ["Service"]

_log = logging.getLogger(__name__)

LOOK_EVERY = 0.1
"""Seconds after which a server looks whether a client is still there."""


class Service:
    """A reward, its queue and its state.

    Args:
        reward: What is served.
        limits: What is allowed.
        name: What it is called to clients.
    """

    def __init__(self, reward: RewardFunction, limits: Limits, name: str) -> None:
        self.reward = reward
        self.name = name
        self.limits = limits
        self.state = "loading"
        self.error = ""
        self.under_way = 0
        """Requests that have come and are not answered."""
        workers = limits.workers or min(8, max(leaf.num_workers for leaf in leaves_of(reward)))
        self.batcher = Batcher(
            reward,
            max_batch=limits.max_batch,
            window=limits.window,
            max_waiting=limits.max_waiting,
            workers=workers,
            observe=self._observe,
        )
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: self.batcher.busy)

    @property
    def reference_is_media(self) -> bool:
        """Whether a reference is an image, or images, to the reward."""
        return any(leaf.reference_is_media for leaf in leaves_of(self.reward))

    def _observe(self, requests: int, samples: int, seconds: float) -> None:
        self.metrics.batch(requests, samples, seconds)

    def start(self) -> None:
        """Load in a thread; `state` tells when it is done."""
        self.batcher.start()
        threading.Thread(target=self._load, name="flux-rewards-server-load", daemon=True).start()

    def _load(self) -> None:
        try:
            self.reward.load()
        except Exception as error:  # noqa: BLE001  # a server that cannot load says so, where it is asked
            _log.exception("the reward cannot be loaded")
            told = problem_of(error).told
            self.state, self.error = "failed", f"{told['type']}: {told['message']}"
        else:
            self.state = "ok"

    def stop(self) -> None:
        """Take no more. Clients have their answers: whoever serves has waited for them."""
        self.state = "draining"
        self.batcher.close(timeout=5.0)

    def description(self) -> dict[str, Any]:
        """What a client needs to know of the reward."""
        reward = self.reward
        leaves = leaves_of(reward)
        required = list(dict.fromkeys(field for leaf in leaves for field in leaf.required_fields))
        any_field = any(leaf.optional_fields is None for leaf in leaves)
        optional = None if any_field else list(dict.fromkeys(f for leaf in leaves for f in leaf.optional_fields or ()))
        return {
            "name": self.name,
            "scope": reward.scope,
            "required_fields": required,
            "optional_fields": optional,
            "bounds": None if reward.bounds is None else list(reward.bounds),
            "higher_is_better": reward.higher_is_better,
            "reference_is_media": self.reference_is_media,
            "parts": [child.name for child in reward.children],
            "digest": self._digest(),
            "max_samples": self.limits.max_samples,
            "version": __version__,
        }

    def _digest(self) -> str | None:
        """What decides the scores, for caches of clients; None where it cannot be told from another."""
        try:
            return reward_digest(self.reward).hex()
        except ConfigError:
            return None

    async def score(self, samples: Sequence[Sample], is_gone: Callable[[], Awaitable[bool]]) -> Scored:
        """Score the samples of a request.

        Raises:
            Problem: It cannot be scored, now or at all.
        """
        if self.state != "ok":
            raise Problem(
                503, "NotReady", f"the server is {self.state} {self.error}".strip(), headers={"Retry-After": "2"}
            )
        if len(samples) > self.limits.max_samples:
            message = f"{len(samples)} samples in a request; at most {self.limits.max_samples}: send several requests"
            raise Problem(413, "TooLarge", message)
        for leaf in leaves_of(self.reward):
            leaf.check_samples(samples)
        try:
            future = self.batcher.submit(samples, alone=self.under_way <= 1)
        except Overloaded as error:
            headers = {"Retry-After": f"{error.retry_after:.0f}"}
            raise Problem(503, "Overloaded", str(error), headers=headers) from None
        waiting = asyncio.wrap_future(future)
        until = asyncio.get_running_loop().time() + self.limits.deadline
        try:
            while True:
                done, _ = await asyncio.wait([waiting], timeout=LOOK_EVERY)
                if done:
                    answer = waiting.result()
                    self.metrics.samples.inc(len(samples))
                    self.metrics.failures.inc(len(answer.batch.errors))
                    return answer
                if await is_gone():
                    raise Problem(499, "Gone", "the client went away")
                if asyncio.get_running_loop().time() > until:
                    raise Problem(504, "Deadline", f"not scored within {self.limits.deadline:g} s")
        finally:
            if not waiting.done():
                waiting.cancel()
                self.batcher.forget(future)
