"""`Cached`: what is known, what is not, and what never must be."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rewards_of_our_own import Counted, CountedAll, GroupMean, Told, told

from flux_rewards import (
    Cached,
    CircuitBreaker,
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    Executor,
    FunctionReward,
    GroupRank,
    InputError,
    LengthReward,
    MaskErrors,
    RewardBatch,
    RewardBuffer,
    RewardFunction,
    RewardOutput,
    Sample,
    Scale,
)
from flux_rewards.store import SQLiteStore


def texts(*responses: str) -> list[Sample]:
    """A sample for each."""
    return [Sample(response=response) for response in responses]


@pytest.fixture(params=["memory", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where the scores are kept."""
    return tmp_path / "scores.sqlite" if request.param == "file" else None


@pytest.mark.parametrize("options", [{}, {"num_workers": 4}, {"batch_size": 2}], ids=str)
def test_what_is_known_is_not_computed(path: Path | None, options: dict[str, Any]) -> None:
    """In the plain call, on an executor and in a buffer alike."""
    leaf = Counted(**options)
    reward = Cached(leaf, path)
    assert reward(texts("a", "bb", "ccc")).rewards.tolist() == [1.0, 2.0, 3.0]
    with Executor() as executor, RewardBuffer(reward) as buffer:
        batch = executor.submit(reward, texts("dddd", "bb", "a")).result(timeout=60)
        assert batch.rewards.tolist() == [4.0, 2.0, 1.0]
        assert (batch.stats["Counted"].cache_hits, batch.stats["Counted"].samples) == (2, 3)
        buffer.add(texts("ccc", "eeeee"))
        assert buffer.finalize(timeout=60).rewards.tolist() == [3.0, 5.0]
    assert sorted(leaf.asked) == ["a", "bb", "ccc", "dddd", "eeeee"]


SHARED = """
import sys
from flux_rewards import Cached, RewardFunction, Sample

class Length(RewardFunction):
    required_fields = ("response",)
    optional_fields = ()
    kinds = {"a", "bb", "ccc", "dddd"}  # a set, whose order changes with the seed of the hashes

    def __init__(self, factor, table, **options):
        super().__init__(**options)
        self.factor, self.table, self.asked = factor, table, []

    def compute_reward(self, sample):
        self.asked.append(sample.response)
        return self.factor * len(sample.response)

leaf = Length(2.0, {"x": 1, "y": {2, 3}, "f": max}, **eval(sys.argv[2]))
print(Cached(leaf, sys.argv[1])(response=eval(sys.argv[3])).rewards.tolist(), leaf.asked)
"""


def test_a_file_serves_other_objects_and_processes(tmp_path: Path) -> None:
    """By content: an equal reward made elsewhere, whatever its name and workers."""
    file, script = tmp_path / "scores.sqlite", tmp_path / "length.py"
    script.write_text(SHARED)

    def run(seed: int, options: dict[str, Any], responses: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, str(script), str(file), repr(options), repr(responses)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )
        return done.stdout.strip()

    assert run(1, {}, ["a", "bb"]) == "[2.0, 4.0] ['a', 'bb']"
    options = {"name": "other", "num_workers": 3, "batch_size": 1}
    assert run(2, options, ["a", "bb", "ccc"]) == "[2.0, 4.0, 6.0] ['ccc']"
    assert run(3, {"scale": 2.0}, ["a"]) == "[4.0] ['a']"


def test_equal_samples_are_computed_once(path: Path | None) -> None:
    """And each gets the score, or the failure."""
    leaf = Counted(num_workers=4)
    batch = Cached(leaf, path)(texts("a", "bb", "a", "bb", "a"))
    assert batch.rewards.tolist() == [1.0, 2.0, 1.0, 2.0, 1.0]
    assert sorted(leaf.asked) == ["a", "bb"]
    stats = batch.stats["Counted"]
    assert (stats.samples, stats.cache_hits, stats.calls) == (5, 3, 2)
    asked: list[str] = []

    def fails(sample: Sample) -> float:
        asked.append(str(sample.response))
        raise ConnectionError("down")

    failing = FunctionReward(fails, fields=["response"])
    batch = MaskErrors(Cached(failing, path), 1.0)(texts("a", "a", "b"))
    assert batch.errors == dict.fromkeys(range(3), "ConnectionError: down")
    assert (batch.stats["fails"].failures, batch.stats["fails"].cache_hits) == (3, 0)
    assert asked == ["a", "b"]


