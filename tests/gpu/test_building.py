"""Plans are built on this machine, agree with torch, and are kept."""

import pytest
from sdengine.engines.bundle.bundle import Bundle

from .building import sdengine
from .conftest import STANDIN
from .setting import Setting

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(STANDIN, reason="the stand-in runs plans and builds none")]


def test_every_component_has_a_plan_that_agrees_with_torch(setting: Setting) -> None:
    manifest = Bundle(setting.path).manifest
    assert {built.component for built in manifest.built} == set(manifest.components)
    verified = {result.component for result in manifest.verification if result.engine == setting.engine}
    assert verified == set(manifest.components)


def test_what_fits_is_kept(setting: Setting) -> None:
    plans = {file: file.stat().st_mtime_ns for file in setting.path.rglob("*.plan")}
    sdengine("build", setting.path, "--engine", setting.engine)
    assert {file: file.stat().st_mtime_ns for file in setting.path.rglob("*.plan")} == plans


def test_the_doctor_finds_the_engine(setting: Setting) -> None:
    assert setting.engine in sdengine("doctor").stdout
