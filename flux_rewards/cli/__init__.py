"""The command line: score a file of samples, and look rewards up."""

from __future__ import annotations

import os
import sys

__all__ = ["INTERRUPTED", "main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


def main() -> None:
    """Run ``flux-rewards`` with the arguments of the process, and exit."""
    try:
        from flux_rewards.cli.app import app  # noqa: PLC0415  # importing the package stays free

        # As `python -m` has it, so that a configuration can name a reward in the folder where one works.
        if (here := os.getcwd()) not in sys.path:  # noqa: PTH109
            sys.path.insert(0, here)
        app(prog_name="flux-rewards")
    except KeyboardInterrupt:
        _leave_at_once()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _leave_at_once()
        raise


def _leave_at_once() -> None:
    # An ordinary exit would wait for every call that is in flight, and for a remote judge that is a long time.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)
