"""One value a token: found by decoding sampled ids, placed at the last token, and added up."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from flux_rewards import (
    CompositeReward,
    LastToken,
    NumericAnswerReward,
    Sample,
    TokenKeywordReward,
    TokenRepetitionPenalty,
    offsets_of,
)


def byte_tokenizer() -> Tokenizer:
    """A tokenizer of single bytes, as a stand-in for `AutoTokenizer.from_pretrained(...)`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def main() -> None:
    """Score one response."""
    tokenizer = byte_tokenizer()
    token_ids = tokenizer.encode("maybe 因为 2 + 2 = 4").ids  # as the policy sampled them
    response = tokenizer.decode(token_ids)
    sample = Sample(
        "What is 2 + 2?",
        response,
        reference="4",
        token_ids=token_ids,
        token_offsets=offsets_of(tokenizer, token_ids, response),
    )
    parts = {
        "correct": (LastToken(NumericAnswerReward()), 1.0),
        "words": (TokenKeywordReward(good=["因为"], bad=["maybe"]), 0.5),
        "repeats": (TokenRepetitionPenalty(n=8), 0.1),
    }
    batch = CompositeReward(parts)([sample])
    print("reward", batch.rewards.round(3))
    print("tokens", batch.token_rewards)


if __name__ == "__main__":
    main()
