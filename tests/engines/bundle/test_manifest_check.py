"""A manifest is checked as data: whatever is in it, opening says what is wrong, and does nothing else."""

import contextlib
import copy
import hashlib
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.manifest import SCHEMA, written_manifest
from sdengine.engines.errors import BundleError, DamagedBundleError, SdengineError
from sdengine.runtime import Pipeline

from ...bundles import bundle_of

UNET = "networks.unet"
DENOISER = "components.denoiser.graphs.fp32"
DELETE = object()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_of("sdxl"), tmp_path / "bundle"))


def _change(folder: Path, *changes: tuple[str, Any]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for path, value in changes:
        *parents, last = path.split(".")
        target = manifest
        for name in parents:
            target = target[int(name) if isinstance(target, list) else name]
        if value is DELETE:
            del target[last]
        elif isinstance(target, list):
            target[int(last)] = value
        else:
            target[last] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "", "null", "5", "[]", "{", "\x00", '{"schema": "2"}']
)
def test_no_manifest(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DamagedBundleError, match=r"manifest\.json cannot be read"):
        Bundle(folder)


@pytest.mark.parametrize("name", ["family", "class_name", "sha256"])
def test_a_name_that_occurs_twice(folder: Path, name: str) -> None:
    """Two values for one name are refused, also where the checksum fits; which one is meant is not guessed."""
    text = written_manifest((folder / "manifest.json").read_bytes()).text.rstrip().removesuffix(b"}")
    value = re.search(rb'"%s": "([^"]*)"' % name.encode(), text)
    assert value is not None
    text = text.replace(value[0], b'"%s": "other", %s' % (name.encode(), value[0]), 1)
    text += b', "checksum": "%s"}' % hashlib.sha256(text).hexdigest().encode()
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(DamagedBundleError, match=f"manifest.json cannot be read: the name '{name}' occurs twice"):
        Bundle(folder)


def test_a_path_that_the_system_refuses() -> None:
    with pytest.raises(DamagedBundleError, match="cannot be read: File name too long"):
        Bundle("x" * 5000)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("networks", {}, r"components\.\w+\.network is '\w+', which is not among nothing"),
        ("components", {}, "components is 'text_encoder', which is not among nothing"),
        ("components.denoiser", DELETE, "components is 'denoiser', which is not among"),
        ("components.vae_encoder", DELETE, "components is 'vae_encoder', which is not among"),
        ("components.denoiser.kind", "painter", r"components\.denoiser\.kind is 'painter', which is nothing"),
        ("components.denoiser.network", "vae", r"components\.denoiser"),
        ("components.denoiser.graphs", {}, r"components\.denoiser\.graphs is {}, which is empty"),
        (f"{DENOISER}.file", "manifest.json", r"file is 'manifest\.json', which is not among"),
        (
            f"{DENOISER}.file",
            "scheduler.json",
            r"file is 'scheduler\.json', which is not beside components/unet/weights",
        ),
        (f"{DENOISER}.spec.axes.h", DELETE, "is 'h', which is not among"),
        (f"{DENOISER}.spec.axes.h.max", 2**40, r"axes\.h\.max is 1099511627776, which is more than 65536"),
        (f"{DENOISER}.spec.axes.h.min", 0, "an axis needs 1 <= min"),
        (f"{DENOISER}.spec.inputs.0.shape.1", "h/0", r"spec\.state is 'h/0', which is no dimension"),
        (f"{DENOISER}.spec.inputs.0.shape.1", "8*8", r"spec\.state is '8\*8', which is no dimension"),
        (f"{DENOISER}.spec.inputs.0.shape.1", 2**40, r"spec\.state is 1099511627776, which is no dimension"),
        (f"{DENOISER}.spec.inputs.0.dtype", "float33", r"spec\.inputs is not what the config of unet leads to"),
        (f"{DENOISER}.spec.inputs", [], r"spec\.inputs is not what the config of unet leads to"),
        (
            f"{UNET}.weights",
            "../../etc/passwd",
            r"networks\.unet\.weights is '\.\./\.\./etc/passwd', which is not among",
        ),
        (f"{UNET}.config.block_out_channels", DELETE, "the config of unet does not say block_out_channels"),
        (f"{UNET}.config.block_out_channels", [1] * 100, "has 100 block_out_channels; 8 are the most"),
        (
            f"{UNET}.config.transformer_layers_per_block",
            10**8,
            "transformer_layers_per_block=100000000; 512 is the most",
        ),
        (f"{UNET}.config.layers_per_block", 10**8, "layers_per_block=100000000; 512 is the most"),
        (f"{UNET}.config.attention_head_dim", 0, "attention_head_dim=0; 1 is the least"),
        (f"{UNET}.config.norm_num_groups", 7, "norm_num_groups=7 does not divide"),
        (f"{UNET}.config.addition_time_embed_dim", 0, "the config of unet makes no sense"),
        ("networks.vae.config.scaling_factor", "large", "the config of vae makes no sense.*scaling_factor"),
        ("networks.text_encoder.config.hidden_size", None, "the config of text_encoder makes no sense"),
        ("networks.text_encoder_2.config.projection_dim", "wide", r"text_encoder_2 makes no sense: .*`\$\.projection`"),
        ("family", "sd9", "of the family 'sd9'; this version knows sd1, sd2, sdxl"),
        ("family", "sd1", r"networks\.text_encoder_2 is no network of a bundle of sd1"),
        ("controlnets", ["controlnet"], "controlnets is 'controlnet', which is not among"),
        ("tokenizers.tokenizer", "../tokenizer", r"tokenizers\.tokenizer is '\.\./tokenizer', which is outside"),
        ("tokenizers.tokenizer", "/etc", r"tokenizers\.tokenizer is '/etc', which is outside"),
        ("tokenizers", {}, "tokenizers is 'tokenizer', which is not among nothing"),
        ("default_size", [0, 512], "sizes is"),
        ("sizes", [[10**9, 10**9]], "sizes is"),
        ("files.a\\b", {"sha256": "0" * 64, "bytes": 1}, "files is 'a\\\\\\\\b', which is outside the bundle"),
        ("files./etc/passwd", {"sha256": "0" * 64, "bytes": 1}, "files is '/etc/passwd', which is outside the bundle"),
        ("files.a\0b", {"sha256": "0" * 64, "bytes": 1}, "which is outside the bundle, or no file name"),
        ("unheard_of", 1, "unknown field `unheard_of`"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, path: str, value: Any, message: str) -> None:
    if path.startswith("files."):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][path.removeprefix("files.")] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))
    else:
        _change(folder, (path, value))
    with pytest.raises(BundleError, match=message):
        Pipeline.load(folder)


