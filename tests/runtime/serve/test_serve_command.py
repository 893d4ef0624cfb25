"""What `sdengine serve` is asked in vain: a message and an exit status, before it listens."""

import subprocess
import sys
from pathlib import Path

import pytest

from ...bundles import bundle_of
from .conftest import Server


def failed(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "sdengine.runtime", "serve", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--warm-up", "51x48"], 2, "51"),
        (["--policy", "x"], 2, "step, fcfs, batch-at-the-door"),
        (["--fallback", "maybe"], 2, "neither allow nor error"),
        (["--config", "/nowhere.yaml"], 2, "cannot be read"),
    ],
)
def test_settings_that_cannot_be_met(arguments: list[str], status: int, message: str) -> None:
    code, text = failed(bundle_of("sd1"), "--port", 0, *arguments)
    assert code == status and message in text, text


def test_an_address_in_use_and_no_bundle(server: Server, tmp_path: Path) -> None:
    port = server.url.rsplit(":", 1)[1]
    code, text = failed(bundle_of("sd1"), "--port", port)
    assert code == 1 and "in use" in text, text
    code, text = failed(tmp_path / "none", "--port", 0)
    assert code == 1 and "there is no bundle" in text, text


def test_an_option_that_a_config_file_misspells(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("prot: 8000\n")
    code, text = failed("bundle", "--config", tmp_path / "serve.yaml")
    assert code == 2 and "did you mean 'port'" in text, text