def test_failures_are_not_kept(path: Path | None) -> None:
    """What does not apply is, and stays told apart from a failure."""
    values: list[Any] = [1.0, ConnectionError("down"), None, 2.0]
    reward = Cached(Told(), path, fields=["response"])  # so that the told value is no part of the content
    samples = [Sample(response=str(row), metadata=sample.metadata) for row, sample in enumerate(told(*values))]
    first = MaskErrors(reward)(samples)
    assert first.errors == {1: "ConnectionError: down"}
    mended = [Sample(response=str(row), metadata={"told": 9.0}) for row in range(4)]
    second = MaskErrors(reward)(mended)
    np.testing.assert_array_equal(second.rewards, [1.0, 9.0, np.nan, 2.0])
    assert second.errors == {}
    assert second.not_applicable.tolist() == [False, False, True, False]


def test_what_was_scored_before_a_failure_is_kept(path: Path | None) -> None:
    """So that the next run goes on there."""
    reward = Cached(Told(), path, fields=["response"])
    samples = [Sample(response=str(row), metadata={"told": float(row)}) for row in range(5)]
    samples[3] = Sample(response="3", metadata={"told": ValueError("bad")})
    with pytest.raises(ComputeError) as caught:
        reward(samples)
    assert caught.value.index == 3
    again = [Sample(response=str(row), metadata={"told": -1.0}) for row in range(5)]
    assert reward(again).rewards.tolist() == [0.0, 1.0, 2.0, -1.0, -1.0]


class Everything(RewardFunction):
    """Answers with all that a row may hold."""

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        count = len(samples)
        part = RewardBatch(np.arange(count, dtype=np.float64) + 0.5, metadata=[{"why": "so"}] * count)
        return RewardBatch(
            np.arange(count, dtype=float),
            [None if row % 2 else np.array([0.1, -0.2]) for row in range(count)],
            [
                {
                    "text": "ä\ud800",
                    "number": 1 / 3,
                    "nothing": None,
                    "yes": True,
                    "pair": (1, [2, "x"]),
                    "deep": {3: b"\x00\xff"},
                    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
                    "scalar": np.int64(7),
                    "nan": float("nan"),
                }
                for _ in range(count)
            ],
            parts={"aspect": part},
        )


