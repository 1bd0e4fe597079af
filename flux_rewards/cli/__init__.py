"""The command line: score a file of samples, and look rewards up."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

__all__ = ["INTERRUPTED", "TERMINATED", "main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

TERMINATED = 143
"""Exit code after SIGTERM, as a scheduler sends it."""


def main() -> None:
    """Run ``flux-rewards`` with the arguments of the process, and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from flux_rewards.cli.app import app  # noqa: PLC0415  # importing the package stays free

        # As `python -m` has it, so that a configuration can name a reward in the folder where one works.
        if (here := os.getcwd()) not in sys.path:  # noqa: PTH109
            sys.path.insert(0, here)
        app(prog_name="flux-rewards")
    except KeyboardInterrupt:
        _leave_at_once(INTERRUPTED)
    except SystemExit as end:
        if end.code in (INTERRUPTED, TERMINATED):
            _leave_at_once(end.code)
        raise


def _terminate(_signal: int, _frame: object) -> NoReturn:
    # As an exception, so that a half-written file is removed.
    raise SystemExit(TERMINATED)


def _leave_at_once(code: int) -> NoReturn:
    # An ordinary exit would wait for every call that is in flight, and for a remote judge that is a long time.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
