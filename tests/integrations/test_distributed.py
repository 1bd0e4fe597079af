"""Groups over several real processes, gloo between them: equal to one process with all samples.

The processes run this file, with all scenarios in turn; the tests look at what each of them wrote.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flux_rewards import (
    CompositeReward,
    ConfigError,
    FunctionReward,
    GroupRank,
    InputError,
    LengthReward,
    MaskErrors,
    RewardBatch,
    RewardFunction,
    RewardOutput,
    Sample,
    TokenKeywordReward,
    UnaryCombinator,
)
from flux_rewards.contract import Scored
from flux_rewards.integrations import trl
from flux_rewards.integrations.distributed import DistributedGroups
from flux_rewards.integrations.distributed.exchange import Exchange
from flux_rewards.wire.answers import pack_answer

TIMEOUT = 60.0
SCORED: list[int] = []
"""In a worker, the sizes of the groups that it scored."""


class Listwise(RewardFunction):
    """Of each response, how many of its group come before it in the alphabet; the order of the group counts, too."""

    required_fields = ("response",)
    optional_fields: Sequence[str] | None = ()
    scope = "group"

    def compute_rewards(self, samples: Sequence[Sample]) -> list[RewardOutput | Exception | None]:
        texts = [sample.response_text for sample in samples]
        SCORED.append(len(samples))
        return [self._row(texts, at) for at in range(len(texts))]

    @staticmethod
    def _row(texts: Sequence[str], at: int) -> RewardOutput | Exception | None:
        if texts[at] == "no score":
            return None
        if texts[at] == "fails":
            return ValueError("cannot be compared")
        before = sum(text < texts[at] for text in texts)
        return RewardOutput(before + at / 100, metadata={"at": at, "size": (len(texts),)}, parts={"before": before})


class Brightness(RewardFunction):
    """How much brighter an image is than its group's first one; reads the image and nothing else."""

    required_fields = ("image",)
    optional_fields = ()
    scope = "group"
    media_form = "pixels"

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float]:
        means = [float(sample.image.double().mean()) for sample in samples]
        return [mean - means[0] for mean in means]


class ByLevel(UnaryCombinator):
    """Somebody's own fold, which reads the samples."""

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:
        return RewardBatch(batches[0].rewards * [sample.metadata["level"] for sample in samples])


class AnyField(Listwise):
    """Says nothing of what it reads."""

    optional_fields = None


class Slow(Listwise):
    """Hangs, where the process is to be late."""

    def compute_rewards(self, samples: Sequence[Sample]) -> list[RewardOutput | Exception | None]:
        if any(sample.response == "slow" for sample in samples):
            time.sleep(1.0)
        return super().compute_rewards(samples)


def composite() -> RewardFunction:
    """Parts of both scopes, one that fails, one with tokens, one that does not apply."""
    return MaskErrors(
        CompositeReward(
            {
                "listwise": (Listwise(), 1.0),
                "rank": (GroupRank(LengthReward(target=4, unit="characters")), 0.5),
                "keyword": (TokenKeywordReward(good=["b"]), 0.25),
            }
        )
    )


def texts(groups: Sequence[str], answers: Sequence[str], **more: Any) -> list[Sample]:
    """Samples by prompt and response."""
    return [
        Sample(
            prompt,
            answer,
            token_ids=list(range(len(answer))),
            token_offsets=[(at, at + 1) for at in range(len(answer))],
            **more,
        )
        for prompt, answer in zip(groups, answers, strict=True)
    ]


ANSWERS = ["b", "abc", "a", "fails", "bb", "no score", "ccc", "", "abab", "z", "fails", "y"]
BY_PROMPT = texts("ppqpqrrqpsss", ANSWERS)
BY_ID = [
    Sample("same", sample.response, token_ids=sample.token_ids, token_offsets=sample.token_offsets, group_id=group)
    for sample, group in zip(BY_PROMPT, ["x", "x", 2, "x", 2, "y", "y", 2, "x", (1, "z"), (1, "z"), 2], strict=True)
]
PIXELS = np.random.default_rng(7).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
PICTURES = [
    Sample(prompt, image=image, metadata={"never read": object()})
    for prompt, image in zip(
        "ababab",
        [
            PIXELS[0],
            Image.fromarray(PIXELS[1]),
            PIXELS[2].astype(np.float32) / 255,
            PIXELS[3],
            PIXELS[4],
            Image.fromarray(PIXELS[5]),
        ],
        strict=True,
    )
]
SPLITS = {2: [7, 5], 3: [5, 0, 7]}
"""Samples of each process, of twelve."""


def told(batch: RewardBatch) -> Any:
    """Everything that a batch says, exactly."""
    return json.loads(pack_answer(Scored(batch, {})))


