"""Build the documentation as a site of files: pages are laid out as they lie in the repository, so links hold in both.

python tools/pages.py [--check]      (--check keeps nothing)
"""

import logging
import shutil
import sys
import tempfile
from pathlib import Path

import typer
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from typer.cli import get_docs_for_click

from app.cli import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CHANGELOG.md", "SECURITY.md", "samples/README.md")
FOLDERS = ("docs", "examples")


def lay_out(pages: Path) -> None:
    """The repository's pages and pictures, and the command line's reference, which is made here alone."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, pages / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in PAGES:
        (pages / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, pages / name)
    command = typer.main.get_command(cli)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="adiabat", title="The command line")
    (pages / "docs" / "cli.md").write_text(text)


def write(pages: Path, site: Path) -> None:
    """Raises `Abort` where a link leads nowhere or the navigation names a page that is not there."""
    build(load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(pages), site_dir=str(site)))


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # which link it is
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if "--check" in sys.argv else ROOT / "build"
        pages, site = folder / "pages", folder / "site"
        shutil.rmtree(pages, ignore_errors=True)
        lay_out(pages)
        try:
            write(pages, site)
        except Abort as error:
            sys.exit(f"the documentation does not build: {error}")
    if "--check" not in sys.argv:
        print(f"the documentation is in {site}; to read it: python -m http.server --directory {site} 8001")


if __name__ == "__main__":
    main()
