"""A worker draws for many at once what each gets alone, and one that fails, leaves or is late disturbs nobody."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sdengine.engines.errors import EngineError, UsageError
from sdengine.runtime import Pipeline
from sdengine.runtime.denoise import Batch
from sdengine.runtime.serve import (
    CancelledError,
    ClosedError,
    DeadlineError,
    Finished,
    Preview,
    Progress,
    QueueFullError,
    Worker,
    WorkerDiedError,
    turns,
)
from sdengine.runtime.serve.answer import images_answer
from sdengine.runtime.serve.api_request import api_request_from
from sdengine.runtime.serve.costs import Costs
from sdengine.runtime.serve.limits import Limits
from sdengine.runtime.serve.policy import step_level

from ...bundles import bundle_of
from ...engines.lora.networks import kohya_lora
from ..parity.oracle import picture

SIZE: dict[str, Any] = {"height": 48, "width": 72}
LONG: dict[str, Any] = {"prompt": "a long one", "num_inference_steps": 200, "seed": 1, **SIZE}
ALONE: dict[str, Any] = {"slots": lambda bucket: 1, "stepped": True}
SHORT: dict[str, Any] = {"prompt": "a short one", "num_inference_steps": 2, "seed": 2, **SIZE}


@pytest.fixture(scope="module")
def bundle() -> str:
    return str(bundle_of("sd1"))


@pytest.fixture(scope="module")
def alone(bundle: str) -> Iterator[Callable[[dict[str, Any]], Any]]:
    with Pipeline.load(bundle, engine="onnxruntime", threads=1) as pipe:
        yield lambda request: pipe(**request).images


@asynccontextmanager
async def working(bundle: str, **options: Any) -> AsyncIterator[Worker]:
    async with Worker(Pipeline.load(bundle, engine="onnxruntime", threads=1), **options) as worker:
        yield worker


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 600))


@pytest.mark.parametrize("policy", ["step", "fcfs", "batch-at-the-door"])
def test_images_in_company_are_those_drawn_alone(policy: str, bundle: str, alone: Any) -> None:
    requests: list[dict[str, Any]] = [
        {
            "prompt": f"a house {i % 3}",
            "seed": i,
            "num_inference_steps": 2 + i % 5,
            "guidance_scale": 1.0 + 3 * (i % 2),
            "height": 48,
            "width": 48 + 24 * (i % 2),
        }
        for i in range(10)
    ]
    requests[3] |= {"scheduler": "EulerAncestralDiscreteScheduler"}
    requests[4] |= {"image": picture(48, 72, 1), "strength": 0.7, "height": None, "width": None}
    requests[5] |= {"num_images_per_prompt": 3}
    requests = [{k: v for k, v in request.items() if v is not None} for request in requests]

    async def test() -> None:
        async with working(bundle, policy=policy) as worker:
            tickets = [worker.submit(**request) for request in requests]
            for request, ticket in zip(requests, tickets, strict=True):
                outcome = await ticket.result()
                expected = alone(request)
                assert len(outcome.images) == len(expected) == len(outcome.seeds)
                assert outcome.seeds[0] == request["seed"]
                for ours, theirs in zip(outcome.images, expected, strict=True):
                    assert np.array_equal(np.asarray(ours), np.asarray(theirs))
            status = worker.status()
            assert (status.waiting, status.running, status.active) == (0, 0, 0)

    run(test())


def test_what_the_safety_checker_flags_is_said_of_each_image() -> None:
    folder = str(bundle_of("sd1_checked"))
    body = {"prompt": "a cat", "n": 6, "seed": 0, "size": "96x64", "num_inference_steps": 2}
    api_request = api_request_from(body, Limits())
    with Pipeline.load(folder, engine="onnxruntime", threads=1) as pipe:
        expected = pipe(**api_request.settings)
    flags = expected.nsfw_content_detected or []
    assert any(flags)
    assert not all(flags)

    async def test() -> None:
        async with working(folder) as worker:
            outcome = await worker.submit(**api_request.settings).result()
        answer = images_answer(api_request, outcome, "a model", "an id")
        assert [entry["nsfw_content_detected"] for entry in answer["data"]] == flags
        for image, own, seed, flag in zip(outcome.images, expected.images, outcome.seeds, flags, strict=True):
            assert np.array_equal(np.asarray(image), np.asarray(own))
            assert any(f"flagged the image of seed {seed}," in warning for warning in answer["warnings"]) == flag

    run(test())


def test_stages_take_turns_with_everything_else() -> None:
    """Images that begin with a prior's samples, which share launches among themselves."""
    folder = str(bundle_of("kandinsky"))
    requests: list[dict[str, Any]] = [
        {
            "prompt": f"a house {i}",
            "seed": i,
            "num_inference_steps": 2 + i,
            "prior_num_inference_steps": 3 + i % 2,
            "height": 64,
            "width": 64,
        }
        for i in range(4)
    ]
    requests[2] |= {"num_images_per_prompt": 2, "negative_prompt": "rain"}
    with Pipeline.load(folder, engine="onnxruntime", threads=1) as pipe:
        expected = [pipe(**request).images for request in requests]

    async def test() -> None:
        async with working(folder) as worker:
            (name,) = worker.models
            await asyncio.wrap_future(worker.warm_up(name, 64, 64))
            tickets = [worker.submit(**request, previews=1) for request in requests]
            for ticket, images in zip(tickets, expected, strict=True):
                events = [event async for event in ticket.events()]
                assert sum(isinstance(event, Preview) for event in events) == len(images)
                outcome = await ticket.result()
                for ours, theirs in zip(outcome.images, images, strict=True):
                    assert np.array_equal(np.asarray(ours), np.asarray(theirs))
            assert worker.status().active == 0

    run(test())