def share(samples: Sequence[Sample], counts: Sequence[int], rank: int) -> list[Sample]:
    """Those of one process."""
    ends = list(accumulate(counts))
    return list(samples[ends[rank] - counts[rank] : ends[rank]])


def unequal(samples: Sequence[Sample], reward: RewardFunction, rank: int, ranks: int) -> Any:
    """Processes with samples of unequal number."""
    return told(DistributedGroups(reward)(share(samples, SPLITS[ranks], rank)))


def in_halves(samples: Sequence[Sample], reward: RewardFunction, rank: int, ranks: int) -> Any:
    """The first half on process 0, the second one on process 1."""
    half = len(samples) // 2
    return told(DistributedGroups(reward)(share(samples, [half, half, 0], rank)))


def without_prompt(rank: int, ranks: int) -> Any:
    """The last process has a sample that lacks what the reward reads."""
    lacks = [Sample("p", "a"), Sample("p") if rank == ranks - 1 else Sample("p", "b")]
    return told(DistributedGroups(Listwise())(lacks))


def with_objects(rank: int, ranks: int) -> Any:
    """What has no form as bytes has to move."""
    samples = [Sample("p", "a"), Sample("p", "b", metadata={"thing": object()} if rank == 1 else {})]
    return told(DistributedGroups(AnyField())(samples))


def with_objects_that_stay(rank: int, ranks: int) -> Any:
    """They need no form where whole groups are on one process."""
    samples = texts([f"p{rank}"] * 2, ["b", "a"], metadata={"thing": object()})
    return DistributedGroups(AnyField())(samples).rewards.tolist()


def late(rank: int, ranks: int) -> Any:
    """One process is over its time."""
    samples = texts([f"p{rank}"] * 2, ["slow" if rank == 0 else "b", "a"])
    return told(DistributedGroups(Slow(), timeout=0.2)(samples))


def work(rank: int, ranks: int) -> Any:
    """Which groups are scored here: two that straddle the processes, and one of each process's own."""
    SCORED.clear()
    DistributedGroups(Listwise())(texts(["x", "y", f"of {rank}", f"of {rank}"], "abcd"))
    return list(SCORED)


def folded(rank: int, ranks: int) -> Any:
    """The groups are compared by what a fold made of the samples' metadata, in halves on two processes."""
    reward = GroupRank(ByLevel(LengthReward(target=4, unit="words")))
    if rank > 1:
        return DistributedGroups(reward)([]).rewards.tolist()
    levels = [{"level": level} for level in ((1.0, 2.0), (4.0, 3.0))[rank]]
    mine = [Sample("p", "a b", metadata=level) for level in levels]
    return DistributedGroups(reward)(mine).rewards.tolist()


def of_two_prompts(rank: int, ranks: int) -> Any:
    """Each process has neighbours of one prompt, and another one than the other process has."""
    func = trl.reward_func(Listwise(), num_generations=2 * ranks, distributed=True)
    return func(prompts=[f"p{rank}"] * 2, completions=["a", "b"])


def ends_itself(rank: int, ranks: int) -> Any:
    """An author's sys.exit on one process."""

    def leave(samples: Sequence[Sample]) -> Any:
        raise SystemExit(3)

    reward = GroupRank(FunctionReward(leave if rank == 0 else lambda _: 1.0, "batch" if rank == 0 else "sample"))
    try:
        return told(DistributedGroups(reward)(texts([f"p{rank}"], "a")))
    except SystemExit:
        raise ValueError("SystemExit here") from None


def in_a_group_of_processes(rank: int, ranks: int) -> Any:
    """The last process takes no part."""
    from torch import distributed

    members: Any = distributed.new_group(list(range(ranks - 1))) if ranks > 2 else None
    if ranks > 2 and rank == ranks - 1:
        return None
    return DistributedGroups(Listwise(), members)(texts(["p"] * 2, f"{rank}{rank}")).rewards.tolist()


def interrupted(rank: int, ranks: int) -> Any:
    """Another failure than that of a sample."""

    def fail(samples: Sequence[Sample]) -> Any:
        raise ConfigError("there is no such model") if rank == 0 else ValueError("odd")

    reward = GroupRank(FunctionReward(fail, "batch", name="broken"))
    return told(DistributedGroups(reward)(texts([f"p{rank}"], "a") if rank < 2 else []))


def through_trl(rank: int, ranks: int) -> Any:
    """Groups of four, six completions a process: the second one straddles; all have one prompt."""
    funcs, _ = trl.reward_funcs(
        CompositeReward({"listwise": (Listwise(), 1.0), "length": (LengthReward(target=4), 1.0)}),
        num_generations=ranks * 2,
        distributed=True,
    )
    mine = "ponmlkjihgfedcba"[rank * 6 : rank * 6 + 6] if ranks == 2 else "abcdefghi"[rank * 2 : rank * 2 + 2]
    return funcs[0](prompts=["same"] * len(mine), completions=list(mine))


