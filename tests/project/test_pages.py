"""The documentation as a site: every link leads somewhere, and no page loads anything from elsewhere."""

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mkdocs.exceptions import Abort

from tools.pages import lay_out, write

LOADS = {"audio", "embed", "iframe", "img", "link", "object", "script", "source", "video"}


class Loaded(HTMLParser):
    """Addresses that a browser asks for by itself when it shows a page; where a reader may click is another thing."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in LOADS:
            self.addresses += [value or "" for name, value in attrs if name in ("data", "href", "src")]


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    lay_out(tmp_path / "pages")
    return tmp_path / "pages"


def test_the_site_builds_and_its_pages_load_nothing_from_elsewhere(pages: Path, tmp_path: Path) -> None:
    write(pages, tmp_path / "site")
    shown = list((tmp_path / "site").rglob("*.html"))
    assert len(shown) > 20
    for page in shown:
        text = page.read_text()
        loaded = Loaded()
        loaded.feed(text)
        assert any(address.endswith(".css") for address in loaded.addresses), page
        assert [each for each in loaded.addresses if re.match(r"(https?:)?//", each)] == [], page
        assert 'class="mermaid"' not in text, f"{page}: the theme would fetch mermaid from elsewhere"
    assert "adiabat encoders activate" in (tmp_path / "site" / "docs" / "cli" / "index.html").read_text()


def test_links_that_lead_nowhere_fail_the_build_and_are_named(
    pages: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    targets = ["nowhere.md", "how-to.md#no-such-heading", "/docs/faq.md", "images/none.png"]
    with (pages / "docs" / "faq.md").open("a") as page:
        page.write("".join(f"\n[x]({target})\n" for target in targets))
    with caplog.at_level(logging.WARNING), pytest.raises(Abort):
        write(pages, tmp_path / "site")
    assert [target for target in targets if target not in caplog.text] == []
