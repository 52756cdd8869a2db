"""What the Markdown files point to exists: links, headings, paths, make targets."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
IGNORED = {".venv", "var", "node_modules", ".git"}
PAPERS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") or part in IGNORED for part in path.parts)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
MAKE = re.compile(r"\bmake ([a-z][a-z0-9-]*)")
ROOMS = "contracts|extensions|gateway|users|catalog|orders|inventory|payments|notifications|deploy|tests|docs"
PATH = re.compile(rf"({ROOMS})/[\w./-]+\.\w+")


def prose(path):
    return CODE_BLOCK.sub("", path.read_text())


def anchors(path):
    """The fragments that GitHub gives a file's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("paper", PAPERS, ids=name_of)
def test_every_relative_link_leads_somewhere(paper):
    for target in LINK.findall(prose(paper)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        linked = (paper.parent / file).resolve() if file else paper
        assert linked.exists(), f"{target}: there is no such file"
        assert linked.is_relative_to(ROOT), f"{target} leads out of the repository"
        if fragment and linked.suffix == ".md":
            assert fragment in anchors(linked), f"{target}: there is no such heading"


@pytest.mark.parametrize("paper", PAPERS, ids=name_of)
def test_every_path_in_it_exists(paper):
    missing = {span for span in CODE_SPAN.findall(prose(paper)) if PATH.fullmatch(span) and not (ROOT / span).exists()}
    assert missing == set()


@pytest.mark.parametrize("paper", PAPERS, ids=name_of)
def test_every_make_target_in_it_exists(paper):
    makefile = (ROOT / "Makefile").read_text()
    code = [*CODE_BLOCK.findall(paper.read_text()), *CODE_SPAN.findall(prose(paper))]
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
