"""`examples/serve_judge.sh` with a `vllm` that prints its arguments: what it starts, and what it refuses."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "examples" / "serve_judge.sh"
ARGUMENTS = 'printf "%s\\n" "$@"; echo "key: ${VLLM_API_KEY-none}"'
EVERYWHERE = "0.0.0.0"  # noqa: S104  # nothing listens: the vllm here only prints
TWO_GPUS = {"CUDA_VISIBLE_DEVICES": "0,1"}


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of all programs that the script finds: among them vllm, and nvidia-smi on a machine with four GPUs."""
    folder = tmp_path / "programs"
    for name in ("bash", "grep", "basename"):
        program(folder, name, f'exec {shutil.which(name)} "$@"')
    program(folder, "vllm", ARGUMENTS)
    program(folder, "nvidia-smi", r"printf 'GPU %d: NVIDIA H200 (UUID: GPU-8f2c)\n' 0 1 2 3")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "My Judge-7B"
    folder.mkdir(parents=True)
    return folder


def serve(
    programs: Path, settings: Mapping[str, str], *arguments: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the script with this environment, and no other."""
    environment = {"PATH": str(programs), **settings}
    command = [str(shutil.which("bash")), str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=20, check=False)


def started(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The arguments that vllm got."""
    assert done.returncode == 0, done.stderr
    *arguments, key = done.stdout.splitlines()
    assert key.startswith("key: ")
    return arguments


def options(arguments: list[str]) -> dict[str, str]:
    """The options after `serve MODEL`, by name."""
    return dict(zip(arguments[2::2], arguments[3::2], strict=True))


def test_the_defaults(programs: Path, model: Path) -> None:
    """A copy of the model on each GPU that nvidia-smi lists, on loopback, under the folder's name."""
    done = serve(programs, {"MODEL_PATH": str(model)})
    assert started(done) == [
        *("serve", str(model), "--served-model-name", "My Judge-7B", "--host", "127.0.0.1", "--port", "8000"),
        *("--tensor-parallel-size", "1", "--data-parallel-size", "4", "--max-model-len", "8192"),
    ]
    assert "vlm_model='My Judge-7B', api_base_url='http://127.0.0.1:8000/v1'" in done.stderr


def test_every_setting_arrives_and_further_arguments_come_last(programs: Path, model: Path) -> None:
    """Each variable has its option; arguments keep their spaces, and come where vLLM lets the last one win."""
    settings = {
        "MODEL_PATH": str(model),
        "SERVED_NAME": "judge",
        "HOST": "::1",
        "PORT": "8001",
        "TENSOR_PARALLEL": "2",
        "DATA_PARALLEL": "1",
        "MAX_MODEL_LEN": "32768",
    }
    limit = '{"image": 2}'
    arguments = started(serve(programs, settings, "--limit-mm-per-prompt", limit))
    assert arguments[-2:] == ["--limit-mm-per-prompt", limit]
    assert options(arguments) == {
        "--served-model-name": "judge",
        "--host": "::1",
        "--port": "8001",
        "--tensor-parallel-size": "2",
        "--data-parallel-size": "1",
        "--max-model-len": "32768",
        "--limit-mm-per-prompt": limit,
    }


@pytest.mark.parametrize(
    ("visible", "tensor", "data"),
    [
        (None, "1", "4"),
        (None, "4", "1"),
        ("0", "1", "1"),
        ("2,3", "1", "2"),
        ("0, 1, 2, 3, 4, 5", "2", "3"),
        ("GPU-8f2c,GPU-11aa", "2", "1"),
        ("MIG-8f2c,MIG-11aa,MIG-22bb", "1", "3"),
        ("0,1,-1,2", "1", "2"),
    ],
)
def test_data_parallel_from_the_visible_gpus(
    programs: Path, model: Path, visible: str | None, tensor: str, data: str
) -> None:
    """CUDA_VISIBLE_DEVICES first (up to its first entry that is no device, as CUDA reads it), else nvidia-smi."""
    settings = {"MODEL_PATH": str(model), "TENSOR_PARALLEL": tensor}
    if visible is not None:
        settings["CUDA_VISIBLE_DEVICES"] = visible
    found = options(started(serve(programs, settings)))
    assert (found["--tensor-parallel-size"], found["--data-parallel-size"]) == (tensor, data)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("My Judge-7B", "My Judge-7B"),
        ("./My Judge-7B//", "My Judge-7B"),
        ("../models/My Judge-7B/.", "."),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B-Instruct"),
    ],
)
def test_the_served_name_is_the_last_part_of_the_path(programs: Path, model: Path, path: str, name: str) -> None:
    """Of a folder, however it is written, or of a name at Hugging Face; the path itself arrives as given."""
    arguments = started(serve(programs, {"MODEL_PATH": path, **TWO_GPUS}, folder=model.parent))
    assert arguments[1] == path
    assert options(arguments)["--served-model-name"] == name.replace(".", model.name, name == ".")


