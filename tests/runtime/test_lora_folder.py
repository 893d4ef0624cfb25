"""Names of a folder's LoRAs, and tags in prompts that name them."""

from pathlib import Path

import pytest
from sdengine.engines.errors import UsageError
from sdengine.runtime.lora_folder import LoraFolder
from sdengine.runtime.lora_set import LoraSources
from sdengine.runtime.request.lora_request import loras_of_request
from sdengine.runtime.request.request import Request


@pytest.fixture
def folder(tmp_path: Path) -> LoraFolder:
    files = "a.safetensors sub/a.safetensors sub/ann.SAFETENSORS people/ann.pt both.pt both.safetensors v1.2.bin"
    others = ".hidden.safetensors .git/b.safetensors notes.txt peft/adapter_config.json peft/adapter_model.safetensors"
    for name in f"{files} {others}".split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return LoraFolder(tmp_path)


def test_the_shortest_name_that_is_no_other_s(folder: LoraFolder) -> None:
    names = ["a", "both.pt", "both.safetensors", "peft", "people/ann", "sub/a", "sub/ann", "v1.2"]
    assert folder.names() == names
    assert len({folder.file(name) for name in names}) == len(names)
    assert folder.file("sub/ann.SAFETENSORS") == folder.file("sub/ann")
    assert folder.file("peft").is_dir()


def test_names_of_several_and_of_none(folder: LoraFolder) -> None:
    several = r"several LoRAs 'ann' in .*: people/ann\.pt, sub/ann\.SAFETENSORS; name one"
    with pytest.raises(UsageError, match=several):
        folder.file("ann")
    with pytest.raises(UsageError, match=several):
        LoraSources.of(["ann"], folder)
    with pytest.raises(UsageError, match="several LoRAs 'both'"):
        folder.file("both")
    for name in ("../a", str(folder.path / "a"), "sub", "b", ".hidden", ""):
        assert folder.find(name) is None
        with pytest.raises(UsageError, match="there is no LoRA"):
            loras_of_request(Request(prompt=f"<lora:{name}>"), LoraSources(), folder)


@pytest.mark.parametrize(
    ("prompt", "text", "strengths"),
    [
        ("a <lora:a:0.5>cat", "a cat", [0.5]),
        ("<lora:a><lora:sub/a:-2>", "", [1.0, -2.0]),
        ("<lora:a:te=.5:unet=0.2> cat", "cat", [{"unet": 0.2, "text_encoder": 0.5, "text_encoder_2": 0.5}]),
        (r"\<lora:a:1> cat", r"\<lora:a:1> cat", []),
        (["cat <lora:a:1>", "dog <lora:a:1.0>"], ["cat", "dog"], [1.0]),
        (["<lora:a:2><lora:sub/a>", "<lora:sub/a><lora:a:2>"], ["", ""], [2.0, 1.0]),
    ],
)
def test_tags(prompt: str | list[str], text: object, strengths: list[object], folder: LoraFolder) -> None:
    request, loras = loras_of_request(Request(prompt=prompt), LoraSources(), folder)
    assert request.prompt == text
    assert [strength for _, strength in loras.sources] == strengths


@pytest.mark.parametrize("prompt", ["<lora:a:x>", "<lora:a:1:2:3>", "<lora:a:dyn=8>", ["<lora:a>", "cat"]])
def test_tags_that_mean_nothing(prompt: str | list[str], folder: LoraFolder) -> None:
    with pytest.raises(UsageError, match="lora:"):
        loras_of_request(Request(prompt=prompt), LoraSources(), folder)
