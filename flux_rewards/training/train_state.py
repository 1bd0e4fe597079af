"""What training changes for the whole process, put back afterwards."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import random
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from flux_rewards.errors import MissingDependencyError

__all__ = ["as_found", "import_trainer"]

_PACKAGES = ("trl", "peft", "datasets", "accelerate")
_LIBRARIES = ("transformers", "trl", "datasets", "accelerate", "peft")
_one_training = threading.Lock()


def import_trainer() -> ModuleType:
    """TRL, when all that training needs is installed.

    Raises:
        MissingDependencyError: A package is missing.
    """
    before = dict(os.environ)
    try:
        for name in _PACKAGES:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise MissingDependencyError(
                    f"training needs {', '.join(_PACKAGES)}, and {name} cannot be imported ({error}): "
                    'pip install "flux_rewards[train]"'
                ) from error
        return importlib.import_module("trl")
    finally:
        _restore_environment(before)  # torch's compiler names its cache there when it is imported


@contextlib.contextmanager
def as_found(seed: int) -> Iterator[None]:
    """Seeded generators, gradients on, quiet libraries; and all of it as it was afterwards.

    Trainers seed the process, write environment variables and keep their own state of devices, so there is one training
    at a time in a process; another thread's waits.

    Examples:
        >>> before = random.getstate()
        >>> with as_found(seed=3):
        ...     drawn = random.random()
        >>> random.getstate() == before
        True
    """
    import torch  # noqa: PLC0415  # loaded by those who train

    with _one_training, contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002  # the one that trainers seed
        on_gpu = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        stack.enter_context(torch.random.fork_rng(on_gpu))
        stack.callback(_restore_environment, dict(os.environ))
        stack.enter_context(_backends_kept(torch))
        stack.enter_context(_accelerate_kept())
        stack.enter_context(_quiet())
        stack.enter_context(warnings.catch_warnings())
        for kind in (FutureWarning, DeprecationWarning):  # of these libraries among themselves
            warnings.simplefilter("ignore", kind)
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        yield


def _restore_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


@contextlib.contextmanager
def _backends_kept(torch: ModuleType) -> Iterator[None]:
    holders = (
        (torch.backends.cudnn, ("benchmark", "deterministic", "enabled")),
        (torch.backends.cuda.matmul, ("allow_fp16_reduced_precision_reduction",)),
    )
    held = [(holder, name, getattr(holder, name)) for holder, names in holders for name in names]
    default, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        for holder, name, value in held:
            if getattr(holder, name) != value:
                setattr(holder, name, value)
        if torch.get_default_dtype() != default:
            torch.set_default_dtype(default)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)


@contextlib.contextmanager
def _accelerate_kept() -> Iterator[None]:
    """The state that accelerate shares between all of its objects: a caller may be in the middle of its own program."""
    state = importlib.import_module("accelerate.state")
    shared: list[dict[str, Any]] = [
        getattr(state, name)._shared_state  # noqa: SLF001  # there is no other way
        for name in ("PartialState", "AcceleratorState", "GradientState")
    ]
    before = [dict(held) for held in shared]
    try:
        yield
    finally:
        for held, values in zip(shared, before, strict=True):
            # A group of processes outlives the training: starting another one would not find its partners.
            if values or "RANK" not in os.environ:
                held.clear()
                held.update(values)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Say errors only: what there is to say about a run is in its report."""
    loggers = [logging.getLogger(name) for name in ("", *_LIBRARIES)]
    before = [(logger, logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    bars = importlib.import_module("transformers.utils.logging")
    shown = bars.is_progress_bar_enabled()
    for logger in loggers[1:]:
        logger.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
        for logger, level, handlers, propagate in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.propagate = propagate
