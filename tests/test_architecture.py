"""The house: floors, free imports, the public surface."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flux_rewards

PACKAGE = Path(flux_rewards.__file__).parent

# A module imports only from floors below its own; siblings never import each other.
FLOORS: list[list[str]] = [
    ["errors", "sqlite_handle"],
    ["fingerprint", "callables", "validation", "lanes", "naming", "stats", "transience", "threads", "store"],
    ["data", "parameters", "meaning", "event_loop", "backoff", "shared", "plain"],
    ["grouping", "records"],
    ["media", "contract", "streams"],
    ["chunks"],
    ["tree"],
    ["job", "elsewhere"],
    ["pending", "dispatch"],
    ["executor"],
    ["views", "gradients"],
    ["base"],
    ["combinator"],
    ["composite", "transforms", "groups", "wrappers", "buffer", "models", "chat", "wire"],
    ["workers"],
    ["rewards", "remote", "batching"],
    ["registry", "advantages"],
    ["config_file"],
    ["config"],
    ["testing"],
    ["report", "verification", "server", "training"],
    ["integrations"],
    ["cli"],
]
# Within these packages, files build on one another.
HOUSES_OF_THEIR_OWN = {
    "rewards",
    "cli",
    "report",
    "media",
    "wrappers",
    "models",
    "verification",
    "chat",
    "wire",
    "remote",
    "server",
    "integrations",
    "advantages",
    "workers",
    "records",
    "training",
}


def module_names() -> list[str]:
    """Top-level modules and packages of the library."""
    found = [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    return sorted(found + [path.parent.name for path in PACKAGE.glob("*/__init__.py")])


def imports_of(name: str) -> set[str]:
    """The top-level modules of the library that a module imports when it runs, not for types only."""
    path = PACKAGE / f"{name}.py"
    files = [path] if path.exists() else sorted((PACKAGE / name).rglob("*.py"))
    found: set[str] = set()
    for file in files:
        tree = ast.parse(file.read_text())
        typing_only = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in typing_only:
                continue
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "flux_rewards":
                parts = node.module.split(".")
                found.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
            elif isinstance(node, ast.Import):
                found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("flux_rewards."))
    return found


def test_every_module_has_a_floor() -> None:
    """A new module must be placed before it can be built upon."""
    placed = sorted(name for floor in FLOORS for name in floor)
    assert module_names() == sorted(placed)


@pytest.mark.parametrize("name", [name for floor in FLOORS for name in floor])
def test_imports_go_down(name: str) -> None:
    """A module imports from floors below its own."""
    height = {module: level for level, floor in enumerate(FLOORS) for module in floor}
    for other in imports_of(name):
        if other == name and name in HOUSES_OF_THEIR_OWN:
            continue
        if other == "__version__":
            continue
        assert height[other] < height[name], f"{name} (floor {height[name]}) imports {other} (floor {height[other]})"


def test_no_trainer_is_imported_at_module_level() -> None:
    """The library imports nobody's trainer."""
    trainers = {
        *(
            "trl",
            "verl",
            "openrlhf",
            "verifiers",
            "flow_factory",
            "flow_grpo",
            "slime",
            "areal",
            "nemo_rl",
            "skyrl_gym",
        ),
        *("swift", "ray"),
    }
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not trainers & {name.split(".")[0] for name in names}, file


def test_files_hold_one_idea() -> None:
    """A file that wants to be 500 lines holds two."""
    long = {str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {file: lines for file, lines in long.items() if lines > 400} == {}


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_is_free() -> None:
    """`import flux_rewards` loads none of what a reward may need."""
    heavy = ["torch", "transformers", "open_clip", "numpy", "PIL", "openai", "requests", "asyncio", "yaml", "typer"]
    found = run(f"import sys, flux_rewards; print([name for name in {heavy} if name in sys.modules])")
    assert found == "[]"


def test_text_rewards_load_no_torch() -> None:
    """Scoring text must not wait for a deep learning framework."""
    found = run(
        "import sys, flux_rewards as fr\n"
        "fr.CompositeReward([(fr.LengthReward(4), 1.0)])(response=['a b'])\n"
        "print([name for name in ('torch', 'transformers', 'open_clip', 'openai') if name in sys.modules])"
    )
    assert found == "[]"


def test_command_line_help_loads_no_torch() -> None:
    """`flux-rewards --help` answers at once."""
    found = run(
        "import sys, contextlib, io\n"
        "sys.argv = ['flux-rewards', '--help']\n"
        "from flux_rewards.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "print([name for name in ('torch', 'transformers', 'open_clip', 'openai') if name in sys.modules])"
    )
    assert found == "[]"


def test_every_public_name_resolves() -> None:
    """`__all__`, the lazy table and what is there are one and the same."""
    assert flux_rewards.__all__ == sorted(flux_rewards.__all__)
    assert sorted(flux_rewards._HOMES) == [name for name in flux_rewards.__all__ if name != "__version__"]
    for name in flux_rewards.__all__:
        assert getattr(flux_rewards, name) is not None
    assert set(flux_rewards.__all__) <= set(dir(flux_rewards))


def test_the_type_checkers_view_is_the_lazy_table() -> None:
    """What a type checker sees under TYPE_CHECKING is what the table loads."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == flux_rewards._HOMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typo fails as it does in any module."""
    with pytest.raises(AttributeError, match="LenghtReward"):
        flux_rewards.LenghtReward  # noqa: B018


def test_everything_public_has_a_docstring_with_an_example() -> None:
    """What users import tells what it does; what they call shows it."""
    without_example = {"Sample", "Trajectory", "RewardBatch", "RewardOutput"}
    for name in flux_rewards.__all__:
        value = getattr(flux_rewards, name)
        if name == "__version__":
            continue
        doc = value.__doc__
        assert doc, name
        if not (isinstance(value, type) and issubclass(value, Exception)) and name not in without_example:
            assert ">>>" in doc or name in {"Executor", "LoadedRewards"}, f"{name} has no example"
