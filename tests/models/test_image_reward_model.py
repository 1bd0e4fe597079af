"""ImageReward's network against the published architecture, written plainly in `tiny_image_reward`."""

import gc
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from PIL import Image
from tiny_image_reward import (
    LONG_PROMPT,
    OFFICIAL,
    TINY,
    official_shapes,
    official_tokens,
    pil_pixels,
    random_state,
    reference_scores,
    save,
    save_tokenizer,
    unused_shapes,
)
from torch import Tensor

from flux_rewards.errors import WeightsError
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.image_reward import ImageRewardModel, Tokens, open_image_reward
from flux_rewards.models.image_reward_weights import load_image_reward_network

PROMPTS = ["a photo of a red cat", "Two Blue dogs, on the BEACH", "zebra [ENC] [SEP] bird", LONG_PROMPT, "", "été 鳥!"]
PHOTOGRAPHS = sorted((Path(__file__).parents[1] / "data" / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer."""
    return save_tokenizer(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny checkpoint."""
    return save(tmp_path_factory.mktemp("image_reward"))


@pytest.fixture(scope="module")
def model(folder: Path, bert: Path) -> ImageRewardModel:
    """The tiny checkpoint, loaded."""
    return opened(folder, bert)


def opened(folder: Path, bert: Path, dtype: str = "float32") -> ImageRewardModel:
    """The checkpoint of a folder, through the real loading code."""
    weights, med_config = Checkpoint(str(folder), "ImageReward.pt"), Checkpoint(str(folder), "med_config.json")
    return open_image_reward(weights, med_config, Checkpoint(str(bert), "tokenizer.json"), device="cpu", dtype=dtype)


def noise(count: int, size: int = 64, seed: int = 0) -> Tensor:
    """Preprocessed pixels of nothing."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_scores_are_those_of_the_published_architecture(model: ImageRewardModel, bert: Path) -> None:
    """Both encoders, the head and the normalisation, for prompts of every length."""
    pixels = noise(len(PROMPTS))
    expected = reference_scores(random_state(), pixels, *official_tokens(PROMPTS, bert))
    assert torch.allclose(model.scores(pixels, model.tokens(PROMPTS)), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1  # a network that says the same of everything would agree, too


def test_tokens_are_those_of_transformers(model: ImageRewardModel, bert: Path) -> None:
    """Lower case, [DEC] and [ENC] known, cut to 35 with [SEP] at the end; the first is [CLS], not [ENC]."""
    ids, mask = official_tokens(PROMPTS, bert)
    tokens = model.tokens(PROMPTS)
    assert tokens.ids.equal(ids)
    assert tokens.seen.equal(mask.float())
    assert list(tokens.cut) == [0, 0, 0, 17, 0, 0]


def test_padding_does_not_matter(model: ImageRewardModel) -> None:
    """As if the prompt were alone, and as if the padding were other tokens."""
    tokens, pixels = model.tokens(["a red cat"]), noise(1)
    length = int(tokens.seen.sum())
    alone = Tokens(tokens.ids[:, :length], tokens.seen[:, :length], [0])
    other = Tokens(tokens.ids.masked_fill(tokens.seen == 0, 7), tokens.seen, [0])
    expected = model.scores(pixels, tokens)
    assert torch.allclose(model.scores(pixels, alone), expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(model.scores(pixels, other), expected, rtol=1e-5, atol=1e-5)


def test_text_is_read_in_both_directions(model: ImageRewardModel) -> None:
    """The score is that of the first token: under a causal mask it would see no other."""
    pixels = noise(1)
    one, other = (model.scores(pixels, model.tokens([prompt])) for prompt in ("a red cat", "a red dog"))
    assert abs(float(one - other)) > 1e-3


def test_neighbours_do_not_matter(model: ImageRewardModel) -> None:
    """A batch is its rows."""
    pixels = noise(len(PROMPTS))
    together = model.scores(pixels, model.tokens(PROMPTS))
    alone = [model.scores(pixels[row : row + 1], model.tokens([prompt])) for row, prompt in enumerate(PROMPTS)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("image", "tolerance"), [(64, 3e-3), (224, 5e-4)])
def test_photographs_agree_with_the_pil_path(image: int, tolerance: float, tmp_path: Path, bert: Path) -> None:
    """From files to scores: transformers' tokenizer and PIL's resize there, torch here; at every size and ratio.

    PIL rounds to whole levels, twice; the fewer pixels, the less of that is averaged away.
    """
    sizes = replace(TINY, image=image)
    model = opened(save(tmp_path, sizes=sizes), bert)
    whole = [Image.open(path) for path in PHOTOGRAPHS]
    boxes = [(0, 0, 300, 225), (30, 20, 231, 500), (0, 100, 512, 333), (10, 10, 266, 266)]
    images = [*whole, *(whole[0].crop(box) for box in boxes)]
    prompts = ["a painting of the sea"] * len(images)
    expected = reference_scores(
        random_state(sizes), pil_pixels(images, image), *official_tokens(prompts, bert), sizes=sizes
    )
    pixels = [torch.frombuffer(bytearray(one.convert("RGB").tobytes()), dtype=torch.uint8) for one in images]
    shaped = [one.view(*image.size[::-1], 3).permute(2, 0, 1) for one, image in zip(pixels, images, strict=True)]
    scores, cut = model(shaped, prompts)
    assert torch.allclose(scores, expected, rtol=1e-3, atol=tolerance)
    assert expected.std() > 0.05
    assert list(cut) == [0] * len(images)


def test_half_precision_is_close(model: ImageRewardModel, folder: Path, bert: Path) -> None:
    """Encoders in bfloat16, head and score in float32."""
    half = opened(folder, bert, "bfloat16")
    found = half.scores(noise(len(PROMPTS)), half.tokens(PROMPTS))
    expected = model.scores(noise(len(PROMPTS)), model.tokens(PROMPTS))
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.02)
    assert not found.equal(expected)


def test_gradients_are_those_of_finite_differences(folder: Path, bert: Path) -> None:
    """In float64, along random directions; with activations kept and computed again."""
    model = opened(folder, bert)
    network = torch.nn.ModuleDict(dict(model.network.items())).double()
    try:
        double = replace(model, network=network)
        tokens, pixels = double.tokens(PROMPTS[:2]), noise(2).double().requires_grad_()
        gradients = [
            torch.autograd.grad(double.scores(pixels, tokens, activation_checkpointing=again).sum(), pixels)[0]
            for again in (False, True)
        ]
        assert gradients[0].equal(gradients[1])
        for seed in range(3):
            step = 1e-5 * noise(2, seed=10 + seed).double()
            ends = [double.scores(pixels.detach() + sign * step, tokens).sum() for sign in (1, -1)]
            assert torch.allclose((ends[0] - ends[1]) / 2, (gradients[0] * step).sum(), rtol=1e-5)
    finally:
        network.float()


def test_recomputing_keeps_less(model: ImageRewardModel) -> None:
    """Counted in elements that autograd holds on to."""
    tokens, pixels = model.tokens(PROMPTS[:2]), noise(2).requires_grad_()
    kept = {False: 0, True: 0}
    for again in kept:

        def hold(tensor: Tensor, again: bool = again) -> Tensor:
            kept[again] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            model.scores(pixels, tokens, activation_checkpointing=again)
    assert kept[True] < kept[False] / 2


def test_every_official_tensor_has_its_place(tmp_path: Path) -> None:
    """At the real sizes, on the meta device: ViT-L/16, BERT base and the head, one to one."""
    shapes = {**official_shapes(OFFICIAL), **unused_shapes(OFFICIAL)}
    save(tmp_path, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, OFFICIAL)
    network: Any = load_image_reward_network(tmp_path / "ImageReward.pt", tmp_path / "med_config.json")
    sizes = [parameter.numel() for parameter in network.parameters()]
    assert len(sizes) == len(official_shapes(OFFICIAL)) == (4 + 24 * 12 + 2) + (4 + 12 * 26) + 10
    assert sum(sizes) == sum(math.prod(shape) for shape in official_shapes(OFFICIAL).values())
    vision, text = network["vision"].config, network["text"].config
    assert (vision.num_attention_heads, vision.image_size, vision.layer_norm_eps) == (16, 224, 1e-6)
    assert (text.num_attention_heads, text.encoder_hidden_size, text.layer_norm_eps) == (12, 1024, 1e-12)
    assert (text.vocab_size, text.max_position_embeddings, vision.hidden_act, text.hidden_act) == (
        *(30524, 512),
        *("gelu", "gelu"),
    )


def without(name: str) -> dict[str, Tensor]:
    """The tiny tensors but one."""
    return {kept: tensor for kept, tensor in random_state().items() if kept != name}


@pytest.mark.parametrize(
    "name",
    [
        "blip.visual_encoder.cls_token",
        "blip.visual_encoder.pos_embed",
        "blip.visual_encoder.patch_embed.proj.weight",
        "blip.visual_encoder.blocks.0.mlp.fc1.weight",
        "blip.visual_encoder.blocks.0.attn.qkv.bias",
        "blip.text_encoder.encoder.layer.1.crossattention.self.key.weight",
        "blip.text_encoder.embeddings.LayerNorm.bias",
        "mlp.layers.4.weight",
    ],
)
@pytest.mark.parametrize("fault", ["missing", "misshaped"])
def test_a_file_that_does_not_fit_is_refused(name: str, fault: str, tmp_path: Path, bert: Path) -> None:
    """By the names of the file; what nobody wrote would be random."""
    state = without(name)
    if fault == "misshaped":
        state[name] = torch.zeros(3)
    save(tmp_path, state)
    with pytest.raises(WeightsError, match=rf"ImageReward.pt does not fit ImageReward: {fault} .*{name}"):
        opened(tmp_path, bert)


def test_a_tensor_too_many_is_refused(tmp_path: Path, bert: Path) -> None:
    """It belongs to another architecture."""
    save(tmp_path, {**random_state(), "blip.text_encoder.pooler.dense.weight": torch.zeros(32, 32)})
    with pytest.raises(WeightsError, match=r"unexpected blip\.text_encoder\.pooler\.dense\.weight"):
        opened(tmp_path, bert)


def test_a_file_cut_in_depth_is_refused(tmp_path: Path, bert: Path) -> None:
    """BLIP's base encoder has 12 blocks: 11 are not a smaller model."""
    sizes = replace(TINY, width=768, blocks=12, layers=1)
    shapes = {**official_shapes(sizes), **unused_shapes(sizes)}
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items() if ".blocks.11." not in name}
    save(tmp_path, state, sizes)
    with pytest.raises(WeightsError, match=r"missing blip\.visual_encoder\.blocks\.11\."):
        opened(tmp_path, bert)


def test_what_pretraining_left_may_be_absent(tmp_path: Path, bert: Path, model: ImageRewardModel) -> None:
    """So may the prefix be there that distributed training leaves: the scores are the same."""
    state = {f"module.{name}": tensor for name, tensor in random_state().items() if name not in unused_shapes(TINY)}
    other = opened(save(tmp_path, state), bert)
    tokens = model.tokens(PROMPTS)
    assert other.scores(noise(len(PROMPTS)), tokens).equal(model.scores(noise(len(PROMPTS)), tokens))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": 41}, r"position_embeddings\.weight \(40, 32\) for \(41, 32\)"),
        ({"layers": 3}, r"missing blip\.text_encoder\.encoder\.layer\.2\."),
        ({"inner": 64}, r"intermediate\.dense\.weight \(48, 32\) for \(64, 32\)"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    change: dict[str, int], message: str, tmp_path: Path, bert: Path
) -> None:
    """Both files must be of one model."""
    save(tmp_path, random_state(), replace(TINY, **change))
    with pytest.raises(WeightsError, match=message):
        opened(tmp_path, bert)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("med_config.json", '{"hidden_size": 32}', r"is no configuration of BERT: it lacks vocab_size"),
        ("med_config.json", "{", "cannot be read as JSON"),
        ("tokenizer.json", "[CLS]", r"cannot be read as a tokenizer\.json"),
        ("ImageReward.pt", "a page", "cannot be read as weights"),
    ],
)
def test_files_of_something_else_are_refused(file: str, content: str, message: str, tmp_path: Path) -> None:
    """By name, with what is wrong with them."""
    save_tokenizer(save(tmp_path))
    (tmp_path / file).write_text(content)
    with pytest.raises(WeightsError, match=f"{file} {message}"):
        opened(tmp_path, tmp_path)