def test_requests_with_other_loras_are_grouped(tmp_path: Path) -> None:
    """Each gets the images of its own LoRAs, wherever it had to wait, and the weights do not change at every step."""
    folder, changes = str(bundle_of("sd1")), []
    kohya_lora("sd1", tmp_path / "a.safetensors", seed=0, size=0.15)
    kohya_lora("sd1", tmp_path / "b.safetensors", seed=1, size=0.15)
    sets: list[dict[str, Any]] = [{}, {"loras": ["a"]}, {"loras": [("b", 0.5)]}, {"prompt": "a house <lora:a:0.3>"}]
    requests = [{"prompt": "a house", "seed": i, "num_inference_steps": 4, **SIZE, **sets[i % 4]} for i in range(12)]
    options: dict[str, Any] = {"engine": "onnxruntime", "threads": 1, "lora_folder": tmp_path}
    with Pipeline.load(folder, **options) as pipe:
        expected = [pipe(**request) for request in requests]

    class Watching:
        def stepped(self, *_: Any) -> None: ...

        def ended(self, *_: Any) -> None: ...

        def staged(self, stage: str, bucket: Any, seconds: float) -> None:
            if stage == "loras":
                changes.append(bucket.loras)

    async def test() -> None:
        pipe = Pipeline.load(folder, **options)
        async with Worker(pipe, watches=[Watching()]) as worker:
            tickets = [worker.submit(**request) for request in requests]
            outcomes = [await ticket.result() for ticket in tickets]
            for outcome, result in zip(outcomes, expected, strict=True):
                assert np.array_equal(np.asarray(outcome.images[0]), np.asarray(result.images[0]))
                assert [one["name"] for one in outcome.loras] == [one["name"] for one in result.loras]
            assert sum(not loaded.released for loaded in pipe._loras.alive) == 1  # no batch holds weights of others
            with pytest.raises(UsageError, match="no LoRA 'c'"):
                worker.submit(prompt="a house <lora:c>")

    run(test())
    assert 3 <= len(changes) < 12


def test_events_come_in_order(bundle: str) -> None:
    async def test() -> None:
        async with working(bundle) as worker:
            ticket = worker.submit(**{**SHORT, "num_inference_steps": 6}, num_images_per_prompt=2, previews=2)
            events = [event async for event in ticket.events()]
            for index in (0, 1):
                own = [event for event in events if event.index == index]
                steps = [event.step for event in own if isinstance(event, Progress)]
                assert steps == sorted(steps) and steps[-1] == 6
                previews = [event for event in own if isinstance(event, Preview)]
                assert [preview.number for preview in previews] == [0, 1]
                assert [preview.step for preview in previews] == [2, 4]
                assert all(preview.image.size == (72, 48) for preview in previews)
                assert isinstance(own[-1], Finished) and own[-1].outcome.seeds == (2 + index,)
            outcome = await ticket.result()
            assert outcome.timings_ms.total >= outcome.timings_ms.denoise > 0
            assert outcome.settings["num_inference_steps"] == 6

    run(test())


