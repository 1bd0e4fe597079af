"""`CircuitBreaker`: closed, open, and one call that tries."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rewards_of_our_own import Told, told

from flux_rewards import (
    CircuitBreaker,
    CompositeReward,
    ComputeError,
    ConfigError,
    FunctionReward,
    InputError,
    MaskErrors,
    Retry,
    RewardFunction,
    Sample,
)


class Service:
    """Up or down, counting its calls."""

    def __init__(self) -> None:
        self.up = True
        self.calls = 0
        self.now = 100.0

    def __call__(self, sample: Sample) -> float:
        self.calls += 1
        if not self.up:
            raise ConnectionError("refused")
        return 1.0

    def clock(self) -> float:
        return self.now


def breaker(service: Service, **options: Any) -> MaskErrors:
    """Three failures in a row, ten seconds."""
    reward = FunctionReward(service, name="service", **options)
    return MaskErrors(CircuitBreaker(reward, 3, reset_after=10.0, clock=service.clock), 1.0)


@pytest.mark.parametrize("workers", [1, 4])
def test_after_failures_in_a_row_nothing_is_called(workers: int) -> None:
    """Until the time is over; one success closes it."""
    service = Service()
    reward = breaker(service, num_workers=workers)
    service.up = False
    batch = reward([Sample()] * 50)
    assert len(batch.errors) == 50
    assert 3 <= service.calls <= 2 + workers
    assert "not called: 3 calls in a row failed, the last with ConnectionError: refused" in batch.errors[49]
    service.up, service.calls = True, 0
    service.now += 9.9
    assert len(reward([Sample()] * 5).errors) == 5
    assert service.calls == 0
    service.now += 0.2
    assert reward([Sample()]).errors == {}
    assert reward([Sample()] * 5).errors == {}
    assert service.calls == 6


def test_a_failed_try_opens_it_again() -> None:
    """For as long as before."""
    service = Service()
    reward = breaker(service)
    service.up = False
    reward([Sample()] * 3)
    service.now += 10.0
    service.calls = 0
    assert len(reward([Sample()] * 5).errors) == 5
    assert service.calls == 1
    service.now += 9.9
    reward([Sample()])
    assert service.calls == 1


def test_a_success_starts_the_count_anew() -> None:
    """In a row means in a row."""
    down = ConnectionError("refused")
    values: list[Any] = [down, down, 1.0, down, down, None, down, down, 2.0]
    batch = MaskErrors(CircuitBreaker(Told(), 3), 1.0)(told(*values))
    assert set(batch.errors.values()) == {"ConnectionError: refused"}
    assert sorted(batch.errors) == [0, 1, 3, 4, 6, 7]


def test_a_bad_sample_is_not_the_services_fault() -> None:
    """An `InputError` does not count."""
    values: list[Any] = [InputError("cannot be read")] * 9 + [1.0]
    batch = MaskErrors(CircuitBreaker(Told(), 3), 1.0)(told(*values))
    assert batch.rewards[9] == 1.0


def test_a_call_that_was_given_up_is_no_success(tmp_path: Path) -> None:
    """A batch with an image that cannot be read says nothing about the service."""
    calls: list[int] = []

    class Down(RewardFunction):
        required_fields = ("image",)

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            calls.append(len(samples))
            raise ConnectionError("refused")

    reward = CircuitBreaker(Down(), 2)
    good, bad = Sample(image=np.zeros((2, 2, 3), np.uint8)), Sample(image=tmp_path / "missing.png")
    for samples in ([good], [good, bad], [good], [good]):
        with pytest.raises((ComputeError, InputError)):
            reward(samples)
    assert calls == [1, 1]


def test_leaves_have_circuits_of_their_own() -> None:
    """A part that is down does not take the others along."""
    service, other = Service(), Service()
    service.up = False
    both = CompositeReward({"down": (FunctionReward(service), 1.0), "up": (FunctionReward(other), 1.0)})
    batch = MaskErrors(CircuitBreaker(both, 2), 1.0)([Sample()] * 10)
    assert (service.calls, other.calls) == (2, 10)
    assert batch.parts["up"].errors == {}


def test_around_a_retry_it_counts_what_stayed_failed() -> None:
    """And a refused call is not retried."""
    service = Service()
    service.up = False
    inner = Retry(FunctionReward(service), 2, sleep=lambda seconds: None)
    MaskErrors(Retry(CircuitBreaker(inner, 3), 5, sleep=lambda seconds: None), 1.0)([Sample()])
    assert service.calls == 6


def test_unmasked_the_refusal_raises() -> None:
    """With the reward's name and the sample's index."""
    service = Service()
    reward = CircuitBreaker(FunctionReward(service, name="service"), 1, clock=service.clock)
    service.up = False
    with pytest.raises(ComputeError, match="refused"):
        reward([Sample()])
    with pytest.raises(ComputeError, match=r"reward 'service', sample 0: not called: .* next try is in 30 s"):
        reward([Sample()])
    assert service.calls == 1


@pytest.mark.parametrize("arguments", [{"failures": 0}, {"reset_after": -1.0}])
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        CircuitBreaker(Told(), **arguments)
