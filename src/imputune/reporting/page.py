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
class ReportFigure:
    """A figure, the name of its file, and a caption that also serves readers who cannot see it."""

    name: str
    caption: str
    figure: Figure

    @cached_property
    def png(self) -> bytes:
        """The figure as PNG."""
        return to_png(self.figure)

    @cached_property
    def source(self) -> str:
        """The figure as a data URL."""
        return f"data:image/svg+xml;base64,{base64.b64encode(to_svg(self.figure)).decode()}"


@dataclass(frozen=True)
class KeptFigure:
    """A figure that an earlier report drew, as PNG, with its name and caption; see `ReportFigure`."""

    name: str
    caption: str
    png: bytes

    @property
    def source(self) -> str:
        """The figure as a data URL."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Section:
    """A part of the report: paragraphs, tables, figures, and commands to type."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[ReportFigure | KeptFigure, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.paragraphs or self.tables or self.figures)

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

    def figures(self) -> Iterator[ReportFigure | KeptFigure]:
        """Yield every figure."""
        for section in self.sections:
            yield from section.figures

    def files(self) -> dict[str, bytes]:
        """Return the figures that the Markdown names, as PNG by file name."""
        return {f"{each.name}.png": each.png for each in self.figures()}

    def to_html(self) -> str:
        """Return the page; it holds its style and figures, loads nothing and runs no script."""
        environment = Environment(
            loader=PackageLoader("imputune.reporting"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("report.html.jinja").render(report=self)

    def to_markdown(self, folder: str) -> str:
        """Return the report as Markdown; its figures are in `folder` beside it."""
        parts = [f"# {self.title}", *self.answers]
        for section in self.sections:
            parts += [f"## {section.title}", *section.paragraphs]
            for table in section.tables:
                parts.append(f"#{table.to_markdown()}")
            parts += [f"![{each.caption}]({folder}/{each.name}.png)" for each in section.figures]
            if section.commands:
                parts.append("\n".join(("```console", *(f"$ {command}" for command in section.commands), "```")))
        return "\n\n".join(parts) + "\n"
