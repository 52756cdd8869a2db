"""Every path, setting, constant and symbol that a document or a docstring names exists.

The names of a Markdown file are in its code spans (`...`) and its Python blocks. The test checks paths and file names,
test ids, UPPER_CASE, snake_case and CamelCase words, `module.name` and `Class.method`, `name(...)`, and keyword
arguments. It leaves out CHANGELOG.md, which also has names of removed things.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from contracts.events import EVENTS, queue_name
from tests.unit.docs.known_names import ROOT, all_names, docstrings, file_names, files, members, python_files, tree

DOCUMENTS = sorted(name for name in files() if name.endswith(".md") and name != "CHANGELOG.md")
SUFFIXES = "py|md|yml|yaml|json|toml|ini|sh|sql|txt|http|svg|conf|mako|html"
PATH = re.compile(rf"(?<![\w/.:-])((?:[\w.-]+/)*[\w-]*\w\.(?:{SUFFIXES}))(?![\w/-])")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
DOTTED = re.compile(r"(?<![\w./:-])([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?![\w/-])")
CALL = re.compile(r"(?<![\w.-])([a-z_]\w*)\(")
KEYWORD = re.compile(r"(?<=[(, ])([a-z]\w*)=(?![=])")
WORD = re.compile(r"(?<![\w.$%-])[A-Za-z]\w*(?![\w-])")

# Names of the examples in CONTRIBUTING.md.
EXAMPLES = {
    "shipping", "shipment", "refused", "ShippingService", "ShipmentRefused", "ReservationView", "ReservationNotFound",
    "get_reservation", "prepare_shipments", "on_order_confirmed", "loyalty", "LoyaltyService", "LoyaltyRpc",
    "loyalty.py",
}  # fmt: skip
# Names of Django's layout, Werkzeug, PostgreSQL, RabbitMQ, nginx, Prometheus and libraries.
FOREIGN = {
    "consume_order_events", "exception_handler", "responses.py", "jwt_auth", "request_id.py", "constants.py",
    "exceptions.py", "selectors.py", "consumer.py", "admin.py", "exception_handler.py", "jwt_auth.py",
    "consume_order_events.py", "statement_timestamp", "clock_timestamp", "track_commit_timestamp",
    "auto_explain", "set_disk_free_limit", "proxy_set_header", "proxy_add_x_forwarded_for",
    "malloc_trim", "MALLOC_MMAP_THRESHOLD_", "clock_nanosleep", "connect_timeout", "statement_timeout",
    "gc.freeze", "time.sleep", "histogram_quantile", "dns_sd_configs",
    "handle_result", "worker_result", "old.json",
    "merge_slashes", "strict_slashes", "MapAdapter", "parse_accept_header", "parse_options_header", "parse_etags",
    "werkzeug.routing.Map", "werkzeug.http", "plan.json", "result.json", "increase", "AMQP_SSL", "type_", "ck_orders_",
}  # fmt: skip
WRITTEN_LATER = re.compile(r"^(?:var|ca|certs)/|^\.venv/")  # files that a run creates
METRICS = re.compile(r"^(?:suite|process|x)_")  # tests/service/gateway/test_metrics.py compares these with the code
QUEUES = {queue_name(service, event) for event in EVENTS.values() for service in event.consumers}
PLACEHOLDERS = re.compile(r"<|\*|…|\.\.\.|\{|_\.\.\.\.")


def spans(text):
    """Yield (line, code) for each code span outside of fenced blocks, and each line of a Python block."""
    fenced = {}
    for match in FENCE.finditer(text):
        first = text.count("\n", 0, match.start())
        for offset in range(match.group(0).count("\n") + 1):
            fenced[first + offset] = match.group(1)
    for number, line in enumerate(text.splitlines()):
        kind = fenced.get(number)
        if kind == "python" and "```" not in line:
            yield number + 1, line.partition('"""')[0].partition("#")[0]
        elif kind is None:
            yield from ((number + 1, code) for code in SPAN.findall(line))


def paths_in(code):
    """Yield the paths in a text that refer to this repository."""
    for path in PATH.findall(code):
        if not WRITTEN_LATER.search(path) and path not in FOREIGN and Path(path).name not in FOREIGN:
            yield path.removeprefix("./").removeprefix("../../").removeprefix("../")


def path_exists(path):
    """Return whether a path is a path of the repository, the end of one, or the name of a file."""
    return path in files() or ("/" not in path and path in file_names()) or any(f.endswith("/" + path) for f in files())


