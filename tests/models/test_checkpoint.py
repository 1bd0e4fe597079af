from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import Hub, ask

from flux_rewards.errors import ConfigError, WeightsError
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.configuration import model_type
from flux_rewards.models.hub_errors import scrubbed

TEXTS: dict[str, bytes | str] = {
    "config.json": '{"model_type": "clip"}',
    "tokenizer.json": "{}",
    "merges.txt": "a b",
    "README.md": "hello",
}
INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
SHARDS: dict[str, bytes | str] = {
    "model.safetensors.index.json": INDEX,
    "model-00001-of-00002.safetensors": b"one",
    "model-00002-of-00002.safetensors": b"two",
}
TOKEN = "hf_anOrdinaryTokenOfTheHub"  # noqa: S105  # nobody's


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that knows nothing yet."""
    with Hub() as server:
        yield server


def only(answers: list[dict[str, Any]]) -> dict[str, Any]:
    (answer,) = answers
    return answer


FORMATS = [
    (["model.safetensors", "pytorch_model.bin", "model.fp16.safetensors", "tf_model.h5"], ["model.safetensors"]),
    (["pytorch_model.bin", "flax_model.msgpack"], ["pytorch_model.bin"]),
    ([*SHARDS, "pytorch_model.bin"], list(SHARDS)),
    (["open_clip_model.safetensors", "open_clip_pytorch_model.bin"], ["open_clip_model.safetensors"]),
    (["open_clip_pytorch_model.bin"], ["open_clip_pytorch_model.bin"]),
    (["open_clip_model.safetensors", "model.safetensors", "onnx/model.onnx"], ["model.safetensors"]),
]


def test_one_format_of_weights_is_fetched(hub: Hub, tmp_path: Path) -> None:
    """Safetensors where they are offered, configuration and tokenizer always, nothing else."""
    for index, (weights, _) in enumerate(FORMATS):
        hub.add(f"org/model{index}", {**TEXTS, **{name: SHARDS.get(name, name) for name in weights}})
    answers, _ = ask(hub.environment(tmp_path), [("path", f"org/model{index}") for index in range(len(FORMATS))])
    for index, (_, fetched) in enumerate(FORMATS):
        wanted = sorted(["config.json", "merges.txt", "tokenizer.json", *fetched])
        assert answers[index]["files"] == wanted
        assert hub.downloads(f"org/model{index}") == wanted


def test_a_download_lands_in_the_hubs_cache_and_shows_progress(hub: Hub, tmp_path: Path) -> None:
    """The second time, and without a network, it is found there; its identity is the commit."""
    held = hub.add("org/model", {**TEXTS, "model.safetensors": b"x" * 3_000_000, "extra/big.bin": b"y" * 3_000_000})
    cases = [("path", "org/model"), ("identity", "org/model"), ("path", {"source": "org/model", "file": "config.json"})]
    first, shown = ask(hub.environment(tmp_path), cases)
    snapshot = tmp_path / "hub" / "models--org--model" / "snapshots" / held.commit
    assert first[0]["path"] == str(snapshot)
    assert (snapshot / "model.safetensors").stat().st_size == 3_000_000
    assert first[1]["value"] == f"org/model@{held.commit}/"
    assert first[2]["path"] == str(snapshot / "config.json")
    assert "Fetching 4 files" in shown
    assert "3.00M" in shown.replace("MB", "M")

    before = len(hub.requests)
    offline, _ = ask(hub.environment(tmp_path, HF_HUB_OFFLINE="1"), cases)
    assert len(hub.requests) == before
    hub.close()
    unreachable, _ = ask(hub.environment(tmp_path), cases)
    assert first == offline == unreachable


def test_only_what_is_asked_for_is_fetched(hub: Hub, tmp_path: Path) -> None:
    """The tokenizer without weights; weights by name, the first that is there; one file."""
    files = {**TEXTS, "model.safetensors": b"m", "open_clip_pytorch_model.bin": b"o", "deep/down.bin": b"d"}
    held = hub.add("org/model", files)
    names = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    cases = [
        ("path", {"source": "org/model", "weights": False}),
        ("path", {"source": "org/model", "file": "deep/down.bin"}),
        ("identity", {"source": "org/model", "file": "deep/down.bin"}),
        ("path", {"source": "org/model", "weights": ("none.bin",)}),
        ("path", {"source": "org/model", "weights": names}),
    ]
    answers, _ = ask(hub.environment(tmp_path), cases)
    texts = ["config.json", "merges.txt", "tokenizer.json"]
    assert answers[0]["files"] == texts
    assert answers[1]["files"] == ["down.bin"]
    assert answers[2]["value"] == f"org/model@{held.commit}/deep/down.bin"
    assert answers[3]["error"] == "WeightsError"
    assert answers[4]["files"] == sorted([*texts, "down.bin", "open_clip_pytorch_model.bin"])
    assert "model.safetensors" not in hub.downloads("org/model")


def test_what_a_repository_holds_is_known_without_a_network_too(hub: Hub, tmp_path: Path) -> None:
    """As far as it has been fetched; of others nothing is claimed."""
    hub.add("org/model", {**TEXTS, "pytorch_model.bin": b"w"})
    hub.add("org/unseen", {**TEXTS, "pytorch_model.bin": b"w"})
    has = [("has", "org/model", {"given": [name]}) for name in ("config.json", "open_clip_config.json")]
    first = ("first_of", "org/model", {"given": [["model.safetensors", "pytorch_model.bin"]]})
    none = ("first_of", "org/model", {"given": [["a.bin", "b.bin"]]})
    answers, _ = ask(hub.environment(tmp_path), [*has, ("path", "org/model"), first, none])
    known = [True, False, "org/model/pytorch_model.bin"]
    assert [answers[index].get("value") for index in (0, 1, 3)] == known
    assert answers[4]["message"] == "org/model holds none of a.bin, b.bin"
    unseen = ("has", "org/unseen", {"given": ["config.json"]})
    new = ("has", "org/model", {"given": ["preprocessor_config.json"]})
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        answers, _ = ask(hub.environment(tmp_path, **environment), [*has, first, new, unseen])
        assert [answer.get("value") for answer in answers] == [*known, False, None]
        assert "org/unseen/config.json is not on this machine" in answers[-1]["message"]


def test_a_branch_means_one_commit_while_a_process_runs(hub: Hub, tmp_path: Path) -> None:
    """A push between two files must not mix two versions of a model."""
    held = hub.add("org/model", {**TEXTS, "model.safetensors": b"old"})
    old = held.commit
    held.faults["config.json"] = [lambda: held.push({"model.safetensors": b"new"})]
    cases = [("has", "org/model", {"given": ["config.json"]}), ("path", "org/model"), ("identity", "org/model")]
    answers, _ = ask(hub.environment(tmp_path), cases)
    assert held.commit != old
    assert Path(answers[1]["path"]).name == old
    assert Path(answers[1]["path"], "model.safetensors").read_bytes() == b"old"
    assert answers[2]["value"] == f"org/model@{old}/"
    answers, _ = ask(hub.environment(tmp_path), cases)
    assert Path(answers[1]["path"], "model.safetensors").read_bytes() == b"new"
    pinned = {"source": "org/model", "revision": old}
    answers, _ = ask(
        hub.environment(tmp_path), [("identity", pinned), ("path", pinned), ("path", {**pinned, "revision": "main"})]
    )
    assert answers[0]["value"] == f"org/model@{old}/"
    assert [Path(answer["path"]).name for answer in answers[1:]] == [old, held.commit]


def test_a_model_of_which_shards_are_missing_is_not_there(hub: Hub, tmp_path: Path) -> None:
    """Without a network it is an error; with one, the rest is fetched."""
    hub.add("org/model", {**TEXTS, **SHARDS})
    answers, _ = ask(hub.environment(tmp_path), [("path", "org/model")])
    folder = Path(only(answers)["path"])
    (folder / "model-00002-of-00002.safetensors").unlink()
    offline = hub.environment(tmp_path, HF_HUB_OFFLINE="1")
    answers, _ = ask(offline, [("path", "org/model"), ("path", {"source": "org/model", "weights": False})])
    assert answers[0]["error"] == "WeightsError"
    assert "not all of it" in answers[0]["message"]
    assert "error" not in answers[1]
    for environment in (hub.environment(tmp_path), offline):
        answers, _ = ask(environment, [("path", "org/model")])
        assert "model-00002-of-00002.safetensors" in only(answers)["files"]


FAILURES = [
    ("org/none", {}, "WeightsError", ["not on the hub", "private", "no path that exists", "hf auth login", "HF_TOKEN"]),
    ("org/gated", {}, "WeightsError", ["gated", "accept its terms", "/org/gated", "hf auth login", "HF_TOKEN"]),
    ("org/gated", {"file": "config.json"}, "WeightsError", ["org/gated/config.json is gated", "accept its terms"]),
    ("org/model", {"file": "no.bin"}, "WeightsError", ["has no file 'no.bin'", "/org/model/tree/main"]),
    ("org/model", {"revision": "v2"}, "WeightsError", ["has no revision 'v2'", "/org/model/tree"]),
    ("org/model", {"revision": "v2", "file": "config.json"}, "WeightsError", ["has no revision 'v2'"]),
    ("org/bare", {}, "WeightsError", ["no weights in a format", "config.json", "weights.pt"]),
    ("org/down", {}, "RemoteError", ["answered 500", "try again later"]),
    ("org/down", {"file": "config.json"}, "RemoteError", ["answered 500 for org/down/config.json"]),
    ("org/busy", {}, "RemoteError", ["answered 429", "try again later"]),
    ("org/teapot", {}, "RemoteError", ["answered 418"]),
    ("org/refusing", {}, "WeightsError", ["refuses org/refusing", "403", "hf auth login", "HF_TOKEN"]),
    ("org/short", {"file": "model.bin"}, "RemoteError", ["broke off", "try again"]),
    ("org/broken", {"file": "model.bin"}, "RemoteError", ["answered 503"]),
    ("org/broken2", {}, "RemoteError", ["answered 503"]),
    ("../model", {}, "ConfigError", ["neither a path that exists nor a hub id"]),
    ("model", {}, "ConfigError", ["neither a path that exists nor a hub id"]),
    ("/no/such/folder", {"file": "model.bin"}, "ConfigError", ["'/no/such/folder'", "neither a path that exists"]),
]


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_failure_says_what_to_do(hub: Hub, tmp_path: Path, token: str | None) -> None:
    """In a message of ours, without the token, although the hub repeats it; passing failures may be retried."""
    weights = {**TEXTS, "model.safetensors": b"w"}
    hub.add("org/model", weights)
    hub.add("org/bare", {"config.json": "{}", "weights.pt": b"w"})
    hub.add("org/gated", weights, gated="hf_anotherToken")
    for name, status in (("down", 500), ("busy", 429), ("teapot", 418), ("refusing", 403)):
        hub.add(f"org/{name}", weights, status=status)
    hub.add("org/short", {"model.bin": b"w" * 1000}, faults={"model.bin": ["short"]})
    hub.add("org/broken", {"model.bin": b"w" * 1000}, faults={"model.bin": ["cut", 503]})
    hub.add("org/broken2", weights, faults={"model.safetensors": ["cut", 503]})
    environment = hub.environment(tmp_path, **({} if token is None else {"HF_TOKEN": token}))
    answers, shown = ask(environment, [("path", {"source": source, **more}) for source, more, _, _ in FAILURES])
    for (source, _, kind, phrases), answer in zip(FAILURES, answers, strict=True):
        assert answer.get("error") == kind, (source, answer)
        for phrase in phrases:
            assert phrase in answer["message"], (source, answer)
        passing = kind == "RemoteError" and source != "org/teapot"
        assert answer["retryable"] is passing, (source, answer)
        assert answer["retry_after"] == (7.0 if source == "org/busy" else None)
    assert ("Bearer " + TOKEN in hub.authorizations) is (token is not None)
    assert TOKEN not in json.dumps(answers) + shown
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_download_that_broke_off_goes_on(hub: Hub, tmp_path: Path) -> None:
    """Where it stopped, and the file is whole."""
    content = bytes(range(256)) * 5000
    hub.add("org/model", {"model.bin": content}, faults={"model.bin": ["cut"]})
    answers, _ = ask(hub.environment(tmp_path), [("path", {"source": "org/model", "file": "model.bin"})])
    assert Path(only(answers)["path"]).read_bytes() == content
    assert sum(request.startswith("GET") for request in hub.requests) == 2


def test_what_is_here_serves_while_the_hub_refuses(hub: Hub, tmp_path: Path) -> None:
    """A hub that is down, or terms that have changed, don't stop a run whose weights are all here."""
    held = hub.add("org/model", {**TEXTS, "model.safetensors": b"w"})
    cases = [("path", "org/model"), ("identity", "org/model")]
    expected, _ = ask(hub.environment(tmp_path), cases)
    for status in (500, 403):
        held.status = status
        answers, _ = ask(hub.environment(tmp_path), cases)
        assert answers == expected
    held.status = None
    held.push({"model.safetensors": b"new"})
    held.faults["model.safetensors"] = ["short"]  # the new one is not here, and the old one is not what was asked for
    answers, _ = ask(hub.environment(tmp_path), cases)
    assert answers[0]["error"] == "RemoteError"


