"""Memory: scoring many images holds the activations of one micro-batch at a time."""

import functools
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flux_rewards import CLIPScore, RewardFunction, Sample, VideoReward

BATCH = 16


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that come up within, as long as they live; in this thread only.

    Attributes:
        now: How many there are.
        most: How many there ever were.
    """

    now: int
    most: int

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(returned):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return returned

    def _count(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address not in self._alive:
            self._alive[address] = weakref.ref(storage, functools.partial(self._gone, address)), storage.nbytes()
            self.now += storage.nbytes()

    def _gone(self, address: int, reference: weakref.ref[Any]) -> None:
        self.now -= self._alive.pop(address)[1]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads make steps as small as these slower, many times where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photographs, so to say: 48x48 each, which is little beside the activations of a batch."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(8)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.transformers_clip(tmp_path_factory.mktemp("clip"))


def most_bytes(reward: RewardFunction, samples: Callable[[int], list[Sample]], count: int) -> int:
    """Beyond what is there once two are scored, such as weights."""
    memory = LiveBytes()
    with memory:
        reward(samples(2))
        before = memory.most = memory.now
        scores = reward(samples(count)).rewards
        assert len(scores) == count
        assert not np.isnan(scores).any()
    return memory.most - before


def test_the_count_is_right() -> None:
    """A million floats at most, though three times as many came up; views and what is gone count nothing."""
    with LiveBytes() as memory:
        for _ in range(3):
            tensor = torch.zeros(1000, 1000)
            tensor.view(-1)[:10].mul_(2)
            assert memory.now == 4_000_000
            del tensor
        assert memory.now == 0
    assert memory.most == 4_000_000


def test_a_thousand_images_take_the_memory_of_a_batch(clip: Path, files: list[Path]) -> None:
    """No more than two micro-batches of images, pixels and activations, whatever the number; prompts all differ."""

    def samples(count: int) -> list[Sample]:
        return [Sample(f"photo {number}", image=Image.open(files[number % 8])) for number in range(count)]

    reward = CLIPScore(str(clip), device="cpu", batch_size=BATCH)
    one = most_bytes(reward, samples, BATCH)
    assert one > BATCH * 3 * 32 * 32 * 4  # the prepared pixels alone
    assert most_bytes(reward, samples, 1000) <= 2 * one


def test_a_long_video_takes_the_memory_of_a_batch(clip: Path, files: list[Path]) -> None:
    """Frames in files, too."""

    def samples(count: int) -> list[Sample]:
        return [Sample("a photo", video=[str(files[number % 8]) for number in range(frames)]) for _ in range(count)]

    reward = VideoReward(CLIPScore(str(clip), device="cpu", batch_size=BATCH))
    frames = BATCH
    one = most_bytes(reward, samples, 1)
    frames = 150
    assert most_bytes(reward, samples, 3) <= 2 * one
