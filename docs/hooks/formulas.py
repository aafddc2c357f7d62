r"""Formulas as MathML, which browsers draw themselves: nothing is fetched, and no script runs.

Pages write `$...$` and `$$...$$`, as GitHub shows them too; docstrings write Sphinx's `:math:` and `.. math::`.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor
from mkdocs.plugins import event_priority

MARKED = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
AFTER_CODE = 20  # pymdownx.superfences, which takes code blocks out of the text, has 25


class _Dollars(Preprocessor):
    """Turns Sphinx's marks into dollars, outside of code blocks."""

    def run(self, lines: list[str]) -> list[str]:
        text = re.sub(r":math:`([^`]+)`", r"$\1$", "\n".join(lines))
        return re.sub(r"^\.\. math:: (.+)$", "\n$$\n\\1\n$$\n", text, flags=re.MULTILINE).split("\n")


class Formulas(Extension):
    """The preprocessor, for pages and for the docstrings that they show."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  (Markdown's own name)
        """Register it."""
        md.preprocessors.register(_Dollars(md), "formulas", AFTER_CODE)


@event_priority(100)  # before mkdocstrings takes the list of extensions
def on_config(config: Any) -> Any:
    """Add the preprocessor to the extensions of Markdown."""
    config.markdown_extensions.append(Formulas())
    return config


def on_page_content(content: str, **_: Any) -> str:
    """Replace each formula that pymdownx.arithmatex has marked by MathML."""
    return MARKED.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    tag, bracket, latex = found.groups()
    display = "block" if bracket == "[" else "inline"
    return f'<{tag} class="formula">{convert(html.unescape(latex).strip(), display=display)}</{tag}>'