@pytest.mark.parametrize(
    "name", ["../../../escaped", "/tmp/escaped", "..", "a/b", "a\\b", "a\0b", "", ".hidden", "x" * 200]
)
def test_names_lead_nowhere(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["networks"][name] = manifest["networks"]["vae"]
    manifest["components"][name] = manifest["components"]["vae_decoder"] | {"network": name}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = sorted(folder.parent.parent.rglob("*"))
    with pytest.raises(DamagedBundleError, match="which is no name"):
        Bundle(folder)
    assert sorted(folder.parent.parent.rglob("*")) == before


def test_schemas_say_what_helps(folder: Path) -> None:
    _change(folder, ("schema", SCHEMA - 1), ("networks", 5))
    with pytest.raises(
        BundleError, match=f"this version reads {SCHEMA} .*; make a new one: sdengine export sdxl-0 -o .* --sizes"
    ):
        Bundle(folder)
    _change(folder, ("schema", SCHEMA + 1), ("tools.sdengine", "7.0"))
    with pytest.raises(BundleError, match=r"written by sdengine 7\.0\); update sdengine"):
        Bundle(folder)


VALUES = [
    None,
    True,
    -1,
    0,
    1,
    7,
    2**31,
    2**63,
    10**400,
    1.5,
    "",
    "a",
    "..",
    "h/0",
    "\0",
    [],
    {},
    [[]],
    {"a": 1},
    "x" * 500,
]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def _mutated(manifest: Any, numbers: random.Random) -> Any:
    """Return a manifest in which something was left out, replaced, copied from elsewhere or added."""
    changed = copy.deepcopy(manifest)
    for _ in range(numbers.choice([1, 1, 1, 2, 5])):
        places = list(_places(changed))
        path = numbers.choice(places)
        target = changed
        for key in path[:-1]:
            target = target[key]
        kind = numbers.randrange(4)
        if kind == 0:
            del target[path[-1]]
        elif kind == 1:
            target[path[-1]] = copy.deepcopy(numbers.choice(VALUES))
        else:
            other = changed
            for key in numbers.choice(places):
                other = other[key]
            if kind == 2:
                target[path[-1]] = copy.deepcopy(other)
            elif isinstance(target, dict):
                target[str(numbers.choice(VALUES))] = copy.deepcopy(other)
    return changed


def _open_mutated(folder: Path, count: int, drawn: int, seed: int) -> None:
    """Open mutated bundles, and draw with those that open: errors are ours, and nothing is written."""
    numbers = random.Random(seed)
    whole = json.loads((folder / "manifest.json").read_text())
    del whole["checksum"]  # it would find them all
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "manifest.json"}
    refused = longest = 0
    for _ in range(count):
        (folder / "manifest.json").write_text(json.dumps(_mutated(whole, numbers)))
        try:
            Bundle(folder)
        except BundleError as error:
            refused += 1
            longest = max(longest, len(str(error)))
            continue
        drawn -= 1
        if drawn >= 0:
            with (
                contextlib.suppress(SdengineError),
                Pipeline.load(folder, engine="onnxruntime") as pipeline,
            ):
                pipeline("a star", num_inference_steps=1, height=32, width=32)
    assert refused > count / 2
    assert longest < 2000
    assert files == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "manifest.json"}


def test_mutated_manifests(folder: Path) -> None:
    _open_mutated(folder, 300, 10, seed=1)


@pytest.mark.slow
def test_two_thousand_mutated_manifests(folder: Path) -> None:
    _open_mutated(folder, 2000, 200, seed=2)
