"""The names that the repository defines, for the test that compares documents with the code.

Names are taken from the syntax trees of Python files, without comments and docstrings, and from all words of other
source files. They are not taken from documents: a name that occurs in documents only is outdated.
"""

import ast
import functools
import re
import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WORD = re.compile(r"[A-Za-z_]\w*")
SOURCES = {".yml", ".sql", ".sh", ".toml", ".ini", ".mako", ".conf", ".html", ".js", ".txt"}
PLAIN = {"Makefile", "Dockerfile", ".dockerignore", ".gitignore"}
THIS_TEST = {"tests/unit/docs/test_names.py", "tests/unit/docs/known_names.py"}


@functools.cache
def files():
    """Return all paths of files and folders that git tracks or would add, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    found = {name for name in listed if name and (ROOT / name).is_file()}
    return found | {str(folder) for name in found for folder in Path(name).parents if str(folder) != "."}


@functools.cache
def file_names():
    """Return the last parts of all paths."""
    return {Path(name).name for name in files()}


def python_files():
    """Return the Python files from which names are taken."""
    return sorted(name for name in files() if name.endswith(".py") and name not in THIS_TEST)


@functools.lru_cache(maxsize=1)
def tree(name):
    """Return the syntax tree of a Python file. One is cached: all of them would slow down garbage collections."""
    return ast.parse((ROOT / name).read_text())


def docstrings(root):
    """Return the string nodes of a syntax tree that are docstrings or statements by themselves."""
    return {id(node.value) for node in ast.walk(root) if isinstance(node, ast.Expr) and _is_text(node.value)}


def _is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def names_in(root):
    """Return every name and every word of a string literal below a node of a syntax tree."""
    skipped = docstrings(root)
    found = set()
    for node in ast.walk(root):
        for field in ("id", "attr", "name", "arg", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                found.update(value.split("."))
        if _is_text(node) and id(node) not in skipped:
            found.update(WORD.findall(node.value))
    return found


@functools.cache
def names_of(name):
    """Return the names in a Python file."""
    return frozenset(names_in(tree(name)))


@functools.cache
def all_names():
    """Return every name of the code, and of the files that are not Python."""
    found = set()
    for name in python_files():
        found |= names_of(name) | set(Path(name).with_suffix("").parts)
    for name in files():
        path = ROOT / name
        if path.is_file() and (path.suffix in SOURCES or path.name in PLAIN):
            found.update(WORD.findall(path.read_text()))
    return found


@functools.cache
def members():
    """Return the names in each module and each class, by its last name: {"saga": {...}, "Outbox": {...}}."""
    found = defaultdict(set)
    for name in python_files():
        path = Path(name)
        if name.startswith(("tests/", "qa/")) and path.name.startswith("test_"):
            continue
        module = path.parent.name if path.stem == "__init__" else path.stem
        found[module] |= names_of(name)
        for folder in path.parts[:-1]:
            found[folder] |= {path.stem} | names_of(name)
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ClassDef):
                found[node.name] |= names_in(node)
                found[node.name] |= {"__init__"} if node.bases else set()
    return found
