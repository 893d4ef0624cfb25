"""Whatever a caller opens or exports with, what is wrong with it is a UsageError that names the argument."""

import contextlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdengine.engines.errors import SdengineError, UsageError
from sdengine.export import export_bundle
from sdengine.runtime import Pipeline

from ..bundles import bundle_of, checkpoint_of

ANYTHING: list[Any] = [
    5, -1, True, 1.5, "", "x", "\0", "a" * 5000, b"x", [], [1], ["x"], {"a": 1}, set(), object(), print, 10**400, 1j,
    np.float32(1), np.array([1, 2]), np.array("x"), np.zeros((2, 2)), Decimal(1), Path("x"), Path("a" * 5000),
]  # fmt: skip
OPENING = {
    "path": (str, Path),
    "engine": str,
    "precision": str,
    "fallback": str,
    "low_memory": bool,
    "threads": int,
    "device": str,
    "cuda_graph": str,
    "weight_streaming_budget": (str, int, float, np.float32),
    "compile": bool,
    "memory_limit": int,
    "vae_tiling": (str, int),
    "textual_inversions": list,
    "loras": list,
    "lora_folder": (str, Path),
    "verify": str,
    "preload": list,
}
"""What values that may be taken are of; what is not is refused in every case."""
LISTS = ("engines", "controlnets", "loras")
PATHS = ("checkpoint", "output", "prior", "vae", "tokenizer", "config")
TEXTS = ("precision", "sizes", "batch", "verify", "stop_after", "prediction_type", "variant", "revision", "token")
FLAGS = ("vae_tiling", "link_weights", "overwrite", "offline")


@pytest.mark.parametrize("name", OPENING)
def test_opening(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"path": bundle_of("sd1"), "preload": [], "engine": "onnxruntime"}
    for value in ANYTHING:
        if isinstance(value, OPENING[name]):  # type: ignore[arg-type]
            with contextlib.suppress(SdengineError):
                Pipeline.load(**given | {name: value}).close()
        else:
            with pytest.raises(UsageError, match=f"^{name}="):
                Pipeline.load(**given | {name: value})


@pytest.mark.parametrize("name", [*LISTS, *PATHS, *TEXTS, *FLAGS, "build", "report"])
def test_exporting(name: str, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise UsageError("far enough")

    kinds: tuple[type, ...] = (str, Path) if name in PATHS else (str,) if name in TEXTS else (bool,)
    given: dict[str, Any] = {"checkpoint": checkpoint_of("sd1"), "output": tmp_path / "bundle", "report": stop}
    for value in ANYTHING:
        if isinstance(value, list if name in LISTS else kinds) or (name == "report" and value is print):
            continue  # what its meaning is, is tested where it is used
        with pytest.raises(UsageError, match=f"^{name}="):
            export_bundle(**given | {name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("threads", [np.int64(2), 2])
def test_numbers_may_be_of_numpy(threads: Any) -> None:
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=threads, low_memory=np.bool_(False)):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("words", [5, [5], [], b"x"])
def test_words_that_are_no_text(words: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="should be texts"):
        Pipeline.load(bundle_of("sd1"), engine="onnxruntime", textual_inversions=[(tmp_path / "x.pt", words)])
