"""Offsets by decoding, with real tokenizers of three kinds, against what prefixes of the tokens decode to."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from flux_rewards import InputError, Sample, TokenKeywordReward
from flux_rewards.rewards.tokens.alignment import offsets_of, tokens_of_spans

CORPUS = [
    "The answer is 42, because two and forty make forty-two.",
    "今天天气很好,因为太阳出来了。",
    "मुझे हिन्दी पसंद है।",
    "e\u0301te\u0301 a\u0300 la plage",
    "a family 👩\u200d👩\u200d👧 and 🙂🙂",
    "שלום עולם, كيف حالك",
    "def f(x):\n    return x  # twice  the space\n\n",
] * 3


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: tokens are bytes, and runs of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2 and Gemma: pieces with a mark for a space, and bytes for what is not among them."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        CORPUS[:1],
        trainers.BpeTrainer(
            vocab_size=330, special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False
        ),
    )
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT: spaces are between words, and not in tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    special = ["[UNK]", "</s>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=250, special_tokens=special, show_progress=False)
    )
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "word_piece": word_piece,
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """A tokenizer of transformers."""
    return fast(KINDS[request.param]())


def fast(raw: Tokenizer) -> PreTrainedTokenizerFast:
    """As transformers wraps it."""
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>")  # noqa: S106


def decoded(tokenizer: Any, ids: list[int], *, skip: bool = True) -> str:
    """What a trainer would judge."""
    return str(tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("skip", [True, False])
def test_sampled_tokens_end_where_their_prefix_ends(tokenizer: PreTrainedTokenizerFast, skip: bool) -> None:
    """For random ids, broken characters among them: wherever a prefix decodes to whole characters."""
    generator = random.Random(0)
    for _ in range(60):
        ids = [generator.randrange(len(tokenizer)) for _ in range(generator.randrange(1, 70))]
        text = decoded(tokenizer, ids, skip=skip)
        offsets = offsets_of(tokenizer, ids, text, skip_special_tokens=skip)
        assert len(offsets) == len(ids)
        reached = 0
        for count, (start, end) in enumerate(offsets, 1):
            assert start <= reached <= max(end, reached) <= len(text)  # no gaps, nothing beyond
            reached = max(reached, end)
            prefix = decoded(tokenizer, ids[:count], skip=skip)
            if not prefix.endswith("\ufffd") and text.startswith(prefix):
                assert end == len(prefix)
        assert reached == len(text)


@pytest.mark.parametrize("text", sorted(set(CORPUS)))
def test_every_character_is_held_by_its_tokens(text: str) -> None:
    """Tokenized text: the tokens of a character are those that hold its bytes in UTF-8."""
    raw = byte_level()
    ids = raw.encode(text).ids
    offsets = offsets_of(raw, ids, text)
    # One letter of GPT-2's alphabet stands for each byte.
    sizes = [len(token) for token in raw.encode(text).tokens]
    assert sum(sizes) == len(text.encode())
    ends = np.cumsum(sizes)
    of_byte = np.repeat(range(len(text)), [len(character.encode()) for character in text])
    for (start, end), last, size in zip(offsets, ends, sizes, strict=True):
        assert (start, end) == (of_byte[last - size], of_byte[last - 1] + 1)


@pytest.mark.parametrize("kind", [byte_level, byte_fallback])
def test_agrees_with_the_tokenizers_own_offsets(kind: Callable[[], Tokenizer]) -> None:
    """Where a text is tokenized as a whole, both say the same, but for spaces in front of words."""
    tokenizer = fast(kind())
    text = "The answer is 42, because two and forty make forty-two."
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    for (start, end), (own_start, own_end) in zip(
        offsets_of(tokenizer, encoded["input_ids"], text), encoded["offset_mapping"], strict=True
    ):
        assert end == own_end
        assert text[start:end].strip() == text[own_start:own_end].strip()


def test_a_conversation_is_cut_to_the_judged_text(tokenizer: PreTrainedTokenizerFast) -> None:
    """Tokens of a tool call before it, and of the end after it, get empty spans."""
    call, answer = "two and forty make", "The answer is 42"
    ids = [token for part in (call, answer) for token in tokenizer(part, add_special_tokens=False)["input_ids"]]
    ids.append(tokenizer.convert_tokens_to_ids("</s>"))
    whole = decoded(tokenizer, ids)
    judged = whole[whole.index("The") :].strip()
    offsets = offsets_of(tokenizer, ids, judged)
    before = len(tokenizer(call, add_special_tokens=False)["input_ids"])
    assert {end for _, end in offsets[:before]} == {0}
    assert offsets[-1] == (len(judged), len(judged))
    assert offsets[-2][1] == len(judged)
    mask = tokens_of_spans([(0, len(judged))], offsets)
    assert mask.tolist() == [False] * before + [True] * (len(ids) - before - 1) + [False]


@pytest.mark.parametrize("kept", [1, 3, 8, 15])
def test_text_that_goes_on_beyond_the_tokens(tokenizer: PreTrainedTokenizerFast, kept: int) -> None:
    """Cut tokens keep the places that they had, also where a character is cut."""
    ids = [token for text in CORPUS[:1] for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    text = decoded(tokenizer, ids)
    assert offsets_of(tokenizer, ids[:kept], text) == offsets_of(tokenizer, ids, text)[:kept]


def test_a_character_cut_in_two() -> None:
    """The bytes of an emoji that is there in the text and not in the tokens."""
    raw = byte_level()
    ids = raw.encode("so 🦄").ids
    assert raw.decode(ids[:-1]).endswith("\ufffd")
    assert offsets_of(raw, ids[:-1], "so 🦄")[-1] == (3, 4)
    assert offsets_of(raw, ids, "so 🦄")[-2:] == [(3, 4), (3, 4)]


def test_a_decoder_that_tidies_up() -> None:
    """It takes spaces back when it sees what follows: each token ends where the text of its prefix does, or before."""
    raw = word_piece()
    raw.decoder = decoders.WordPiece(cleanup=True)
    generator = random.Random(0)
    marks = [index for token, index in raw.get_vocab().items() if token in {".", ",", "'", "n", "##t", "s", "do", "m"}]
    for _ in range(40):
        pool = [*marks, *(generator.randrange(raw.get_vocab_size()) for _ in range(4))]
        ids = [generator.choice(pool) for _ in range(60)]
        text = raw.decode(ids)
        offsets = offsets_of(raw, ids, text)
        assert [end for _, end in offsets] == sorted(end for _, end in offsets)
        assert offsets[-1][1] == len(text)
        assert all(start <= end for start, end in offsets)


def test_a_long_run_of_broken_bytes() -> None:
    """A degenerate policy: what stands before it keeps its place, what follows is found again."""
    raw = byte_fallback()
    (broken,) = [index for token, index in raw.get_vocab().items() if token == "<0xE4>"]  # noqa: S105
    words = raw.encode("The answer is").ids
    ids = [*words, *[broken] * 3000, *words]
    text = raw.decode(ids)
    offsets = offsets_of(raw, ids, text)
    assert offsets[: len(words)] == offsets_of(raw, words, "The answer is")
    assert offsets[-1][1] == len(text)
    assert text[slice(*offsets[-1])] == text[-(offsets[-1][1] - offsets[-1][0]) :]
    # Never the words before the run.
    assert min(start for start, _ in offsets[len(words) :]) == len("The answer is")


@pytest.mark.parametrize(("text", "message"), [("The cat", "from character 4 on"), ("", None), ("answer", None)])
def test_text_of_others(text: str, message: str | None) -> None:
    """Another text is an error that says where it differs; a part is not."""
    raw = byte_level()
    ids = raw.encode("The answer is").ids
    if message is None:
        assert offsets_of(raw, ids, text)[0] == (0, 0)
    else:
        with pytest.raises(InputError, match=message):
            offsets_of(raw, ids, text)


def test_ids_may_be_an_array_or_none_at_all() -> None:
    """As trainers hold them."""
    raw = byte_level()
    ids: Any = np.array(raw.encode("The answer").ids)
    assert offsets_of(raw, ids, "The answer")[-1][1] == 10
    assert offsets_of(raw, [], "") == []


@pytest.mark.parametrize("word", ["因为", "because", "पसंद", "family", "שלום"])
def test_a_keyword_is_where_its_tokens_are(word: str) -> None:
    """From sampled ids to token rewards: the tokens that are paid decode to the keyword, and to no other word."""
    raw = byte_level()
    text = next(text for text in CORPUS if word in text)
    ids = [token for character in text for token in raw.encode(character).ids]  # as no tokenizer would cut it
    sample = Sample(response=text, token_ids=ids, token_offsets=offsets_of(raw, ids, text))
    row = TokenKeywordReward([word])([sample])[0]
    assert row.token_rewards is not None
    paid = [token for token, value in zip(ids, row.token_rewards, strict=True) if value]
    assert raw.decode(paid) == word


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], [0, 0, 0, 0]),
        ([(0, 1)], [0, 1, 0, 0]),
        ([(4, 6)], [0, 1, 1, 0]),
        ([(5, 5)], [0, 0, 0, 0]),
        ([(0, 99)], [0, 1, 1, 1]),
        ([(8, 9), (0, 2), (1, 3)], [0, 1, 0, 1]),
        ([(-1, -1)], [0, 0, 0, 0]),  # of a group that took no part
    ],
)
def test_tokens_of_spans(spans: list[tuple[int, int]], expected: list[int]) -> None:
    """Sharing a character counts, touching does not."""
    assert tokens_of_spans(spans, [(0, 0), (0, 5), (5, 8), (8, 13)]).tolist() == [bool(one) for one in expected]
    assert tokens_of_spans(spans, []).tolist() == []
