"""What a server counts and measures, for Prometheus; vLLM's names, where they mean the same."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ...engines.errors import NonFiniteError
from .api_error import ApiError
from .failures import CancelledError, DeadlineError
from .policy import Bucket
from .ticket import Outcome, Ticket
from .worker import Worker

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_P = "sdengine:"


class Metrics:
    """Collects what a worker and its server tell; each server has its own, so that several fit in one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        model = ("model_name",)
        self._success = self._counter("request_success", "Requests whose images were done.", *model)
        self._failed = self._counter("request_failed", "Requests that were accepted and failed.", *model, "reason")
        self._cancelled = self._counter("request_cancelled", "Requests that were cancelled.", *model, "reason")
        self._rejections = self._counter("admission_rejections", "Requests that were not accepted.", "reason")
        self._non_finite = self._counter("non_finite", "Requests whose images were not finite.", *model)
        self._images = self._counter("images", "Images that were done.", *model)
        self._evaluations = self._counter("evaluations", "Evaluations of images.", *model)
        self._batch = Histogram(_P + "batch_size", "Images of a launch.", model, buckets=_SIZES, registry=registry)
        self._step = self._seconds("step_time_seconds", "One launch.", model)
        self._stage = self._seconds("stage_time_seconds", "Preparing a request, decoding an image.", (*model, "stage"))
        self._latency = self._seconds("e2e_request_latency_seconds", "From acceptance to the end.", model)
        self._queue = self._seconds("request_queue_time_seconds", "From acceptance to preparation.", model)
        self._inference = self._seconds("request_inference_time_seconds", "From preparation to the end.", model)
        self.http = self._seconds("http_request_duration_seconds", "Answers.", ("path", "status"))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_P + name, text, labels, registry=self._registry)

    def _seconds(self, name: str, text: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(_P + name, f"Seconds. {text}", labels, buckets=_SECONDS, registry=self._registry)

    def follow(self, worker: Worker) -> None:
        """Show the numbers that a worker knows itself."""
        self._registry.register(_OfWorker(worker))
        for name in worker.models:
            for metric in (self._success, self._images, self._non_finite, self._evaluations):
                metric.labels(name)
            self._cancelled.labels(name, "client")
            self._cancelled.labels(name, "deadline")

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def refused(self, error: ApiError) -> None:
        """Count a request that is not accepted, by the code of its answer."""
        self._rejections.labels(error.code or "invalid").inc()

    # -- what a worker tells, on its thread ---------------------------------------------------------------------------

    def stepped(self, bucket: Bucket, images: int, rows: int, seconds: float) -> None:
        """See :class:`.Watch`."""
        self._batch.labels(bucket.model).observe(images)
        self._step.labels(bucket.model).observe(seconds)
        self._evaluations.labels(bucket.model).inc(images)

    def staged(self, stage: str, bucket: Bucket, seconds: float) -> None:
        """See :class:`.Watch`."""
        self._stage.labels(bucket.model, stage).observe(seconds)

    def ended(self, ticket: Ticket, outcome: Outcome | Exception) -> None:
        """See :class:`.Watch`."""
        name, times = ticket.plan.bucket.model, ticket.times
        self._latency.labels(name).observe(times.total / 1e3)
        if ticket.begun is not None:
            self._queue.labels(name).observe(times.queue / 1e3)
            self._inference.labels(name).observe((times.total - times.queue) / 1e3)
        if isinstance(outcome, Outcome):
            self._success.labels(name).inc()
            self._images.labels(name).inc(len(outcome.images))
        elif isinstance(outcome, (CancelledError, DeadlineError)):
            reason = "client" if isinstance(outcome, CancelledError) else "deadline"
            self._cancelled.labels(name, reason).inc()
        else:
            self._failed.labels(name, type(outcome).__name__).inc()
            if isinstance(outcome, NonFiniteError):
                self._non_finite.labels(name).inc()


class _OfWorker:
    """Numbers that are looked up when they are asked for."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        status = self._worker.status()
        numbers: Mapping[str, tuple[str, Callable[[], float]]] = {
            "num_requests_running": ("Requests that have begun.", lambda: status.running),
            "num_requests_waiting": ("Requests that have not begun.", lambda: status.waiting),
            "active_slots": ("Images that hold a slot.", lambda: status.active),
            "slots": ("Images that can share a launch.", lambda: max(m.slots for m in self._worker.models.values())),
            "worker_alive": ("1 while the worker's thread runs.", lambda: float(status.alive)),
            "engine_failures": ("Errors of engines since the last launch that succeeded.", lambda: status.failures),
        }
        for name, (text, value) in numbers.items():
            yield GaugeMetricFamily(_P + name, text, value=value())
        fallbacks = CounterMetricFamily(_P + "fallbacks", "Engines that were skipped.", labels=["model_name", "engine"])
        for name, model in self._worker.models.items():
            skipped = [fallback.skipped for fallback in model.pipeline.components.fallbacks]
            for engine in dict.fromkeys(skipped):
                fallbacks.add_metric([name, engine], skipped.count(engine))
        yield fallbacks
