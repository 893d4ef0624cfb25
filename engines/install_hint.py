"""The command that installs what is missing: from where this package came from, since no index has it."""

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["install_hint"]


def install_hint(*extras: str) -> str:
    """Return the command that adds extras, such as ``cpu`` or ``export``."""
    source = _source()
    names = ",".join(extras)
    if source is None:
        return f'pip install ".[{names}]" in the folder of sdengine\'s repository'
    return f'pip install {source[0]}"{source[1]}[{names}]"'


@cache
def _source() -> tuple[str, Path] | None:
    """Return the folder or the wheel that this package was installed from (PEP 610), and whether it is editable."""
    try:
        record = json.loads(distribution("sdengine").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    address = urlsplit(str(record.get("url", "")))
    path = Path(unquote(address.path))
    if address.scheme != "file" or not path.exists():
        return None
    return ("-e " if record.get("dir_info", {}).get("editable") else "", path)
