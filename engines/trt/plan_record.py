"""The record that is written beside a plan, and the key that identifies a plan."""

import hashlib

import msgspec

from ..bundle.bundle import Bundle
from ..errors import BundleError
from ..spec import AxisRange
from .build_options import BuildOptions
from .profiles import Profile

__all__ = ["PlanRecord", "PlanSource", "read_record"]


class PlanSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan is built from: everything that decides what it is.

    Attributes:
        engine: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the library.
        target: GPU generations, joined by ``+``, or the GPU's model for a plan that is tied to it.
        component: what it runs.
        precision: of the graph.
        graph: SHA-256 of the graph.
        weights: SHA-256 of the weights.
        profiles: ranges of the axes.
        options: of the build.

    """

    engine: str
    version: str
    target: str
    component: str
    precision: str
    graph: str
    weights: str
    profiles: tuple[dict[str, AxisRange], ...]
    options: BuildOptions

    @property
    def key(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    @property
    def folder(self) -> str:
        """The folder of such plans, relative to the bundle."""
        return f"engines/{self.engine}-{self.version}-{self.target}"

    @property
    def file(self) -> str:
        """The plan's name, relative to the bundle.

        It holds a part of the key, so that a plan is never overwritten: a bundle that another process has open stays
        whole.
        """
        return f"{self.folder}/{self.component}.{self.precision}.{self.key[:12]}.plan"


class PlanRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan's description; it is beside the plan, with ``.json`` in place of ``.plan``.

    Attributes:
        source: what it was built from.
        seconds: that the build took.
        plan_bytes: size of the plan.
        weight_bytes: of the weights in it, as the library reports, or None.
        activation_bytes: scratch memory at the largest shapes of all profiles, or None.
        workspace: most bytes of scratch memory that a kernel was allowed, or None where the library decided.
        layers: precision -> kind of layer -> how many.
        warnings: of the library.

    """

    source: PlanSource = msgspec.field(name="wanted")
    seconds: float
    plan_bytes: int
    weight_bytes: int | None
    activation_bytes: int | None
    layers: dict[str, dict[str, int]]
    warnings: list[str]
    workspace: int | None = None

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """Ranges of the axes, in the order of the plan's profiles."""
        return self.source.profiles


def read_record(bundle: Bundle, plan: str) -> PlanRecord:
    """Read the description of a plan.

    Raises:
        BundleError: it is missing, was changed, or is of another layout.

    """
    file = bundle.checked_file(plan.removesuffix(".plan") + ".json")
    try:
        return msgspec.json.decode(file.read_bytes(), type=PlanRecord)
    except (msgspec.DecodeError, ValueError) as error:
        raise BundleError(f"{file} cannot be read: {error}; build the engine again") from error
