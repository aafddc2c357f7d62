"""Commands without the parsing of their arguments, which takes most of the time of a run that computes nothing."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import tyro

from jaxstyle.cli import main
from jaxstyle.cli.commands import Command


def changed(command: Any, **options: Any) -> Any:
    """Return a command with other values of options, each in the group that has it."""
    values: dict[str, Any] = {}
    for each in fields(command):
        value = getattr(command, each.name)
        if each.name in options:
            values[each.name] = options.pop(each.name)
        elif is_dataclass(value) and not isinstance(value, type):
            own = {name: options.pop(name) for name in {part.name for part in fields(value)} & options.keys()}
            values[each.name] = replace(value, **own) if own else value
    assert not options, f"{type(command).__name__} has no options {options}"
    return replace(command, **values)


def run(command: Any, **options: Any) -> int:
    """Run a command as `jaxstyle.cli.main` does, with other values of options, and return the exit status."""
    command = changed(command, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tyro, "cli", lambda *_, **__: Command(command))
        return main([])
