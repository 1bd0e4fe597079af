"""OCRReward: its formula worked by hand, and the built-in recogniser on rendered text."""

import copy
import logging
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_ocr
from PIL import Image, ImageDraw, ImageFont

from flux_rewards import ComputeError, ConfigError, ContractError, InputError, MaskErrors, Sample
from flux_rewards.rewards.image.ocr import OCRReward
from flux_rewards.testing import Check, reward_checks

PHOTOGRAPH = Path(__file__).parents[2] / "data" / "images" / "ocean_1.jpg"
BLANK = np.full((32, 32, 3), 255, dtype=np.uint8)


def says(text: str) -> OCRReward:
    """A reward whose recogniser reads the same on every image."""
    return OCRReward(lambda image: text)


def rendered(text: str, size: tuple[int, int] = (400, 200)) -> Image.Image:
    """Black text on white, in Pillow's own font."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((20, 30), text, fill="black", font=ImageFont.load_default(48))
    return image


@pytest.mark.parametrize(
    ("prompt", "recognized", "expected"),
    [
        ('A sign that says "Open".', "Open", 1.0),
        ('A sign that says "Open".', "OPEN", 1.0),
        ('A sign that says "Open".', "We are open today", 1.0),  # found within: nothing is lost
        ('"New York"', "n e w\nyork", 1.0),  # over two lines
        ('"New\tYork"', "NewYork", 1.0),
        ('A sign that says "Open".', "Opem", 0.75),
        ('A sign that says "Open".', "Oxpen", 0.75),
        ('A sign that says "Open".', "pen", 0.75),
        ('A sign that says "Open".', "", 0.0),
        ('A sign that says "Open".', "closed until further notice", 0.0),  # capped at the target's length
        ('"Open" and "Closed"', "Open", 1.0),  # the first pair decides
        ("A sign that says “Open”.", "Open", 1.0),
        ("Ein Schild: „Offen“", "offen", 1.0),
        ("Une enseigne : « Ouvert »", "ouvert", 1.0),
        ('“Open" of sloppy typing', "open", 1.0),
        ('"日本"', "日木", 0.5),
    ],
)
def test_formula(prompt: str, recognized: str, expected: float) -> None:
    """1 - min(d, n) / n, with d = 0 for a substring, without case and whitespace."""
    assert says(recognized)(prompt=[prompt], image=[BLANK]).rewards[0] == expected


@pytest.mark.parametrize("prompt", ["A sign.", 'A 5" pipe.', 'Nothing: ""', 'Spaces: "  "', "It's a 'sign'."])
def test_nothing_asked_for_does_not_apply(prompt: str) -> None:
    """No score, and the recogniser is not asked."""

    def read(image: Image.Image) -> str:
        raise AssertionError("asked")

    batch = OCRReward(read)(prompt=[prompt], image=[BLANK])
    assert np.isnan(batch.rewards[0])
    assert not batch.errors


def test_the_reference_comes_before_the_prompt() -> None:
    """The whole of it is wanted, quotes included; an empty one asks for nothing."""
    reward = says("closed")
    columns: dict[str, Any] = {"prompt": ['"Open"'] * 2, "image": [BLANK] * 2}
    np.testing.assert_array_equal(reward(**columns, reference=["Closed", ""]).rewards, [1.0, np.nan])
    assert says('say "hi"')(image=[BLANK], reference=['Say "Hi"']).rewards[0] == 1.0


def test_a_conversation_is_asked_by_its_last_user_message() -> None:
    """Prompts may be messages."""
    prompt = [{"role": "system", "content": 'You "paint".'}, {"role": "user", "content": 'A sign: "Open"'}]
    assert says("open")([Sample(prompt=prompt, image=BLANK)]).rewards[0] == 1.0


def test_metadata_tells_what_was_read() -> None:
    """As it was read, and as it was wanted."""
    batch = says("OPEN\nnow")(prompt=['"Open Now"'], image=[BLANK])
    assert batch.metadata[0] == {"recognized": "OPEN\nnow", "target": "Open Now"}


def test_the_recognizer_gets_rgb_images() -> None:
    """PIL, whatever the caller passed."""
    seen: list[Image.Image] = []

    def read(image: Image.Image) -> str:
        seen.append(image)
        return ""

    OCRReward(read)(prompt=['"a"'] * 2, image=[np.zeros((3, 4), np.float32), Image.new("RGBA", (4, 3))])
    assert [(image.mode, image.size) for image in seen] == [("RGB", (4, 3))] * 2


def test_a_recognizer_that_raises_fails_its_sample_alone() -> None:
    """A failure is no score, and its neighbours keep theirs."""

    def read(image: Image.Image) -> str:
        if image.width == 5:
            raise RuntimeError("out of ink")
        return "a"

    images = [BLANK, np.zeros((5, 5), np.uint8), BLANK]
    with pytest.raises(ComputeError, match=r"'OCRReward', sample 1: .*out of ink"):
        OCRReward(read)(prompt=['"a"'] * 3, image=images)
    batch = MaskErrors(OCRReward(read), max_failure_rate=0.5)(prompt=['"a"'] * 3, image=images)
    np.testing.assert_array_equal(batch.rewards, [1.0, np.nan, 1.0])
    assert list(batch.errors) == [1]


@pytest.mark.parametrize("found", [None, ["a"], b"a"])
def test_a_recognizer_must_return_text(found: Any) -> None:
    """What is no text is a mistake of the recogniser, not an image without text."""
    with pytest.raises(ContractError, match=r"must return the text on the image as a str"):
        OCRReward(lambda image: found)(prompt=['"a"'], image=[BLANK])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [BLANK]}, r"sample 0, field 'prompt': .*found neither"),
        ({"image": [BLANK], "reference": [4]}, r"sample 0, field 'reference': expected the text to show, found 4"),
        ({"prompt": ['"a"']}, r"sample 0, field 'image'"),
    ],
)
def test_samples_that_cannot_be_read(columns: dict[str, Any], message: str) -> None:
    """Named, with what is missing."""
    with pytest.raises(InputError, match=message):
        says("a")(**columns)


@pytest.mark.parametrize("recognizer", [None, 3, "tesseract", ""])
def test_impossible_recognizers(recognizer: Any) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match="recognizer must be 'rapidocr', a callable"):
        OCRReward(recognizer)


def test_a_dotted_path() -> None:
    """Both spellings; a wrong one is named at the first call."""
    expected = tiny_ocr.brightness(Image.fromarray(BLANK))
    for path in ("tiny_ocr.brightness", "tiny_ocr:brightness"):
        assert OCRReward(path)(image=[BLANK], reference=[expected]).rewards[0] == 1.0
    with pytest.raises(ConfigError, match=r"tiny_ocr.*brightnes"):
        OCRReward("tiny_ocr.brightnes")(image=[BLANK], reference=["1"])


@pytest.mark.parametrize("check", reward_checks(OCRReward("tiny_ocr.brightness")), ids=str)
def test_contract(check: Check) -> None:
    """As every reward."""
    check()


class TestBuiltIn:
    """RapidOCR, with the models of its package."""

    @pytest.fixture(scope="class")
    @staticmethod
    def reward() -> OCRReward:
        """One for all: its models take a second to open."""
        reward = OCRReward()
        reward.load()
        return reward

    @pytest.mark.slow
    def test_reads_rendered_text(self, reward: OCRReward) -> None:
        """Right text scores 1, text with one wrong letter almost, none nothing; a photograph has no text."""
        images = [rendered("Hello World"), rendered("Coffee"), rendered("Coffee\nShop"), rendered(""), BLANK]
        targets = ["hello world", "Toffee", "Coffee Shop", "Coffee", "Coffee"]
        batch = reward(image=[*images, PHOTOGRAPH], reference=[*targets, "Coffee"])
        np.testing.assert_allclose(batch.rewards, [1.0, 5 / 6, 1.0, 0.0, 0.0, 0.0])
        assert [row["recognized"] for row in batch.metadata or []] == [
            "Hello World",
            "Coffee",
            "Coffee\nShop",
            "",
            "",
            "",
        ]

    @pytest.mark.slow
    def test_the_order_of_colours_is_right(self, reward: OCRReward) -> None:
        """Blue text on a red ground, about as bright in one order, is read in this one."""
        image = Image.new("RGB", (400, 120), (255, 0, 0))
        ImageDraw.Draw(image).text((20, 30), "EXIT 42", fill=(255, 255, 255), font=ImageFont.load_default(48))
        assert reward(image=[image], reference=["Exit 42"]).rewards[0] == 1.0

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3)])
    def test_images_of_any_shape(self, reward: OCRReward, size: tuple[int, int]) -> None:
        """Nothing to read is no failure."""
        assert reward(image=[Image.new("RGB", size)], reference=["a"]).rewards[0] == 0.0

    @pytest.mark.slow
    def test_one_engine_for_all_threads(self, reward: OCRReward) -> None:
        """Shared by rewards, and right from several threads."""
        other = pickle.loads(pickle.dumps(reward))
        image = rendered("Open", (200, 120))
        with ThreadPoolExecutor(4) as pool:
            batches = list(pool.map(lambda one: one(image=[image], reference=["Open"]), [reward, other] * 3))
        assert [batch.rewards[0] for batch in batches] == [1.0] * 6
        assert other._held is reward._held
        other.close()
        assert other._held is None
        assert copy.copy(reward) == reward

    def test_is_silent_and_leaves_its_logger_as_found(
        self, reward: OCRReward, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Neither its own log nor that of somebody else who uses it is changed."""
        logger = logging.getLogger("RapidOCR")
        before = (logger.level, list(logger.handlers), list(logger.filters))
        reward(image=[BLANK], reference=["a"])
        assert (logger.level, list(logger.handlers), list(logger.filters)) == before
        captured = capfd.readouterr()
        assert captured.out == captured.err == ""

    @pytest.mark.slow
    def test_opens_silently_with_no_network(self) -> None:
        """In a process that cannot connect: no line is printed, no warning raised, and the text is read."""
        code = (
            "import socket\n"
            "def refuse(*_, **__): raise OSError('no network')\n"
            "socket.socket.connect = socket.getaddrinfo = refuse\n"
            "import logging; logging.getLogger('RapidOCR').setLevel(logging.DEBUG)\n"
            "from PIL import Image, ImageDraw, ImageFont\n"
            "from flux_rewards.rewards.image.ocr import OCRReward\n"
            "image = Image.new('RGB', (300, 120), 'white')\n"
            "ImageDraw.Draw(image).text((20, 30), 'Open', fill='black', font=ImageFont.load_default(48))\n"
            "assert OCRReward()(image=[image], reference=['Open']).rewards[0] == 1.0\n"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_a_missing_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the line that installs it."""
        from flux_rewards import MissingDependencyError
        from flux_rewards.rewards.image import ocr

        monkeypatch.setitem(sys.modules, "rapidocr", None)
        with pytest.raises(MissingDependencyError, match=r'pip install "flux_rewards\[ocr\]"'):
            ocr._RapidOCR()

    def test_caches_go_by_its_version(self, reward: OCRReward) -> None:
        """Another release may read another text."""
        assert list(reward.decided_by) == ["rapidocr", version("rapidocr")]
        assert list(OCRReward(tiny_ocr.brightness).decided_by) == [tiny_ocr.brightness]
