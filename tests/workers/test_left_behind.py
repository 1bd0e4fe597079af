"""No process is left behind, however the caller's process ends, and its program is not run again."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from workers import jobs
from workers.processes import alive, children_of, left_after

from flux_rewards.workers.pool import KillablePool

TESTS = str(Path(__file__).parents[1])

BEGIN = f"""
import os, sys, threading, time
sys.path.insert(0, {TESTS!r})
from workers import jobs
from flux_rewards.workers.pool import KillablePool
print("run", __name__, flush=True)
pool = KillablePool(2)
"""
HANG = (
    BEGIN
    + """
def hang():
    pool.run(jobs.loop_in_c, [(path,) for path in sys.argv[1:]], timeout=3600)
threading.Thread(target=hang, daemon=True).start()
"""
)
WAIT = "while not all(os.path.exists(path) and os.path.getsize(path) for path in sys.argv[1:]): time.sleep(0.01)\n"
TELL = 'print("ready", flush=True)\n'


def program(folder: Path, text: str) -> tuple[subprocess.Popen[str], list[Path]]:
    """Start a program that is no importable module, and has no guard around its body."""
    script = folder / "train.py"
    script.write_text(text)
    began = [folder / "first", folder / "second"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(script), *map(str, began)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, began


def until_ready(process: subprocess.Popen[str]) -> set[int]:
    """Wait for the program's word; returns the processes below it."""
    assert process.stdout is not None
    for line in process.stdout:
        if line == "ready\n":
            break
    return children_of(process.pid)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_parent_that_is_killed_leaves_no_worker(tmp_path: Path, signal_number: signal.Signals) -> None:
    """While both workers are within one call of C."""
    process, began = program(tmp_path, HANG + WAIT + TELL + "time.sleep(3600)\n")
    below = until_ready(process)
    assert {int(path.read_text()) for path in began} < below
    assert len(below) == 3  # the server, too
    process.send_signal(signal_number)
    process.wait()
    assert left_after(below) == set()
    process.communicate()


@pytest.mark.parametrize("how", ["child", "fork", "session", "daemon"])
@pytest.mark.parametrize("then_hang", [True, False])
def test_what_a_job_started_ends_with_its_worker(tmp_path: Path, how: str, then_hang: bool) -> None:
    """At the limit at once, else when the pool is closed: also what has a session of its own, or no parent any more."""
    with KillablePool(1) as pool:
        begun = tmp_path / "child"
        job = functools.partial(jobs.start, then_hang=then_hang)
        (outcome,) = pool.run(job, [(how, str(begun))], timeout=1.0 if then_hang else 60.0)
        child = int(begun.read_text())
        assert outcome.status == ("timed_out" if then_hang else "ok")
        assert alive({child}) == (set() if then_hang else {child})
        assert pool.run(jobs.square, [(3,)], timeout=60)[0].value == 9
    assert alive({child}) == set()


def test_a_parent_that_is_killed_leaves_nothing_that_a_job_started(tmp_path: Path) -> None:
    """Neither in the worker's session nor in another."""
    text = (
        BEGIN
        + """
def hang(how, path):
    pool.run(jobs.start_and_hang, [(how, path)], timeout=3600)
for how, path in zip(("child", "session"), sys.argv[1:]):
    threading.Thread(target=hang, args=(how, path), daemon=True).start()
"""
        + WAIT
        + TELL
        + "time.sleep(3600)\n"
    )
    process, began = program(tmp_path, text)
    below = until_ready(process)
    assert {int(path.read_text()) for path in began} < below
    process.kill()
    process.wait()
    assert left_after(below) == set()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    ["", "os._exit(0)\n", "os.abort()\n"],
    ids=["last line", "os._exit", "abort"],
)
def test_a_program_that_ends_leaves_no_worker(tmp_path: Path, end: str) -> None:
    """Nothing was closed, and jobs were under way."""
    process, _ = program(tmp_path, HANG + WAIT + TELL + "sys.stdin.readline()\n" + end)
    below = until_ready(process)
    assert len(below) == 3
    errors = process.communicate("\n", timeout=60)[1]
    assert left_after(below) == set()
    assert "Traceback" not in errors


def test_the_program_is_not_run_again(tmp_path: Path) -> None:
    """A training script without a guard runs once."""
    text = BEGIN + "print([outcome.value for outcome in pool.run(jobs.square, [(2,), (3,)], timeout=60)])\n"
    process, _ = program(tmp_path, text)
    assert process.communicate(timeout=60)[0].splitlines() == ["run __main__", "[4, 9]"]
    assert process.returncode == 0


