"""Tags of LoRAs in prompts: what is meant, or one message that says what is wrong."""

from typing import Any

import pytest
from sdengine.engines.errors import UsageError
from sdengine.runtime.lora_folder import LoraFolder
from sdengine.runtime.lora_set import LoraSources
from sdengine.runtime.request.lora_request import loras_of_request
from sdengine.runtime.request.request import Request

FILES = ("a", "b.v1.2", "ü 名", "x/c", "y/c", "e:f", "e:2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> LoraFolder:
    path = tmp_path_factory.mktemp("loras")
    for name in FILES:
        (path / f"{name}.pt").parent.mkdir(exist_ok=True)
        (path / f"{name}.pt").touch()
    return LoraFolder(path)


def _both(te: float, unet: float) -> dict[str, float]:
    return {"unet": unet, "text_encoder": te, "text_encoder_2": te}


@pytest.mark.parametrize(
    ("prompt", "left", "name", "strength"),
    [
        ("<lora:a>", "", "a", 1.0),
        ("one <lora: a : -1.5 >two", "one two", "a", -1.5),
        ("<lora:b.v1.2:0.5>", "", "b.v1.2", 0.5),
        ("<lora:ü 名:1>", "", "ü 名", 1.0),
        ("<lora:e:f>", "", "e:f", 1.0),
        ("<lora:e:f.pt:0.5>", "", "e:f", 0.5),
        ("<lora:e:2:te=2:unet=1>", "", "e:2", _both(2.0, 1.0)),
        ("<lora:x/c.pt>", "", "x/c", 1.0),
        ("<lora:a:1:unet=0.5>", "", "a", _both(1.0, 0.5)),
    ],
)
def test_what_a_tag_means(prompt: str, left: str, name: str, strength: Any, folder: LoraFolder) -> None:
    request, loras = loras_of_request(Request(prompt), LoraSources(), folder)
    assert request.prompt == left and loras.sources == ((folder.path / f"{name}.pt", strength),)


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("a:", "'' is no number"),
        ("a:1_0", "is no number"),
        ("a:0,8", "'0,8' is no number"),
        ("a:te=1:te=2", "has two strengths for te"),
        ("a:1:2:3", "write <lora:NAME:STRENGTH>"),
        ("b:1", "there is no LoRA 'b'"),
        ("e:3", "there is no LoRA 'e'"),
        (":1", "there is no LoRA ''"),
        ("c", "several LoRAs 'c' .*x/c.pt, y/c.pt"),
    ],
)
def test_what_a_tag_cannot_mean(tag: str, message: str, folder: LoraFolder) -> None:
    with pytest.raises(UsageError, match=message):
        loras_of_request(Request(f"a <lora:{tag}>"), LoraSources(), folder)
