"""A worker process under load: generates for several clients at once, as a server's worker does, and counts its cores.

It reads a :class:`~.process_messages.LoadJob`, then a line for each thing to do, and answers each with a line: so that
several processes begin together, and are all there while their memory is read.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable

import msgspec

from ...engines.errors import SdengineError
from ...runtime.pipeline import Pipeline
from ...runtime.serve import Worker
from .memory_use import shared_out_memory
from .process_messages import LoadDone, LoadJob, LoadReady
from .settings import opening_options, request_for, split_engine

__all__ = ["main"]


def main() -> None:
    """Do a job; exit status 1 with a message if it fails."""
    with os.fdopen(os.dup(1), "wb", buffering=0) as channel:
        os.dup2(2, 1)  # what libraries print must not end up between the answers
        job = msgspec.json.decode(sys.stdin.buffer.readline(), type=LoadJob)
        try:
            asyncio.run(_work(job, lambda answer: channel.write(msgspec.json.encode(answer) + b"\n")))
        except SdengineError as error:
            sys.exit(str(error))


async def _work(job: LoadJob, answer: Callable[[LoadReady | LoadDone], object]) -> None:
    name, precision = split_engine(job.engine)
    options = opening_options(job.engine, job.settings)
    if job.threads is not None:
        options["threads"] = job.threads
    async with Worker(Pipeline.load(job.bundle, engine=name, precision=precision, **options)) as worker:
        for clients in job.clients:
            await _volley(worker, job, clients, 0)  # of the shapes that will run
            answer(LoadReady())
            await _told()
            started, cpu = time.perf_counter(), time.process_time()
            latencies = [ms for turn in range(job.calls) for ms in await _volley(worker, job, clients, turn + 1)]
            ended, cpu = time.perf_counter(), time.process_time() - cpu
            answer(LoadReady())
            await _told()
            memory = shared_out_memory()
            answer(LoadDone(started=started, ended=ended, cpu_s=cpu, latencies=latencies, memory=memory))
            await _told()


async def _volley(worker: Worker, job: LoadJob, clients: int, turn: int) -> list[float]:
    """Let every client ask for one image; return what each took, in milliseconds."""
    size, steps = job.settings.sizes[0], job.settings.steps[0]
    request = request_for(job.settings, size, steps, 1)
    given = {name: getattr(request, name) for name in ("height", "width", "num_inference_steps", "guidance_scale")}
    given |= {"scheduler": request.scheduler}
    named = {name: value for name, value in given.items() if value is not None}

    async def ask(client: int) -> float:
        started = time.perf_counter()
        prompt = f"{job.settings.prompt} {turn} {client}"
        await worker.submit(prompt=prompt, seed=job.settings.seed + client, **named).result()
        return (time.perf_counter() - started) * 1e3

    return await asyncio.gather(*map(ask, range(clients)))


async def _told() -> None:
    """Wait for the parent's next line; end with it."""
    if not await asyncio.to_thread(sys.stdin.buffer.readline):
        raise SdengineError("the process that measures has gone")
