"""The brackets of a prompt."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdengine.runtime.prompt import Fragment, parse_weights

UP, DOWN = 1.1, 1 / 1.1


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [("", 1)]),
        ("a red cat", [("a red cat", 1)]),
        ("a (red:1.3) cat", [("a ", 1), ("red", 1.3), (" cat", 1)]),
        ("a (red) cat", [("a ", 1), ("red", UP), (" cat", 1)]),
        ("a [red] cat", [("a ", 1), ("red", DOWN), (" cat", 1)]),
        ("((red))", [("red", UP**2)]),
        ("[[red]]", [("red", DOWN**2)]),
        ("(a (red:1.5) cat:0.5)", [("a ", 0.5), ("red", 0.75), (" cat", 0.5)]),
        ("(a [red] cat)", [("a ", UP), ("red", UP * DOWN), (" cat", UP)]),
        ("(red: 1.3 ) (blue:.5)(green:2)", [("red", 1.3), (" ", 1), ("blue", 0.5), ("green", 2)]),
        ("(red:-0.5) (blue:+2) (x:0)", [("red", -0.5), (" ", 1), ("blue", 2), (" ", 1), ("x", 0)]),
        ("(a: b:1.2)", [("a: b", 1.2)]),
        ("(a:b)", [("a:b", UP)]),
        ("(a:1.2b)", [("a:1.2b", UP)]),
        ("(a:)", [("a:", UP)]),
        ("(:1.3)", [("", 1)]),
        ("()", [("", 1)]),
        ("(red:1.0) cat", [("red cat", 1)]),
        ("time 12:30, 16:9", [("time 12:30, 16:9", 1)]),
        (r"a \(red:1.3\) cat", [("a (red:1.3) cat", 1)]),
        (r"(\(red\):1.3)", [("(red)", 1.3)]),
        (r"\[a\] \\ \b", [(r"[a] \ \b", 1)]),
        ("(a\nb:1.2)", [("a\nb", 1.2)]),
    ],
)
def test_balanced(prompt: str, expected: list[tuple[str, float]]) -> None:
    fragments, warnings = parse_weights(prompt)
    assert [fragment.text for fragment in fragments] == [text for text, _ in expected]
    assert [fragment.weight for fragment in fragments] == pytest.approx([weight for _, weight in expected])
    assert warnings == []


@pytest.mark.parametrize(
    ("prompt", "expected", "strays"),
    [
        ("a (red cat", [("a (red cat", 1)], ["("]),
        ("a red) cat", [("a red) cat", 1)], [")"]),
        ("a red:1.3) cat", [("a red:1.3) cat", 1)], [":1.3)"]),
        ("a (red:1.3 cat", [("a (red:1.3 cat", 1)], ["("]),
        ("[a", [("[a", 1)], ["["]),
        ("a]", [("a]", 1)], ["]"]),
        ("((a)", [("(", 1), ("a", UP)], ["("]),
        ("(a [b) c]", [("a [b", UP), (" c]", 1)], ["[", "]"]),
        ("(a:1.2) (b", [("a", 1.2), (" (b", 1)], ["("]),
        (")(", [(")(", 1)], [")", "("]),
    ],
)
def test_unbalanced_is_literal(prompt: str, expected: list[tuple[str, float]], strays: list[str]) -> None:
    fragments, [warning] = parse_weights(prompt)
    assert [fragment.text for fragment in fragments] == [text for text, _ in expected]
    assert [fragment.weight for fragment in fragments] == pytest.approx([weight for _, weight in expected])
    assert warning.startswith("unbalanced weights in the prompt")
    assert " ".join(map(repr, strays)) + " taken literally" in warning


def test_long_prompt_is_shortened_in_the_warning() -> None:
    _, [warning] = parse_weights("(" * 10_000)
    assert len(warning) < 300


@settings(deadline=None)
@given(st.text(alphabet="ab ()[]:\\.12-", max_size=30))
def test_any_text(prompt: str) -> None:
    """No word is lost, neighbours differ in weight, and only brackets give warnings."""
    fragments, warnings = parse_weights(prompt)
    kept = "".join(fragment.text for fragment in fragments)
    assert [c for c in kept if c in "ab"] == [c for c in prompt if c in "ab"]
    assert all(first.weight != second.weight for first, second in itertools.pairwise(fragments))
    if not any(mark in prompt for mark in "()[]\\"):
        assert fragments == [Fragment(prompt, 1.0)] and not warnings


@settings(deadline=None)
@given(st.text(max_size=40))
def test_escaped_text_comes_back(text: str) -> None:
    escaped = "".join("\\" + c if c in "()[]\\" else c for c in text)
    assert parse_weights(escaped) == ([Fragment(text, 1.0)], [])
