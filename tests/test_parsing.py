"""Whatever text stands behind an option, it is understood or refused in one sentence."""

import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxstyle.cli.grid import parse_sets, parse_values
from jaxstyle.cli.options import LEAST_MEMORY, MOST, parse_layers, parse_memory, parse_numbers, parse_scales
from jaxstyle.errors import InputError
from jaxstyle.vgg import ACTIVATIONS

MANY = settings(max_examples=20 * settings().max_examples)  # they cost next to nothing

numbers = st.one_of(
    st.floats().map(str), st.integers().map(str), st.sampled_from(["", " ", "1_0", "-0", "1e999", "٣", "\n1"])
)
layers = st.sampled_from([*ACTIVATIONS, "relu9_1", "", "relu1_1 "])
units = st.sampled_from(["", "B", "KiB", "MiB", "GiB", "TiB", "kB", "MB", "GB", "iB", " GiB", "gib"])
anything = st.text(max_size=40)


def joined(parts: st.SearchStrategy[str], by: str) -> st.SearchStrategy[str]:
    return st.lists(parts, max_size=5).map(by.join)


def understood(parse, *args, **options):
    """Return what was read, or None where it was refused in one sentence."""
    try:
        return parse(*args, **options)
    except InputError as error:
        message = str(error)
        assert message.isprintable() and message.endswith(".") and ": " in message, message
        return None


@MANY
@given(st.one_of(anything, joined(layers, ","), joined(st.tuples(layers, numbers).map(":".join), ",")))
def test_layers_are_of_the_network_and_have_finite_weights(text):
    for layer, weight in (understood(parse_layers, text) or {}).items():
        assert layer in ACTIVATIONS and 0 <= weight < math.inf


@MANY
@given(st.one_of(anything, joined(numbers, ",")), st.integers(1, 4))
@example("1\n,2", 3)
@example("0\n,0", 2)
@example("1\n,-2", 2)
def test_numbers_are_as_many_as_asked_for_and_not_all_zero(text, count):
    if (found := understood(parse_numbers, "blend", text, count=count)) is not None:
        assert len(found) == count and all(0 <= number <= MOST for number in found) and sum(found)


@MANY
@given(st.one_of(anything, st.tuples(numbers, units).map("".join)))
def test_memory_is_a_whole_number_of_bytes(text):
    if (found := understood(parse_memory, text)) is not None:
        assert isinstance(found, int) and found >= LEAST_MEMORY


@MANY
@given(st.one_of(anything, joined(numbers, ",")))
@example("9" * 5000)
def test_scales_are_whole_numbers(text):
    found = understood(parse_scales, text)
    assert found is None or isinstance(found, int) or all(isinstance(side, int) for side in found)


@MANY
@given(st.one_of(anything, joined(numbers, ","), joined(st.lists(numbers, max_size=4).map(":".join), ",")))
@example("1\n,1")
@example("5e-324:1e30:7")
@example("1:2:" + "9" * 5000)
@example("1:1.0000001:50")
def test_values_are_different_numbers_in_range(text):
    found = understood(parse_values, "style-weight", text, least=0)
    assert found is None or (len(set(found)) == len(found) and all(0 <= value <= MOST for value in found))


@MANY
@given(st.one_of(anything, joined(joined(layers, ","), ";")))
@example("a\n;a")
def test_sets_are_different(text):
    found = understood(parse_sets, "style-layers", text)
    assert found is None or len(set(found)) == len(found)