def test_a_function_of_the_program_itself_is_refused(tmp_path: Path) -> None:
    """With what to do instead."""
    text = (
        BEGIN + "def score(text): return 1.0\n"
        "try: pool.run(score, [('a',)], timeout=60)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    process, _ = program(tmp_path, text)
    told = process.communicate(timeout=60)[0].splitlines()[1]
    assert told.startswith("ConfigError")
    assert "in a module that can be imported" in told


def test_a_program_with_many_open_files(tmp_path: Path) -> None:
    """As of data loaders: descriptors above 1,023 are like any other."""
    text = (
        "import os, resource, sys\n"
        "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (2048, most))\n"
        "kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]\n"
    )
    text += BEGIN + "print([pool.run(jobs.square, [(2,)], timeout=60)[0].value for _ in range(2)])\n"
    process, _ = program(tmp_path, text)
    assert process.communicate(timeout=60)[0].splitlines()[1:] == ["[4, 4]"]


@pytest.mark.slow
def test_a_file_beside_the_program_hides_no_module(tmp_path: Path) -> None:
    """One named json.py, in the working directory and not on the program's path."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "json.py").write_text("raise RuntimeError('not meant')\n")
    text = (
        BEGIN + f"os.chdir({str(tmp_path / 'beside')!r})\nprint(pool.run(jobs.square, [(2,)], timeout=60)[0].value)\n"
    )
    process, _ = program(tmp_path, text)
    assert process.communicate(timeout=60)[0].splitlines()[1:] == ["4"]


FORKS = (
    BEGIN
    + """
pool.run(jobs.square, [(2,)], timeout=60)
child = os.fork()
if child == 0:
    outcome, = pool.run(jobs.square, [(3,)], timeout=60)
    print("child", outcome.value, flush=True)
    open(sys.argv[1], "w").write(str(os.getpid()))
    if "%s" == "stays":
        time.sleep(3600)
    sys.exit(0)
if "%s" == "stays":
    while not os.path.exists(sys.argv[1]) or not os.path.getsize(sys.argv[1]): time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(3600)
assert os.waitpid(child, 0)[1] == 0
print("parent", pool.run(jobs.square, [(4,)], timeout=60)[0].value)
"""
)


@pytest.mark.slow
def test_a_forked_child_has_workers_of_its_own(tmp_path: Path) -> None:
    """Both go on, and neither takes the other's along."""
    process, _ = program(tmp_path, FORKS % ("ends", "ends"))
    assert process.communicate(timeout=60)[0].splitlines()[1:] == ["child 9", "parent 16"]
    assert process.returncode == 0


@pytest.mark.slow
def test_a_forked_child_that_lives_on_keeps_no_worker_of_the_parent(tmp_path: Path) -> None:
    """The parent is killed: its workers end, the child's stay until the child ends."""
    process, began = program(tmp_path, FORKS % ("stays", "stays"))
    below = until_ready(process)
    child = int(began[0].read_text())
    of_child = children_of(child)
    of_parent = below - of_child - {child}
    assert of_child
    assert of_parent
    process.kill()
    process.wait()
    assert left_after(of_parent) == set()
    os.kill(child, signal.SIGKILL)
    assert left_after({child, *of_child}) == set()
    process.communicate()


@pytest.mark.slow
def test_a_daemonic_process_may_use_it(tmp_path: Path) -> None:
    """Such as a worker of a data loader, which may have no children of multiprocessing."""
    (tmp_path / "loading.py").write_text(
        "import os\nfrom workers import jobs\nfrom flux_rewards.workers.pool import KillablePool\n"
        "def load(queue):\n    queue.put(KillablePool(1).run(jobs.square, [(7,)], timeout=60)[0].value)\n"
    )
    text = (
        BEGIN + "import multiprocessing\nfrom loading import load\n"
        "context = multiprocessing.get_context('fork')\nqueue = context.SimpleQueue()\n"
        "process = context.Process(target=load, args=(queue,), daemon=True)\nprocess.start()\n"
        "print(queue.get())\nprocess.join()\n"
    )
    process, _ = program(tmp_path, text)
    assert process.communicate(timeout=60)[0].splitlines()[1:] == ["49"]
    assert process.returncode == 0
