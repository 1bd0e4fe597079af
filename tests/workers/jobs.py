"""Jobs and rewards for worker processes, which import this module by its name."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flux_rewards import RewardFunction, RewardOutput, Sample
from flux_rewards.errors import OverLimitError

prepared: list[str] = []


def prepare() -> None:
    """What a server does before it forks."""
    prepared.append("here")


def cannot_prepare() -> None:
    """As where a package is missing."""
    raise ImportError("no module named 'algebra'")


def what_was_prepared() -> list[str]:
    """In a worker."""
    return prepared


def square(number: float) -> float:
    """Something quick."""
    return number * number


def process() -> int:
    """Which worker it is."""
    return os.getpid()


def nap(seconds: float) -> float:
    """Something slow."""
    time.sleep(seconds)
    return seconds


def loop_in_c(path: str = "") -> None:
    """Hours within one call of C, that nothing in Python interrupts; first says that it began."""
    if path:
        Path(path).write_text(str(os.getpid()))
    re.match(r"(a+)+$", "a" * 60 + "b")


def refuse() -> None:
    """As a guard does."""
    raise OverLimitError("9 terms, at most 8")


class UnpicklableError(Exception):
    """An exception that cannot be built again from its arguments."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def fail(how: str) -> Any:
    """Raises what cannot be sent as it is, or gives it."""
    if how == "exception":
        raise UnpicklableError(1, 2)
    if how == "exit":
        sys.exit("enough")
    return lambda: how


class Exits:
    """Ends the program that reads it."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class UnreadableElsewhereError(Exception):
    """An exception that can be read in the process that raised it, and in no other."""

    def __init__(self, process: int) -> None:
        super().__init__(process)
        if process != os.getpid():
            sys.exit(4)


def bring_the_caller_down(how: str) -> Any:
    """Gives, or raises, what exits when the caller reads it."""
    if how == "returned":
        return Exits()
    raise UnreadableElsewhereError(os.getpid())


def die(how: str) -> None:
    """Ends its process."""
    if how == "exit":
        os._exit(3)
    if how == "memory":
        bytearray(1 << 40)
    os.kill(os.getpid(), getattr(signal, how))


def chatter(words: str) -> str:
    """Says something on the way."""
    sys.stdout.write(words + "\n")
    sys.stderr.write(words + "\n")
    os.write(1, words.encode() + b"\n")
    return words


def echo(value: Any) -> Any:
    """Large values, both ways."""
    return value


class Moody(RewardFunction):
    """Scores the length of the response, unless it is told otherwise."""

    required_fields = ("response",)
    optional_fields = ()

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        """As the text says."""
        text = sample.response_text
        if text == "hang":
            loop_in_c()
        if text == "die":
            die("SIGSEGV")
        if text == "raise":
            raise ValueError("an odd text")
        if text == "none":
            return None
        return RewardOutput(float(len(text)), metadata={"process": os.getpid()}, parts={"half": len(text) / 2})


class Spread(RewardFunction):
    """The length of the response above its group's mean."""

    required_fields = ("response",)
    optional_fields = ()
    scope = "group"

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float]:
        """Of one whole group."""
        lengths = [len(sample.response_text) for sample in samples]
        return [length - sum(lengths) / len(lengths) for length in lengths]


def start_and_hang(how: str, path: str) -> None:
    """Never ends, and has started a process."""
    start(how, path, then_hang=True)


def start(how: str, path: str, *, then_hang: bool) -> None:
    """Starts a process that sleeps, and says which; then ends, or never does."""
    if how == "fork":
        child = os.fork()
        if child == 0:
            time.sleep(3600)
            os._exit(0)
    elif how == "daemon":  # a child of a child that has ended, in a session of its own
        code = "import os, time\nif os.fork() == 0:\n os.setsid()\n print(os.getpid(), flush=True)\n time.sleep(3600)"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as between:
            assert between.stdout is not None
            child = int(between.stdout.readline())
            between.stdout.close()
    else:
        child = subprocess.Popen(["/bin/sleep", "3600"], start_new_session=how == "session").pid
    Path(path).write_text(str(child))
    if then_hang:
        time.sleep(3600)
