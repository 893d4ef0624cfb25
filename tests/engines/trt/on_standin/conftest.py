"""These tests need the stand-in for libcuda.so.1 on the library path: ../test_on_standin.py runs them so."""

import os

if "SDENGINE_STANDIN" not in os.environ:
    collect_ignore_glob = ["test_*.py"]
else:
    import gc
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from . import library
    from .counts import count
    from .plans import with_plans

    library.install()

    @pytest.fixture(scope="session")
    def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A bundle with a plan of every component, for two sizes (height, width)."""
        return with_plans("sd1", tmp_path_factory.mktemp("bundle"), sizes=((64, 64), (64, 96)))

    @pytest.fixture(autouse=True)
    def clean() -> Iterator[None]:
        """Every test gives back what it took, and touches nothing that it gave back."""
        yield
        gc.collect()  # tracebacks of expected errors hold on to what they saw
        left = ("device_alive", "pinned_alive", "graphs_alive", "events_alive", "contexts", "streams")
        assert {name: count(name) for name in left} == dict.fromkeys(left, 0)
        wrong = ("double_freed", "after_free", "wrong_context")
        assert {name: count(name) for name in wrong} == dict.fromkeys(wrong, 0)
