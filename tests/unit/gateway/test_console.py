"""The files of the console: what is served where, and that nothing of the page breaks its policy."""

import base64
import gzip
import hashlib
import re
import shutil

import pytest

from extensions.http.message.request import HttpRequest
from extensions.observability.traces import Trace
from gateway.console import FOLDER, PackagesMissing, first_modules, read_contents, static_files, without_documentation

OWN_BYTES = 100 * 1024


@pytest.fixture(scope="module")
def files():
    if not (FOLDER / "node_modules").exists():
        pytest.fail("run `make console`: the packages of the console are not installed")
    return static_files(FOLDER)


@pytest.fixture
def page(files):
    return files["/"].content.decode()


def test_the_policy_allows_the_import_map_and_nothing_unsafe(files, page):
    policy = files["/"].headers["Content-Security-Policy"]
    (inline,) = re.findall(r"<script[^>]*>([^<]+)</script>", page)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    for forbidden in ("unsafe", "http", "*", " data:;"):
        assert forbidden not in policy.replace("img-src 'self' data:", "")
    assert "style=" not in page
    assert not re.search(r"\son\w+=", page)


def test_every_file_of_the_page_is_served_forever_and_the_page_itself_is_not(files, page):
    named = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(named) > 20
    assert set(named) <= files.keys()
    assert "{{" not in page
    for path, file in files.items():
        kept = "no-cache" if path == "/" else "public, max-age=31536000, immutable"
        assert file.headers["Cache-Control"] == kept


def test_a_change_of_any_file_changes_all_paths(files, tmp_path):
    copy = tmp_path / "console"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("lint"))
    assert static_files(copy).keys() == files.keys()
    (copy / "lib/format.js").write_text("// changed\n")
    assert static_files(copy).keys() & files.keys() == {"/"}


def test_the_modules_of_the_first_view_are_found_and_exist():
    contents = read_contents(FOLDER)
    first = first_modules(contents)
    assert len(first) == len(set(first))
    assert {"app.js", "lib/html.js", "npm/preact.js", "npm/htm.js", "ui/button.js"} <= set(first)
    assert not any(name.startswith("views/") for name in first)


def test_every_import_is_of_a_file_that_is_served():
    contents = read_contents(FOLDER)
    for name, content in contents.items():
        if name.startswith("npm/") or not name.endswith(".js"):
            continue
        folder = (FOLDER / name).parent
        for target in re.findall(r"""(?:from|import)\s*\(?\s*["'](\.[^"']+)["']""", content.decode()):
            found = (folder / target).resolve().relative_to(FOLDER)
            assert str(found) in contents, f"{name} imports {target}"


def test_no_module_asks_another_host_or_writes_html():
    for name, content in read_contents(FOLDER).items():
        if not name.startswith("npm/"):
            text = content.decode()
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)\w", text), name
            assert "innerHTML" not in text, name


def test_comments_and_indentation_are_not_served_and_nothing_else_changes():
    source = """/** A module.
 * @param {string} a
 */
import { b } from "./b.js";
  // a line
const c = /** @type {const} */ (["https://d"]); // kept
    return html`<a
      href=${/** @type {any} */ (c)}><//>`;
"""
    served = 'import { b } from "./b.js";\nconst c = (["https://d"]); // kept\nreturn html`<a\nhref=${(c)}><//>`;\n'
    assert without_documentation(source) == served


def test_our_own_code_is_small(files):
    own = [file for path, file in files.items() if "/npm/" not in path]
    assert sum(len(file.compressed) for file in own) <= OWN_BYTES
    assert gzip.decompress(files["/"].compressed) == files["/"].content


def test_without_the_packages_the_page_says_what_to_do(tmp_path):
    copy = tmp_path / "console"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("node_modules"))
    files = static_files(copy)
    assert files.keys() == {"/"}
    with pytest.raises(PackagesMissing, match="make console"):
        files["/"].response(HttpRequest("GET", "/", "", {}, Trace()))
