"""The brackets of a prompt."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdengine.engines.errors import UsageError
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
    fragments, warnings = parse_weights(escaped)
    assert fragments == [Fragment(text, 1.0)]
    assert not [warning for warning in warnings if "not acted on" not in warning]


@pytest.mark.parametrize(
    ("prompt", "unmeant"),
    [
        ("(16:9)", ["(16:9)"]),
        ("a wide (4:3) picture", ["(4:3)"]),
        ("(2.39:1)", ["(2.39:1)"]),
        ("the clock (at 12:30) and (dex:15)", ["(at 12:30)", "(dex:15)"]),
        ("(cat:4.01)", ["(cat:4.01)"]),
        ("(cat:-5)", ["(cat:-5)"]),
        ("a (b (c:7) d) e:30)", ["(c:7)"]),
        ("(at 3:00), (time 5:00)", ["(at 3:00)", "(time 5:00)"]),
        ("(ratio 3:2), (scale 1:4), (chapter 1:2)", ["(ratio 3:2)", "(scale 1:4)", "(chapter 1:2)"]),
    ],
)
def test_weights_that_nobody_means_are_text(prompt: str, unmeant: list[str]) -> None:
    fragments, warnings = parse_weights(prompt)
    assert all(any(text in fragment.text for fragment in fragments) for text in unmeant)
    assert all(fragment.weight <= UP for fragment in fragments)
    assert " ".join(unmeant) + " in the prompt is read as text" in warnings[-1]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (r"(16\:9)", [("16:9", UP)]),
        (r"(16\:9:1.3)", [("16:9", 1.3)]),
        (r"at 12\:30", [("at 12:30", 1)]),
        (r"[a\:0.5]", [("a:0.5", DOWN)]),
        ("(cat:4)", [("cat", 4)]),
        ("(1girl:1.2)", [("1girl", 1.2)]),
        ("(year 1990:1.2)", [("year 1990", 1.2)]),
        ("(sd1.5:2)", [("sd1.5", 2)]),
        ("(cat:2)", [("cat", 2)]),
    ],
)
def test_escaped_colons_and_weights_that_are_meant(prompt: str, expected: list[tuple[str, float]]) -> None:
    fragments, warnings = parse_weights(prompt)
    assert [(fragment.text, fragment.weight) for fragment in fragments] == expected
    assert warnings == []


@pytest.mark.parametrize(
    "construct",
    [
        "<lora:x:0.8>", "<hypernet:y:1>", "[a:b:0.5]", "[a::0.5]", "[a:10]", "[cat|dog]", "{a|b}", "{2$$a|b|c}", "AND",
        "__animal__", "__colours/*__", "embedding:toy", "ADDCOL", "ADDBASE", "{{cat}}", "1.2::cat::",
    ],
)  # fmt: skip
def test_syntax_of_other_tools_is_text_and_named(construct: str) -> None:
    for prompt in (construct, f"a cat {construct} by the sea", f"(a house:1.2), {construct}"):
        fragments, warnings = parse_weights(prompt)
        assert construct in fragments[-1].text
        assert fragments[-1].weight == 1
        assert len(warnings) == 1 and warnings[0].endswith(f"read as text: {construct}")


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("cat++", "++"),
        ("(a cat)+", "+"),
        ('("a", "b").blend(1, 2)', ".blend(1, 2)"),
        ("(cat:1,3)", ":1,3"),
        ("(cat:120%)", ":120%"),
        ("a cat --ar 16:9", "--ar"),
    ],
)
def test_weights_of_other_tools_are_named(prompt: str, named: str) -> None:
    assert parse_weights(prompt)[1][-1].endswith(f"read as text: {named}")


@pytest.mark.parametrize(
    "prompt",
    [
        "a < b > c",
        "a: b",
        "well-lit, high-key",
        "C3-PO",
        "sand and sea",
        "BREAKFAST",
        "a {b} c",
        "1 + 1",
        "snake_case",
        "a -- b",
        "12:30",
        r"\[a:b:1]",
    ],
)
def test_plain_text_is_no_syntax(prompt: str) -> None:
    assert not [warning for warning in parse_weights(prompt)[1] if "not acted on" in warning]


def test_break_starts_a_new_window() -> None:
    fragments, warnings = parse_weights("a cat BREAK (by the BREAK sea:1.2) BREAK", breaks=True)
    assert fragments == [
        Fragment("a cat  ", 1.0),
        Fragment("by the ", 1.2, new_window=True),
        Fragment(" sea", 1.2, new_window=True),
        Fragment(" ", 1.0),
    ]
    assert not warnings
    assert parse_weights("BREAK a", breaks=True)[0] == [Fragment(" a", 1.0)]
    fragments, [warning] = parse_weights("a BREAK b")
    assert fragments == [Fragment("a BREAK b", 1.0)]
    assert "BREAK (it starts a new window with long_prompt='chunk')" in warning


@pytest.mark.parametrize(
    "text",
    [
        "{" * 200_000,
        "-__a" * 50_000,
        "1::" * 60_000,
        "(" * 200_000,
        "[" * 100_000 + "a" + "]" * 100_000,
        "(]" * 100_000,
        "[(" * 50_000 + "]" * 9,
    ],
)
def test_long_prompts_take_time_in_proportion(text: str) -> None:
    """With the square of their length, these would take hours."""
    assert parse_weights(text)[0]


def test_weights_that_nest_out_of_bounds_are_refused() -> None:
    with pytest.raises(UsageError, match="multiply to more than 1000"):
        parse_weights("(" * 100_000 + "a" + ")" * 100_000)
    assert parse_weights("((((a))))")[0][0].weight == pytest.approx(1.1**4)
