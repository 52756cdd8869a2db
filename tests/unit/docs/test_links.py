"""The links, headings, paths and make targets in the Markdown files exist."""

import re
from pathlib import Path

import pytest

from tests.unit.docs.test_names import EXAMPLES

ROOT = Path(__file__).resolve().parents[3]
IGNORED = {".venv", "var", "node_modules", ".git"}
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") or part in IGNORED for part in path.parts)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
MAKE = re.compile(r"\bmake ([a-z][a-z0-9-]*)")
FOLDERS = "contracts|extensions|gateway|users|catalog|orders|inventory|payments|notifications|deploy|tests|docs"
PATH = re.compile(rf"({FOLDERS})/[\w./-]+\.\w+")


def prose(path):
    return CODE_BLOCK.sub("", path.read_text())


def anchors(path):
    """The fragments that GitHub gives a file's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_relative_link_has_a_target(document):
    for target in LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        linked = (document.parent / file).resolve() if file else document
        assert linked.exists(), f"{target}: there is no such file"
        assert linked.is_relative_to(ROOT), f"{target} is outside of the repository"
        if fragment and linked.suffix == ".md":
            assert fragment in anchors(linked), f"{target}: there is no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_path_in_it_exists(document):
    missing = {
        span
        for span in CODE_SPAN.findall(prose(document))
        if PATH.fullmatch(span) and not (ROOT / span).exists() and not set(span.split("/")) & EXAMPLES
    }
    assert missing == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_make_target_in_it_exists(document):
    makefile = (ROOT / "Makefile").read_text()
    code = [*CODE_BLOCK.findall(document.read_text()), *CODE_SPAN.findall(prose(document))]
    named = {target for text in code for target in MAKE.findall(text)}
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


def test_both_readmes_show_the_same_commands():
    """A translation that shows another command is out of date."""
    english, turkish = (
        [block for block in CODE_BLOCK.findall((ROOT / name).read_text()) if not block.startswith("```mermaid")]
        for name in ("README.md", "README.tr.md")
    )
    assert english == turkish


def test_every_decision_is_on_the_list():
    listed = (ROOT / "docs/architecture/README.md").read_text()
    assert [path.name for path in (ROOT / "docs/architecture/decisions").glob("*.md") if path.name not in listed] == []
