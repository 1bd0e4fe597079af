"""What is put before a chat model: text that cannot act, and images without loss."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["fenced", "image_part", "plain"]

# What chat templates and processors of images act upon: <|im_end|>, <｜User｜>, </s>, [INST], <start_of_turn>, ...
_CONTROL_TOKEN = re.compile(
    r"<(?=[|｜][^<>\n]{1,60}[|｜]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|cls|sep|image|video|audio|img|IMG_CONTEXT|[a-z_]*(?:start|end)_of_[a-z_]+"
    r"|[a-z_]+_(?:token|pad|soft_token))>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|IMG|IMG_BREAK|IMG_END)\])"
    r"|<(?=</?SYS>>)",
    re.IGNORECASE,
)


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
    """A text between two lines that it cannot contain: what is within is material, and ends only at the second.

    The lines hold a digest of the text, so that equal texts are asked about in equal words.

    Examples:
        >>> print(fenced("response", "Fine."))
        <<<response 06ddfbea
        Fine.
        response 06ddfbea>>>
    """
    text = plain(text)
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    while mark in text:  # by chance only: a text cannot hold its own digest
        mark = hashlib.sha256(mark.encode()).hexdigest()[:8]
    return f"<<<{label} {mark}\n{text}\n{label} {mark}>>>"


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