def test_the_key_is_handed_on_in_the_environment_alone(programs: Path, model: Path) -> None:
    """It finds VLLM_API_KEY itself; neither its arguments nor anything printed hold it."""
    settings = {"MODEL_PATH": str(model), "VLLM_API_KEY": "secret-7", "HOST": EVERYWHERE, **TWO_GPUS}
    done = serve(programs, settings)
    assert done.stdout.endswith("key: secret-7\n")
    assert (
        "secret-7" not in " ".join(started(done)) + done.stderr + serve(programs, {**settings, "DRY_RUN": "1"}).stdout
    )


@pytest.mark.parametrize(("host", "warned"), [(EVERYWHERE, True), ("localhost", False), ("127.0.0.1", False)])
def test_an_open_server_is_pointed_out(programs: Path, model: Path, host: str, warned: bool) -> None:
    """One that other machines reach and that asks for no key."""
    done = serve(programs, {"MODEL_PATH": str(model), "HOST": host, **TWO_GPUS})
    assert ("anyone may ask" in done.stderr) is warned


def test_a_dry_run_prints_the_command(programs: Path, model: Path) -> None:
    """As a shell reads it, and starts nothing."""
    settings = {"MODEL_PATH": str(model), **TWO_GPUS}
    dry = serve(programs, {**settings, "DRY_RUN": "1"}, "--seed", "a b")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert shlex.split(dry.stdout) == ["vllm", *started(serve(programs, settings, "--seed", "a b"))]


@pytest.mark.parametrize(
    ("settings", "arguments", "missing", "message"),
    [
        ({}, (), "", r"MODEL_PATH is not set: give the folder"),
        ({"MODEL_PATH": "/no/such/folder"}, (), "", r"'/no/such/folder' is no folder"),
        ({"MODEL_PATH": "no-such-folder"}, (), "", r"'no-such-folder' is no folder"),
        ({"MODEL_PATH": "no/such/folder"}, (), "", r"'no/such/folder' is no folder"),
        ({"MODEL_PATH": "a/b"}, (), "vllm", r"vllm is not installed.*pip install vllm"),
        ({"MODEL_PATH": "a/b"}, (), "nvidia-smi", r"no GPU is visible \(CUDA_VISIBLE_DEVICES: not set\)"),
        ({"MODEL_PATH": "a/b", "CUDA_VISIBLE_DEVICES": ""}, (), "", r"no GPU is visible \(CUDA_VISIBLE_DEVICES: \)"),
        ({"MODEL_PATH": "a/b", "CUDA_VISIBLE_DEVICES": "-1"}, (), "", r"no GPU is visible.*CUDA_VISIBLE_DEVICES=0,1"),
        (
            {"MODEL_PATH": "a/b", "TENSOR_PARALLEL": "3"},
            (),
            "",
            r"TENSOR_PARALLEL=3 does not divide the 4 visible GPUs",
        ),
        (
            {"MODEL_PATH": "a/b", "TENSOR_PARALLEL": "8"},
            (),
            "",
            r"TENSOR_PARALLEL=8 does not divide the 4 visible GPUs",
        ),
        (
            {"MODEL_PATH": "a/b", "TENSOR_PARALLEL": "2", "DATA_PARALLEL": "3"},
            (),
            "",
            r"TENSOR_PARALLEL=2 times DATA_PARALLEL=3 is more than the 4 visible GPUs",
        ),
        ({"MODEL_PATH": "a/b", "TENSOR_PARALLEL": "0"}, (), "", r"TENSOR_PARALLEL must be a whole number.*not '0'"),
        ({"MODEL_PATH": "a/b", "DATA_PARALLEL": "two"}, (), "", r"DATA_PARALLEL must be a whole number.*not 'two'"),
        ({"MODEL_PATH": "a/b", "PORT": "8000x"}, (), "", r"PORT must be a whole number.*not '8000x'"),
        ({"MODEL_PATH": "a/b", "MAX_MODEL_LEN": "a[$(touch f)]"}, (), "", r"MAX_MODEL_LEN must be a whole number"),
        ({"MODEL_PATH": "a/b"}, ("--api-key", "secret-7"), "", r"set VLLM_API_KEY in the environment"),
        ({"MODEL_PATH": "a/b"}, ("--api_key=secret-7",), "", r"set VLLM_API_KEY in the environment"),
    ],
)
def test_what_is_refused(
    programs: Path,
    settings: dict[str, str],
    arguments: tuple[str, ...],
    missing: str,
    message: str,
) -> None:
    """With status 2, nothing started, and words that say what to do; a dry run refuses the same."""
    if missing:
        (programs / missing).unlink()
    for dry in ("", "1"):
        done = serve(programs, {**settings, "DRY_RUN": dry}, *arguments, folder=programs.parent)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("serve_judge.sh: ")
        assert re.search(message, done.stderr.replace("\nserve_judge.sh:", "")), done.stderr
        assert "secret-7" not in done.stderr
    assert not (programs.parent / "f").exists()  # a value is no shell's arithmetic
