"""RewardModelReward: the score that a trained reward model gives to a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.data import RewardOutput
from flux_rewards.errors import ConfigError
from flux_rewards.models.text_format import TextFormat
from flux_rewards.rewards.learned.head import OUTPUTS, label_position, label_scores
from flux_rewards.rewards.learned.text_model_reward import SequenceReward, TextModelOptions
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.models.text_format import EncodedText
    from flux_rewards.models.text_models import TextModel

__all__ = ["RewardModelReward"]


class RewardModelReward(SequenceReward):
    r"""What a sequence classifier, such as a reward model trained on preferences, says of prompt and response.

    A model that this library trained says itself how it reads text (`reward_model.json`), and is read so. Any other is
    read with its tokenizer's chat template unless a `template` is given: give the one that it was trained with, for a
    reward model tells good from bad in its own format only.

    | model | setting |
    |---|---|
    | trained by `train_reward_model` | none |
    | TRL's RewardTrainer on conversations; Skywork-Reward, most of RewardBench | none: the chat template |
    | TRL's RewardTrainer on plain texts | ``template="{prompt}{response}{eos_token}"`` |
    | a cross-encoder, such as OpenAssistant/reward-model-deberta-v3-large-v2 | ``template="pair"`` |
    | prompts that come rendered already | ``template="{prompt}{response}", obey_control_tokens=True`` |

    Args:
        model_name_or_path: A sequence classifier in transformers' format with its tokenizer, or a LoRA adapter of one:
            hub id or directory.
        label: Whose output it is, by name or number; None for a head with one output.
        output: ``"logit"``, ``"probability"`` (sigmoid of a lone output, else softmax) or ``"log_odds"``; None for what
            the model's own file says, else ``"logit"``.
        template: See `TextFormat`; None for the model's own.
        cut: Which side of a text that is too long is cut: ``"left"`` or ``"right"``; None for what the model's own file
            says, else ``"left"``.
        chat_options: For the chat template; see `TextFormat`.
        obey_control_tokens: Whether control tokens in prompt and response act; see `TextFormat`.
        use_token_ids: Read `Sample.token_ids`, the tokens that the policy sampled, instead of tokenizing the response:
            for a reward model that has the policy's tokenizer. Control tokens among them act.
        **options: `model_revision`, `max_length`, `on_truncation`, `max_batch_tokens` (`TextModelReward`), `device`,
            `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    A prompt is required where the format has a place for it: a model that was trained without prompts is asked without,
    and passes over those that are given. Conversations are read whole. ``sample.metadata["tools"]``, where it is there,
    goes to the chat template. Metadata: ``truncated`` and ``control_tokens``; see `TextModelReward`. In float32 a score
    does not depend on its batch (1e-5).

    Raises:
        ConfigError: An argument cannot be used; at the first call: another template than the model was trained with, no
            template at all, or a label that the model has not.
        WeightsError: At the first call: the checkpoint cannot be found, does not fit, or has no head: transformers
            would draw one by chance.

    Source: the logit of TRL's RewardTrainer and GRPOTrainer (``logits[:, 0]``), https://github.com/huggingface/trl.

    Does not run code that comes with a checkpoint, and does not read heads that are no sequence classifiers (a value
    head on every token, ArmoRM's gating).

    Examples:
        >>> reward = RewardModelReward("Skywork/Skywork-Reward-V2-Qwen3-0.6B", max_length=4096, dtype="bfloat16")
        >>> reward.required_fields  # and the prompt, unless the model's own file says that it reads none
        ('response',)
        >>> RewardModelReward("OpenAssistant/reward-model-deberta-v3-large-v2", template="pair").required_fields
        ('prompt', 'response')
    """

    example_config = {"model_name_or_path": "Skywork/Skywork-Reward-V2-Qwen3-0.6B"}

    def __init__(
        self,
        model_name_or_path: str,
        *,
        label: str | int | None = None,
        output: str | None = None,
        template: str | None = None,
        cut: str | None = None,
        chat_options: Mapping[str, Any] | None = None,
        obey_control_tokens: bool = False,
        use_token_ids: bool = False,
        **options: Unpack[TextModelOptions],
    ) -> None:
        if output == "probability":
            self.bounds = (0.0, 1.0)  # before the base rescales them
        if template is None and (chat_options or obey_control_tokens):
            raise ConfigError("chat_options and obey_control_tokens are for a template; name it", reward=self.name)
        form = None if template is None else TextFormat(template, None, "left", chat_options or {}, obey_control_tokens)
        super().__init__(model_name_or_path, form, cut, **options)
        self.label = label
        self.output = None if output is None else one_of(output, "output", self.name, OUTPUTS)
        self.template = template
        self.chat_options = chat_options
        self.obey_control_tokens = obey_control_tokens
        self.use_token_ids = self.uses_token_ids = use_token_ids
        if use_token_ids:
            self.required_fields = (*self.required_fields, "token_ids")

    def open_model(self) -> TextModel:
        """The model; its label is looked up."""
        model = super().open_model()
        label = self.label if self.label is not None or self._file is None else self._file.label
        count = len(model.labels)
        if label is None and count != 1:
            known = ", ".join(map(repr, model.labels.values()))
            raise ConfigError(f"{model.label} has {count} labels; choose one: {known}", reward=self.name)
        self._position = 0 if label is None else label_position(model, label, self.name)
        self._output = self.output or ("logit" if self._file is None else self._file.output)
        return model

    def score(self, rows: Sequence[EncodedText], model: TextModel) -> list[RewardOutput]:
        """The label's output of each text."""
        logits = model.logits(rows, max_tokens=self.max_batch_tokens)
        scores = label_scores(logits, self._position, self._output, model).tolist()
        return [RewardOutput(score, metadata=self.noted(row)) for score, row in zip(scores, rows, strict=True)]
