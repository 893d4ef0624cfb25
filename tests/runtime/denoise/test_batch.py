"""Samples in one batch do not know of each other, whenever they join and leave."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sdengine.engines.errors import EngineError, UsageError
from sdengine.runtime.denoise import Batch

from .toy import LATENT, ToyDenoiser, sample

REQUESTS: list[dict[str, Any]] = [
    {"steps": 4, "seed": 1, "solver": "euler_a", "scale": 1.0},
    {"steps": 9, "seed": 2, "solver": "unipc", "scale": 5.0, "text": 0.2},
    {"steps": 20, "seed": 3, "solver": "heun", "scale": 7.5},
    {"steps": 70, "seed": 4, "solver": "ddim", "scale": 1.0, "text": -0.4},
]


def batch(slots: int = 4, **options: Any) -> tuple[Batch, ToyDenoiser]:
    engine = ToyDenoiser()
    return Batch([engine], sample(), slots=slots, **options), engine


def alone(**request: Any) -> np.ndarray:
    one = sample(**request)
    with batch(1)[0] as room:
        room.put(one)
        while room.active:
            room.step()
    return one.latent


def test_samples_that_join_and_leave_come_out_as_alone() -> None:
    samples = [sample(**request) for request in REQUESTS]
    room, engine = batch()
    joins = {0: [2], 1: [0], 3: [1, 3]}
    launches = 0
    with room:
        while room.active or launches in joins:
            for i in joins.pop(launches, []):
                room.put(samples[i])
            finished = room.step()
            assert all(one.finished and one not in room.active for one in finished)
            launches += 1
    assert launches == 3 + 70, "the longest joined after three"
    assert len(set(engine.runs)) == engine.prepared // 2 > 3, "buffers are bound once for each number of samples"
    for one, request in zip(samples, REQUESTS, strict=True):
        assert np.array_equal(one.latent, alone(**request))
        assert one.latent.std() > 0.01 and np.isfinite(one.latent).all()


class _Counted:
    """A stream that counts its uses."""

    def __init__(self, uses: int = 0) -> None:
        self.uses = uses

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        self.uses += 1
        return np.zeros(shape, np.float32)


@pytest.mark.parametrize("at_once", [False, True])
def test_each_sample_uses_noise_where_its_solver_does(at_once: bool) -> None:
    """A generator is left where diffusers leaves it."""
    streams = [_Counted() for _ in range(3)]
    samples = [sample(5, solver=name, noise=s) for name, s in zip(("ddim", "euler_a", "lcm"), streams, strict=True)]
    with batch()[0] as room:
        for one in samples:
            room.put(one)
        while room.active:
            room.finish() if at_once else room.step()
    assert [stream.uses for stream in streams] == [0, 5, 4]


def test_guidance_takes_rows_only_where_it_works() -> None:
    room, engine = batch()
    room.put(sample(scale=1.0))
    room.step()
    room.put(sample(scale=3.0))
    room.step()
    assert engine.runs == [(1, 1), (2, 3)]


@pytest.mark.parametrize("leaving", [0, 1, 2])
def test_a_sample_that_is_taken_out_goes_on_elsewhere(leaving: int) -> None:
    samples = [sample(**request) for request in REQUESTS[:3]]
    with batch(3)[0] as room, batch(1)[0] as other:
        for one in samples:
            room.put(one)
        for _ in range(3):
            room.step()
        room.take(samples[leaving])
        assert samples[leaving].position == 3 and len(room.active) == 2
        while room.active:
            room.step()
        other.put(samples[leaving])
        while other.active:
            other.step()
    for one, request in zip(samples, REQUESTS, strict=False):
        assert np.array_equal(one.latent, alone(**request))


def test_a_cancelled_sample_leaves_its_slot_to_others() -> None:
    cancelled, other, following = (sample(**request) for request in REQUESTS[:3])
    with batch(2)[0] as room:
        room.put(cancelled)
        room.put(other)
        room.step()
        with pytest.raises(UsageError, match="all 2 slots of this batch are taken"):
            room.put(following)
        room.take(cancelled)
        room.put(following)
        while room.active:
            room.step()
    assert cancelled.position == 1 and not cancelled.finished
    assert np.array_equal(other.latent, alone(**REQUESTS[1]))
    assert np.array_equal(following.latent, alone(**REQUESTS[2]))


def test_samples_of_the_same_length_can_be_finished_at_once() -> None:
    requests = [{"seed": i, "scale": 1.0 + i, "solver": solver} for i, solver in enumerate(("euler_a", "ddim", "lcm"))]
    for _ in range(2):
        samples = [sample(**request) for request in requests]
        with batch(3)[0] as room:
            for one in samples:
                room.put(one)
            assert room.finish() == samples
        for one, request in zip(samples, requests, strict=True):
            assert np.array_equal(one.latent, alone(**request))


def test_a_batch_is_used_again() -> None:
    room, engine = batch(2)
    for _ in range(2):
        for request in REQUESTS:
            one = sample(**request)
            room.put(one)
            assert room.finish() == [one]
            assert np.array_equal(one.latent, alone(**request))
    assert engine.prepared == 4, "on one row and on two"


def test_an_infinite_sample_stays_by_itself() -> None:
    broken = sample(state=np.full(sample().state.shape, np.nan, np.float32))
    other = sample(**REQUESTS[1])
    with batch(2)[0] as room:
        room.put(broken)
        room.put(other)
        while room.active:
            room.step()
    assert np.isnan(broken.latent).all()
    assert np.array_equal(other.latent, alone(**REQUESTS[1]))


def test_latents_can_be_looked_at_and_changed() -> None:
    changed, other = sample(seed=5), sample(seed=6)
    with batch(2)[0] as room:
        room.put(changed)
        room.put(other)
        before = changed.latent
        room.step()
        assert not np.array_equal(before, changed.latent)
        assert changed.timestep == changed.schedule.timesteps[0] and changed.step == 1
        changed.latent = np.zeros(LATENT)
        assert not changed.latent.any() and other.latent.any()
        with pytest.raises(ValueError, match="a latent of shape"):
            changed.latent = np.zeros((1, 2))
        while room.active:
            room.step()
    assert np.array_equal(other.latent, alone(seed=6))
    assert not np.array_equal(changed.latent, alone(seed=5))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"state": np.zeros((5, 2, 3, 5), np.float32)}, r"the latent .*\[2, 3, 5\].*\[2, 3, 4\]"),
        ({"inputs": {"denoiser": {"text": np.zeros((2, 2), np.float32)}}}, "denoiser's text of this sample differ"),
        ({"components": ("controlnet", "denoiser")}, "what runs of this sample differ"),
        ({"weights": "others"}, "the weights of this sample differ$"),
        ({"position": 4}, "all 4 evaluations of this sample are done"),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], match: str) -> None:
    room, _ = batch()
    with pytest.raises(UsageError, match=match):
        room.put(sample(**changes))
    assert not room.fits(sample(**changes))


def test_misuse_is_told() -> None:
    room, _ = batch(1, rows=1)
    with pytest.raises(UsageError, match="there is no sample in this batch"):
        room.step()
    with pytest.raises(UsageError, match="has 1 rows, of which 0 are taken"):
        room.put(sample(scale=3.0))
    one = sample(scale=1.0)
    with pytest.raises(UsageError, match="not in this batch"):
        room.take(one)
    room.put(one)
    with pytest.raises(UsageError, match="in a batch already"):
        room.put(one)


def test_closing_lets_samples_go_and_is_harmless_twice() -> None:
    closed: list[int] = []
    room, _ = batch(on_close=lambda: closed.append(1))
    one = sample(seed=5)
    room.put(one)
    room.step()
    room.close()
    room.close()
    assert closed == [1] and one.latent.any() and one.position == 1
    for act in (room.step, lambda: room.put(one)):
        with pytest.raises(UsageError, match="this batch is closed"):
            act()
    with batch(1)[0] as other:
        other.put(one)
        assert other.finish() == [one]
    assert np.array_equal(one.latent, alone(seed=5))


def test_an_engine_that_fails_says_so_and_leaves_samples_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    room, _ = batch(1)
    one = sample()
    room.put(one)

    def fails() -> None:
        raise EngineError("out of order")

    room.step()
    monkeypatch.setattr(room._launch, "denoiser", [fails, fails])
    with pytest.raises(EngineError, match="out of order"):
        room.step()
    room.close()
    assert one.position == 1


def test_finishing_a_batch_without_samples_is_an_error() -> None:
    room, _ = batch()
    with room, pytest.raises(UsageError, match="no sample in this batch"):
        room.finish()
    with pytest.raises(UsageError, match="this batch is closed"):
        room.finish()


def test_a_batch_closes_when_the_step_of_another_thread_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that is closed closes its batches, and then the engines that may be at work."""
    room, engine = batch()
    running, go_on, prepare = threading.Event(), threading.Event(), engine.prepare

    def slow(inputs: Any, outputs: Any) -> Any:
        once = prepare(inputs, outputs)

        def call() -> None:
            running.set()
            assert go_on.wait(30)
            once()

        return call

    monkeypatch.setattr(engine, "prepare", slow)
    one = sample(**REQUESTS[1])
    room.put(one)
    with ThreadPoolExecutor(2) as pool:
        step = pool.submit(room.step)
        assert running.wait(30)
        closing = pool.submit(room.close)
        try:
            with pytest.raises(TimeoutError):
                closing.result(0.2)
        finally:
            go_on.set()
        assert step.result() == [] and closing.result() is None
    assert one.position == 1
    elsewhere, _ = batch()
    elsewhere.put(one)
    while elsewhere.active:
        elsewhere.step()
    assert np.array_equal(one.latent, alone(**REQUESTS[1]))