def test_a_row_comes_back_as_it_was(path: Path | None) -> None:
    """Token rewards, parts and metadata, to the type."""
    samples = texts("a", "b", "c")
    reward = Cached(Everything(), path)
    first, second = reward(samples), reward(samples)
    assert second.stats["Everything"].cache_hits == 3
    np.testing.assert_array_equal(second.rewards, first.rewards)
    assert first.token_rewards is not None
    assert second.token_rewards is not None
    for one, other in zip(first.token_rewards, second.token_rewards, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(second.parts["aspect"].rewards, [0.5, 1.5, 2.5])
    assert second.parts["aspect"].metadata[0] == {"why": "so"}
    note, again = dict(first.metadata[1]), dict(second.metadata[1])
    for key in ("array", "scalar"):
        assert (note[key] == again[key]).all()
        assert type(note[key]) is type(again[key])
        assert note.pop(key).dtype == again.pop(key).dtype
    assert np.isnan(again.pop("nan"))
    note.pop("nan")
    assert note == again
    assert isinstance(again["pair"], tuple)


def test_metadata_that_would_not_come_back_are_refused(path: Path | None) -> None:
    """Rather than come back as something else, or not be kept in silence."""
    reward = Cached(FunctionReward(lambda sample: RewardOutput(1.0, metadata={"what": object()}), name="odd"), path)
    with pytest.raises(ContractError, match=r"sample 0: a cache cannot keep the metadata: .* is a object"):
        reward(texts("a"))


def test_a_failed_part_is_not_kept() -> None:
    """The next call may have it."""
    calls: list[int] = []

    class Judge(RewardFunction):
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            calls.append(len(samples))
            lost = RewardBatch(np.full(len(samples), np.nan), errors={0: "JudgeError: no verdict"})
            return RewardBatch(np.ones(len(samples)), parts={"style": lost})

    reward = Cached(Judge())
    reward(texts("a", "b"))
    reward(texts("a", "b"))
    assert calls == [2, 1]


def test_groups_are_known_as_wholes(path: Path | None) -> None:
    """What a sample is compared with decides its score."""
    seen: list[list[str]] = []

    class Longest(RewardFunction):
        scope = "group"
        required_fields = ("response",)
        optional_fields = ()

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            seen.append([str(sample.response) for sample in samples])
            longest = max(len(str(sample.response)) for sample in samples)
            return [len(str(sample.response)) / longest for sample in samples]

    reward = Cached(Longest(), path)

    def group(name: str, *responses: str) -> list[Sample]:
        return [Sample("q", response, group_id=name) for response in responses]

    assert reward(group("x", "a", "bb") + group("y", "a", "cccc")).rewards.tolist() == [0.5, 1.0, 0.25, 1.0]
    assert reward(group("z", "bb", "a")).rewards.tolist() == [1.0, 0.5]  # another order, another id
    assert reward(group("x", "a", "bb", "a")).rewards.tolist() == [0.5, 1.0, 0.5]
    assert reward(group("x", "a", "a", "bb")).rewards.tolist() == [0.5, 0.5, 1.0]
    assert seen == [["a", "bb"], ["a", "cccc"], ["a", "bb", "a"]]
    with RewardBuffer(reward, group_size=2) as buffer:
        buffer.add(group("x", "a", "bb") + group("y", "new", "a"))
        assert buffer.finalize(timeout=60).rewards.tolist() == [0.5, 1.0, 1.0, 1 / 3]
    assert seen[3:] == [["new", "a"]]


def test_a_rank_is_not_cached_but_what_it_ranks() -> None:
    """A fold costs nothing and depends on the batch."""
    leaf = Counted()
    reward = Cached(GroupRank(leaf))
    assert reward(prompt=["q"] * 2, response=["a", "bb"]).rewards.tolist() == [0.0, 1.0]
    assert reward(prompt=["q"] * 2, response=["bb", "ccc"]).rewards.tolist() == [0.0, 1.0]
    assert leaf.asked == ["a", "bb", "ccc"]


def test_each_leaf_of_a_composite_is_cached() -> None:
    """Other weights meet the same scores."""
    one, other = Counted(), Counted(2.0, name="double")
    first = Cached(CompositeReward([(one, 1.0), (other, 1.0)]))
    second = CompositeReward([(first.reward.children[0], 3.0), (Scale(other, -1.0), 1.0)])
    assert first(texts("aa")).rewards.tolist() == [6.0]
    cached = Cached(second)
    cached.store = first.store
    assert cached(texts("aa")).rewards.tolist() == [2.0]
    assert (one.asked, other.asked) == (["aa"], ["aa"])


pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


class Brightness(RewardFunction):
    """The mean of the red channel."""

    required_fields = ("image",)
    optional_fields = ()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls = 0

    def compute_reward(self, sample: Sample) -> float:
        self.calls += 1
        return float(np.asarray(sample.image)[..., 0].mean())


def test_images_are_known_by_their_pixels(tmp_path: Path, path: Path | None) -> None:
    """However they come; a file that is overwritten is another image."""
    file = tmp_path / "image.png"
    Image.fromarray(pixels).save(file)
    same: list[Any] = [
        pixels,
        Image.fromarray(pixels),
        str(file),
        file,
        torch.from_numpy(pixels).permute(2, 0, 1),
        Image.open(file),
    ]
    leaf = Brightness()
    reward = Cached(leaf, path)
    for image in same:
        assert reward(image=[image]).rewards.tolist() == [pixels[..., 0].mean()]
    assert leaf.calls == 1
    Image.fromarray(255 - pixels).save(file)
    assert reward(image=[file]).rewards[0] == pytest.approx(255 - pixels[..., 0].mean())
    assert leaf.calls == 2


def test_an_image_that_cannot_be_read_fails_as_without_a_cache(tmp_path: Path) -> None:
    """For its own sample alone."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"sample 1.*image"):
        Cached(Brightness())(image=[pixels, broken])
    batch = MaskErrors(Cached(Brightness()))(image=[pixels, broken])
    assert list(batch.errors) == [1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"prompt": "a"}, {"prompt": "b"}),
        ({"prompt": "a"}, {"reference": "a"}),
        ({"prompt": "a", "response": "b"}, {"prompt": "ab", "response": ""}),
        ({"metadata": {"x": 1}}, {"metadata": {"x": "1"}}),
        ({"metadata": {"x": 1}}, {"metadata": {"x": 1.0}}),
        ({"metadata": {"x": [1, 2]}}, {"metadata": {"x": [[1], 2]}}),
        ({"metadata": {"x": True}}, {"metadata": {"x": 1}}),
        ({"metadata": {"x": np.float32(1)}}, {"metadata": {"x": np.float64(1)}}),
        ({"prompt": [{"role": "user", "content": "a"}]}, {"prompt": [{"role": "system", "content": "a"}]}),
        ({"token_ids": [1, 2]}, {"token_ids": [12]}),
        ({"image": pixels}, {"image": pixels[::-1].copy()}),
        ({"image": pixels}, {"image": pixels.reshape(6, 8, 3)}),
        ({"condition_images": [pixels]}, {"condition_images": [pixels, pixels]}),
        ({"group_id": 1}, {"group_id": 2}),
    ],
)
def test_different_contents_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    """In any field that a reward may read."""
    leaf = CountedAll()
    reward = Cached(leaf)
    for content in (one, other, one, other):
        reward([Sample(**{"response": "x", **content})])
    assert len(leaf.asked) == 2


def test_the_code_behind_a_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a configuration names it, and as it is edited between two runs."""
    monkeypatch.syspath_prepend(tmp_path)
    for value in ("1.0", "7.0"):
        (tmp_path / "edited_scorer.py").write_text(f"def score(sample):\n    return {value}\n")
        sys.modules.pop("edited_scorer", None)
        importlib.invalidate_caches()
        reward = Cached(FunctionReward("edited_scorer.score"), tmp_path / "scores.sqlite")
        assert reward(texts("a")).rewards.tolist() == [float(value)]
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    sys.modules.pop("edited_scorer", None)


def test_a_subclass_reads_what_it_likes() -> None:
    """What its parent said about the fields holds for the parent's code."""

    class Bonus(LengthReward):
        def compute_reward(self, sample: Sample) -> float:
            return float(sample.metadata["bonus"])

    class Renamed(LengthReward):
        pass

    declared = [kind.optional_fields for kind in (LengthReward, Renamed, Bonus)]
    assert declared == [("token_ids",), ("token_ids",), None]
    reward = Cached(Bonus(target=1))
    samples = [Sample(response="x", metadata={"bonus": bonus}) for bonus in (1, 5)]
    assert reward(samples).rewards.tolist() == [1.0, 5.0]


def test_neighbours_of_a_failure_are_not_kept_as_scores(path: Path | None, tmp_path: Path) -> None:
    """A batch that was given up has no rows for them, and that is not "does not apply"."""

    class Widths(RewardFunction):
        required_fields = ("image",)

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            return [float(sample.image.size[0]) for sample in samples]

    reward = Cached(Widths(), path)
    good = [Sample(image=pixels), Sample(image=pixels[:, :3])]
    with pytest.raises(InputError):
        reward([good[0], Sample(image=tmp_path / "missing.png"), good[1]])
    assert reward(good).rewards.tolist() == [6.0, 3.0]


def test_fields_that_are_not_read_do_not_count() -> None:
    """By the reward's own word, or the caller's."""
    leaf = Counted()
    reward = Cached(leaf)
    for step in range(3):
        reward([Sample("p", "a", group_id=step, metadata={"step": step})])
    assert leaf.asked == ["a"]
    vague = CountedAll()
    Cached(vague)([Sample(response="a", metadata={"step": step}) for step in range(3)])
    assert len(vague.asked) == 3
    vague.asked.clear()
    Cached(vague, fields=["response"])([Sample(response="a", metadata={"step": step}) for step in range(3)])
    assert len(vague.asked) == 1


class Lazy(Mapping[str, Any]):
    """Metadata that are made when they are looked at, as rows of a data set are."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getitem__(self, key: str) -> Any:
        return np.full(4, self.number)

    def __iter__(self) -> Iterator[str]:
        return iter(["array"])

    def __len__(self) -> int:
        return 1


def test_values_that_live_shortly_are_told_apart() -> None:
    """Another may have the place in memory that one had."""
    reward = Cached(FunctionReward(lambda sample: float(sample.metadata["array"][0]), name="first"))
    samples = [Sample(metadata=Lazy(number)) for number in range(200)]
    assert reward(samples).rewards.tolist() == list(range(200))


def test_a_parameter_that_changes_is_another_one() -> None:
    """In place, or as an attribute of its name."""
    words = ["a"]

    class Words(RewardFunction):
        def __init__(self, words: list[str], weight: float = 1.0) -> None:
            self.words, self.weight = words, weight

        def compute_reward(self, sample: Sample) -> float:
            return self.weight * (str(sample.response) in self.words)

    leaf = Words(words)
    reward = Cached(leaf)
    assert reward(texts("a", "b")).rewards.tolist() == [1.0, 0.0]
    words.append("b")
    assert reward(texts("a", "b")).rewards.tolist() == [1.0, 1.0]
    leaf.weight = 2.0
    assert reward(texts("a", "b")).rewards.tolist() == [2.0, 2.0]
    assert reward(texts("a", "b")).stats["Words"].cache_hits == 2


class Curriculum(RewardFunction):
    """What may be set later: a parameter, one that was None, a list, an attribute of the class."""

    limit = 4

    def __init__(self, top: float | None = None, words: Sequence[str] = ()) -> None:
        self.top, self.words = top, words

    def compute_reward(self, sample: Sample) -> float:
        return float(self.top or 0) + 10 * len(self.words) + 100 * self.limit


class Holding(RewardFunction):
    """One that asks another."""

    def __init__(self, inner: RewardFunction) -> None:
        self.inner = inner

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        return self.inner(samples)


@pytest.mark.parametrize("hold", [False, True])
def test_what_is_set_later_counts(hold: bool) -> None:
    """In the reward, and in one that it holds."""
    leaf = Curriculum()
    reward = Cached(Holding(leaf) if hold else leaf)
    assert reward(texts("a")).rewards.tolist() == [400.0]
    for name, value, expected in [
        ("top", 5.0, 405.0),
        ("words", ["x"], 415.0),
        ("limit", 5, 515.0),
        ("top", None, 510.0),
    ]:
        setattr(leaf, name, value)
        assert reward(texts("a")).rewards.tolist() == [expected]
        assert reward(texts("a")).stats[reward.name].cache_hits == 1


def test_a_setting_that_changes_meanwhile_is_not_kept() -> None:
    """The score may be that of either."""

    class Drifting(RewardFunction):
        def __init__(self, weight: float = 1.0) -> None:
            self.weight = weight

        def compute_reward(self, sample: Sample) -> float:
            self.weight += 1.0  # as a trainer does while the chunk is under way
            return self.weight

    leaf = Drifting()
    reward = Cached(leaf)
    assert reward(texts("a")).rewards.tolist() == [2.0]
    leaf.weight = 1.0
    assert reward(texts("a")).stats["Drifting"].cache_hits == 0
    assert reward.store.stats().entries == 0


def test_what_has_no_content_is_refused() -> None:
    """An identity means nothing tomorrow."""
    with pytest.raises(InputError, match="reward 'CountedAll', sample 1, field 'metadata': a cache cannot tell"):
        Cached(CountedAll())([Sample(response="a"), Sample(response="b", metadata={"what": object()})])

    class Odd(RewardFunction):
        def __init__(self, thing: object) -> None:
            self.thing = thing

        def compute_reward(self, sample: Sample) -> float:
            return 1.0

    with pytest.raises(ConfigError, match=r"reward 'Odd': a cache cannot tell <unlocked .*the parameter thing depends"):
        Cached(Odd(threading.Lock()))(texts("a"))
    thing = threading.Lock()

    class Uses(RewardFunction):
        def compute_reward(self, sample: Sample) -> float:
            return float(thing is not None)

    with pytest.raises(ConfigError, match=r"its code depends on it; set Uses\.revision = '1'"):
        Cached(Uses())(texts("a"))
    Uses.revision = "1"
    assert Cached(Uses())(texts("a")).rewards.tolist() == [1.0]


def test_known_scores_need_no_service(path: Path | None) -> None:
    """Whatever stands around them, in any order."""
    up = [True]

    def service(sample: Sample) -> float:
        if not up[0]:
            raise ConnectionError("down")
        return float(len(str(sample.response)))

    leaf = FunctionReward(service, fields=["response"])
    for reward in (CircuitBreaker(Cached(leaf, path), 1), Cached(CircuitBreaker(leaf, 1), path)):
        up[0] = True
        reward(texts("a", "bb"))
        up[0] = False
        masked = MaskErrors(reward)(texts("a", "new", "bb", "bb"))
        np.testing.assert_array_equal(masked.rewards, [1.0, np.nan, 2.0, 2.0])


def test_a_lost_file_costs_time_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and all is computed."""
    file = tmp_path / "scores.sqlite"
    leaf = Counted()
    reward = Cached(leaf, file)
    reward(texts(*(f"{number}" * 50 for number in range(200))))
    reward.close()
    damaged = bytearray(file.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    file.write_bytes(damaged)
    assert reward(texts("a", "bb")).rewards.tolist() == [1.0, 2.0]
    assert "the cache cannot be read, and is left alone" in caplog.text
    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be opened"):
        Cached(leaf, tmp_path)(texts("a"))


def test_a_file_that_failed_is_left_alone_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One wait is enough: the run is not held up by it again and again."""
    leaf = Counted()
    reward = Cached(leaf, tmp_path / "scores.sqlite")
    asked: list[int] = []

    class Locked(SQLiteStore):
        def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
            asked.append(len(keys))
            raise ComputeError("locked by another process")

    store, reward.store = reward.store, Locked(tmp_path / "scores.sqlite")
    for _ in range(5):
        assert reward(texts("a", "bb")).rewards.tolist() == [1.0, 2.0]
    assert len(asked) == 1
    assert caplog.text.count("is left alone for 60 s: locked by another process") == 1
    reward.store, reward._usable_from = store, 0.0  # a minute later
    reward(texts("a"))
    assert reward(texts("a")).stats["Counted"].cache_hits == 1


def test_many_threads_share_a_file(tmp_path: Path) -> None:
    """Through objects of their own and through one."""
    file = tmp_path / "scores.sqlite"
    shared = Cached(Counted(num_workers=8), file)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        mine = Cached(Counted(num_workers=2), file)
        for _ in range(15):
            samples = texts(*("x" * int(length) for length in generator.integers(0, 300, 20)))
            for reward in (mine, shared):
                got = reward(samples).rewards.tolist()
                if got != [float(len(str(sample.response))) for sample in samples]:
                    wrong.append(got)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert wrong == []


WRITER = """
import hashlib, itertools, sys
from flux_rewards import Cached, RewardFunction, Sample

class Hash(RewardFunction):
    required_fields = ("response",)
    optional_fields = ()
    num_workers = 2
    def compute_reward(self, sample):
        return float(int(hashlib.sha256(sample.response.encode()).hexdigest()[:12], 16))

reward = Cached(Hash(), sys.argv[1])
if len(sys.argv) > 2:
    samples = [Sample(response=str(number)) for number in range(int(sys.argv[2]))]
    batch = reward(samples)
    right = [Hash().compute_reward(sample) for sample in samples]
    print(batch.rewards.tolist() == right, batch.stats["Hash"].cache_hits)
else:
    for start in itertools.count(0, 20):
        reward([Sample(response=str(number)) for number in range(start, start + 20)])
        print(start + 20, flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_no_wrong_score(tmp_path: Path) -> None:
    """Killed at random while it writes: what it said was scored is there, and right."""
    script, file = tmp_path / "writer.py", tmp_path / "scores.sqlite"
    script.write_text(WRITER)
    generator = np.random.default_rng(0)
    told_of = 0
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, str(script), str(file)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        with writer.stdout as lines:
            first = lines.readline()
            time.sleep(float(generator.random() * 0.2))
            os.kill(writer.pid, signal.SIGKILL)
            told_of = max([told_of, int(first), *(int(line) for line in lines if line.endswith("\n"))])
        writer.wait()
    done = subprocess.run(
        [sys.executable, str(script), str(file), str(told_of + 100)], capture_output=True, text=True, check=True
    )
    right, hits = done.stdout.split()
    assert right == "True"
    assert told_of <= int(hits) <= told_of + 100


def test_clear_forgets(path: Path | None) -> None:
    """And says how much."""
    leaf = Counted()
    reward = Cached(leaf, path)
    reward(texts("a", "bb"))
    assert reward.clear() == 2
    reward(texts("a"))
    reward.close()
    reward(texts("a"))
    assert leaf.asked == ["a", "bb", "a"]


@pytest.mark.parametrize("arguments", [{"path": 3}, {"max_bytes": 0}, {"fields": ["respones"]}, {"fields": "response"}])
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=r"path|max_bytes|respones|fields"):
        Cached(Counted(), **arguments)


def test_group_scores_agree_with_the_plain_ones(path: Path | None) -> None:
    """A group-scoped author behind a cache, cold and warm."""
    samples = [Sample(f"q{row % 3}", "x" * row) for row in range(12)]
    expected = GroupMean()(samples)
    reward = Cached(GroupMean(), path)
    for _ in range(2):
        batch = reward(samples)
        np.testing.assert_array_equal(batch.rewards, expected.rewards)
        assert list(batch.metadata) == list(expected.metadata)
    assert batch.stats["GroupMean"].cache_hits == 12
