"""The contract of a reward as checks that anyone can run over a reward of their own.

In a test suite:

    import pytest
    from flux_rewards.testing import reward_checks

    @pytest.mark.parametrize("check", reward_checks(MyReward()), ids=str)
    def test_contract(check):
        check()
"""

from __future__ import annotations

import copy
import functools
import os
import pickle
import random
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from flux_rewards.config import load_rewards, to_config
from flux_rewards.contract import Scored
from flux_rewards.data import FIELDS, RewardBatch, Sample
from flux_rewards.errors import InputError
from flux_rewards.fingerprint import fingerprint, same
from flux_rewards.grouping import split_groups
from flux_rewards.media import to_tensor, video_to_tensor
from flux_rewards.registry import resolve_reward
from flux_rewards.wire.answers import pack_answer, unpack_answer
from flux_rewards.wire.samples import pack_readable, unpack_samples

__all__ = ["Check", "characters", "example_reward", "example_samples", "reward_checks"]

_WORDS = ("because", "the", "answer", "is", "therefore", "maybe", "an", "example", "of", "what", "a", "reply", "says")


@dataclass(frozen=True)
class Check:
    """One rule of the contract, bound to a reward: call it; an `AssertionError` says what is broken."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.name


def example_samples(count: int = 12, *, group_size: int = 4) -> list[Sample]:
    """Samples with every field, in groups: what a check uses when it is given none.

    Examples:
        >>> samples = example_samples(4)
        >>> samples[0].group_id, samples[0].reference, len(samples[0].token_ids) == len(samples[0].token_offsets)
        ('group-0', '3', True)
    """
    generator = np.random.default_rng(0)
    samples: list[Sample] = []
    for index in range(count):
        group = index // group_size
        words = [_WORDS[int(pick)] for pick in generator.integers(len(_WORDS), size=3 + 2 * (index % group_size))]
        text = f"<think>{' '.join(words)}</think><answer>{3 + index % 2}</answer>"
        image = generator.integers(0, 256, size=(16, 24, 3), dtype=np.uint8)
        starts = range(0, len(text), 4)
        samples.append(
            Sample(
                prompt=f"What is {group} + 3?",
                response=text,
                image=image,
                video=[image, image[::-1].copy()],
                condition_images=[np.full((8, 8, 3), 16 * group, dtype=np.uint8)],
                condition_videos=[[np.full((8, 8, 3), 16 * group, dtype=np.uint8)]],
                reference="3",
                token_ids=[int(generator.integers(50)) for _ in starts],
                token_offsets=[(start, min(start + 4, len(text))) for start in starts],
                group_id=f"group-{group}",
                metadata={"index": index},
            )
        )
    return samples


def characters(sample: Sample) -> float:
    """The number of characters of the response: a function that scores, for examples.

    Examples:
        >>> characters(Sample(response="abc"))
        3.0
    """
    return float(len(sample.response_text))


def example_reward(name: str) -> Any:
    """A registered reward, built from its own example configuration.

    Examples:
        >>> example_reward("length")
        LengthReward(target=400)
    """
    factory = resolve_reward(name)
    entry = {"reward_model": name, **getattr(factory, "example_config", {})}
    return load_rewards([entry]).train.children[0]


def reward_checks(reward: Any, samples: Sequence[Sample] | None = None) -> list[Check]:
    """The checks of the contract for one reward.

    One score a sample; repeatable; order and neighbours don't matter; inputs untouched; bounds hold; token rewards line
    up; a missing field is named; fields that are not declared don't matter; pickles; parameters kept; threads agree;
    samples and scores survive the wire of a reward server; configuration round trip; global state kept; where it is
    differentiable, `forward` gives the same scores, with a gradient.

    Args:
        reward: The reward to check.
        samples: Samples that it can score, in two groups at least; `example_samples` by default.

    Does not check that the scores are right: that takes numbers from elsewhere.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> for check in reward_checks(LengthReward(target=40)):
        ...     check()
    """
    batch = example_samples() if samples is None else list(samples)
    methods = [name for name in dir(_Contract) if name.startswith("check_")]
    return [Check(name.removeprefix("check_"), functools.partial(_run, reward, batch, name)) for name in methods]


def _run(reward: Any, samples: Sequence[Sample], method: str) -> None:
    # Fresh samples for each check: one that a reward has spoilt would hide that it spoils them.
    getattr(_Contract(reward, copy.deepcopy(list(samples))), method)()


class _Contract:
    def __init__(self, reward: Any, samples: list[Sample]) -> None:
        self.reward = reward
        self.samples = samples

    def check_one_score_a_sample(self) -> None:
        for count in (len(self.samples), 1, 0):
            batch = self.reward(self.samples[:count])
            assert isinstance(batch, RewardBatch), f"expected a RewardBatch, found {type(batch).__name__}"
            assert batch.rewards.shape == (count,), f"expected {count} rewards, found shape {batch.rewards.shape}"
            assert batch.rewards.dtype == np.float64, f"expected float64, found {batch.rewards.dtype}"
            assert not np.isinf(batch.rewards).any(), "a reward is infinite"

    def check_repeatable(self) -> None:
        _assert_same(self.reward(self.samples), self.reward(self.samples), "a second call")

    def check_order_does_not_matter(self) -> None:
        order = np.random.default_rng(1).permutation(len(self.samples)).tolist()
        permuted = self.reward([self.samples[position] for position in order])
        back = RewardBatch.scatter(len(self.samples), [(order, permuted)])
        _assert_same(self.reward(self.samples), back, "the samples in another order")

    def check_neighbours_do_not_matter(self) -> None:
        whole = self.reward(self.samples)
        alone = split_groups(self.samples) if self.reward.scope == "group" else [[i] for i in range(len(self.samples))]
        pieces = [(part, self.reward([self.samples[position] for position in part])) for part in alone]
        _assert_same(whole, RewardBatch.scatter(len(self.samples), pieces), "the samples scored apart")

    def check_inputs_untouched(self) -> None:
        before = [fingerprint(vars(sample)) for sample in self.samples]
        self.reward(self.samples)
        changed = [index for index, sample in enumerate(self.samples) if fingerprint(vars(sample)) != before[index]]
        assert not changed, f"the reward changed the samples {changed}"

    def check_bounds_hold(self) -> None:
        if self.reward.bounds is None:
            return
        low, high = self.reward.bounds
        assert low <= high, f"bounds are (low, high), found {self.reward.bounds}"
        rewards = self.reward(self.samples).rewards
        slack = 1e-9 * max(1.0, abs(low), abs(high))
        outside = rewards[(rewards < low - slack) | (rewards > high + slack)]
        assert not len(outside), f"outside the bounds ({low}, {high}): {outside}"

    def check_token_rewards_line_up(self) -> None:
        for index, row in enumerate(self.reward(self.samples)):
            ids = self.samples[index].token_ids
            if row.token_rewards is not None and ids is not None:
                assert len(row.token_rewards) == len(ids), (
                    f"sample {index}: {len(row.token_rewards)} for {len(ids)} tokens"
                )

    def check_missing_field_is_named(self) -> None:
        for field in self.reward.required_fields:
            broken = [*self.samples]
            broken[1] = Sample(**{**vars(broken[1]), field: None})
            try:
                self.reward(broken)
            except InputError as error:
                assert (error.field, error.index) == (field, 1), f"named {error.field!r}, sample {error.index}"
                assert error.reward, "the error does not name the reward"
            else:
                raise AssertionError(f"sample 1 lacks {field!r}, and no InputError says so")

    def check_other_fields_do_not_matter(self) -> None:
        if self.reward.optional_fields is None:
            return
        read = {*self.reward.required_fields, *self.reward.optional_fields}
        if self.reward.scope == "group":
            read.add("group_id")
        stripped = [Sample(**{field: getattr(sample, field) for field in read}) for sample in self.samples]
        what = f"the samples with no fields but {', '.join(sorted(read))}, those that the reward declares,"
        _assert_same(self.reward(self.samples), self.reward(stripped), what)

    def check_gradient_path_agrees(self) -> None:
        if not self.reward.differentiable:
            return
        import torch  # noqa: PLC0415  # a gradient is a tensor's

        field = "video" if "video" in self.reward.required_fields else "image"
        read = {"video": video_to_tensor, "image": to_tensor}[field]
        pixels = [read(getattr(sample, field)) for sample in self.samples]
        alike = [index for index, one in enumerate(pixels) if one.shape == pixels[0].shape]
        batch = torch.stack([pixels[index] for index in alike]).requires_grad_()
        samples = [self.samples[index] for index in alike]
        fields = {*self.reward.required_fields, *(self.reward.optional_fields or ())} - {field, "prompt"}
        columns = {name: [getattr(sample, name) for sample in samples] for name in sorted(fields)}
        prompted = all(sample.prompt is not None for sample in samples)
        prompts = [sample.prompt_text for sample in samples] if prompted else None
        scores = self.reward.forward(batch, prompts, **columns)
        assert scores.shape == (len(samples),), f"forward gave shape {tuple(scores.shape)} for {len(samples)} samples"
        pairs = zip(samples, batch.detach(), strict=True)
        called = self.reward([Sample(**{**vars(sample), field: one}) for sample, one in pairs])
        assert scores.requires_grad, "forward gave scores without a gradient"
        found, expected = scores.detach().double().cpu().numpy(), called.rewards
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg="forward gave other scores")
        torch.where(torch.isnan(scores), 0.0, scores).sum().backward()
        assert batch.grad is not None, "forward has no gradient to the pixels"
        assert bool(torch.isfinite(batch.grad).all()), "a gradient is NaN or infinite"

    def check_pickles(self) -> None:
        copy = pickle.loads(pickle.dumps(self.reward))  # noqa: S301  # our own
        assert copy == self.reward, f"{copy!r} came back for {self.reward!r}"
        _assert_same(self.reward(self.samples), copy(self.samples), "the copy from a pickle")

    def check_parameters_kept(self) -> None:
        before = fingerprint(repr(self.reward.parameters))
        self.reward(self.samples)
        assert fingerprint(repr(self.reward.parameters)) == before, "a call changed the parameters"
        rebuilt = type(self.reward)(**self.reward.parameters)
        assert same(rebuilt.parameters, self.reward.parameters), "its parameters don't rebuild it"

    def check_remote_equals_local(self) -> None:
        fields = FIELDS
        if self.reward.optional_fields is not None:
            fields = (*self.reward.required_fields, *self.reward.optional_fields, "group_id", "token_ids", "prompt")
        media = self.reward.reference_is_media
        body, unread = pack_readable(self.samples, list(dict.fromkeys(fields)), reference_is_media=media)
        assert not unread, f"samples that cannot be sent to a reward server: {unread}"
        local = self.reward(self.samples)
        remote = unpack_answer(pack_answer(Scored(self.reward(unpack_samples(body)), {}))).batch
        _assert_same(local, remote, "the samples and scores sent over the wire")
        assert remote.parts.keys() == local.parts.keys(), f"the parts {list(remote.parts)} came back over the wire"

    def check_threads_agree(self) -> None:
        expected = self.reward(self.samples)
        with ThreadPoolExecutor(8) as pool:
            for batch in pool.map(self.reward, [self.samples] * 16):
                _assert_same(expected, batch, "a call from another thread")

    def check_config_round_trip(self) -> None:
        config = to_config(self.reward)
        loaded = load_rewards(config)
        assert to_config(loaded) == config, f"{to_config(loaded)} came back for {config}"
        _assert_same(self.reward(self.samples), loaded.train(self.samples), "the reward from its configuration")

    def check_global_state_kept(self) -> None:
        before = _surroundings()
        self.reward(self.samples)  # the first call may load what it needs
        after = _surroundings()
        # What the first import of torch sets up was not there before.
        changed = [what for what, value in before.items() if after[what] != value]
        # Generators are stirred first, since a reward that seeds them finds its own seed there the second time.
        kept = _generators()
        try:
            _stir()
            before = {what: fingerprint(value) for what, value in _generators().items()}
            self.reward(self.samples)
            after = {what: fingerprint(value) for what, value in _generators().items()}
        finally:
            _restore(kept)
        changed += [what for what, value in before.items() if after[what] != value]
        assert not changed, f"a call changed {', '.join(changed)}"


def _assert_same(expected: RewardBatch, found: RewardBatch, what: str) -> None:
    """Equal up to rounding: sums over a batch may be taken in another order."""
    np.testing.assert_allclose(
        found.rewards,
        expected.rewards,
        rtol=1e-5,
        atol=1e-6,
        equal_nan=True,
        err_msg=f"{what} gave other rewards",
    )
    assert found.errors.keys() == expected.errors.keys(), f"{what} failed elsewhere: {found.errors}"
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert (one.token_rewards is None) == (other.token_rewards is None), f"{what}: token rewards of sample {index}"
        if one.token_rewards is not None and other.token_rewards is not None:
            np.testing.assert_allclose(other.token_rewards, one.token_rewards, rtol=1e-5, atol=1e-6)


def _surroundings() -> dict[str, Any]:
    state: dict[str, Any] = {
        "the environment": dict(os.environ),
        "the working directory": os.getcwd(),  # noqa: PTH109
        "the signal handlers": {str(number): signal.getsignal(number) for number in signal.valid_signals()},
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        state["torch's grad mode"] = torch.is_grad_enabled()
        state["torch's default dtype"] = torch.get_default_dtype()
        state["torch's cudnn flags"] = (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
        state["torch's thread count"] = torch.get_num_threads()
    return state


def _generators() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    return {
        "the state of random": random.getstate(),
        "the state of numpy.random": list(np.random.get_state()),  # noqa: NPY002
        **({} if torch is None else {"the state of torch's generator": torch.get_rng_state()}),
    }


def _stir() -> None:
    seed = random.SystemRandom().randrange(2**32)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _restore(generators: dict[str, Any]) -> None:
    random.setstate(generators["the state of random"])
    np.random.set_state(tuple(generators["the state of numpy.random"]))  # noqa: NPY002
    if "the state of torch's generator" in generators:
        sys.modules["torch"].set_rng_state(generators["the state of torch's generator"])
