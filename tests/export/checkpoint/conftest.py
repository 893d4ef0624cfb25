from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.checkpoints import BUILDERS

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the tiny checkpoint of a family, written once; tests that change it copy it first."""
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name))
        return built[name]

    return folder
