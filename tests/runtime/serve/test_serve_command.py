"""What `sdengine serve` is asked in vain: a message and an exit status, before it listens."""

import subprocess
import sys
from pathlib import Path

import pytest
from sdengine.engines.errors import SdengineError, UsageError
from sdengine.runtime.cli.commands import app
from sdengine.runtime.serve.serve_settings import ServeSettings
from typer.testing import CliRunner

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


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logs of this process stay as they are."""
    monkeypatch.setattr("sdengine.runtime.serve.json_logs.set_up_logs", lambda level: None)


def asked(*arguments: str) -> None:
    """Run the command in this process, where it is refused before anything of a server has begun."""
    done = CliRunner().invoke(app(), ["serve", *arguments, "--port", "0"])
    if isinstance(done.exception, SdengineError):
        raise done.exception
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--api-key", ""], "a key is empty"),
        (["--served-model-name", ""], "--served-model-name is empty"),
        (["--warm-up", "0x0"], "'0x0' is not WIDTHxHEIGHT"),
        (["--root-path", "api"], "begin with a slash"),
        (["--request-timeout", "inf"], "--request-timeout=inf"),
        (["--shutdown-timeout", "inf"], "--shutdown-timeout=inf"),
        (["--allowed-origins", "example.com"], "no origin"),
        (["--ssl-keyfile", "/nowhere"], "needs --ssl-certfile"),
        (["--ssl-certfile", "/nowhere"], "No such file"),
        (["--ssl-certfile", __file__, "--ssl-keyfile", __file__], "cannot be used"),
        (["--host", "a..b"], "cannot listen on 'a..b'"),
    ],
)
def test_settings_that_make_no_sense(arguments: list[str], message: str) -> None:
    with pytest.raises(SdengineError, match=message) as refused:
        asked(str(bundle_of("sd1")), *arguments)
    assert isinstance(refused.value, UsageError) or "--host" in arguments


def test_an_empty_variable_in_place_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDENGINE_API_KEY", "")
    with pytest.raises(UsageError, match="SDENGINE_API_KEY is set, but holds no key"):
        asked(str(bundle_of("sd1")))


def test_one_value_in_a_config_file_where_several_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[ServeSettings] = []
    monkeypatch.setattr("sdengine.runtime.serve.server.serve", lambda settings, **_: served.append(settings))
    config = tmp_path / "serve.yaml"
    config.write_text("bundles: a\nserved-model-name: gpt-image-1\napi-key: 123\nwarm-up: 64x48\n")
    asked("--config", str(config))
    (settings,) = served
    assert (settings.bundles, settings.served_model_name, settings.api_keys) == (("a",), ("gpt-image-1",), ("123",))
    assert settings.warm_up == ((64, 48),)
    config.write_text("log-level: info\nlog_level: debug\n")
    with pytest.raises(UsageError, match="log-level is there twice"):
        asked("a", "--config", str(config))


def test_the_bundle_of_three_that_has_no_name_of_its_own() -> None:
    with pytest.raises(UsageError, match="two bundles are called b"):
        _ = ServeSettings(bundles=("x", "y", "z"), served_model_name=("a", "b", "b")).names
