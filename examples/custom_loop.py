"""REINFORCE with group advantages in plain PyTorch: a small policy learns to add, on the CPU, in half a minute.

Everything that a trainer does is here in short: sample groups of answers, score them, turn rewards into advantages,
and follow the gradient. The rewards and the advantages are the library's.
"""

from __future__ import annotations

import time

import torch
from torch import nn

from flux_rewards import CompositeReward, ExactMatch, LengthReward, Sample
from flux_rewards.advantages import broadcast, compute_advantages

CHARACTERS = "0123456789+=."  # "3+4=" is answered by "7."
END = CHARACTERS.index(".")
PROMPTS = [f"{left}+{right}=" for left in range(5) for right in range(5)]
GROUP_SIZE = 16
NEW_TOKENS = 3
STEPS = 300


class Policy(nn.Module):
    """A recurrent language model over thirteen characters."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS), width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, len(CHARACTERS))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next character at every position, (N, T, characters)."""
        hidden, _ = self.recurrent(self.embedding(tokens))
        logits: torch.Tensor = self.head(hidden)
        return logits


def sample_answers(
    policy: Policy, prompts: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sampled tokens (N, NEW_TOKENS), and which of them belong to the answer, its end included."""
    tokens = prompts
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            chances = policy(tokens)[:, -1].softmax(dim=-1)
            tokens = torch.cat([tokens, torch.multinomial(chances, 1, generator=generator)], dim=1)
    answers = tokens[:, prompts.shape[1] :]
    ended = (answers == END).int().cumsum(dim=1) - (answers == END).int()
    return answers, ended == 0


def as_text(tokens: torch.Tensor, mask: torch.Tensor) -> str:
    """The answer without its end."""
    return "".join(CHARACTERS[token] for token in tokens[mask].tolist() if token != END)


def train(steps: int = STEPS, seed: int = 0) -> list[float]:
    """Train from scratch; the mean reward of every step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = Policy()
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    reward = CompositeReward(
        {"correct": (ExactMatch(), 1.0), "brief": (LengthReward(target=1, unit="characters"), 0.2)}
    )
    means = []
    for step in range(steps):
        chosen = torch.randint(len(PROMPTS), (16,), generator=generator).repeat_interleave(GROUP_SIZE)
        texts = [PROMPTS[number] for number in chosen.tolist()]
        prompts = torch.tensor([[CHARACTERS.index(character) for character in text] for text in texts])
        answers, mask = sample_answers(policy, prompts, generator)
        samples = [
            Sample(text, as_text(answer, kept), reference=str(int(text[0]) + int(text[2])))
            for text, answer, kept in zip(texts, answers, mask, strict=True)
        ]
        batch = reward(samples)
        # Samples with the same prompt are a group. One that could not be scored would move nothing.
        advantages = compute_advantages(batch, samples, "grpo", missing=0.0)

        logits = policy(torch.cat([prompts, answers], dim=1))[:, prompts.shape[1] - 1 : -1]
        chosen_logs = logits.log_softmax(dim=-1).gather(2, answers[..., None])[..., 0]
        loss = -(broadcast(advantages, mask) * chosen_logs).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        means.append(float(batch.rewards.mean()))
        if step % 50 == 0 or step == steps - 1:
            correct = batch.parts["correct"].rewards.mean()
            said = texts[0] + samples[0].response_text
            print(f"step {step:3d}: mean reward {means[-1]:.3f}, correct {correct:.2f}, such as {said}")
    return means


def main() -> None:
    """Train, and say how long it took."""
    start = time.monotonic()
    means = train()
    first, last = sum(means[:10]) / 10, sum(means[-10:]) / 10
    print(f"mean reward {first:.2f} -> {last:.2f} in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