def test_another_image_encoder_is_refused(tmp_path: Path, bert: Path) -> None:
    """Its patches must be a square, and its heads 64 wide."""
    save(tmp_path, sizes=replace(TINY, width=96))
    with pytest.raises(WeightsError, match="a multiple of 64; found 17 tokens, 96 wide"):
        opened(tmp_path, bert)


def test_another_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    """Ids would mean other words."""
    save_tokenizer(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"beach":', '"beaches":1000,"beach":'))
    with pytest.raises(WeightsError, match="use the tokenizer that it was trained with"):
        opened(folder, tmp_path)


def test_loading_draws_no_random_numbers(tmp_path: Path, bert: Path) -> None:
    """Nothing is initialised, and nothing is left on the meta device."""
    before = torch.get_rng_state()
    model = opened(save(tmp_path), bert)
    assert torch.get_rng_state().equal(before)
    tensors = [*model.network.parameters(), *model.network.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert not any(tensor.requires_grad for tensor in tensors)
    assert not any(module.training for module in model.network.modules())


def test_one_model_for_all_who_name_it(tmp_path: Path, bert: Path) -> None:
    """Gone when nobody holds it; another precision is another model."""
    save(tmp_path)
    one = opened(tmp_path, bert)
    assert opened(tmp_path, bert) is one
    assert opened(tmp_path, bert, "bfloat16") is not one
    held = ref(one)
    del one
    gc.collect()
    assert held() is None


def test_threads_agree(model: ImageRewardModel) -> None:
    """Eight at once, each with a prompt of its own."""
    images = [torch.full((3, 70, 90), shade, dtype=torch.uint8) for shade in range(0, 240, 30)]
    prompts = [f"a red cat {'of the sea ' * times}" for times in range(8)]
    expected = model(images, prompts)[0]
    found = torch.full((8,), torch.nan)

    def score(row: int) -> None:
        found[row] = model([images[row]], [prompts[row]])[0][0]

    threads = [threading.Thread(target=score, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
