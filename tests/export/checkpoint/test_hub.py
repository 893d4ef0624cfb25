"""Fetching from the Hub, against a local server that speaks its protocol."""

import hashlib
import http.server
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from diffusers import UNet2DConditionModel
from sdengine.engines.errors import CheckpointError, UsageError
from sdengine.export.checkpoint import open_checkpoint, open_controlnet
from sdengine.export.checkpoint.hub import hub_name

from tests.clip_tokenizer import save_tokenizer
from tests.ldm_layout import write_single_file

FolderOf = Callable[[str], Path]
COMMIT = {"main": "1" * 40, "old": "2" * 40}


class HubServer:
    """A Hub with repositories that are folders; what was fetched is written down."""

    def __init__(self) -> None:
        self.repos: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.fetched: list[str] = []
        self.seen: list[tuple[str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self, body=True)

            def do_HEAD(self) -> None:
                outer.answer(self, body=False)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler, *, body: bool) -> None:
        self.seen.append((request.path, request.headers.get("Authorization")))
        path = request.path.split("?")[0].strip("/")
        api = path.startswith("api/models/")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        repo = f"{owner}/{name}"
        if repo not in self.repos:
            return self._send(request, 404, {"X-Error-Code": "RepoNotFound"}, b"{}", body)
        if repo in self.gated:
            return self._send(request, 403, {"X-Error-Code": "GatedRepo"}, b"{}", body)
        revision = rest[1] if len(rest) > 1 else "main"
        commit = COMMIT.get(revision, revision if revision in COMMIT.values() else None)
        if commit is None:
            return self._send(request, 404, {"X-Error-Code": "RevisionNotFound"}, b"{}", body)
        if api and rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": name, "size": (self.repos[repo] / name).stat().st_size, "oid": "0" * 40}
                for name in self._files(repo)
            ]
            return self._send(request, 200, {}, json.dumps(entries).encode(), body)
        if api:
            files = [{"rfilename": name} for name in self._files(repo)]
            info = {"id": repo, "modelId": repo, "sha": commit, "siblings": files, "private": False, "tags": []}
            return self._send(request, 200, {}, json.dumps(info).encode(), body)
        file = self.repos[repo] / "/".join(rest[2:])
        if not file.is_file():
            return self._send(request, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"", body)
        content = file.read_bytes()
        if body:
            self.fetched.append("/".join(rest[2:]))
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return self._send(request, 200, headers, content, body)

    def _files(self, repo: str) -> list[str]:
        root = self.repos[repo]
        return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())

    @staticmethod
    def _send(
        request: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes, body: bool
    ) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on this machine, and an empty cache."""
    server = HubServer()
    for name, value in {
        "ENDPOINT": server.url,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_a_whole_checkpoint(hub: HubServer, folder_of: FolderOf, tmp_path: Path) -> None:
    repo = Path(shutil.copytree(folder_of("sdxl"), tmp_path / "repo"))
    for unused in (
        "README.md",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_flax_model.msgpack",
        "a.safetensors",
    ):
        (repo / unused).write_bytes(b"unused")
    vae = repo / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copy(vae, vae.with_name("diffusion_pytorch_model.fp16.safetensors"))
    hub.repos["someone/sdxl"] = repo
    online = open_checkpoint("someone/sdxl", token="hf_secret")
    assert online.family == "sdxl"
    assert online.source == "someone/sdxl"
    assert sorted(hub.fetched) == sorted(
        str(file.relative_to(folder_of("sdxl"))) for file in folder_of("sdxl").rglob("*") if file.is_file()
    )
    assert {token for path, token in hub.seen if "someone/sdxl" in path} == {"Bearer hf_secret"}
    hub.fetched.clear()
    offline = open_checkpoint("someone/sdxl", offline=True)
    assert offline == online
    assert hub.fetched == []


def test_a_decoder_and_the_prior_that_its_card_names(hub: HubServer, folder_of: FolderOf) -> None:
    decoder, prior = "kandinsky-community/kandinsky-2-2-decoder", "kandinsky-community/kandinsky-2-2-prior"
    hub.repos |= {decoder: folder_of("kandinsky"), prior: folder_of("kandinsky_prior")}
    online = open_checkpoint(decoder)
    assert online.family == "kandinsky22"
    assert list(online.components) == ["unet", "movq", "text_encoder", "image_encoder", "prior"]
    assert set(online.settings) == {"prior_scheduler.json", "image_processor.json"}
    expected = [file for folder in hub.repos.values() for file in folder.rglob("*") if file.is_file()]
    assert len(hub.fetched) == len(expected)
    hub.fetched.clear()
    assert open_checkpoint(decoder, offline=True) == online
    assert open_checkpoint(decoder, prior=prior, offline=True) == online
    assert hub.fetched == []


def test_a_safety_checker_is_fetched_unless_it_is_left_out(hub: HubServer, folder_of: FolderOf) -> None:
    hub.repos["a/checked"] = folder_of("sd1_checked")
    assert "safety_checker" not in open_checkpoint("a/checked", safety_checker=False).components
    assert not [file for file in hub.fetched if file.startswith("safety_checker/")]
    assert "safety_checker" in open_checkpoint("a/checked").components
    assert {file for file in hub.fetched if "checker" in file or "extractor" in file} == {
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
    }


def test_variants_and_revisions(hub: HubServer, folder_of: FolderOf, tmp_path: Path) -> None:
    repo = Path(shutil.copytree(folder_of("sd1"), tmp_path / "repo"))
    for file in repo.rglob("*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    hub.repos["someone/sd"] = repo
    checkpoint = open_checkpoint("someone/sd", revision="old", variant="fp16")
    assert all(
        COMMIT["old"] in str(component.file or "") for component in checkpoint.components.values() if component.file
    )
    assert checkpoint.notes == ()
    with pytest.raises(CheckpointError, match="no 'bf16' variant"):
        open_checkpoint("someone/sd", variant="bf16")
    with pytest.raises(CheckpointError, match="someone/sd: it has no revision 'none'"):
        open_checkpoint("someone/sd", revision="none")
    with pytest.raises(CheckpointError, match=r"at revision main is neither .* nor in the local cache"):
        open_checkpoint("someone/sd", revision="main", offline=True)


@pytest.mark.parametrize("old_names", [False, True])
def test_a_variant_that_only_some_parts_have(
    hub: HubServer, folder_of: FolderOf, tmp_path: Path, old_names: bool
) -> None:
    repo = Path(shutil.copytree(folder_of("sd1"), tmp_path / "repo"))
    UNet2DConditionModel.from_pretrained(repo / "unet").half().save_pretrained(
        repo / "unet", variant="fp16", max_shard_size="200KB"
    )
    if old_names:
        for shard in (repo / "unet").glob("*.fp16-*-of-*"):
            shard.rename(shard.with_name(re.sub(r"\.fp16(-\d+-of-\d+)", r"\1.fp16", shard.name)))
        index = next((repo / "unet").glob("*.index.fp16.json"))
        index.write_text(re.sub(r"\.fp16(-\d+-of-\d+)", r"\1.fp16", index.read_text()))
    hub.repos["someone/sd"] = repo
    checkpoint = open_checkpoint("someone/sd", variant="fp16")
    assert checkpoint.components["unet"].tensors["conv_in.weight"].dtype == "F16"
    assert checkpoint.components["vae"].tensors["encoder.conv_in.weight"].dtype == "F32"
    assert "unet/diffusion_pytorch_model.safetensors" not in hub.fetched
    assert open_checkpoint("someone/sd", variant="fp16", offline=True) == checkpoint
    with pytest.raises(CheckpointError, match=r"someone/sd has no 'bf16' variant.*it has fp16, the plain one"):
        open_checkpoint("someone/sd", variant="bf16")


def test_parts_of_repositories(hub: HubServer, folder_of: FolderOf, tmp_path: Path) -> None:
    hub.repos |= {"a/base": folder_of("sd1"), "a/other": folder_of("sdxl"), "a/net": folder_of("controlnet_sd")}
    for vae in ("a/other", "a/other/vae"):
        hub.fetched.clear()
        checkpoint = open_checkpoint(folder_of("sd1"), vae=vae)
        assert checkpoint.components["vae"].config["scaling_factor"] == 0.13025
        assert not [file for file in hub.fetched if not file.startswith("vae/")]
    assert set(open_controlnet("a/net").tensors) == set(open_controlnet(folder_of("controlnet_sd")).tensors)
    single = tmp_path / "single"
    (single / "sub").mkdir(parents=True)
    write_single_file(folder_of("sd1"), single / "sub" / "model.safetensors", "sd1")
    hub.repos["a/single"] = single
    found = open_checkpoint("a/single/sub/model.safetensors", config=folder_of("sd1"))
    assert found.family == "sd1"
    assert open_checkpoint("a/single/sub/model.safetensors", config=folder_of("sd1"), offline=True) == found
    with pytest.raises(CheckpointError, match=r"has neither model_index\.json .* sub/model\.safetensors \(name one as"):
        open_checkpoint("a/single")
    with pytest.raises(CheckpointError, match=r"a/single has no file x\.safetensors; it has sub/model"):
        open_checkpoint("a/single/x.safetensors")
    with pytest.raises(UsageError, match="variant goes with a folder"):
        open_checkpoint("a/single/sub/model.safetensors", variant="fp16")


def test_refusals_of_the_hub(hub: HubServer, folder_of: FolderOf) -> None:
    with pytest.raises(CheckpointError, match=r"a/none: there is neither such a path here nor such a repository"):
        open_checkpoint("a/none")
    hub.repos["a/gated"] = folder_of("sd1")
    hub.gated.add("a/gated")
    with pytest.raises(CheckpointError, match="a/gated: its licence must be accepted"):
        open_checkpoint("a/gated")
    with pytest.raises(CheckpointError, match=r"a/none is neither a local path nor in the local cache, and only"):
        open_checkpoint("a/none", offline=True)


def test_without_a_connection(hub: HubServer, folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["a/sd"] = folder_of("sd1")
    online = open_checkpoint("a/sd")
    for name in ("HF_HUB_OFFLINE",):  # as the environment variable of that name does
        monkeypatch.setattr(huggingface_hub.constants, name, True)
    cached = open_checkpoint("a/sd")
    assert cached.components == online.components
    assert cached.notes == ("the Hub could not be reached; a/sd is from the local cache",)
    with pytest.raises(CheckpointError, match=r"a/other is neither .*, and the Hub could not be reached"):
        open_checkpoint("a/other")


def test_clips_vocabulary(hub: HubServer, folder_of: FolderOf, tmp_path: Path) -> None:
    file = write_single_file(folder_of("sd1"), tmp_path / "model.safetensors", "sd1")
    config = tmp_path / "config"
    for part in ("unet", "vae", "text_encoder"):
        shutil.copytree(folder_of("sd1") / part, config / part, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(CheckpointError, match=r"the local Hugging Face cache had none; .*--tokenizer PATH"):
        open_checkpoint(file, config=config, offline=True)
    with pytest.raises(CheckpointError, match=r"cache and the Hub \(openai/clip-vit-large-patch14\) had none"):
        open_checkpoint(file, config=config)
    save_tokenizer(tmp_path / "clip", legacy=True)
    (tmp_path / "clip" / "pytorch_model.bin").write_bytes(b"unused")
    hub.repos["openai/clip-vit-large-patch14"] = tmp_path / "clip"
    found = open_checkpoint(file, config=config)
    assert sorted(hub.fetched) == ["merges.txt", "tokenizer_config.json", "vocab.json"]
    assert any("CLIP's was taken from" in note for note in found.notes)
    assert open_checkpoint(file, config=config, offline=True).tokenizers == found.tokenizers


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/b", ("a/b", "")),
        ("stabilityai/sd-vae-ft-mse", ("stabilityai/sd-vae-ft-mse", "")),
        ("a/b/c/d.safetensors", ("a/b", "c/d.safetensors")),
        ("a", None),
        ("a/../b", None),
        ("./a/b", None),
        ("/a/b", None),
        ("a//b", None),
        ("a/b/", ("a/b", "")),
    ],
)
def test_names(source: str, expected: tuple[str, str] | None) -> None:
    name = hub_name(source)
    assert (None if name is None else (name.repo, name.inside)) == expected


FILE = ("a/b", "c/d e.safetensors")


@pytest.mark.parametrize(
    ("address", "expected", "revision"),
    [
        ("https://huggingface.co/a/b/blob/main/c/d%20e.safetensors", FILE, "main"),
        ("https://huggingface.co/a/b/resolve/main/c/d%20e.safetensors?download=true", FILE, "main"),
        ("http://hf.co/a/b/raw/v1.0/c/d e.safetensors#L1", FILE, "v1.0"),
        ("huggingface.co/a/b/blob/main/c/d e.safetensors", FILE, "main"),
        ("hf.co/a/b/c/d e.safetensors", FILE, None),
        ("HTTPS://HuggingFace.co/a/b/resolve/refs%2Fpr%2F12/c/d e.safetensors", FILE, "refs/pr/12"),
        ("https://huggingface.co/a/b/c/d e.safetensors", FILE, None),
        ("https://huggingface.co/a/b", ("a/b", ""), None),
        ("https://huggingface.co/a/b/", ("a/b", ""), None),
        ("https://huggingface.co/a/b/tree/main", ("a/b", ""), "main"),
        ("https://huggingface.co/a/b/tree/fp16/vae", ("a/b", "vae"), "fp16"),
    ],
)
def test_addresses(address: str, expected: tuple[str, str], revision: str | None) -> None:
    name = hub_name(address)
    assert name is not None
    assert (name.repo, name.inside, name.revision) == (*expected, revision)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://civitai.com/api/download/models/128713", "outside the Hugging Face Hub: download the file"),
        ("https://example.org/model.safetensors", "outside the Hugging Face Hub"),
        ("file:///tmp/model.safetensors", "outside the Hugging Face Hub"),
        ("ftp://huggingface.co/a/b", "outside the Hugging Face Hub"),
        ("https://huggingface.co/datasets/a/b", "the address of a dataset, not of a model"),
        ("https://huggingface.co/spaces/a/b", "the address of a space"),
        ("https://huggingface.co/a", r"no address of a model: https://huggingface\.co/OWNER/NAME was expected"),
        ("https://huggingface.co/", "no address of a model"),
        ("https://", "outside the Hugging Face Hub"),
        ("https://huggingface.co/a/b/blob/main/../../x", "no address of a model"),
    ],
)
def test_addresses_that_lead_nowhere(address: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(address, offline=True)


def test_the_address_of_a_file(hub: HubServer, folder_of: FolderOf, tmp_path: Path) -> None:
    single = tmp_path / "single"
    single.mkdir()
    write_single_file(folder_of("sd1"), single / "model.safetensors", "sd1")
    hub.repos["a/single"] = single
    config = folder_of("sd1")
    for address in (
        "https://huggingface.co/a/single/blob/main/model.safetensors",
        f"{hub.url}/a/single/resolve/old/model.safetensors?download=true",
    ):
        found = open_checkpoint(address, config=config)
        assert found.family == "sd1"
        assert found.source.endswith("/model.safetensors")
    assert any(COMMIT["old"] in str(part.files) for part in found.components.values())
    with pytest.raises(UsageError, match="the address names the revision main, --revision old: give one"):
        open_checkpoint("https://huggingface.co/a/single/blob/main/model.safetensors", config=config, revision="old")
    hub.repos["a/sd"] = folder_of("sd1")
    assert open_checkpoint("https://huggingface.co/a/sd").family == "sd1"
