"""VQAScore: what a vision-language model answers when it is asked whether the image shows the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.contract import locate
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.gradients import check_pixels
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.vision_language import VisionLanguageModel, open_vision_language
from flux_rewards.rewards.model_reward import ModelReward
from flux_rewards.validation import texts

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from flux_rewards.base import RewardOptions

__all__ = ["VQAScore"]

_PROMPT = "{prompt}"


class VQAScore(ModelReward):
    """The probability of "Yes" when a chat model is asked whether the image shows the prompt, in [0, 1].

    One forward pass a batch, nothing is generated. Over the whole vocabulary, with the tokens ``t_1 .. t_n`` of the
    answer: ``(p(t_1 | image, question) * ... * p(t_n | image, question, t_1 .. t_n-1)) ** (1 / n)``; "Yes" is one token
    for most models, so this is its probability. With `alternatives`, the softmax of the logits of the answer and of
    those only: ``("No",)`` gives ``sigmoid(logit(Yes) - logit(No))``, as in Flow-Factory's ``vllm_evaluate``.

    The answer is that token exactly: the shares of "yes" and " Yes" don't count. Metadata: ``likeliest``, the token
    that the model would have said first; where that is often none of the answers, question or answer do not suit it.

    Args:
        model_name_or_path: A chat model in transformers' format that sees images: hub id or directory. The image is
            prepared as its own processor does, the question is put by its own chat template.
        question: ``{prompt}`` stands for the prompt; without it, all images are asked the same, and no prompt is
            needed. Other braces are text. Nothing in a prompt acts: not braces, and not the model's control tokens,
            such as ``<|im_end|>``, which are set apart by a space after the first character.
        answer: Whose probability it is, at the beginning of the model's turn.
        alternatives: Answers beside it that share the probability; None for the whole vocabulary, as published. Each
            one token, and another than that of `answer`.
        model_revision: Branch, tag or commit of the model on the hub.
        activation_checkpointing: On the gradient path, each layer computes its activations again instead of keeping
            them.
        device: See `ModelReward`.
        dtype: In which weights are held and layers computed, without autocast; bfloat16 by default, as models of this
            size are stored and run. Logits and probability are float32 in any case.
        **options: See `RewardFunction`.

    Raises:
        ConfigError: The question has ``{}`` for ``{prompt}``; an answer is empty or, at the first call, has no tokens
            or shares its first with another.
        WeightsError: At the first call: the checkpoint cannot be found or does not fit, sees no images or has no chat
            template.

    Differentiable where the model's image processor is torchvision's, as nearly all are; floats are resized without
    rounding to 256 levels, so the two paths differ by that rounding.

    Source: Lin et al., "Evaluating Text-to-Visual Generation with Image-to-Text Generation" (2024, arXiv 2404.01291);
    https://github.com/linzhiqiu/t2v_metrics, with its question and local model. That project's own number for Qwen is
    read from ``generate``, whose repetition penalty (1.05 in that checkpoint) has lowered words of the question, "Yes"
    and "No" among them; here it is the model's probability.

    Does not read videos (lift it with `VideoReward`), and asks no server: for a model behind one, see the judges.

    Examples:
        >>> VQAScore("Qwen/Qwen2.5-VL-3B-Instruct", alternatives=["No"]).required_fields
        ('image', 'prompt')
        >>> VQAScore(question="Is this a photograph? Answer Yes or No.").required_fields
        ('image',)
    """

    required_fields: Sequence[str] = ("image", "prompt")
    optional_fields = ()
    differentiable = True
    bounds = (0.0, 1.0)
    neutral_parameters: ClassVar[Sequence[str]] = (*ModelReward.neutral_parameters, "activation_checkpointing")

    def __init__(
        self,
        model_name_or_path: str = "Qwen/Qwen2.5-VL-7B-Instruct",
        question: str = 'Does this figure show "{prompt}"? Please answer Yes or No.',
        *,
        answer: str = "Yes",
        alternatives: Sequence[str] | None = None,
        model_revision: str | None = None,
        activation_checkpointing: bool = False,
        device: str | None = None,
        dtype: str = "bfloat16",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(device, dtype, **options)
        given: dict[str, Any] = {"question": question, "answer": answer}
        for parameter, value in given.items():
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"{parameter} must be a text, found {brief(value)}", reward=self.name)
        if _PROMPT not in question and "{}" in question:
            raise ConfigError(f"question has '{{}}', write '{_PROMPT}' for the prompt", reward=self.name)
        if alternatives is not None and not texts(alternatives, "alternatives", self.name):
            raise ConfigError("alternatives is empty; leave it out for the whole vocabulary", reward=self.name)
        self.model_name_or_path = model_name_or_path
        self.question = question
        self.answer = answer
        self.alternatives = alternatives
        self.model_revision = model_revision
        self.activation_checkpointing = activation_checkpointing
        if _PROMPT not in question:
            self.required_fields = ("image",)

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The model, with its tokenizer and processor."""
        return (Checkpoint(self.model_name_or_path, revision=self.model_revision),)

    def open_model(self) -> VisionLanguageModel:
        """The model, shared with all who name the same; the answers are looked up in its vocabulary."""
        (checkpoint,) = self.checkpoints()
        model = open_vision_language(checkpoint, device=self.device, dtype=self.dtype)
        self._answers(model)
        return model

    def compute_rewards(self, samples: Sequence[Sample]) -> list[RewardOutput | InputError]:
        """One score a sample; a prompt that cannot be asked about fails alone."""
        model: VisionLanguageModel = self.model
        rows: list[Any] = [self._question(model, sample) for sample in samples]
        asked = [row for row, question in enumerate(rows) if isinstance(question, str)]
        if asked:
            self._score(model, samples, rows, asked)
        return rows

    def _score(self, model: VisionLanguageModel, samples: Sequence[Sample], rows: list[Any], asked: list[int]) -> None:
        """Put scores into the rows, which hold the questions."""
        answer, answers = self._answers(model)
        try:
            logits = model.logits([samples[row].image for row in asked], [rows[row] for row in asked], answer[:-1])
        except ValueError as error:  # one of the images is not for this model, such as a very long one
            if len(asked) == 1:
                rows[asked[0]] = InputError(f"the model's processor refuses the image: {error}", field="image")
                return
            for row in asked:
                self._score(model, samples, rows, [row])
            return
        scores = self._probability(logits, answer, answers).tolist()
        likeliest = model.tokenizer.batch_decode(logits[:, 0].argmax(dim=-1, keepdim=True).tolist())
        for row, score, token in zip(asked, scores, likeliest, strict=True):
            rows[row] = RewardOutput(score, metadata={"likeliest": token})

    def forward(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,
        **columns: Sequence[Any],  # noqa: ARG002  # for other parts of a composite
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, 3, H, W); see `RewardFunction.forward`."""
        import torch  # noqa: PLC0415  # loaded already

        if "prompt" not in self.required_fields:
            prompts = None
        elif prompts is None:
            raise InputError("the question is about the prompt", reward=self.name, field="prompts")
        check_pixels(pixels, prompts, reward=self.name)
        model: VisionLanguageModel = self.model
        answer, answers = self._answers(model)
        samples = [Sample()] * len(pixels) if prompts is None else [Sample(prompt) for prompt in prompts]
        questions: list[str] = []
        for row, sample in enumerate(samples):
            question = self._question(model, sample)
            if isinstance(question, InputError):
                raise locate(question, reward=self.name, index=row)
            questions.append(question)
        size = self.batch_size or len(pixels)
        parts = [
            model.logits_with_gradient(
                pixels[start : start + size],
                questions[start : start + size],
                answer[:-1],
                checkpointing=self.activation_checkpointing,
            )
            for start in range(0, len(pixels), size)
        ]
        scores = torch.cat([self._probability(part, answer, answers) for part in parts])
        return self.rescaled(scores).to(pixels.device)

    def _question(self, model: VisionLanguageModel, sample: Sample) -> str | InputError:
        try:
            prompt = sample.prompt_text if "prompt" in self.required_fields else ""
            return model.plain(self.question.replace(_PROMPT, prompt))
        except InputError as error:
            return error

    def _answers(self, model: VisionLanguageModel) -> tuple[list[int], list[int]]:
        """The tokens of the answer, and the first tokens of all answers where there are alternatives."""
        answer = model.token_ids(self.answer)
        if self.alternatives is None:
            return answer, []
        tokens = [answer, *map(model.token_ids, self.alternatives)]
        for text, found in zip([self.answer, *self.alternatives], tokens, strict=True):
            if len(found) > 1:
                split = model.tokenizer.convert_ids_to_tokens(found)
                raise ConfigError(
                    f"with alternatives each answer must be one token; {model.label} reads {text!r} as {split}",
                    reward=self.name,
                )
        first = [found[0] for found in tokens]
        if len(set(first)) < len(first):
            raise ConfigError(f"the answers {[self.answer, *self.alternatives]} are not different", reward=self.name)
        return answer, first

    @staticmethod
    def _probability(logits: torch.Tensor, answer: list[int], answers: list[int]) -> torch.Tensor:
        """(N,) of (N, len(answer), vocabulary)."""
        if answers:
            return logits[:, 0, answers].softmax(dim=-1)[:, 0]
        steps = list(range(len(answer)))
        return logits.log_softmax(dim=-1)[:, steps, answer].mean(dim=-1).exp()
