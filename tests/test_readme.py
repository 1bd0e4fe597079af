"""The README's example and commands are true."""

import contextlib
import io
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_runs_and_prints_what_it_says() -> None:
    """As it stands, in about ten lines."""
    (example,) = blocks("python")
    said = example.rpartition("# ")[2].strip()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102
    assert printed.getvalue().split() == said.split()
    assert len([line for line in example.splitlines() if line.strip()]) <= 10


def test_there_are_exactly_two_commands() -> None:
    """One runs the main job, one the tests; their files are there."""
    main_job, tests = (block.strip() for block in blocks("sh"))
    assert main_job.count("\n") == tests.count("\n") == 0
    for argument in shlex.split(main_job):
        if argument.startswith("examples/"):
            assert (ROOT / argument).exists(), argument
    assert tests.endswith("-m pytest")


def test_links_lead_somewhere() -> None:
    """Every file that the README links to exists."""
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert "://" in target or (ROOT / target).exists(), target


def test_the_top_level_holds_what_the_design_names() -> None:
    """Anything else belongs into one of the folders."""
    named = {"flux_rewards", "tests", "examples", "docs", "pyproject.toml", "README.md", "LICENSE"}
    ignored = {"site", "build", "dist"}  # what tools leave behind, and git ignores
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "scores."))}
    assert found - ignored == named
