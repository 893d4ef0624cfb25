"""Finds syntax of other tools in prompts that has no effect here, for a warning."""

import re

__all__ = ["other_syntax", "schedules"]

_CONSTRUCTS = (
    r"<\w+:[^<>]+>",  # extra networks: <lora:name:0.8>
    r"\[[^\[\]]*(?<!\\):\s*(?:\d+\.?\d*|\.\d+)\s*\]",  # words that change on the way: [cat:dog:0.5], [cat:10]
    r"\[[^\[\]|]*\|[^\[\]]*\]",  # words that take turns: [cat|dog]
    r"\{[^{}|]*\|[^{}]*\}",  # one of several at random: {cat|dog}
    r"\{\d+(?:-\d+)?\$\$[^{}]*\}",  # several of them: {2$$cat|dog|cow}
    r"(?:(?<=[^\\]\))(?:\++|-+)|(?<=[^\W\d]{3})(?:\+{2,}|-{2,}))(?=[\s,.)]|$)",  # Compel's weights: (cat)++, cat--
    r"(?<=[^\\]\))\.(?:and|blend|swap)\([^()]*\)",  # Compel's ("cat", "dog").blend(0.5, 0.5)
    r"\bAND\b",  # several prompts in one
    r"\bADD(?:BASE|COMM|COL|ROW)\b",  # prompts of regions
    r"(?<!\w)__[\w*/-]{1,60}__(?!\w)",  # a word from a list: __animal__
    r"(?<!\w)embedding:[^\s,:()]+",  # ComfyUI's words of textual inversion
    r"\{\{[^{}]+\}\}|(?<![\w.])\d+(?:\.\d+)?::[^:{}]+::",  # NovelAI's weights: {{cat}}, 1.2::cat::
    r"(?<!\S)--[a-z]+(?=\s+[\d.:]+(?:\s|$))",  # Midjourney's arguments: --ar 16:9
    r":\s*[+-]?\d+(?:,\d+|\.\d+\.[\d.]*|(?:\.\d+)?%)(?=\s*\))",  # what is no number: (cat:1,3), (cat:120%)
)
_CONSTRUCT = re.compile(r"(?<!\\)(?:" + "|".join(_CONSTRUCTS) + ")")
_SCHEDULE = re.compile(r"\||:\s*(?:\d+\.?\d*|\.\d+)\s*$")


def other_syntax(prompt: str) -> list[str]:
    """Return the stretches of a prompt that mean something to other tools and nothing here, each once."""
    return list(dict.fromkeys(match[0] for match in _CONSTRUCT.finditer(prompt)))


def schedules(inside: str) -> bool:
    """Whether square brackets around this would make words change or take turns, and not weaken them."""
    return _SCHEDULE.search(inside.replace("\\:", "")) is not None
