import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from browser import needs_browser, opened
from imputune.reporting.page import Picture, Report, Section
from imputune.reporting.tables import Table


def picture(name: str) -> Picture:
    """Return a small picture."""
    figure = Figure(figsize=(4.4, 2))
    figure.add_subplot().plot([1, 2, 3])
    return Picture(name, f"What {name} shows", figure)


@pytest.fixture(scope="module")
def report() -> Report:
    """A report with everything that one can have, wide tables and hostile text among it."""
    wide = Table("A wide table", tuple(f"column {n}" for n in range(14)), (tuple("0.123 ± 0.045" for _ in range(14)),))
    hostile = Table("Text", ("a", "b"), (("<script>boom()</script>", "x & y"),), "Its remark.")
    return Report(
        "Imputer or classifier?",
        ("The classifier weighs most.",),
        (
            Section("What was run", ("A paragraph " * 40,), (wide, hostile), (picture("one"), picture("two"))),
            Section("How to reproduce it", commands=("imputune compare --by imputer,head", "true")),
        ),
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
    """Pictures and style stand in the page, no script, no address outside; text is text."""
    page = report.to_html()
    tags = Tags(page)
    assert tags.names.count("img") == 2
    assert "script" not in tags.names
    assert all(address.startswith(("data:", "#")) for address in tags.addresses)
    assert "&lt;script&gt;boom()" in page
    assert all(text in page for text in ("The classifier weighs most.", "Its remark.", "imputune compare --by"))


def test_markdown_names_the_pictures_beside_it(report):
    """Each picture that the Markdown names is among the files; tables and commands are there."""
    text = report.to_markdown("report")
    named = re.findall(r"!\[[^]]+\]\(report/([^)]+)\)", text)
    assert sorted(named) == sorted(report.files()) == ["one.png", "two.png"]
    assert all(content.startswith(b"\x89PNG") for content in report.files().values())
    assert "### A wide table" in text
    assert "$ imputune compare --by imputer,head" in text


def test_the_same_picture_is_the_same_source():
    """Nothing in the page depends on when it was made."""
    assert picture("one").source == picture("one").source


@needs_browser
def test_page_opens_in_a_browser_at_a_phones_width(report, tmp_path):
    """Headless Chromium, 360 pixels wide: no error, every picture drawn, nothing sticks out, letters can be read."""
    page = tmp_path / "report.html"
    page.write_text(report.to_html())
    found = opened(page)
    assert (found["log"], found["broken"], found["loaded"]) == ([], [], [])
    assert (found["title"], found["images"], found["sections"]) == ("Imputer or classifier?", 2, 2)
    assert (found["viewport"], found["overflow"]) == (360, 0)
    assert found["widest"] <= 360
    assert found["smallest"] >= 14
