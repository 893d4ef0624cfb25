"""Enters a plan into a bundle's manifest."""

from collections.abc import Mapping

import msgspec

from ..bundle.bundle import Bundle, file_sha256
from ..bundle.manifest import EngineFile, FileRecord, Manifest
from ..bundle.whole_file import write_whole
from .locked import rewrite_manifest
from .plan_record import PlanRecord

__all__ = ["add_plan"]


def add_plan(bundle: Bundle, record: PlanRecord, *, sha256: str, contents: Mapping[str, bytes]) -> None:
    """Write a plan's description, enter both into the manifest, and remove the plan that it replaces.

    Args:
        bundle: whose folder holds the plan already.
        record: the description.
        sha256: of the plan.
        contents: other files to write, by name in the bundle; they may exist.

    Raises:
        OSError: the disk is full; the plan is removed.

    """
    source = record.source
    described = _description(source.file)
    added = {source.file: FileRecord(sha256=sha256, bytes=record.plan_bytes)}
    written = {**contents, described: msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"}
    entry = EngineFile(
        engine=source.engine,
        component=source.component,
        file=source.file,
        precision=source.precision,
        version=source.version,
        target=source.target,
    )
    replaced: list[EngineFile] = []

    def change(manifest: Manifest) -> Manifest:
        for name, data in written.items():  # under the manifest's lock, as the timings keep their name
            with write_whole(bundle.file(name)) as partial:
                partial.write_bytes(data)
            added[name] = FileRecord(sha256=file_sha256(bundle.file(name)), bytes=len(data))
        replaced.extend(built for built in manifest.built if _place(built) == _place(entry))
        gone = {name for old in replaced for name in (old.file, _description(old.file))}
        files = {name: file for name, file in manifest.files.items() if name not in gone} | added
        built = [old for old in manifest.built if old not in replaced] + [entry]
        return msgspec.structs.replace(manifest, built=built, files=files)

    try:
        rewrite_manifest(bundle.path, change)
    except OSError:  # the disk is full: the manifest does not list the plan
        bundle.file(source.file).unlink(missing_ok=True)
        raise
    for old in replaced:
        if old.file != entry.file:
            bundle.file(old.file).unlink(missing_ok=True)
            bundle.file(_description(old.file)).unlink(missing_ok=True)


def _description(plan: str) -> str:
    return plan.removesuffix(".plan") + ".json"


def _place(built: EngineFile) -> tuple[str, ...]:
    """What a bundle holds one plan of."""
    return built.engine, built.component, built.precision, built.version, built.target
