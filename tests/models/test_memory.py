"""Memory: scoring many images holds the activations of one micro-batch at a time."""

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flux_rewards import AestheticScore, CLIPScore, PickScore, RewardFunction, Sample, VideoReward

BATCH = 16


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that come to be within, while they live; this thread's only.

    Attributes:
        now: How many there are.
        most: How many there ever were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: dict[weakref.ref[Any], int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(returned):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = weakref.ref(storage, self._gone)
                if reference not in self._known:
                    self._known[reference] = storage.nbytes()
                    self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        return returned

    def _gone(self, reference: weakref.ref[Any]) -> None:
        self.now -= self._known.pop(reference)
