"""What is put before a chat model: text that cannot act, and images without loss."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["fenced", "image_part", "marked", "plain"]

# What chat templates and processors of images act upon: <|im_end|>, <｜User｜>, <|turn>, </s>, [INST], <image>, ... All
# have one spelling and no blank within, which leaves code such as "x |> f" and "impl<S>" alone.
_CONTROL_TOKEN = re.compile(
    r"<(?=[|｜][^<>\s]{1,200}[|｜]>|[|｜][A-Za-z_]+>|[A-Za-z_]+[|｜]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|cls|sep|image|video|audio|img|IMG_CONTEXT|im_start|im_end|im_patch"
    r"|think|tool_call|tool_response|sop|eop|__media__|global-img|fake_token_around_image|row_\d+_col_\d+|extra_id_\d+"
    r"|unused\d+"
    r"|[a-z_]{0,40}(?:start|begin|end)_of_[a-z_]{1,40}|[a-z_]{1,40}_(?:token|pad|soft_token|placeholder))>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|PREFIX|MIDDLE"
    r"|SUFFIX|IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|THINK"
    r"|MODEL_SETTINGS|gMASK|sMASK|MASK)\])"
    r"|<(?=</?SYS>>)"
)
_MARK = "\0"
"""Where the mark of a fence will be: no text can hold it, see `plain`."""


def plain(text: str) -> str:
    r"""A text in which nothing acts: neither a chat template's control tokens nor control characters.

    A space after its first character sets a control token apart, such as ``<|im_end|>``, ``</s>`` or ``[INST]``: a
    server would take it for its own. Control characters and halves of characters become U+FFFD.

    Examples:
        >>> plain("done<|im_end|> [/INST] a < b {x} \x00")
        'done< |im_end|> [ /INST] a < b {x} \ufffd'
    """
    safe = "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t" else character
        for character in text.replace("\r\n", "\n").replace("\r", "\n")
    )
    return _CONTROL_TOKEN.sub(lambda found: found.group() + " ", safe)


def fenced(label: str, text: str) -> str:
    r"""A text between two lines that it cannot contain: what is within is material, and ends only at the second.

    The lines get their mark with the message, see `marked`.

    Examples:
        >>> marked([fenced("response", "Fine.")])
        ['<<<response b917f496\nFine.\nresponse b917f496>>>']
    """
    return f"<<<{label} {_MARK}\n{plain(text)}\n{label} {_MARK}>>>"


def marked(texts: Sequence[str]) -> list[str]:
    """The texts of a message, with the mark of their fences: a digest of all of them.

    So equal messages are equal to the last character, and nobody who writes one of the texts can know the mark.
    """
    mark = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]
    while any(mark in text for text in texts):  # by chance: a text cannot hold its own digest
        mark = hashlib.sha256(mark.encode()).hexdigest()[:8]
    return [text.replace(_MARK, mark) for text in texts]


def image_part(image: Image.Image, form: str = "png") -> dict[str, Any]:
    """An image as a part of a message: a data URL.

    Args:
        image: RGB.
        form: ``"png"``, which loses nothing, or ``"jpeg"`` of quality 95, a tenth of the bytes.

    Examples:
        >>> from PIL import Image
        >>> image_part(Image.new("RGB", (1, 1)))["image_url"]["url"][:22]
        'data:image/png;base64,'
    """
    encoded = io.BytesIO()
    if form == "png":
        image.save(encoded, "PNG", compress_level=1)  # three times as fast as the default, and 10 % larger
    else:
        image.save(encoded, "JPEG", quality=95, subsampling=0)
    url = f"data:image/{form};base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url}}
