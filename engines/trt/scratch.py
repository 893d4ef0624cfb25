"""Scratch memory of each profile, which only an open plan reports."""

from ..bundle.bundle import Bundle
from ..bundle.manifest import EngineFile
from ..cuda.gpu import gpu_here
from ..errors import EngineError, SdengineError
from .library import library_of
from .place import plan_for
from .plan_engine import PlanEngine
from .unavailable import version_of, why_not

__all__ = ["scratch_by_profile"]


def scratch_by_profile(bundle: Bundle, built: EngineFile) -> tuple[int, ...] | str:
    """Open a plan, after comparing its hash, and read its scratch sizes.

    Returns:
        Bytes at the largest shapes of each profile, or why the plan cannot be opened here.

    Raises:
        BundleError: the plan was changed.

    """
    library = library_of(built.engine)
    reason = why_not(library)
    if reason is not None:
        return reason
    gpu = gpu_here()
    assert gpu is not None
    try:
        here = plan_for(library, bundle, built.component, built.precision, gpu, version_of(library))
    except EngineError as error:
        return str(error)
    if here != built.file:
        return f"another plan is for the {gpu.model}"
    try:
        engine = PlanEngine(library, bundle, built.component, precision=built.precision, cuda_graph="off")
    except EngineError as error:
        return str(error)
    try:
        return engine.scratch
    except (AttributeError, SdengineError) as error:
        return f"{built.engine} does not report it: {error}"
    finally:
        engine.close()
