"""Text of options is parsed to valid values or refused in one sentence."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxstyle.errors import InputError
from jaxstyle.networks.vgg import ACTIVATIONS
from jaxstyle.runtime.options import (
    LEAST_MEMORY,
    MOST,
    check_number,
    parse_layers,
    parse_memory,
    parse_pixels,
    parse_scales,
    parse_shares,
)
from jaxstyle.runtime.sweep_grid import parse_sets, parse_values

MANY = settings(max_examples=4 * settings().max_examples)
DIGITS = "9" * 401  # more than a float has

numbers = st.one_of(
    st.floats().map(str), st.integers().map(str), st.sampled_from(["", " ", "1_0", "-0", "1e999", "٣", "\n1"])
)
layers = st.sampled_from([*ACTIVATIONS, "relu9_1", "", "relu1_1 "])
units = st.sampled_from(["", "B", "KiB", "MiB", "GiB", "TiB", "kB", "MB", "GB", "iB", " GiB", "gib"])
anything = st.text("0123456789.,:;-+e_ relu\n\t\x1b\u2028\ud800é٣GMiB", max_size=20)


def joined(parts: st.SearchStrategy[str], by: str) -> st.SearchStrategy[str]:
    return st.lists(parts, max_size=5).map(by.join)


def parsed(parse: Callable[..., Any], *args: object, **options: object) -> Any:
    """Return the parsed value, or None if the text is refused in one sentence."""
    try:
        return parse(*args, **options)
    except InputError as error:
        message = str(error)
        assert message.isprintable() and message.endswith(".") and ": " in message and len(message) < 300, message
        return None


@MANY
@given(st.one_of(anything, joined(layers, ","), joined(st.tuples(layers, numbers).map(":".join), ",")))
def test_parsed_layers_are_of_the_network_and_have_finite_weights(text):
    for layer, weight in (parsed(parse_layers, text) or {}).items():
        assert layer in ACTIVATIONS and 0 <= weight < math.inf


@MANY
@given(st.one_of(anything, joined(numbers, ",")), st.integers(1, 4))
@example("1\n,2", 3)
@example("0\n,0", 2)
@example("1\n,-2", 2)
def test_parsed_shares_have_the_requested_count_and_the_sum_one(text, count):
    if (actual := parsed(parse_shares, text, count=count)) is not None:
        assert len(actual) == count and min(actual) >= 0 and math.isclose(sum(actual), 1)


@MANY
@given(st.one_of(anything, st.tuples(numbers, units).map("".join)))
def test_parsed_memory_is_an_integer_above_the_lower_limit(text):
    if (actual := parsed(parse_memory, text)) is not None:
        assert isinstance(actual, int) and actual >= LEAST_MEMORY


@MANY
@given(st.one_of(anything, joined(numbers, ",")))
@example("9" * 5000)
def test_parsed_scales_are_integers(text):
    actual = parsed(parse_scales, text)
    assert actual is None or isinstance(actual, int) or all(isinstance(side, int) for side in actual)


@MANY
@given(st.one_of(anything, joined(numbers, ","), joined(st.lists(numbers, max_size=4).map(":".join), ",")))
@example("1\n,1")
@example("5e-324:1e30:7")
@example("1:2:" + "9" * 5000)
@example("1:1.0000001:50")
def test_parsed_values_are_distinct_and_in_range(text):
    actual = parsed(parse_values, "style-weight", text, least=0)
    assert actual is None or (len(set(actual)) == len(actual) and all(0 <= value <= MOST for value in actual))


@MANY
@given(st.one_of(anything, joined(joined(layers, ","), ";")))
@example("a\n;a")
def test_parsed_sets_are_distinct(text):
    actual = parsed(parse_sets, "style-layers", text)
    assert actual is None or len(set(actual)) == len(actual)


def style_weights(text: str, count: int = 1) -> list[float] | None:
    return parse_shares(text, count=count)


def style_weight(text: str) -> list[float]:
    return parse_values("style-weight", text, least=0)


def style_layers(text: str) -> list[str]:
    return parse_sets("style-layers", text)


@pytest.mark.parametrize(
    ("parse", "texts", "mentioned"),
    [
        (
            parse_pixels,
            ("many", "5GP", "4.1GP", "500KP", "1", "0.9MP", "MP", "nan", "inf", "-1MP", DIGITS),
            "--max-pixels",
        ),
        (parse_memory, ("many", "255MiB", "1025TiB", "4gib", "GiB", "nan", DIGITS, "9" * 300), "--max-memory"),
        (style_weights, ("", "x", "1,2", "1e31", "-1", "nan", "1," * 3000, "0" * 5000), "--style-weights"),
        (parse_scales, ("many", "1.5", "1,x", "9" * 5000), "--scales"),
        (style_weight, ("many", "1:2", "5:5:3", "-1:2:3", "1:inf:3", "1:2:1", "1:2:3:4"), "--style-weight"),
        (style_weight, ("1,1", "2e+30", "-1", "x" * 5000, f"1:2:{DIGITS}", "1:2:10001"), "--style-weight"),
        (style_layers, ("relu1_1;relu1_1", "relu1_1" + ";relu1_1" * 900), "--style-layers"),
        (parse_layers, ("relu1_1:nan", "relu1_1:-1", "relu1_1:" + "x" * 5000), "relu1_1"),
        (parse_layers, ("relu1_1,relu1_1", "relu1_1" + ",relu1_1" * 900), "relu1_1"),
        (parse_layers, ("relu9_1", "x" * 5000), "layer"),
    ],
)
def test_an_invalid_text_is_refused_by_an_error_that_names_the_option_and_is_short(parse, texts, mentioned):
    for text in texts:
        with pytest.raises(InputError) as caught:
            parse(text)
        message = str(caught.value)
        assert mentioned in message and (text[:5] in message or "numbers for" in message), message
        assert len(message) < 300, message


def test_units_of_memory_and_pixels():
    assert (
        parse_memory("4GiB") == 2**32 and parse_memory("1.5 GB") == 1_500_000_000 and parse_memory("268435456") == 2**28
    )
    assert parse_memory("1024TiB") == 2**50 and parse_memory(None) is None
    assert (
        parse_pixels("500MP") == 500_000_000 and parse_pixels("4GP") == 4 * 10**9 and parse_pixels("1000000") == 10**6
    )
    assert parse_pixels(None) is None


def test_a_number_is_accepted_up_to_and_including_its_limits():
    for value in (None, 16, 10**9):
        check_number("style_size", value, 16, 10**9)
    wrong: tuple[Any, ...] = (15, 10**9 + 1, int(DIGITS), 2.5, 32.0, True, "32", math.nan)
    for value in wrong:
        with pytest.raises(InputError, match=r"--style-size is .*: use a .*number from 16 to ") as caught:
            check_number("style_size", value, 16, 10**9)
        assert len(str(caught.value)) < 200
