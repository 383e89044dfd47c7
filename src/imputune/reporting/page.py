"""A report as one self-contained HTML page and as Markdown, both from the same sections."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from imputune.reporting.figures import to_png, to_svg
from imputune.reporting.tables import Table


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, a name for its file, and what it shows in words, for those who cannot see it too."""

    name: str
    shows: str
    figure: Figure

    @cached_property
    def source(self) -> str:
        """The picture itself, as an address that a page can hold."""
        return f"data:image/svg+xml;base64,{base64.b64encode(to_svg(self.figure)).decode()}"


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the report: paragraphs, tables, pictures, and commands to type."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """The section's address in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True, eq=False)
class Report:
    """A title, the answer in a sentence or more, and sections."""

    title: str
    answers: tuple[str, ...]
    sections: tuple[Section, ...] = field(default_factory=tuple)

    def pictures(self) -> Iterator[Picture]:
        """Yield every picture."""
        for section in self.sections:
            yield from section.pictures

    def files(self) -> dict[str, bytes]:
        """Return the pictures that the Markdown names, by file name."""
        return {f"{picture.name}.png": to_png(picture.figure) for picture in self.pictures()}

    def to_html(self) -> str:
        """Return the page: style and pictures stand in it, it loads nothing and runs no script."""
        environment = Environment(
            loader=PackageLoader("imputune.reporting"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("report.html.jinja").render(report=self)

    def to_markdown(self, pictures: str) -> str:
        """Return the report as Markdown, its pictures in the folder `pictures` beside it."""
        parts = [f"# {self.title}", *self.answers]
        for section in self.sections:
            parts += [f"## {section.title}", *section.paragraphs]
            for table in section.tables:
                parts.append(f"#{table.to_markdown()}")
            parts += [f"![{picture.shows}]({pictures}/{picture.name}.png)" for picture in section.pictures]
            if section.commands:
                parts.append("\n".join(("```console", *(f"$ {command}" for command in section.commands), "```")))
        return "\n\n".join(parts) + "\n"
