"""Requests name LoRAs of the server's folder, few and not too strong, in prompts as in ``loras``."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sdengine.engines.errors import CheckpointError, SdengineError
from sdengine.runtime import Pipeline
from sdengine.runtime.serve.api_error import ApiError
from sdengine.runtime.serve.serve_settings import ServeSettings
from sdengine.runtime.serve.services import Services

from ...bundles import bundle_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A pipeline whose folder has two LoRAs called ``b``; none is read here."""
    folder = tmp_path_factory.mktemp("loras")
    for name in ("a.pt", "one/b.pt", "two/b.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1, low_memory=True, lora_folder=folder) as pipe:
        yield SimpleNamespace(pipeline=pipe)


def check(model: Any, **settings: Any) -> None:
    Services.check_loras(None, model, settings)  # type: ignore[arg-type]  # needs nothing of the server


def test_what_is_allowed(model: Any) -> None:
    check(model, prompt="a cat <lora:a:-10><lora:one/b:te=1:unet=0>", loras=[("a", 1.0), ("two/b", 1.0), ("a.pt", 0.5)])
    check(model, prompt_embeds=[[0.0]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "<lora:a:1>" * 9}, "9 are named, in prompts too; 8 are the most"),
        ({"prompt": "<lora:a:1>" * 5, "loras": [("a", 1.0)] * 4}, "9 are named"),
        ({"prompt": "<lora:a:1e30>"}, "a strength is above 10"),
        ({"prompt": "<lora:a:0.5:11>"}, "a strength is above 10"),
        ({"loras": [("a", 9.0)], "cross_attention_kwargs": {"scale": 2}}, "a strength is above 10"),
        ({"prompt": "<lora:b>"}, "several LoRAs 'b'"),
        ({"loras": [("b", 1.0)]}, "several LoRAs 'b'"),
        ({"prompt": "<lora:../one/b>"}, "there is no LoRA"),
        ({"loras": [("../one/b", 1.0)]}, "there is no LoRA"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str, model: Any) -> None:
    with pytest.raises((ApiError, SdengineError), match=message):
        check(model, **settings)


def test_a_damaged_file_is_the_server_s_fault_and_its_folder_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    settings = ServeSettings(bundles=("/", str(tmp_path / "b")), opening={"lora_folder": str(tmp_path / "link")})
    services: Any = SimpleNamespace(settings=settings)
    for folder in ("link", "real"):
        answer = Services.answer_to(services, CheckpointError(f"{tmp_path / folder}/one/a.safetensors is cut off"))
        assert (answer.status, answer.code) == (500, "damaged_lora")
        assert answer.message == f"{folder}/one/a.safetensors is cut off"
