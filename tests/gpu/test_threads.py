"""Two pipelines in two threads draw what each draws alone."""

import threading
from typing import Any

import numpy as np
import pytest

from .setting import Setting

pytestmark = pytest.mark.gpu


def test_two_threads(setting: Setting) -> None:
    with setting.pipeline() as pipe:
        alone = {seed: setting.draw(pipe, seed) for seed in range(4)}
    found: dict[int, Any] = {}
    failures: list[BaseException] = []

    def work(seeds: tuple[int, ...]) -> None:
        try:
            with setting.pipeline() as pipe:
                for seed in seeds:
                    found[seed] = setting.draw(pipe, seed)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seeds,)) for seeds in ((0, 1), (2, 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(np.array_equal(found[seed], alone[seed]) for seed in alone)
