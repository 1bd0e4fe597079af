"""The documentation is true: its examples run, its configurations load, its names and links exist."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import flux_rewards
from flux_rewards import load_rewards
from flux_rewards.registry import _BUILTIN

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
OF_THEIR_OWN = ("reward_feedback", "judge", "custom_loop", "train_reward_model")  # have tests of their own
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*.py")) if path.stem not in OF_THEIR_OWN]


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page; those that only include a file are tested as that file."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [block for block in found if "--8<--" not in block]


def page_name(page: Path) -> str:
    """For the names of tests."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("example", EXAMPLES, ids=page_name)
def test_examples_run(example: Path) -> None:
    """Each in a process of its own; warnings are errors; something is printed."""
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("page", [page for page in DOCS if blocks(page, "python")], ids=page_name)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page in order, in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "snippet"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), namespace)  # noqa: S102


@pytest.mark.parametrize("page", [page for page in DOCS if blocks(page, "yaml")], ids=page_name)
def test_configurations_load(page: Path) -> None:
    """Every YAML block with rewards."""
    for block in blocks(page, "yaml"):
        assert load_rewards(yaml.safe_load(block)).train.weights


def test_the_configuration_of_the_main_job_loads() -> None:
    """Training and evaluation."""
    loaded = load_rewards(ROOT / "examples" / "gsm8k" / "rewards.yaml")
    assert loaded.eval is not loaded.train


def test_every_public_name_and_reward_is_documented() -> None:
    """In a guide or in the reference; every registered reward in the catalogue, and none that does not exist."""
    text = "\n".join(page.read_text() for page in DOCS)
    missing = [name for name in flux_rewards.__all__ if name != "__version__" and not re.search(rf"\b{name}\b", text)]
    assert missing == []
    catalogue = (ROOT / "docs" / "catalogue.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \(`", catalogue, flags=re.MULTILINE)) | {"function"} == set(_BUILTIN)


@pytest.mark.parametrize("page", DOCS, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files and headings of this documentation."""
    for file, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page}: {file}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page}: {file}#{anchor}"
