"""One run of the contenders, in rounds."""

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from contenders import CONTENDERS
from environments import CACHE, python_of
from processes import ProcessError, Told, run_job
from table import psnr

__all__ = ["HERE", "Race", "say"]

HERE = Path(__file__).parent
_OUR_DRAWING = {"scheduler": "euler", "scheduler_config": {"timestep_spacing": "trailing"}}
_TOO_SLOW = 2


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fingerprint(checkpoint: Path) -> str:
    """Tell checkpoints apart without reading them."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file())
    facts = [(str(f.relative_to(checkpoint)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return f"{checkpoint.resolve().name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"


class Race:
    """One run of the contenders."""

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self.job, self.folder = job, folder
        self.results: dict[str, list[Told]] = {}
        self.outputs: dict[str, Any] = {}
        self.drawn: Any = None
        """Our own drawing of what those draw who cannot be asked for a step."""

    def exported(self, name: str, *, again: bool = False) -> Path | None:
        """Return what the contender runs, made if it is not there yet.

        Raises:
            ProcessError: it cannot be made; once that is known, it is only tried ``again`` on demand.

        """
        contender = CONTENDERS[name]
        if contender.exporter is None:
            return None
        environment, script = contender.exporter
        folder = CACHE / "exports" / f"{_fingerprint(Path(self.job['checkpoint']))}-{contender.environment}"
        failed = folder.with_name(f"{folder.name}.failed")
        if failed.exists() and not again:
            raise ProcessError(failed.read_text(encoding="utf-8"))
        if not folder.exists():
            say(f"{name}: exporting")
            unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            job = {**self.job, "variant": contender.variant, "export": str(unfinished)}
            try:
                report = run_job([python_of(environment), str(HERE / script)], job, self.log(f"{name} export"))
                if "error" in report:
                    failed.write_text(f"export: {report['error']}", encoding="utf-8")
                    raise ProcessError(f"export: {report['error']}")
                unfinished.rename(folder)
                failed.unlink(missing_ok=True)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return folder

    def prepare(self) -> None:
        """Make all that is not timed; a contender's row will say again what cannot be made."""
        for name in self.results:
            try:
                python_of(CONTENDERS[name].environment)
                say(f"{name}: {self.exported(name, again=True) or 'ready'}")
            except ProcessError as error:
                say(f"{name}: {error}")

    def log(self, name: str) -> Path:
        return self.folder / f"{name.replace(', ', '-').replace(' ', '-')}.log"

    def run(self, name: str, **changes: Any) -> tuple[Told, Any]:
        """Run a contender once; return what it tells and its result."""
        contender, output = CONTENDERS[name], self.log(name).with_suffix(".npy")
        try:
            job = {**self.job, "variant": contender.variant, "exported": str(self.exported(name)), **changes}
            command = [python_of(contender.environment), str(HERE / contender.script)]
        except ProcessError as error:
            return {"error": str(error)}, None
        report = run_job(command, {**job, "output": str(output)}, self.log(name))
        return report, np.load(output) if "error" not in report else None

    def round(self, number: int) -> None:
        for name in self.results:
            if number > 1 and not self._worth_another(name):
                continue
            say(f"round {number}: {name}")
            report, output = self.run(name)
            self.results[name].append(report)
            line = report.get("error") or " ".join(f"{seconds:.3f}" for seconds in report["wall"])
            say(f"round {number}: {name}: {line}")
            if output is not None:
                self.outputs[name] = output

    def _worth_another(self, name: str) -> bool:
        least = {n: min(t["wall"]) for n, rounds in self.results.items() for t in rounds if "error" not in t}
        return name in least and least[name] <= _TOO_SLOW * min(least.values())

    def apart(self) -> dict[str, str]:
        """Say how far the results are from the first contender's."""
        reference = next(iter(self.outputs.values()), None)
        distances = {}
        for name, output in list(self.outputs.items())[1:]:
            expected, drew = reference, any(report.get("drew") for report in self.results[name])
            if drew:
                expected = self.our_drawing()
            distances[name] = psnr(output, expected) + (" (image)" if drew else "")
        return distances

    def our_drawing(self) -> Any:
        ours = [name for name in self.outputs if CONTENDERS[name].environment == "ours"]
        if self.drawn is None and ours:
            # a whole pipeline of SDXL's size fits into memory only in the most modest way
            name = min(ours, key=lambda name: self.results[name][0]["peak_rss_mb"])
            say(f"{name}: making the same image as those who cannot be asked for a step")
            image = {k: v for k, v in self.job["image"].items() if k != "spacing"} | _OUR_DRAWING
            report, self.drawn = self.run(name, inputs=None, image=image, repeats=0)
            if "error" in report:
                say(report["error"])
        return self.drawn
