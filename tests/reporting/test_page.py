import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from browser import needs_browser, opened
from imputune.reporting.page import Report, ReportFigure, Section
from imputune.reporting.tables import Table


def small_figure(name: str) -> ReportFigure:
    """Return a small figure."""
    figure = Figure(figsize=(4.4, 2))
    figure.add_subplot().plot([1, 2, 3])
    return ReportFigure(name, f"What {name} shows", figure)


@pytest.fixture(scope="module")
def report() -> Report:
    """A report with everything that one can have, wide tables and hostile text among it."""
    header = tuple(f"column {number}" for number in range(14))
    wide = Table(title="A wide table", header=header, lines=(tuple("0.123 ± 0.045" for _ in header),))
    hostile = Table(
        title="Text", header=("a", "b"), lines=(("<script>boom()</script>", "x & y"),), remark="Its remark."
    )
    run = Section(
        title="What was run",
        paragraphs=("A paragraph " * 40,),
        tables=(wide, hostile),
        figures=(small_figure("one"), small_figure("two")),
    )
    commands = ("imputune compare --by imputer,head", "true")
    return Report(
        "Imputer or classifier?",
        ("The classifier matters most.",),
        (run, Section(title="How to reproduce it", commands=commands)),
    )


class Tags(HTMLParser):
    """Collects the tags of a page and where they point."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        """Take a tag."""
        self.names.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


def test_page_holds_everything_and_loads_nothing(report):
    """Figures and style are inside the page; there is no script and no address outside; text stays text."""
    page = report.to_html()
    tags = Tags(page)
    assert tags.names.count("img") == 2
    assert "script" not in tags.names
    assert all(address.startswith(("data:", "#")) for address in tags.addresses)
    assert "<title>Imputer or classifier?</title>" in page
    assert '<p class="answer">The classifier matters most.</p>' in page
    assert '<li><a href="#what-was-run">What was run</a></li>' in page
    assert '<section id="how-to-reproduce-it">' in page
    assert "<td>&lt;script&gt;boom()&lt;/script&gt;</td><td>x &amp; y</td>" in page
    assert "<td>0.123\u00a0±\u00a00.045</td>" in page
    assert '<p class="remark">Its remark.</p>' in page
    assert "<figcaption>What one shows</figcaption>" in page
    assert "$ imputune compare --by imputer,head\n$ true\n" in page


def test_markdown_by_value() -> None:
    """Title, answers, sections with paragraphs, tables one level lower, figures by file name, and commands."""
    section = Section(
        title="Scores",
        paragraphs=("First.", "Second."),
        tables=(Table(title="AUC", header=("head",), lines=(("gru",),), remark="By fold."),),
        figures=(small_figure("one"),),
        commands=("true", "false"),
    )
    lines = [
        "# Which?",
        "An answer.",
        "## Scores",
        "First.",
        "Second.",
        "### AUC",
        "| head |\n| --- |\n| gru |",
        "By fold.",
        "![What one shows](report/one.png)",
        "```console\n$ true\n$ false\n```",
    ]
    assert Report("Which?", ("An answer.",), (section,)).to_markdown("report") == "\n\n".join(lines) + "\n"


def test_markdown_names_the_figures_beside_it(report):
    """Each figure that the Markdown names is among the files, as PNG."""
    text = report.to_markdown("report")
    named = re.findall(r"!\[[^]]+\]\(report/([^)]+)\)", text)
    assert sorted(named) == sorted(report.files()) == ["one.png", "two.png"]
    assert all(content.startswith(b"\x89PNG") for content in report.files().values())
    assert [each.name for each in report.figures()] == ["one", "two"]


def test_the_same_figure_is_the_same_source():
    """Nothing in the page depends on when it was made."""
    assert small_figure("one").source == small_figure("one").source
    assert small_figure("one").source.startswith("data:image/svg+xml;base64,")


def test_a_section_with_commands_alone_is_empty():
    """Paragraphs, tables or figures are something to show."""
    assert Section(title="Nothing", commands=("true",)).is_empty
    assert not Section(title="Text", paragraphs=("A paragraph.",)).is_empty
    assert not Section(title="Figure", figures=(small_figure("one"),)).is_empty


@needs_browser
def test_page_opens_in_a_browser_at_a_phones_width(report, tmp_path):
    """Headless Chromium, 360 pixels wide: no error, every figure drawn, nothing wider than the page, text readable."""
    page = tmp_path / "report.html"
    page.write_text(report.to_html())
    found = opened(page)
    assert (found["log"], found["broken"], found["loaded"]) == ([], [], [])
    assert (found["title"], found["images"], found["sections"]) == ("Imputer or classifier?", 2, 2)
    assert (found["viewport"], found["overflow"]) == (360, 0)
    assert found["widest"] <= 360
    assert found["smallest"] >= 14