def wrong_layout(rank: int, ranks: int) -> Any:
    """The last process has neighbours of different prompts."""
    func = trl.reward_func(Listwise(), num_generations=2, distributed=True)
    return func(prompts=["p", "q" if rank == ranks - 1 else "p"], completions=["a", "b"])


SCENARIOS: dict[str, Callable[[int, int], Any]] = {
    "by prompt": partial(unequal, BY_PROMPT, composite()),
    "by id": partial(unequal, BY_ID, composite()),
    "pictures": partial(in_halves, PICTURES, Brightness()),
    "a failure": partial(unequal, BY_PROMPT[:10] + BY_PROMPT[11:] + BY_PROMPT[:1], Listwise()),
    "a missing field": without_prompt,
    "objects": with_objects,
    "objects that stay": with_objects_that_stay,
    "late": late,
    "work": work,
    "a group of processes": in_a_group_of_processes,
    "setups": interrupted,
    "trl": through_trl,
    "a wrong layout": wrong_layout,
    "folded": folded,
    "of two prompts": of_two_prompts,
    "an exit": ends_itself,
    "nothing": lambda rank, ranks: told(DistributedGroups(Listwise())([])),
}


def tried(scenario: Callable[[int, int], Any], rank: int, ranks: int) -> dict[str, Any]:
    """What it returns, or the error that it raises."""
    try:
        return {"returned": scenario(rank, ranks)}
    except Exception as error:  # noqa: BLE001  # looked at by the tests
        return {"raised": type(error).__name__, "text": str(error), "index": getattr(error, "index", None)}


def main(rank: int, ranks: int, folder: Path) -> None:
    """One process."""
    from torch import distributed

    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=TIMEOUT / 2),
    )
    found = {name: tried(scenario, rank, ranks) for name, scenario in SCENARIOS.items()}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.barrier()
    distributed.destroy_process_group()


Found = list[Mapping[str, Any]]


@pytest.fixture(scope="module", params=[2, 3])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each process wrote, by rank."""
    folder = tmp_path_factory.mktemp("processes")
    ranks: int = request.param
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(ranks), str(folder)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(ranks)
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * ranks, said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def returned(found: Found, scenario: str) -> list[Any]:
    """By rank."""
    assert not any("raised" in of_rank[scenario] for of_rank in found), [of_rank[scenario] for of_rank in found]
    return [of_rank[scenario]["returned"] for of_rank in found]


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "samples"), [("by prompt", BY_PROMPT), ("by id", BY_ID)])
def test_equals_one_process(found: Found, scenario: str, samples: Sequence[Sample]) -> None:
    """Values, parts, token rewards, metadata, failures: exactly, though one process has no samples."""
    at_once = composite()(samples)
    assert at_once.errors
    ends = [0, *accumulate(SPLITS[len(found)])]
    expected = [told(at_once[ends[rank] : ends[rank + 1]]) for rank in range(len(found))]
    for got, wanted in zip(returned(found, scenario), expected, strict=True):
        if got["batch"]["rewards"]:
            assert got == wanted


@pytest.mark.slow
def test_pictures_move_as_they_are(found: Found) -> None:
    """PIL images, uint8 and floats; what is not read does not move, so it may be anything."""
    at_once = Brightness()(PICTURES).rewards
    means = np.array([PIXELS[at].astype(float).mean() for at in range(6)])
    assert at_once[4] == pytest.approx(means[4] - means[0], abs=1e-9)  # by hand
    got = [value for batch in returned(found, "pictures") for value in batch["batch"]["rewards"]]
    assert got == at_once.tolist()


@pytest.mark.slow
def test_a_failure_is_raised_on_all(found: Found) -> None:
    """With the sample's index on the process that has it, and its place on the others; nobody waits for ever."""
    raised = [of_rank["a failure"] for of_rank in found]
    assert {entry["raised"] for entry in raised} == {"ComputeError"}
    assert all("cannot be compared" in entry["text"] for entry in raised)
    assert raised[0]["index"] == 3  # "fails" is the fourth of the first process
    assert all("(sample 3 of process 0)" in entry["text"] and entry["index"] is None for entry in raised[1:])


@pytest.mark.slow
def test_a_missing_field_is_raised_on_all(found: Found) -> None:
    """Before anything is sent."""
    raised = [of_rank["a missing field"] for of_rank in found]
    assert {entry["raised"] for entry in raised} == {"InputError"}
    assert raised[-1]["index"] == 1
    assert f"sample 1 of process {len(found) - 1}" in raised[0]["text"]


