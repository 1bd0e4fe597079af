from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_clip
from hub import Hub
from PIL import Image

from flux_rewards import Gate, GroupRank, JPEGCompressibility, LengthReward, RewardFunction, Scale, VideoReward
from flux_rewards.cli.download import fetch_all, rewards_within

Download = Callable[..., subprocess.CompletedProcess[str]]

PICK, CLIP_H = "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
TEXTS: dict[str, bytes | str] = {"config.json": "{}", "tokenizer.json": "[1]", "preprocessor_config.json": "[12]"}
TOKEN = "hf_anOrdinaryTokenOfTheHub"  # noqa: S105  # nobody's


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with what `PickScore` and `HPSv2` need, by name."""
    with Hub() as server:
        server.add(PICK, {**TEXTS, "model.safetensors": b"p" * 2_500_000, "pytorch_model.bin": b"p"})
        server.add(CLIP_H, {**TEXTS, "model.safetensors": b"c"})
        server.add("xswu/HPSv2", {"HPS_v2.1_compressed.pt": b"h" * 1500, "HPS_v2_compressed.pt": b"h"})
        yield server


@pytest.fixture
def download(hub: Hub, tmp_path: Path) -> Download:
    """Run the real command in the test's folder, with an empty cache."""

    def run(*arguments: str, command: str = "download", **environment: str) -> subprocess.CompletedProcess[str]:
        variables = hub.environment(tmp_path / "home", **environment)
        variables["PYTHONPATH"] += f":{tmp_path}"
        return subprocess.run(
            [sys.executable, "-m", "flux_rewards", command, *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """All on stderr but the hub's progress bars."""
    return [line for line in done.stderr.splitlines() if line and "Fetching" not in line]


def snapshot(tmp_path: Path, hub: Hub, name: str) -> Path:
    folder = "models--" + name.replace("/", "--")
    return tmp_path / "home" / "hub" / folder / "snapshots" / hub.repositories[name].commit


def test_what_rewards_need_is_fetched(hub: Hub, download: Download, tmp_path: Path) -> None:
    """One format of the weights, once for all who need it; where it lies and its size are told."""
    done = download("PickScore", "PickScore_Rank", "hpsv2", "jpeg_compressibility")
    assert (done.returncode, errors(done)) == (0, [])
    assert "Fetching 4 files" in done.stderr
    pick, clip = snapshot(tmp_path, hub, PICK), snapshot(tmp_path, hub, CLIP_H)
    hps = snapshot(tmp_path, hub, "xswu/HPSv2") / "HPS_v2.1_compressed.pt"
    of_pick = [f"  {PICK}  2.5 MB  {pick}", f"  {CLIP_H} (without weights)  9 B  {clip}"]
    assert done.stdout.splitlines() == [
        "PickScore",
        *of_pick,
        "PickScore_Rank",
        *of_pick,
        "hpsv2",
        f"  xswu/HPSv2/HPS_v2.1_compressed.pt  1.5 kB  {hps}",
        "jpeg_compressibility: needs no files",
    ]
    assert hub.downloads(PICK) == sorted([*TEXTS, "model.safetensors"])
    assert hub.downloads(CLIP_H) == sorted(TEXTS)
    assert hub.requests.count(f"GET /{PICK}/resolve/{hub.repositories[PICK].commit}/model.safetensors") == 1

    before = len(hub.requests)
    offline = download("PickScore", "hpsv2", HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stderr) == (0, "")
    assert offline.stdout.splitlines() == [*done.stdout.splitlines()[:3], *done.stdout.splitlines()[6:8]]
    assert len(hub.requests) == before


CONFIG = """
rewards:
  - {name: brief, reward_model: length, target: 40}
  - name: film
    reward_model: retry
    reward:
      reward_model: video
      reward: {reward_model: clip_score, model_name_or_path: org/clip, model_revision: v2}
  - name: ranked
    reward_model: group_rank
    reward:
      reward_model: scale
      factor: 0.1
      reward: {reward_model: aesthetic_score, model_name_or_path: org/clip, head: head.pth}
eval_rewards:
  - {reward_model: length, target: 40}
  - {reward_model: hpsv2, version: "2.0", model_revision: main}
"""


def test_a_configuration_is_fetched_as_it_stands(hub: Hub, download: Download, tmp_path: Path) -> None:
    """With its parameters, in both sections, through wrappers and combinators, and files of one's own."""
    hub.add("org/clip", {**TEXTS, "model.safetensors": b"new"}, branches=("main", "v2"))
    (tmp_path / "rewards.yaml").write_text(CONFIG)
    (tmp_path / "head.pth").write_bytes(b"1234")
    clip = snapshot(tmp_path, hub, "org/clip")
    missing = download("--config", "rewards.yaml", "--list")
    assert (missing.returncode, missing.stderr) == (0, "")
    assert missing.stdout.splitlines() == [
        "brief: needs no files",
        "film",
        "  org/clip@v2  missing",
        "ranked",
        "  org/clip  missing",
        "  head.pth  4 B  head.pth",
        "HPSv2",
        "  xswu/HPSv2@main/HPS_v2_compressed.pt  missing",
    ]
    assert hub.requests == []
    done = download("--config", "rewards.yaml")
    assert (done.returncode, errors(done)) == (0, [])
    lines = done.stdout.splitlines()
    assert lines[2] == f"  org/clip@v2  12 B  {clip}"
    assert lines[-1].startswith("  xswu/HPSv2@main/HPS_v2_compressed.pt  1 B  ")
    assert "missing" not in done.stdout
    listed = download("--config", "rewards.yaml", "--list")
    assert listed.stdout == done.stdout


REWARDS_OF_OUR_OWN = """
from flux_rewards import RewardFunction
from flux_rewards.models.checkpoint import Checkpoint

class Undecided(RewardFunction):
    def checkpoints(self):
        raise NotImplementedError("not said yet")
    def compute_reward(self, sample):
        return 0.0

class Own(RewardFunction):
    def __init__(self):
        self.helpers = {"one": [Helper()]}
    def compute_reward(self, sample):
        return 0.0

class Helper(RewardFunction):
    def checkpoints(self):
        return [Checkpoint("xswu/HPSv2", "HPS_v2_compressed.pt")]
    def compute_reward(self, sample):
        return 0.0
"""


def test_failures_are_told_after_all_have_been_tried(hub: Hub, download: Download, tmp_path: Path) -> None:
    """In a line each on stderr, and by exit code 1; tokens are in none of them."""
    (tmp_path / "ours.py").write_text(REWARDS_OF_OUR_OWN)
    hub.repositories[PICK].gated = "hf_anotherToken"
    names = ("PickScore", "PickScor", "length", "ours.Undecided", "ours.Own", "face_similarity")
    done = download(*names, "-c", "none.yaml", HF_TOKEN=TOKEN)
    assert done.returncode == 1
    own = snapshot(tmp_path, hub, "xswu/HPSv2") / "HPS_v2_compressed.pt"
    assert done.stdout.splitlines() == [
        "PickScore",
        f"  {CLIP_H} (without weights)  9 B  {snapshot(tmp_path, hub, CLIP_H)}",
        "ours.Own",
        f"  xswu/HPSv2/HPS_v2_compressed.pt  1 B  {own}",
    ]
    told = errors(done)
    for line, begin in zip(
        told,
        [
            f"error: PickScore: {PICK} is gated: accept its terms",
            "error: PickScor: no reward is called 'PickScor' (did you mean 'PickScore'",
            "error: length: needs target: write it in a configuration, and run `flux-rewards download --config`",
            "error: ours.Undecided: not said yet",
            "error: face_similarity: needs model_name_or_path",
            "error: none.yaml: cannot be read",
        ],
        strict=True,
    ):
        assert line.startswith(begin), done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert f"Bearer {TOKEN}" in hub.authorizations


def test_without_a_hub_the_error_says_what_to_do(hub: Hub, download: Download) -> None:
    """And there is a traceback for those who want one."""
    hub.close()
    done = download("hpsv2", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: hpsv2: xswu/HPSv2/HPS_v2.1_compressed.pt is not on this machine")
    assert "Traceback" in download("hpsv2", "--debug", HF_HUB_OFFLINE="1").stderr


def test_nothing_to_fetch_is_a_wrong_usage(download: Download) -> None:
    """Rather than nothing done."""
    done = download()
    assert done.returncode == 2
    assert "name a reward, or give a configuration" in done.stderr


@pytest.mark.slow
def test_what_was_fetched_scores_without_a_network(hub: Hub, download: Download, tmp_path: Path) -> None:
    """A cluster whose nodes see no network: fetch where there is one, then score."""
    hub.add(PICK, tiny_clip.transformers_clip(tmp_path / "tiny"))
    hub.add(CLIP_H, tmp_path / "tiny")
    Image.new("RGB", (40, 30), (200, 40, 40)).save(tmp_path / "red.png")
    (tmp_path / "samples.jsonl").write_text(json.dumps({"prompt": "a red cat", "image": "red.png"}) + "\n")
    (tmp_path / "rewards.yaml").write_text("rewards: [{name: pick, reward_model: PickScore}]")
    assert download("--config", "rewards.yaml").returncode == 0
    hub.close()
    score = ("rewards.yaml", "samples.jsonl", "-o", "rows.jsonl")
    done = download(*score, command="score", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert -1 <= row["reward"] * 26 / 100 <= 1  # a cosine, scaled


def test_rewards_within_rewards_are_found() -> None:
    """Children, parameters, and what an author keeps in any attribute; each once, whatever the tree's shape."""

    class Holder(RewardFunction):
        def __init__(self, first: RewardFunction, others: dict[str, list[RewardFunction]]) -> None:
            self.held = (first, others)
            self.me = self

        def compute_reward(self, sample: object) -> float:
            return 0.0

    a = JPEGCompressibility()
    b, c = (LengthReward(target=target) for target in (1, 2))
    video = VideoReward(a)
    tree = GroupRank(Scale(Gate(video, b, 0.5), 2.0))
    holder = Holder(tree, {"others": [c, c, video]})
    found = rewards_within(holder)
    assert {id(reward) for reward in found} >= {id(reward) for reward in (holder, tree, video, a, b, c)}
    assert len({id(reward) for reward in found}) == len(found)


def test_needs_come_one_by_one() -> None:
    """A name that fails is told at once, and does not end it."""
    needs = fetch_all(["no such reward", "jpeg_compressibility"], local_only=True)
    assert "no reward is called" in str(next(needs).error)
    assert [(need.reward, need.checkpoint, need.path, need.error) for need in needs] == [
        ("jpeg_compressibility", None, None, None)
    ]
