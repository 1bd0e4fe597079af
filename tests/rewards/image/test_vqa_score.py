"""VQAScore against its published definition, transformers' own pipeline, and finite differences."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_vlm
import torch
from PIL import Image

from flux_rewards import ConfigError, InputError, MaskErrors, Sample
from flux_rewards.rewards.image.vqa_score import VQAScore
from flux_rewards.testing import Check, reward_checks

PHOTOGRAPH = Path(__file__).parents[2] / "data" / "images" / "ocean_1.jpg"
FAMILIES = ("qwen2_5_vl", "llava")
SIZES = ((60, 40), (50, 100), (64, 64), (320, 200))
PROMPTS = ("a red cat", "a very old photo of the sea with {prompt} and {} in it", "", "日本 beach")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each family, written once."""
    base = tmp_path_factory.mktemp("vqa")
    return {family: getattr(tiny_vlm, family)(base / family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    """Each family in turn."""
    return folders[request.param]


def reward(folder: Path, **parameters: Any) -> VQAScore:
    """In float32 on the CPU."""
    return VQAScore(str(folder), **{"device": "cpu", "dtype": "float32", **parameters})


def photographs() -> list[Image.Image]:
    """One photograph, in several sizes and shapes."""
    image = Image.open(PHOTOGRAPH).convert("RGB")
    return [image.resize(size) for size in SIZES]


def smooth(count: int, size: int = 60) -> torch.Tensor:
    """Float images away from black and white, (count, 3, size, size)."""
    generator = torch.Generator().manual_seed(1)
    coarse = 0.2 + 0.6 * torch.rand(count, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)


def published(folder: Path, image: Image.Image, question: str, answer: str) -> tuple[torch.Tensor, list[int]]:
    """The definition, one token at a time: probabilities (n, vocabulary) in float64, and the answer's ids."""
    processor = tiny_vlm.library.AutoProcessor.from_pretrained(folder)
    model = tiny_vlm.library.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    ids = processor.tokenizer.encode(answer, add_special_tokens=False)
    rows = []
    for step in range(len(ids)):
        said = text + processor.tokenizer.decode(ids[:step])
        with torch.no_grad():
            logits = model(**processor(images=image, text=said, return_tensors="pt")).logits
        rows.append(logits[0, -1].double().softmax(dim=-1))
    return torch.stack(rows), ids


@pytest.mark.parametrize("answer", ["Yes", "No", "Yes it"])
def test_is_the_published_probability(answer: str, folder: Path) -> None:
    """Of the answer's tokens over the whole vocabulary, their geometric mean; and the likeliest token beside it."""
    images = photographs()
    batch = reward(folder, answer=answer)(image=images, prompt=PROMPTS)
    for image, prompt, found in zip(images, PROMPTS, batch, strict=True):
        question = f'Does this figure show "{prompt}"? Please answer Yes or No.'
        probabilities, ids = published(folder, image, question, answer)
        assert (len(ids) == 1) == (" " not in answer)
        each = [float(row[token]) for row, token in zip(probabilities, ids, strict=True)]
        assert found.reward == pytest.approx(np.prod(each) ** (1 / len(each)), rel=1e-4)
        tokenizer = tiny_vlm.library.AutoTokenizer.from_pretrained(folder)
        assert found.metadata == {"likeliest": tokenizer.decode([int(probabilities[0].argmax())])}


def test_alternatives_share_the_probability(folder: Path) -> None:
    """`sigmoid(log p(Yes) - log p(No))` for two, p(Yes) / (p(Yes) + p(No) + p(no)) for three."""
    image = photographs()[0]
    question = "Is this a photo? Answer Yes or No."
    probabilities, (yes,) = published(folder, image, question, "Yes")
    tokenizer = tiny_vlm.library.AutoTokenizer.from_pretrained(folder)
    p_yes, p_no, p_small = (float(probabilities[0, i]) for i in (yes, *tokenizer.convert_tokens_to_ids(["No", "no"])))
    two, three = (reward(folder, question=question, alternatives=among) for among in (["No"], ("No", "no")))
    assert two(image=[image]).rewards[0] == pytest.approx(1 / (1 + np.exp(np.log(p_no) - np.log(p_yes))), rel=1e-4)
    assert three(image=[image]).rewards[0] == pytest.approx(p_yes / (p_yes + p_no + p_small), rel=1e-4)


def test_agrees_with_the_decision_pipeline(folders: dict[str, Path]) -> None:
    """The yes-or-no pipeline of transformers, asked in the same words about the same image."""
    folder, image = folders["qwen2_5_vl"], photographs()[3]
    library = tiny_vlm.library
    processor = library.AutoProcessor.from_pretrained(folder)
    model = library.AutoModelForImageTextToText.from_pretrained(folder)
    decide = library.pipeline("decision", model=model, processor=processor, tokenizer=processor.tokenizer, device="cpu")
    questions = {"asked": {"type": "noul", "instructions": "Does it show a red cat?"}}
    theirs = decide({"state": "IMAGE", "questions": questions, "assets": {"IMAGE": image}})["asked"]["noul"]
    question = "\n\nDoes it show {prompt}?\nAnswer Yes or No only."
    ours = reward(folder, question=question, alternatives=["No"])(image=[image], prompt=["a red cat"])
    assert ours.rewards[0] == pytest.approx(theirs, rel=1e-5)


def test_any_form_of_an_image(folder: Path) -> None:
    """8 bits score the same as PIL, array or tensor; floats up to the rounding of a resize to whole levels."""
    image = photographs()[3]
    array = np.array(image)
    forms = [image, array, torch.from_numpy(array).permute(2, 0, 1), (array / 255).astype(np.float32)]
    found = reward(folder)(image=forms, prompt=["a red cat"] * 4).rewards
    assert found[1:3] == pytest.approx(found[0], rel=1e-5)
    assert found[3] == pytest.approx(found[0], rel=0.03)


def test_messages_are_prompts(folder: Path) -> None:
    """What the user asked for last is what the question is about."""
    image = photographs()[0]
    talk = [{"role": "system", "content": "Paint."}, {"role": "user", "content": "a red cat"}]
    found = reward(folder)(image=[image, image], prompt=[talk, "a red cat"]).rewards
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_both_paths_agree(folder: Path) -> None:
    """A call and the gradient path give the same numbers, in micro-batches too, and with the reward's own scale."""
    pixels = smooth(3)
    prompts = ["a red cat", "a very old dog", "beach"]
    for options in ({}, {"batch_size": 2}, {"scale": 2.0, "alternatives": ["No"]}):
        asked = reward(folder, **options)
        called = asked(image=list(pixels), prompt=prompts).rewards
        forward = asked.forward(pixels.clone().requires_grad_(), prompts)
        assert (forward.dtype, forward.shape) == (torch.float32, (3,))
        assert forward.tolist() == pytest.approx(called.tolist(), rel=1e-4)


@pytest.mark.parametrize("parameters", [{}, {"alternatives": ["No"]}, {"answer": "Yes it"}])
def test_gradient_agrees_with_finite_differences(parameters: dict[str, Any], folder: Path) -> None:
    """In one image, beside another with a longer prompt."""
    asked = reward(folder, activation_checkpointing=True, **parameters)
    pixels = smooth(2).requires_grad_()
    prompts = ["a cat", "a very old red dog in the sea"]
    asked.forward(pixels, prompts)[0].log().backward()
    assert pixels.grad is not None
    assert torch.count_nonzero(pixels.grad[1]) == 0  # an image's score is its own
    # The gradient's own direction, smoothed: along noise alone the change would drown in rounding.
    direction = torch.nn.functional.avg_pool2d(pixels.grad, 9, stride=1, padding=4)
    direction /= direction.norm()
    step = 0.005
    with torch.no_grad():
        ahead, behind = (asked.forward(pixels + sign * step * direction, prompts)[0].log() for sign in (1, -1))
    assert float(ahead - behind) / (2 * step) == pytest.approx(float((pixels.grad * direction).sum()), rel=2e-3)


def test_a_step_along_the_gradient_raises_the_score(folder: Path) -> None:
    """What reward feedback does, through the loss that it minimises."""
    asked = reward(folder)
    pixels = smooth(2).requires_grad_()
    prompts = ["a red cat", "blue"]
    before = asked.forward(pixels, prompts).detach()
    asked.loss(pixels, prompts, kind="hinge", target=1.0).backward()
    assert pixels.grad is not None
    step = 0.01 * pixels.grad / pixels.grad.flatten(1).norm(dim=1)[:, None, None, None]
    assert (asked.forward(pixels.detach() - step, prompts) > before).all()


def test_a_question_about_the_image_alone(folder: Path) -> None:
    """Without `{prompt}` no prompt is needed, nor read."""
    asked = reward(folder, question="Is this a {very} old photo? Answer Yes or No.")
    image = photographs()[0]
    found = asked([Sample(image=image), Sample("a cat", image=image)]).rewards
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert asked.forward(smooth(1)).shape == (1,)


def test_bfloat16_is_near(folder: Path) -> None:
    """The precision of the default: within what rounding does to a tiny random network."""
    images = photographs()
    full, half = (reward(folder, dtype=dtype)(image=images, prompt=PROMPTS).rewards for dtype in ("float32", "bf16"))
    assert half == pytest.approx(full, rel=0.15)
    assert len(set(half.tolist())) == len(images)
    assert VQAScore().dtype == "bfloat16"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"question": " "}, "question must be a text"),
        ({"question": 'Does this figure show "{}"?'}, r"question has '\{\}', write '\{prompt\}'"),
        ({"answer": ""}, "answer must be a text"),
        ({"alternatives": "No"}, "alternatives must be a list of non-empty texts"),
        ({"alternatives": []}, "alternatives is empty"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        VQAScore(**parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alternatives": ["No it"]}, r"each answer must be one token; .* reads 'No it' as \['No'"),
        ({"alternatives": ["Yes"]}, "are not different"),
        ({"answer": "<|im_end|>"}, "has no tokens for the answer"),
    ],
)
def test_answers_that_the_model_cannot_give(parameters: dict[str, Any], message: str, folders: dict[str, Path]) -> None:
    """Told when the model is opened, before anything is scored."""
    with pytest.raises(ConfigError, match=message):
        reward(folders["qwen2_5_vl"], **parameters).load()


def test_a_prompt_that_cannot_be_asked_about_fails_alone(tmp_path: Path) -> None:
    """It holds a control token of one character: named on both paths, and its neighbours are scored."""
    asked = reward(tiny_vlm.llava(tmp_path, "§"))
    prompts = ["a red cat", "section § 1", "a dog"]
    masked = MaskErrors(asked)(image=photographs()[:3], prompt=prompts)
    assert np.isfinite(masked.rewards).tolist() == [True, False, True]
    with pytest.raises(InputError, match=r"'VQAScore', sample 1, field 'prompt'.*control token '§'"):
        asked(image=photographs()[:3], prompt=prompts)
    with pytest.raises(InputError, match=r"'VQAScore', sample 1, field 'prompt'.*control token '§'"):
        asked.forward(smooth(3), prompts)


def test_weights_leave_memory_with_their_last_user(tmp_path: Path) -> None:
    """Closed by one of two rewards they stay, closed by both they go, at once and not when cycles are collected."""
    folder = tiny_vlm.llava(tmp_path)
    one, other = reward(folder), reward(folder, alternatives=["No"])
    one.forward(smooth(1).requires_grad_(), ["a cat"]).sum().backward()
    other.load()
    weights = [weakref.ref(parameter) for parameter in one.model.network.parameters()]
    one.close()
    assert all(weight() is not None for weight in weights)
    other.close()
    assert all(weight() is None for weight in weights)


def test_forward_needs_prompts(folders: dict[str, Path]) -> None:
    """A question about a prompt cannot be asked without one."""
    with pytest.raises(InputError, match="field 'prompts': the question is about the prompt"):
        reward(folders["llava"]).forward(smooth(1))


def test_is_its_parameters() -> None:
    """Prints as written, and holds no weights before it is used."""
    asked = VQAScore("somewhere/model", alternatives=["No"])
    assert repr(asked) == "VQAScore(model_name_or_path='somewhere/model', alternatives=['No'])"
    assert asked.bounds == (0.0, 1.0)


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> VQAScore:
    """From the configuration that the contract's checks over all rewards use."""
    return VQAScore(**tiny_vlm.config(tmp_path_factory.mktemp("contract")))


@pytest.mark.parametrize("name", [check.name for check in reward_checks(VQAScore())])
def test_keeps_the_contract(name: str, checked: VQAScore) -> None:
    """The checks that every reward passes."""
    check: Check = next(check for check in reward_checks(checked) if check.name == name)
    check()
