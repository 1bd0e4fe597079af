"""Real servers of chat models on 127.0.0.1, each in a process of its own, and tiny models for them to serve."""

import contextlib
import importlib.util
import itertools
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny_vlm
import torch

START_SECONDS = 90.0
# Its standard input ends with the test's process, however that ends: no server outlives its test.
RUN_MODULE = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}\n{% endfor %}assistant:"
)


def why_not(*modules: str, install: str) -> str | None:
    """The reason to skip where one of these modules is missing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed: pip install {install}" if missing else None


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, ready: str
) -> Iterator[str]:
    """Run ``python -m module arguments --host ... --port ...`` until the end of the context; its base URL.

    Args:
        module: What to run.
        arguments: Its own.
        environment: Variables, beside those of this process.
        folder: Where it runs, and writes what it prints to ``server.log``.
        ready: Path that is answered with 200 once the server is ready.
    """
    port, log = free_port(), folder / "server.log"
    command = [sys.executable, "-c", RUN_MODULE, module, *arguments, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
    try:
        wait_for(f"http://127.0.0.1:{port}{ready}", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        try:
            process.communicate(timeout=10)  # closes its standard input, and waits for the end
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the address is answered."""
    end = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # loopback
            assert answer.status == 200
            return
        assert process.poll() is None, f"the server ended while it started:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < end, f"no answer within {START_SECONDS} s:\n{log.read_text()[-3000:]}"
        time.sleep(0.05)


@contextlib.contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """``transformers serve``: it opens whichever checkpoint is asked for, by its path."""
    home = folder / "huggingface"
    (home / "hub").mkdir(parents=True)  # else it cannot list its models
    environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    module, arguments = "transformers.cli.transformers", ["serve", "--device", "cpu"]
    with running(module, arguments, environment, folder, "/health") as url:
        yield url


@contextlib.contextmanager
def llama_cpp_serve(model: Path) -> Iterator[str]:
    """The server of llama-cpp-python, with log-probabilities."""
    arguments = ["--model", str(model), "--model_alias", model.stem, "--n_ctx", "4096", "--logits_all", "true"]
    with running("llama_cpp.server", [*arguments, "--n_threads", "1"], {}, model.parent, "/v1/models") as url:
        yield url


def babbler(folder: Path) -> Path:
    """A Qwen2.5-VL of random weights: what it says is noise, depends on text and image, and does not end by itself."""
    path = tiny_vlm.qwen2_5_vl(folder / "babbler")
    with edited(path) as (model, tokenizer), torch.no_grad():
        # The server reads some special tokens, such as <tool_call>, and fails where they are noise, too.
        model.get_output_embeddings().weight[list(tokenizer.get_added_vocab().values())] = 0.0
    return path


def speaker(folder: Path, says: str) -> Path:
    """The same with weights such that it always says this, and stops.

    Each token that it says has a direction of its own in the hidden states, along which its embedding is long, and the
    output weights of the token after it are, too: together they outweigh everything else.

    Args:
        folder: Where the checkpoint's folder is made.
        says: Its tokens must differ from each other.
    """
    path = tiny_vlm.qwen2_5_vl(folder / re.sub(r"\W+", "-", f"says {says}"))
    with edited(path) as (model, tokenizer), torch.no_grad():
        # After the line break that ends "<|im_start|>assistant".
        tokens = [*tokenizer("\n" + says)["input_ids"], tokenizer.eos_token_id]
        assert len(tokens) == len(set(tokens))
        for direction, (now, after) in enumerate(itertools.pairwise(tokens)):
            model.get_input_embeddings().weight[now, direction] += 30.0
            model.get_output_embeddings().weight[after, direction] += 10.0
    return path


@contextlib.contextmanager
def edited(path: Path) -> Iterator[tuple[Any, Any]]:
    """A checkpoint's model and tokenizer; the model is saved at the end."""
    model = tiny_vlm.library.Qwen2_5_VLForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
    yield model, tiny_vlm.library.AutoProcessor.from_pretrained(path).tokenizer
    model.save_pretrained(path)


def gguf(path: Path, words: Sequence[str]) -> Path:
    """A LLaMA of random weights in llama.cpp's format, with these words, characters and bytes as its tokens.

    All tokens have one direction in common, along which the words' output weights are long: they are the likeliest.
    """
    library: Any = importlib.import_module("gguf")
    hidden, inner, layers, heads, kv_heads = 32, 64, 2, 4, 2
    kinds = library.TokenType
    vocabulary = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    vocabulary += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    first_word = len(vocabulary)
    vocabulary += [(word.replace(" ", "▁"), kinds.NORMAL) for word in words]
    writer = library.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_scores([0.0] * len(vocabulary))
    writer.add_token_types([kind for _, kind in vocabulary])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    generator = torch.Generator().manual_seed(0)

    def add(name: str, *shape: int) -> None:
        weights = torch.randn(shape, generator=generator) * (1.5 / shape[-1] ** 0.5)
        if name == "token_embd":
            weights[:, 0] = 10.0
        if name == "output":
            weights[first_word:, 0] = 4.0
        writer.add_tensor(f"{name}.weight", (torch.ones(shape) if len(shape) == 1 else weights).numpy())

    add("token_embd", len(vocabulary), hidden)
    for layer in range(layers):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm", hidden)
        add(f"{block}.attn_q", hidden, hidden)
        add(f"{block}.attn_k", hidden * kv_heads // heads, hidden)
        add(f"{block}.attn_v", hidden * kv_heads // heads, hidden)
        add(f"{block}.attn_output", hidden, hidden)
        add(f"{block}.ffn_norm", hidden)
        add(f"{block}.ffn_gate", inner, hidden)
        add(f"{block}.ffn_up", inner, hidden)
        add(f"{block}.ffn_down", hidden, inner)
    add("output_norm", hidden)
    add("output", len(vocabulary), hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
