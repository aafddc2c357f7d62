"""Docstrings as the reference shows them: Sphinx's marks for formulas as dollars, and examples as code."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """What mkdocstrings does with every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite a docstring's marks."""
        if obj.docstring is None:
            return
        text = re.sub(r":math:`([^`]+)`", r"$\1$", obj.docstring.value)
        text = re.sub(r"^( *)\.\. math:: (.+)$", r"\n\1$$\n\1\2\n\1$$\n", text, flags=re.MULTILINE)
        obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
