import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

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


LIBRARY = [name for name in MODULES if ".cli" not in name and "__main__" not in name]
PAGE = 60  # lines
# What a call is about may be left out though it has a name of its own; all else that may be is an option.
SUBJECTS = {"load_params": "network", "find": "network", "sweep": "weights", "check_picture": "layers"}
SUBJECTS |= {"download": "progress", "read": "name"}
SHAPE = re.compile(r"`\[|likewise|as for|as of|of `|see `|as `|any array")  # what says of an array which it is
NO_SHAPE = ("params", "key", "network", "conv", "read", "terms")  # arrays of known kinds, and functions


def parameters(function) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


@pytest.mark.parametrize("module", LIBRARY)
def test_options_are_named_and_a_key_comes_first_among_them(module):
    for name, function in functions(module):
        named = [each.name for each in parameters(function) if each.kind is each.KEYWORD_ONLY]
        others = [each for each in parameters(function) if each.kind is each.POSITIONAL_OR_KEYWORD]
        optional = {each.name for each in others if each.default is not each.empty}
        assert optional <= {SUBJECTS.get(name)}, f"{module}.{name} takes options by their place: {optional}"
        assert "key" not in named[1:], f"{module}.{name} has its key not first among {named}"
        assert "key" not in [each.name for each in others], f"{module}.{name} takes its key by its place"


@pytest.mark.parametrize("module", LIBRARY)
def test_every_array_is_documented_with_its_shape(module):
    for name, function in functions(module):
        text = inspect.getdoc(function) or ""
        for parameter in parameters(function):
            if "Array" not in str(parameter.annotation) or parameter.name in (*NO_SHAPE, "_", "__"):
                continue
            told = re.search(rf"^ +\*?{parameter.name}: (.*(?:\n {{8}}.*)*)", text, re.MULTILINE)
            number = "float" in str(parameter.annotation)  # which may be a plain number
            assert told and (number or SHAPE.search(told[1])), f"{module}.{name} gives {parameter.name} no shape"


def test_pixels_seconds_and_bytes_are_named():
    """Numbers that are measured say in what."""
    measured = {"size": "pixel|byte", "height": "pixel", "width": "pixel", "memory": "byte|pair"}
    for module in LIBRARY:
        for name, function in functions(module):
            text = inspect.getdoc(function) or ""
            for parameter in parameters(function):
                if parameter.name in measured and "int" in str(parameter.annotation):
                    told = re.search(rf"^ +{parameter.name}: (.*(?:\n {{8}}.*)*)", text, re.MULTILINE)
                    unit = f"{measured[parameter.name]}|likewise|of the|of an"
                    assert told and re.search(unit, told[1]), f"{module}.{name} gives {parameter.name} no unit"


def test_all_that_is_public_fits_on_a_page_and_each_of_it_is_meant():
    assert sorted(jaxstyle.__all__) == jaxstyle.__all__ and len(jaxstyle.__all__) <= PAGE
    beside = {name for name in vars(jaxstyle) if not name.startswith("_")} - set(jaxstyle.__all__)
    rooms = {module.split(".")[1] for module in MODULES}  # which importing them makes attributes
    assert beside <= rooms | {"TYPE_CHECKING", "Any", "import_module"}


@pytest.mark.parametrize("module", LIBRARY)
def test_nothing_is_public_that_nobody_else_uses(module):
    """A name without an underscore is used by another room, a script, a document or a test."""
    root = Path(jaxstyle.__file__).parents[1]
    here = Path(inspect.getfile(importlib.import_module(module)))
    files = [path for kind in ("jaxstyle", "scripts", "tests", "docs") for path in (root / kind).rglob("*.*")]
    texts = [path.read_text("utf-8") for path in files if path.suffix in (".py", ".md") and path != here]
    for name, value in vars(importlib.import_module(module)).items():
        if not name.startswith("_") and getattr(value, "__module__", None) == module:
            used = re.compile(rf"\b{name}\b")
            returned = any(name in str(inspect.signature(function)) for _, function in functions(module))
            assert returned or any(map(used.search, texts)), f"{module}.{name} is public for nobody"


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    (
        "bands by_leader color coloring compiled conv descent encoding image image_limits losses mesh moments objective"
        " optimize orientation own own_network parametrize presets reading regions scales sheet stage statistic sweep"
        " transport untrained vgg winograd"
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


ORDER = """
errors compiled by_leader files winograd conv mesh pooling strips vgg losses color moments transport statistic regions
hdf5 weights_file untrained download pretrained bands image_opening image_limits orientation image_file levels
encoding_large encoding image plain_data record own own_network config grid blocks parts reading scales convention
presets targets objective coloring parametrizations parametrize descent halting optimize checkpoint_folder checkpoint
stage transfer sweep sheet statistics_file
"""


@pytest.mark.parametrize("module", ROOMS)
def test_a_room_imports_only_the_rooms_before_it(module):
    order = [*ORDER.split(), "cli", "__main__"]
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