def missing_in_code(code):
    """Yield the names in a code span that the code does not have."""
    for path in paths_in(code):
        if not path_exists(path) and not PLACEHOLDERS.search(code) and not set(path.split("/")) & EXAMPLES:
            yield f"there is no file {path}"
    rest = PATH.sub(" ", code)
    for dotted in DOTTED.findall(rest):
        yield from _missing_member(dotted)
    for name in CALL.findall(rest):
        if not _is_known(name):
            yield f"nothing is called {name}()"
    for name in KEYWORD.findall(rest):
        if not _is_known(name):
            yield f"no argument, parameter or field is called {name}"
    for word in WORD.findall(rest):
        if _is_symbol(word) and not METRICS.match(word) and not _is_known(word):
            yield f"no code has the name {word}"


def _is_symbol(word):
    """Return whether a word is snake_case, UPPER_CASE with an underscore, or CamelCase."""
    return "_" in word.strip("_") or bool(re.search(r"[a-z][A-Z]", word) and word[0].isupper())


def _is_known(name):
    return name in all_names() or name in EXAMPLES or name in FOREIGN


def _missing_member(dotted):
    if dotted in FOREIGN or dotted in EVENTS or dotted in QUEUES or set(dotted.split(".")) & EXAMPLES:
        return
    *owners, name = dotted.split(".")
    owner = owners[-1]
    if owner in members() and name not in members()[owner] and name not in all_event_parts():
        yield f"{owner} has no {name} (in {dotted})"


def all_event_parts():
    """Return the second words of the events' names, and of topics such as `order.deadline`."""
    return {part for event in EVENTS for part in event.split(".")}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_in_a_document_exists(document):
    text = (ROOT / document).read_text()
    missing = [
        f"{document}:{line}: {problem}"
        for line, code in spans(text)
        for problem in dict.fromkeys(missing_in_code(code))
    ]
    assert not missing, "\n" + "\n".join(missing)


def prose_of(name):
    """Yield (line, text) for each comment and docstring of a Python file."""
    source = (ROOT / name).read_text()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    texts = docstrings(tree(name))
    for node in ast.walk(tree(name)):
        if id(node) in texts:
            for offset, line in enumerate(node.value.splitlines()):
                yield node.lineno + offset, line


@pytest.mark.parametrize("folder", sorted({name.split("/")[0] for name in python_files()}))
def test_every_file_that_a_docstring_names_exists(folder):
    missing = [
        f"{name}:{line}: there is no file {path}"
        for name in python_files()
        if name.split("/")[0] == folder
        for line, text in prose_of(name)
        for path in paths_in(text)
        if not path_exists(path)
    ]
    assert not missing, "\n" + "\n".join(missing)


@pytest.mark.parametrize("name", sorted(n for n in files() if Path(n).suffix in {".yml", ".toml", ".ini", ".sh"}))
def test_every_path_in_a_configuration_exists(name):
    """Only paths below a folder of the repository: others belong to containers."""
    tops = {path.split("/")[0] for path in files() if "/" in path}
    missing = [
        f"{name}:{number}: there is no file {path}"
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        for path in paths_in(line)
        if "/" in path and path.split("/")[0] in tops and not path_exists(path)
    ]
    assert not missing, "\n" + "\n".join(missing)


def test_the_index_of_decisions_is_the_folder():
    """Each record once, in their order, under its own title."""
    index = (ROOT / "docs/architecture/README.md").read_text().partition("\n## Decisions\n")[2]
    listed = re.findall(r"^\| \[(\d{4})\]\(decisions/([\w.-]+)\) \| (.+) \|$", index, re.MULTILINE)
    folder = sorted((ROOT / "docs/architecture/decisions").glob("*.md"))
    titles = [path.read_text().partition("\n")[0].removeprefix("# ") for path in folder]
    assert [f"{number} {title}" for number, _, title in listed] == titles
    assert [name for _, name, _ in listed] == [path.name for path in folder]


def test_settings_in_tables_are_settings():
    """A document's table of settings names variables that a configuration or the code of deploy/ reads."""
    read = "".join((ROOT / name).read_text() for name in ("config.yml", "docker-compose.yml"))
    operating = (ROOT / "docs/operating.md").read_text()
    named = {s for row in re.findall(r"^\| (`[A-Z].*?) \|", operating, re.MULTILINE) for s in SPAN.findall(row)}
    assert named
    assert {name for name in named if f"{{{name}" not in read} == set()


@pytest.mark.parametrize(
    "code",
    ["extensions/no_such_file.py", "NO_SUCH_SETTING", "saga.no_such_name", "no_such_call()", "Probe(shedding=False)"],
)
def test_what_does_not_exist_is_found(code):
    assert list(missing_in_code(code))


@pytest.mark.parametrize("code", ["orders/saga.py", "MAX_UNDECIDED_ORDERS", "Outbox", "order.created", "GET /orders"])
def test_what_exists_is_not_reported(code):
    assert list(missing_in_code(code)) == []
