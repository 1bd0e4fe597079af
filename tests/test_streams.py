"""CUDA streams: scoring beside a producer. What needs a GPU runs where there is one."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from flux_rewards import Executor, RewardBuffer, RewardFunction, Sample, Timeout
from flux_rewards.streams import beside, produced

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def occupy(cycles: int) -> None:
    """Keep the device busy."""
    torch.cuda._sleep(cycles)


class Mean(RewardFunction):
    """The mean of an image, computed where it lies."""

    required_fields = ("image",)
    use_tensor_inputs = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.streams: set[int] = set()

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        images = torch.stack([sample.image for sample in samples])
        if images.is_cuda:
            self.streams.add(torch.cuda.current_stream().cuda_stream)
        return images.mean(dim=(1, 2, 3))


def test_without_cuda_there_is_nothing_to_wait_for() -> None:
    """And looking for it does not set it up."""
    before = torch.cuda.is_initialized()
    marks = produced([Sample(image=torch.zeros(3, 4, 4), condition_images=[torch.zeros(3, 4, 4)])])
    assert torch.cuda.is_initialized() == before
    if not before:
        assert marks == {}
    with beside({}):
        pass
    with Executor() as executor:
        batch = executor.submit(Mean(), [Sample(image=torch.full((3, 4, 4), 0.5))]).result(timeout=60)
    assert batch.rewards.tolist() == [0.5]


@needs_gpu
def test_scoring_waits_for_what_was_begun_and_not_for_what_follows() -> None:
    """The pixels that the producer was still writing are seen; its next second of work is not waited for."""
    images = torch.zeros(4, 3, 16, 16, device="cuda")
    reward = Mean()
    with RewardBuffer(reward) as buffer:
        for value in (0.25, 0.75):  # the second time around nothing is set up any more
            torch.cuda.synchronize()
            occupy(50_000_000)
            images.fill_(value)
            buffer.add([Sample(image=image) for image in images])
            occupy(4_000_000_000)  # about two seconds
            batch = buffer.finalize(timeout=60)
            still_running = not torch.cuda.current_stream().query()
            assert batch.rewards.tolist() == [value] * 4
        assert still_running
    assert torch.cuda.current_stream().cuda_stream not in reward.streams
    assert len(reward.streams) == 1


@needs_gpu
def test_the_callers_stream_and_device_stay_as_they_are() -> None:
    """In the worker too, once the chunk is done."""
    device, stream = torch.cuda.current_device(), torch.cuda.current_stream()
    with beside(produced([Sample(image=torch.zeros(3, 4, 4, device="cuda"))])):
        assert torch.cuda.current_stream() != stream
        assert torch.cuda.current_device() == device
        result = torch.ones(1000, device="cuda").sum()
        own = torch.cuda.current_stream()
    assert own.query()  # nothing of it is left on the device
    assert result.item() == 1000
    assert torch.cuda.current_stream() == stream
    assert torch.cuda.current_device() == device


@needs_gpu
def test_a_limited_call_runs_on_its_callers_stream() -> None:
    """Its own thread must see what the caller has begun."""
    reward, stream = Mean(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        image = torch.zeros(3, 16, 16, device="cuda")
        occupy(50_000_000)
        image.fill_(0.5)
        assert Timeout(reward, 60.0)([Sample(image=image)]).rewards.tolist() == [0.5]
    assert reward.streams == {stream.cuda_stream}
