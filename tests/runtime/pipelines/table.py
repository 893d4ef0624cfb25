"""Every public argument and method of diffusers' pipelines, and what becomes of it here.

``python -m tests.runtime.pipelines.table`` prints the table that ``docs/coming-from-diffusers.md`` ends with.
"""

import inspect
import re
from dataclasses import fields

import diffusers
from sdengine.engines.errors import UsageError
from sdengine.runtime import pipelines
from sdengine.runtime.pipelines.attributes import CONSTANTS, NOTED, OPENING_NOTED, OPENING_REFUSED, REFUSED
from sdengine.runtime.pipelines.calls import CALLS
from sdengine.runtime.pipelines.from_pretrained import LEFT_OUT, OPENING_OBEYED
from sdengine.runtime.pipelines.opening import PARTS
from sdengine.runtime.pipelines.translate_call import OLD_CALLBACK, TRANSLATED
from sdengine.runtime.request.request import Request

__all__ = ["arguments", "markdown", "methods", "opening_options"]

OBEYED = "obeyed"


def arguments() -> dict[str, str]:
    """Arguments of calls, of all classes."""
    taken = {field.name for field in fields(Request)} | {*TRANSLATED, *OLD_CALLBACK}
    found = {}
    for name in CALLS:
        for argument in [*inspect.signature(getattr(diffusers, name).__call__).parameters][1:]:
            if argument == "kwargs":  # the older callback and callback_steps
                found |= dict.fromkeys(OLD_CALLBACK, OBEYED)
            elif argument in taken:
                found[argument] = OBEYED
            else:
                found[argument] = f"refused: {_refusal(argument)}"
    return found


def _refusal(argument: str) -> str:
    """Return why a request refuses an argument."""
    try:
        Request.from_settings(**{argument: "anything"})
    except UsageError as error:
        return str(error).removeprefix(f"{argument}: ")
    raise AssertionError(f"{argument} is nowhere")


def methods() -> dict[str, str]:
    """Attributes and methods, of all classes."""
    found = {}
    for name in CALLS:
        ours = getattr(pipelines, name)
        for attribute in dir(getattr(diffusers, name)):
            if attribute.startswith("_"):
                continue
            if attribute in NOTED:
                found[attribute] = f"changes nothing: {NOTED[attribute]}"
            elif attribute in REFUSED:
                found[attribute] = f"refused: {REFUSED[attribute]}"
            else:
                assert hasattr(ours, attribute) or attribute in CONSTANTS, f"{name}.{attribute} is nowhere"
                found[attribute] = OBEYED
    return found


def opening_options() -> dict[str, str]:
    """Options of ``from_pretrained`` and ``from_single_file``, read from diffusers' source, and parts of pipelines."""
    theirs = diffusers.DiffusionPipeline
    sources = [inspect.getsource(f) for f in (theirs.from_pretrained, theirs.download)]
    sources.append(inspect.getsource(diffusers.StableDiffusionPipeline.from_single_file))
    names = {name for source in sources for name in re.findall(r'kwargs\.pop\(\s*"(\w+)"', source)}
    names |= {
        part
        for name in CALLS
        for part in [*inspect.signature(getattr(diffusers, name).__init__).parameters][1:]
        if part != "kwargs"
    }
    found = {}
    for name in names:
        if name in OPENING_REFUSED:
            found[name] = f"refused: {OPENING_REFUSED[name]}"
        elif name in OPENING_NOTED:
            found[name] = f"changes nothing: {OPENING_NOTED[name]}"
        else:
            assert name in (*OPENING_OBEYED, *PARTS, *LEFT_OUT), f"from_pretrained({name}=...) is nowhere"
            found[name] = OBEYED
    return found


def markdown() -> str:
    """Return the tables: what is not simply obeyed a row each, the rest in one line."""
    parts = []
    for title, found in (
        ("Attributes and methods", methods()),
        ("Options of `from_pretrained` and `from_single_file`", opening_options()),
    ):
        obeyed = ", ".join(f"`{name}`" for name in sorted(found) if found[name] == OBEYED)
        rows = [f"| `{name}` | {found[name]} |" for name in sorted(found) if found[name] != OBEYED]
        parts += [f"### {title}", "", f"Obeyed: {obeyed}.", "", "| | |", "| --- | --- |", *rows, ""]
    return "\n".join(parts)


if __name__ == "__main__":
    print(markdown())