def test_a_file_of_an_address(hub: Hub, tmp_path: Path) -> None:
    """It is kept whole or not at all, shows progress, and is found again without a network."""
    content = bytes(range(256)) * 5000
    paths = ["/raw/a+b-head.pth", "/raw/cut.pth", "/raw/short.pth", "/raw/down.pth", "/raw/none.pth"]
    hub.addresses.update(dict.fromkeys(paths[:4], content))
    hub.address_faults = {"/raw/cut.pth": ["cut"], "/raw/down.pth": [503]}

    def fetch(name: str, **options: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        return "fetch_address", {"address": hub.address + name, **options}, {}

    cases = [
        fetch("/raw/a%2Bb-head.pth?Signature=secret"),
        fetch("/raw/cut.pth"),
        fetch("/raw/down.pth"),
        fetch("/raw/none.pth?Signature=secret"),
        fetch("/raw/cut.pth", local_only=True),
        fetch("/raw/cut.pth"),
    ]
    answers, shown = ask(hub.environment(tmp_path), cases)
    kept = Path(answers[0]["path"])
    assert (kept.name, kept.read_bytes()) == ("a+b-head.pth", content)
    assert tmp_path in kept.parents
    assert "100%" in shown
    assert [answer.get("error") for answer in answers[1:5]] == [
        "RemoteError",
        "RemoteError",
        "WeightsError",
        "WeightsError",
    ]
    assert [answer["retryable"] for answer in answers[1:5]] == [True, True, False, False]
    assert "broke off" in answers[1]["message"]
    assert "503" in answers[2]["message"]
    assert "404" in answers[3]["message"]
    assert "put it at" in answers[3]["message"]
    assert "pass the path" in answers[4]["message"]
    assert Path(answers[5]["path"]).read_bytes() == content
    assert "secret" not in json.dumps(answers[1:])
    assert sorted(path.name for path in (tmp_path / "flux_rewards").rglob("*.*")) == ["a+b-head.pth", "cut.pth"]

    again, unknown = fetch("/raw/a%2Bb-head.pth?Signature=secret"), fetch("/raw/other.pth")
    offline, _ = ask(hub.environment(tmp_path, HF_HUB_OFFLINE="1"), [again, unknown])
    hub.close()
    unreachable, _ = ask(hub.environment(tmp_path), [again, unknown])
    for answers, why in ((offline, "nothing is fetched"), (unreachable, "cannot be reached")):
        assert answers[0]["path"] == str(kept)
        assert answers[1]["error"] == "WeightsError"
        assert why in answers[1]["message"]


def test_a_path_wins_over_the_hub(tmp_path: Path) -> None:
    """A file is itself; of a directory, all or one file of it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "vit"}')
    held = Checkpoint(str(tmp_path / "model"))
    assert held.is_local
    assert held.path() == tmp_path / "model"
    assert held.part("config.json").path() == tmp_path / "model" / "config.json"
    assert Checkpoint(str(tmp_path / "model" / "config.json")).path() == tmp_path / "model" / "config.json"
    assert (held.has("config.json"), held.has("model.safetensors")) == (True, False)
    assert held.first_of(["a", "config.json"]).file == "config.json"
    assert model_type(held) == "vit"
    assert Checkpoint(tmp_path / "model") == held  # type: ignore[arg-type]  # as people write it
    with pytest.raises(WeightsError, match=r"holds no model\.bin; it holds config\.json"):
        held.part("model.bin").path()
    with pytest.raises(WeightsError, match="holds none of a, b"):
        held.first_of(["a", "b"])


def test_a_path_of_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is written with a tilde."""
    (tmp_path / "weights.bin").write_bytes(b"w")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Checkpoint("~/weights.bin").path() == tmp_path / "weights.bin"


@pytest.mark.parametrize("text", ["not JSON", "{}", "[]", '{"model_types": 1}'])
def test_a_configuration_without_a_kind_is_an_error(tmp_path: Path, text: str) -> None:
    """It names the file."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json does not say what model_type it is"):
        model_type(Checkpoint(str(tmp_path)))


@pytest.mark.parametrize("source", ["", "  ", None, 3])
def test_a_source_is_text(source: Any) -> None:
    """An empty path would be the current directory."""
    with pytest.raises(ConfigError, match="named by a path or a hub id"):
        Checkpoint(source)


@pytest.mark.parametrize("source", ["gpt2", "a/b/c", "~nobody-here/weights", "x" * 5000, "a\0b", "file:///weights.pt"])
def test_what_is_no_path_and_no_hub_id_is_an_error(source: str) -> None:
    """Before anything is asked of the hub."""
    for call in (Checkpoint(source).path, Checkpoint(source).identity, lambda: Checkpoint(source).has("a")):
        with pytest.raises(ConfigError, match="neither a path that exists nor a hub id"):
            call()


def test_the_identity_of_a_path_changes_with_its_files(tmp_path: Path) -> None:
    """With a name, a size or a time of any of its files, and not with what else lies there, such as a log."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights.bin").write_bytes(b"1234")
    os.utime(folder / "weights.bin", ns=(0, 10**18))
    whole, file = Checkpoint(str(folder)), Checkpoint(str(folder), "config.json")
    seen = [whole.identity()]
    kept = file.identity()
    assert whole.identity() == seen[0]
    (folder / "weights.bin").write_bytes(b"12345")
    os.utime(folder / "weights.bin", ns=(0, 10**18))
    seen.append(whole.identity())
    os.utime(folder / "weights.bin", ns=(0, 10**18 + 1))
    seen.append(whole.identity())
    (folder / "weights.bin").rename(folder / "weight.bin")
    seen.append(whole.identity())
    assert len(set(seen)) == 4
    (folder / "train.log").write_text("step 1")
    assert whole.identity() == seen[-1]
    assert file.identity() == kept


def test_the_identity_of_a_commit_needs_no_network() -> None:
    """It is the commit."""
    commit = "0123456789abcdef" * 2 + "01234567"
    assert Checkpoint("org/model", "weights.bin", commit).identity() == f"org/model@{commit}/weights.bin"


@pytest.mark.parametrize(
    "text",
    [
        "Bearer hf_abcDEF1234567890",
        "https://user:hf_abcDEF1234567890@mirror.org/model",
        "https://user:secretPassword@mirror.org/model",
        "https://cdn.org/model.bin?Signature=secretPassword&Key=1 failed",
    ],
)
def test_credentials_stay_out_of_messages(text: str) -> None:
    """Tokens, passwords and signed addresses; what is left still reads."""
    assert not re.search("secretPassword|abcDEF", scrubbed(text))
    assert scrubbed("which model?  org/model at https://hub.org/org/model") == (
        "which model?  org/model at https://hub.org/org/model"
    )
