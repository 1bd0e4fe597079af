"""A reward as a service: loaded once, asked by many; what HTTP has nothing to do with."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards import __version__
from flux_rewards.batching import Batcher, Overloaded, leaves_of
from flux_rewards.errors import ConfigError
from flux_rewards.server.metrics import Metrics
from flux_rewards.server.problems import Problem, problem_of
from flux_rewards.tree import Tree, fields_read
from flux_rewards.wire.allowance import Allowance
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
        self.bytes_held = 0
        """Of the bodies of those requests."""
        workers = limits.workers or min(8, max(leaf.num_workers for leaf in leaves_of(reward)))
        self.batcher = Batcher(
            reward,
            max_batch=limits.max_batch,
            window=limits.window,
            max_waiting=limits.max_waiting,
            workers=workers,
            deadline=limits.deadline,
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
        except BaseException as error:  # noqa: BLE001  # one that cannot load says so; an author may sys.exit
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
        read = fields_read(reward)
        return {
            "name": self.name,
            "scope": reward.scope,
            "required_fields": list(read.required),
            "optional_fields": None if read.optional is None else list(read.optional),
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

    def allowance(self) -> Allowance:
        """What one request may hold."""
        return Allowance(self.limits.max_pixels, self.limits.max_samples)

    @property
    def status(self) -> str:
        """``"ok"``, ``"loading"``, ``"failed"``, or ``"stuck"``: the last batch was not done in time."""
        return "stuck" if self.state == "ok" and self.batcher.stuck else self.state

    def refusal(self) -> Problem | None:
        """Why a request need not be read, where there is a reason."""
        if self.state != "ok":
            message = f"the server is {self.state} {self.error}".strip()
            return Problem(503, "NotReady", message, headers={"Retry-After": "2"})
        if self.bytes_held > max(self.limits.max_bytes, self.limits.max_body):
            message = f"requests of more than {self.limits.max_bytes} bytes are under way; try again later"
            return Problem(503, "Overloaded", message, headers={"Retry-After": "1"})
        try:
            self.batcher.check_room(1)
        except Overloaded as error:
            return _overloaded(error)
        return None

    async def score(
        self, samples: Sequence[Sample], is_gone: Callable[[], Awaitable[bool]], patience: float = math.inf
    ) -> Scored:
        """Score the samples of a request.

        Args:
            samples: The samples.
            is_gone: Whether the client is.
            patience: Seconds after which it will be.

        Raises:
            Problem: It cannot be scored, now or at all.
        """
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        Tree(self.reward).check(samples)
        try:
            # Looks at groups by content, which may be images.
            future = await asyncio.to_thread(self.batcher.submit, samples, alone=self.under_way <= 1)
        except Overloaded as error:
            raise _overloaded(error) from None
        waiting = asyncio.wrap_future(future)
        seconds = min(self.limits.deadline, patience)
        until = asyncio.get_running_loop().time() + seconds
        try:
            while True:
                done, _ = await asyncio.wait([waiting], timeout=LOOK_EVERY)
                if done:
                    try:
                        answer = waiting.result()
                    except TimeoutError:
                        raise Problem(504, "Deadline", f"not scored within {seconds:g} s") from None
                    self.metrics.samples.inc(len(samples))
                    self.metrics.failures.inc(len(answer.batch.errors))
                    return answer
                if await is_gone():
                    raise Problem(499, "Gone", "the client went away")
                if asyncio.get_running_loop().time() > until:
                    raise Problem(504, "Deadline", f"not scored within {seconds:g} s")
        finally:
            if not waiting.done():
                waiting.cancel()
                self.batcher.forget(future)


def _overloaded(error: Overloaded) -> Problem:
    return Problem(503, "Overloaded", str(error), headers={"Retry-After": f"{error.retry_after:.0f}"})
