import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxstyle

MODULES = [module.name for module in pkgutil.walk_packages(jaxstyle.__path__, "jaxstyle.")]
PROMISED = ("load_params", "features", "terms", "total", "init", "run", "stylize", "Config", "LossWeights")


def functions(module: str):
    """Yield the public functions that `module` defines."""
    for name, value in vars(importlib.import_module(module)).items():
        function = inspect.unwrap(value) if callable(value) else None
        if not name.startswith("_") and inspect.isfunction(function) and function.__module__ == module:
            yield name, function


@pytest.mark.parametrize("name", jaxstyle.__all__)
def test_every_public_name_can_be_had(name):
    assert getattr(jaxstyle, name).__doc__


def test_the_promised_names_are_public():
    assert set(PROMISED) <= set(jaxstyle.__all__) <= set(dir(jaxstyle))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        jaxstyle.paint  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("module", ["jaxstyle", "jaxstyle.cli"])
def test_importing_it_loads_neither_jax_nor_numpy(module):
    code = f"import sys, {module}; print([name for name in ('jax', 'numpy', 'PIL') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("module", [name for name in MODULES if ".cli" not in name])
def test_every_public_function_says_what_it_takes_and_gives_an_example(module):
    for name, function in functions(module):
        text = inspect.getdoc(function) or ""
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "_", "__")]
        assert text, f"{module}.{name} has no docstring"
        assert not parameters or "Args:" in text, f"{module}.{name} does not say what it takes"
        assert "Example:" in text, f"{module}.{name} has no example"
        for parameter in parameters:
            assert f"{parameter.name}: " in text, f"{module}.{name} does not explain {parameter.name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    (
        "bands by_leader color coloring conv descent encoding image image_limits losses mesh moments objective"
        " optimize orientation own parametrize presets reading regions scales sheet stage statistic sweep transport"
        " untrained vgg winograd"
    ).split(),
)
def test_the_examples_in_the_docstrings_run(module):
    loaded = importlib.import_module(f"jaxstyle.{module}")
    names = {"jax": jax, "jnp": jnp, "np": np} | {name: getattr(jaxstyle, name) for name in jaxstyle.__all__}
    failures, tried = doctest.testmod(loaded, extraglobs=names)
    assert tried and not failures


def imports(module: str) -> set[str]:
    """Return what `module` imports, at its top or inside a function: rooms of jaxstyle by their own names."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(importlib.import_module(module)))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxstyle":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            found.add(parts[1] if parts[0] == "jaxstyle" else parts[0])
    return found


ROOMS = [name for name in MODULES if name.count(".") == 1 and not name.endswith(".cli")]


@pytest.mark.parametrize("module", ROOMS)
def test_a_room_imports_only_the_rooms_before_it(module):
    order = "errors by_leader files winograd conv mesh pooling strips vgg losses color moments transport statistic"
    order += " regions hdf5 weights_file untrained download pretrained bands image_opening image_limits orientation"
    order += " image_file levels encoding_large encoding image plain_data record own config grid blocks parts reading"
    order += (
        " scales convention presets targets objective coloring parametrizations parametrize descent halting optimize"
    )
    order += " checkpoint_folder checkpoint stage transfer sweep sheet"
    order = [*order.split(), "statistics_file", "cli", "__main__"]
    assert imports(module) & set(order) <= set(order[: order.index(module.split(".")[1])])


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("PIL", {"bands", "encoding", "image", "image_opening", "image_limits", "image_file", "sheet"}),
        ("imagecodecs", {"encoding", "image_file"}),
        ("tifffile", {"encoding_large"}),
        ("flax", {"vgg"}),
        ("optax", {"descent", "optimize"}),
        ("h5py", {"hdf5", "weights_file", "statistics_file"}),
        ("pooch", {"download"}),
        ("orbax", {"checkpoint"}),
        ("rich", set()),
        ("tyro", set()),
        ("torch", set()),
    ],
)
def test_each_library_lives_in_its_own_rooms(package, rooms):
    assert {module.split(".")[1] for module in ROOMS if package in imports(module)} == rooms