def test_who_steps_back_keeps_its_place(bundle: str, alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step, sizes = Batch.step, []

    def watched(self: Batch) -> Any:
        sizes.append(len(self.active))
        return step(self)

    def in_turn(waiting: Any, active: Any, costs: Any, **options: Any) -> Any:
        """Every evaluation is another image's."""
        least_done = max((*waiting, *active), key=lambda item: (item.left, item.key), default=None)
        return step_level([], [], costs, **options) if least_done is None else one(least_done)

    def one(item: Any) -> Any:
        return step_level([item] if item.left else [], [] if item.left else [item], Costs(), **ALONE)

    monkeypatch.setattr(Batch, "step", watched)
    requests = [{**SHORT, "seed": seed, "num_inference_steps": 4} for seed in range(6)]

    async def test() -> None:
        async with working(bundle, policy=in_turn) as worker:
            tickets = [worker.submit(**request) for request in requests]
            outcomes = [await ticket.result() for ticket in tickets]
        monkeypatch.setattr(Batch, "step", step)
        for request, outcome in zip(requests, outcomes, strict=True):
            assert np.array_equal(np.asarray(outcome.images[0]), np.asarray(alone(request)[0]))

    run(test())
    assert len(sizes) >= 24 and set(sizes) == {1}


def test_a_short_request_is_not_held_up_by_long_ones(bundle: str) -> None:
    async def test() -> None:
        async with working(bundle) as worker:
            long = [worker.submit(**LONG) for _ in range(5)]
            while worker.status().running == 0:
                await asyncio.sleep(0.001)
            await worker.submit(**SHORT).result()
            assert not any(ticket.done for ticket in long)
            for ticket in long:
                ticket.cancel()

    run(test())


def test_cancelling_frees_the_slot_within_one_step(bundle: str) -> None:
    launches: list[tuple[float, int]] = []

    class Counting:
        def stepped(self, bucket: Any, images: int, rows: int, seconds: float) -> None:
            launches.append((seconds, images))

        def staged(self, stage: str, bucket: Any, seconds: float) -> None:
            pass

        def ended(self, ticket: Any, outcome: Any) -> None:
            launches.append((-1.0, type(outcome) is CancelledError))

    async def test() -> None:
        async with working(bundle, watches=[Counting()]) as worker:
            ticket = worker.submit(**LONG)
            async with aclosing(ticket.events()) as events:
                async for event in events:
                    if isinstance(event, Progress) and event.step >= 3:
                        break  # as a client that hangs up
                begun = len(launches)
            with pytest.raises(CancelledError):
                ticket.future.result(timeout=60)
            assert launches[-1] == (-1.0, True)
            assert len(launches) - begun <= 3  # the step that was running, and its end
            assert worker.status().active == 0
            # one that waits leaves the one that is being drawn alone
            drawn, waits = worker.submit(**SHORT), worker.submit(**LONG)
            waits.cancel()
            assert len((await drawn.result()).images) == 1

    run(test())


def test_images_of_waiting_requests_take_bounded_memory(bundle: str) -> None:
    async def test() -> None:
        started = {**SHORT, "image": Image.new("RGB", (1024, 1024)), "strength": 1.0}
        async with working(bundle, policy="fcfs", max_queued_bytes=4 * 2**20) as worker:
            first = worker.submit(**LONG)
            while worker.status().running == 0:
                await asyncio.sleep(0.001)
            waits = worker.submit(**started)
            with pytest.raises(QueueFullError, match="take 3 MiB, this one's 3 MiB: 4 MiB are the most"):
                worker.submit(**started)
            other = worker.submit(**SHORT)  # which has no image
            first.cancel()
            for ticket in (waits, other, worker.submit(**started)):
                assert len((await ticket.result()).images) == 1

    run(test())


def test_deadlines_queues_and_ends(bundle: str) -> None:
    async def test() -> None:
        async with working(bundle, max_num_queued=2, policy="fcfs") as worker:
            first = worker.submit(**LONG)
            while worker.status().running == 0:
                await asyncio.sleep(0.001)
            late, waits = worker.submit(**SHORT, timeout=0.01), worker.submit(**SHORT)
            with pytest.raises(QueueFullError, match="2 requests wait") as full:
                worker.submit(**SHORT)
            assert 1 <= full.value.retry_after <= 120
            with pytest.raises(DeadlineError, match="before it began"):
                await late.result()
            worker.drain()
            with pytest.raises(ClosedError):
                worker.submit(**SHORT)
            first.cancel()
            assert len((await waits.result()).images) == 1
            assert await worker.idle(10)
        assert worker.status().alive is False

        async with working(bundle) as worker:
            left = worker.submit(**LONG)
        with pytest.raises(ClosedError):
            left.future.result(timeout=60)

    run(test())


def test_what_cannot_be_met_is_refused_at_once(bundle: str) -> None:
    async def test() -> None:
        async with working(bundle) as worker:
            for settings, message in (
                ({"prompt": "a", "height": 51}, "height=51"),
                ({"prompt": "a", "num_inference_step": 3}, "num_inference_steps"),
                ({"prompt": "a", "scheduler": "oiler"}, "oiler"),
                ({"prompt": "a", "model": "other"}, "other"),
                ({"prompt": "a", "output_type": "np"}, "PIL"),
            ):
                with pytest.raises(UsageError, match=message):
                    worker.submit(**settings)

    run(test())


def test_a_launch_that_fails_is_tried_again_and_fails_alone(
    bundle: str, alone: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A launch with one of the samples in it always fails: the others come out all the same, as alone."""
    step = Batch.step

    def failing(self: Batch) -> Any:
        if any(sample.seed == 66 for sample in self.active):
            raise EngineError("the device said no")
        return step(self)

    monkeypatch.setattr(Batch, "step", failing)

    def together(waiting: Any, active: Any, costs: Any, **options: Any) -> Any:
        """Everything in one launch: as where a larger batch costs nothing."""

        class Free:
            step = decode = prepare = switch = staticmethod(lambda *_: 1.0)

        return step_level(waiting, active, Free(), **options)

    async def test() -> None:
        async with working(bundle, policy=together) as worker:
            requests = [{**SHORT, "seed": seed, "num_inference_steps": 5} for seed in (1, 66, 3)]
            tickets = [worker.submit(**request) for request in requests]
            with pytest.raises(EngineError, match="said no"):
                await tickets[1].result()
            monkeypatch.setattr(Batch, "step", step)
            for request, ticket in ((requests[0], tickets[0]), (requests[2], tickets[2])):
                (image,) = (await ticket.result()).images
                assert np.array_equal(np.asarray(image), np.asarray(alone(request)[0]))
            assert worker.status().alive

    with caplog.at_level(logging.CRITICAL, "sdengine.serve"):
        run(test())


def test_places_that_nobody_uses_are_forgotten(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_MOST_PLACES", 3)

    async def test() -> None:
        async with working(bundle) as worker:
            sizes = [{"height": 32 + 8 * (i % 6), "width": 40} for i in range(18)]
            tickets = [worker.submit(**{**SHORT, **size}) for size in sizes]
            outcomes = [await ticket.result() for ticket in tickets]
            assert [outcome.height for outcome in outcomes] == [size["height"] for size in sizes]
            assert len(worker._turns._places) <= 6

    run(test())


def test_what_decoding_warns_of_is_in_the_outcome(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdengine.runtime import generate

    images_of = generate.images_of

    def warning(components: Any, samples: Any, warnings: list[str]) -> Any:
        warnings.append("the VAE was run again in fp32")
        return images_of(components, samples, warnings)

    monkeypatch.setattr(generate, "images_of", warning)

    async def test() -> None:
        async with working(bundle) as worker:
            outcome = await worker.submit(**SHORT, num_images_per_prompt=2).result()
            assert outcome.warnings.count("the VAE was run again in fp32") == 1
            assert outcome.fallbacks == ()

    run(test())


def test_images_that_are_not_finite_fail_alone(bundle: str) -> None:
    async def test() -> None:
        async with working(bundle) as worker:
            bad = worker.submit(**{**SHORT, "num_inference_steps": 4, "guidance_scale": 1e38})
            good = worker.submit(**SHORT)
            with pytest.raises(EngineError, match="NaN"):
                await bad.result()
            assert len((await good.result()).images) == 1

    run(test())


def test_a_worker_that_dies_answers_all(bundle: str, caplog: pytest.LogCaptureFixture) -> None:
    def broken(waiting: Any, active: Any, costs: Any, **options: Any) -> Any:
        if len(waiting) + len(active) == 3:
            raise RuntimeError("the policy is broken")
        return step_level(waiting, active, costs, **options)

    async def test() -> None:
        async with working(bundle, policy=broken) as worker:
            tickets = [worker.submit(**LONG) for _ in range(3)]
            for ticket in tickets:
                with pytest.raises(WorkerDiedError, match="the policy is broken"):
                    await ticket.result()
            status = worker.status()
            assert not status.alive and "the policy is broken" in str(status.error)
            with pytest.raises(WorkerDiedError):
                worker.submit(**SHORT)

    with caplog.at_level(logging.CRITICAL, "sdengine.serve"):
        run(test())


def test_warming_up_measures_each_size(bundle: str) -> None:
    async def test() -> None:
        async with working(bundle, max_num_seqs=3) as worker:
            (name,) = worker.models
            bucket = await asyncio.wrap_future(worker.warm_up(name, 48, 72))
            assert (bucket.height, bucket.width) == (48, 72)
            (measured,) = worker.costs.table().values()
            assert set(measured["step"]) == {"2", "4", "6"}  # type: ignore[call-overload]
            assert worker.status().active == 0
            with pytest.raises(UsageError, match="height=50"):
                await asyncio.wrap_future(worker.warm_up(name, 50, 72))
            worker.warm_up(name, 48, 72).cancel()  # as a server that ends meanwhile
            assert worker.call(lambda: 5).result(timeout=60) == 5
            assert worker.status().alive

    run(test())


def test_a_priors_steps_are_costed_as_its_own() -> None:
    async def test() -> None:
        async with working(bundle_of("kandinsky")) as worker:
            (name,) = worker.models
            settings: dict[str, Any] = {"num_inference_steps": 3, "prior_num_inference_steps": 2, "seed": 1}
            for size in (64, 128):
                await worker.submit(prompt="a", height=size, width=size, **settings).result()
            table = worker.costs.table()
            assert set(table) == {f"{name} prior", f"{name} 64x64", f"{name} 128x128"}
            plan = worker.model(name).plan({"prompt": "a", "negative_prompt": "b", **settings})
            rows = [(work.bucket.stage, work.rows, work.evaluations) for work in plan.stages]
            assert rows == [("prior", 2, 2), ("prior", 1, 2), ("", 2, 3)]
            embeds = worker.model(name).plan({"image_embeds": np.ones((1, 32)), "num_inference_steps": 3})
            assert [work.evaluations for work in embeds.stages] == [3]

    run(test())


@pytest.mark.parametrize("kind", ["sd_inpaint", "sdxl_refiner", "kandinsky_inpaint", "kandinsky_hint"])
def test_what_generates_nothing_without_an_image_is_warmed_up(kind: str) -> None:
    async def test() -> None:
        async with working(bundle_of(kind)) as worker:
            await asyncio.wrap_future(worker.warm_up(next(iter(worker.models))))
            assert worker.costs.table()

    run(test())


def test_a_request_that_is_under_way_while_a_size_is_warmed_up_is_answered(bundle: str) -> None:
    async def test() -> None:
        async with working(bundle) as worker:
            name = next(iter(worker.models))
            ticket = worker.submit(**LONG)
            while ticket.begun is None:
                await asyncio.sleep(0)
            warmed = worker.warm_up(name, 48, 72)
            assert (await ticket.result()).seeds == (1,)
            await asyncio.wrap_future(warmed)

    run(asyncio.wait_for(test(), 60))
