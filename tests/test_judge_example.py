"""`examples/judge.py`, run as a user runs it, against a scripted server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chat_server import Answer, ChatServer, Request, Script, first_token, nobody_listens, said, status
from PIL import Image

EXAMPLE = Path(__file__).parent.parent / "examples" / "judge.py"
COLOURS = ("red", "blue")


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """A red one and a blue one."""
    paths = [str(tmp_path / f"{colour}.png") for colour in COLOURS]
    for path, colour in zip(paths, COLOURS, strict=True):
        Image.new("RGB", (8, 8), colour).save(path)
    return paths


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Warnings are errors, and a terminal is wide."""
    command = [sys.executable, "-W", "error", str(EXAMPLE), "--api-base-url", url, "--model", "judge", *arguments]
    environment = {**os.environ, "COLUMNS": "240", "OPENAI_API_KEY": "secret-7"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def red_is_better(request: Request) -> Answer:
    """Compares the two images that it is shown."""
    first, second = (image.convert("RGB").getpixel((0, 0)) for image in request.images)
    assert {first, second} == {(255, 0, 0), (0, 0, 255)}
    return said(f"Verdict: {'A' if first == (255, 0, 0) else 'B'}")


def red_has_more(request: Request) -> Answer:
    """Scores the images by the ids that stand before them."""
    reds = [image.convert("RGB").getpixel((0, 0)) == (255, 0, 0) for image in request.images]
    entries = [f'{{"id": "R{number}", "score": {9 if red else 2}}}' for number, red in enumerate(reds, 1)]
    return said(f'{{"scores": [{", ".join(entries)}]}}')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "answer", "scores"),
    [
        ("yes_no", first_token({"Yes": -0.25, "No": -1.75}), ["0.8176"] * 2),  # 1 / (1 + exp(-1.5))
        ("rating", said("Fine [/b] :x:\nScore: 7"), ["0.6667"] * 2),
        ("rubric", said('{"faithfulness": 5, "quality": 2}'), ["0.6250"] * 2),  # (1 + 1/4) / 2
        ("pairwise", red_is_better, ["1.0000", "0.0000"]),
        ("ranking", red_has_more, ["0.9000", "0.2000"]),
    ],
)
def test_scores_of_images(images: list[str], kind: str, answer: Answer | Script, scores: list[str]) -> None:
    """A row for each image, with its score and its metadata; the prompt and the key from the environment are sent."""
    with ChatServer(answer) as server:
        done = run(server.url, "--prompt", "a red cat", "--image", *images, "--kind", kind)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    assert [row[:2] for row in rows] == [list(row) for row in zip(images, scores, strict=True)]
    assert "tokens" in done.stdout
    assert "attempts" in done.stdout
    assert ("Fine [/b] :x: Score: 7" in done.stdout) is (kind == "rating")  # a reply is no markup
    assert all("a red cat" in request.text for request in server.requests)
    assert all(request.headers["Authorization"] == "Bearer secret-7" for request in server.requests)
    assert "secret-7" not in done.stdout


@pytest.mark.slow
def test_responses_without_a_prompt() -> None:
    """Texts are judged, too, and nothing is asked about a prompt that is not there."""
    with ChatServer(lambda request: said(f"Score: {4 if 'fine' in request.text else 10}")) as server:
        done = run(server.url, "--response", "A fine answer.", "Another one.", "--kind", "rating")
    assert done.returncode == 0, done.stderr
    assert "A fine answer. │ 0.3333" in done.stdout
    assert "Another one.   │ 1.0000" in done.stdout
    assert not any("prompt" in request.text for request in server.requests)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (said("I would rather not."), "rating", "I would rather not."),
        (said("Yes"), "yes_no", "no log-probabilities"),
        (status(404, {"error": {"message": "The model `judge` does not exist."}}), "rating", "`judge` does not exist"),
    ],
)
def test_what_cannot_be_scored(images: list[str], answer: Answer, kind: str, message: str) -> None:
    """Status 1, one message without a traceback, and no table."""
    with ChatServer(answer) as server:
        done = run(server.url, "--prompt", "a red cat", "--image", *images, "--kind", kind)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_no_server_and_no_image(images: list[str]) -> None:
    """The same where nobody listens, and where there is no such file; and 2 where there is nothing to judge."""
    with nobody_listens() as url:
        gone = run(url, "--image", "no-such-file.png")
        nothing = run(url, "--prompt", "a red cat")
    assert (gone.returncode, nothing.returncode) == (1, 2)
    assert "no-such-file.png" in gone.stderr
    assert "Traceback" not in gone.stderr
    assert "--image --response is required" in nothing.stderr
