"""The names that `jaxstyle` exports, and the cost of importing it."""

import subprocess
import sys

import pytest

import jaxstyle

PROMISED = {
    "load_params",
    "VGG19",
    "terms",
    "total",
    "init_state",
    "run_steps",
    "stylize",
    "Objective",
    "LBFGS",
    "Adam",
}
HEAVY = ("jax", "numpy", "PIL")


def test_every_exported_name_resolves_and_is_documented():
    assert PROMISED <= set(jaxstyle.__all__) <= set(dir(jaxstyle))
    for name in jaxstyle.__all__:
        assert getattr(jaxstyle, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        jaxstyle.paint  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_jaxstyle_and_its_command_line_loads_no_jax():
    code = f"import sys, jaxstyle, jaxstyle.cli; print([name for name in {HEAVY} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