@pytest.mark.slow
def test_what_cannot_be_sent_is_refused(found: Found) -> None:
    """By field, with what to change; it may stay where it is."""
    raised = [of_rank["objects"] for of_rank in found]
    assert {entry["raised"] for entry in raised} == {"InputError"}
    assert raised[1]["index"] == 1
    assert all(
        "field 'metadata'" in entry["text"] and "per_device_train_batch_size" in entry["text"] for entry in raised
    )
    assert returned(found, "objects that stay") == [[1.0, 0.01]] * len(found)


@pytest.mark.slow
def test_late_everywhere(found: Found) -> None:
    """A process that is over its time ends the call on all."""
    assert {of_rank["late"]["raised"] for of_rank in found} == {"TimeoutError"}


@pytest.mark.slow
def test_each_process_raises_its_own(found: Found) -> None:
    """Where several fail at once; the others raise that of the first."""
    raised = [of_rank["setups"] for of_rank in found]
    assert [entry["raised"] for entry in raised[:2]] == ["ConfigError", "ComputeError"]
    assert all("no such model" in entry["text"] and "of process 0" in entry["text"] for entry in raised[2:])


@pytest.mark.slow
def test_groups_are_scored_once_and_spread(found: Found) -> None:
    """Whole, each on one process, and what is on one process stays there as long as that is even."""
    work = returned(found, "work")
    assert sorted(chain.from_iterable(work)) == sorted([len(found)] * 2 + [2] * len(found))
    even = 4
    assert all(sum(sizes) <= even + len(found) for sizes in work)


@pytest.mark.slow
def test_in_a_group_of_processes(found: Found) -> None:
    """Responses "0" of one process and "1" of the next: so many come before, and a hundredth for the place."""
    assert returned(found, "a group of processes") == [[0.0, 0.01], [2.02, 2.03], None][: len(found)]


@pytest.mark.slow
def test_through_trl(found: Found) -> None:
    """Groups by the position over all processes, though all have one prompt."""
    got = list(chain.from_iterable(returned(found, "trl")))
    if len(found) == 2:
        # "ponm", "lkji", "hgfe": each in falling order, so three come before the first, none before the last.
        assert got == [3.0, 2.01, 1.02, 0.03] * 3
    else:
        assert got == [0.0, 1.01, 2.02, 3.03, 4.04, 5.05]


@pytest.mark.slow
def test_a_wrong_layout_is_raised_on_all(found: Found) -> None:
    """Though only one process sees it."""
    raised = [of_rank["a wrong layout"] for of_rank in found]
    assert {entry["raised"] for entry in raised} == {"ConfigError"}
    assert all("should be of one group" in entry["text"] for entry in raised)


@pytest.mark.slow
def test_a_fold_sees_whole_samples(found: Found) -> None:
    """What moves is moved whole where somebody's own fold may read it."""
    assert returned(found, "folded")[:2] == [[0.0, pytest.approx(1 / 3)], [1.0, pytest.approx(2 / 3)]]


@pytest.mark.slow
def test_a_group_of_two_prompts_is_refused_on_all(found: Found) -> None:
    """Though on each process its neighbours are alike."""
    raised = [of_rank["of two prompts"] for of_rank in found]
    assert {entry["raised"] for entry in raised} == {"ConfigError"}
    assert all(f"have not {2 * len(raised)} samples" in entry["text"] for entry in raised)


@pytest.mark.slow
def test_an_exit_is_told_to_the_others(found: Found) -> None:
    """They fail at once, and do not wait for what will not come."""
    raised = [of_rank["an exit"] for of_rank in found]
    assert raised[0]["text"] == "SystemExit here"
    assert all("ended with SystemExit" in entry["text"] for entry in raised[1:])


@pytest.mark.slow
def test_no_samples_anywhere(found: Found) -> None:
    """Nothing comes back."""
    assert all(batch["batch"]["rewards"] == [] for batch in returned(found, "nothing"))


def test_one_process_is_the_plain_call() -> None:
    """Where torch.distributed was not set up."""
    scored = DistributedGroups(composite())
    assert (scored.rank, scored.ranks) == (0, 1)
    assert told(scored(BY_PROMPT)) == told(composite()(BY_PROMPT))
    assert scored(BY_PROMPT).stats["Listwise"].samples == len(BY_PROMPT)
    assert Exchange().ranks == 1


def test_what_is_no_reward_is_refused() -> None:
    """When it is made."""
    with pytest.raises(ConfigError, match="expected a reward"):
        DistributedGroups(len)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="response"):
        DistributedGroups(Listwise())([Sample("p")])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
