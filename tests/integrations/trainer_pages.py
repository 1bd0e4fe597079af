"""The scripts of the documentation's pages on trainers."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs" / "trainers"


def script(page: str, title: str) -> str:
    """The block of a page with this title."""
    (found,) = re.findall(
        rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```', (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE
    )
    return str(found)


def ran(page: str, title: str) -> dict[str, Any]:
    """What a script leaves behind, run as a program."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(script(page, title), f"{page}: {title}", "exec"), namespace)  # noqa: S102
    return namespace
