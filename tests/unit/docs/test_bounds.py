"""Every loop, pool, lock, queue and connection of the product has a row in docs/reliability/bounds.md.

A row names `path: Class.attribute` for a resource that the code keeps. It names `path: Class.method` for a `while`
loop, for what runs in a greenlet of its own or as a timer, for a wait without a timeout, and for other resources.
"""

import ast
import re

import pytest

from tests.unit.docs.known_names import ROOT, python_files, tree

DOCUMENT = "docs/reliability/bounds.md"
HEADING = "\n## Every loop, pool, lock, queue and connection\n"
PRODUCT = re.compile(r"(?:contracts|extensions|gateway|catalog|inventory|notifications|orders|payments|users)/")
RESOURCE = re.compile(
    r"(?:^|\.)(?:(?:Bounded)?Semaphore|R?Lock|(?:Light)?Queue|\w*Pool(?:Executor)?|Thread|ReconnectingConnection|HTTPConnection"
    r"|connect|create_connection|create_engine|from_url|listen|wsgi\.server|tpool\.execute|BatchLoader|Batcher|Bulkhead"
    r"|CircuitBreaker|WorkItemBreaker)$"
)
KEPT = re.compile(r"(?:^|\.)deque$")  # one in a local variable ends with its function
START = re.compile(r"(?:^|\.)spawn(?:_n|_after|_managed_thread)?$")
WAIT = re.compile(r"\.(?:wait|acquire|await_first)$")
TIMERS = {"periodic", "executes"}
# Loops that only compute. They end with their input, which has a bound.
COMPUTE = {
    "extensions/http/limits/client_address.py: _forwarded_hops",
    "extensions/http/limits/client_address.py: _pairs",
    "extensions/http/message/strict_json.py: _check_containers",
    "extensions/http/routing/authentication.py: VerifiedTokens.update",
}


class Finder(ast.NodeVisitor):
    """Collects the names of the loops and resources of one file in `found`."""

    timers = TIMERS

    def __init__(self, root):
        self.found = set()
        self._scope, self._is_function, self._kept = [], False, ""
        self._functions = {node.name for node in root.body if isinstance(node, ast.FunctionDef)}
        self.visit(root)

    def visit_ClassDef(self, node):
        methods = {f"self.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
        self._scope.append(node.name)
        self._functions |= methods
        self.generic_visit(node)
        self._functions -= methods
        self._scope.pop()

    def visit_FunctionDef(self, node):
        if self._is_function:  # a function in a function is a part of it
            self.generic_visit(node)
            return
        self._scope.append(node.name)
        self._is_function = True
        called = [dotted(each.func) for each in node.decorator_list if isinstance(each, ast.Call)]
        if any(name.rpartition(".")[2] in self.timers for name in called):
            self._add()
        self.generic_visit(node)
        self._is_function = False
        self._scope.pop()

    def visit_Assign(self, node):
        target = dotted(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
        self._kept = target if target.startswith("self.") or not self._is_function else ""
        self.generic_visit(node)
        self._kept = ""

    visit_AnnAssign = visit_Assign  # noqa: N815  (ast's name)

    def visit_While(self, node):
        self._add()
        self.generic_visit(node)

    def visit_Call(self, node):
        name, arguments = dotted(node.func), [*node.args, *node.keywords]
        if RESOURCE.search(name) or (KEPT.search(name) and self._kept):
            self._add(self._kept)
        elif START.search(name) and arguments:
            called = (dotted(each) for argument in arguments for each in ast.walk(argument))
            self._add(next((each for each in called if each in self._functions), ""))
        elif WAIT.search(name) and not arguments:
            self._add()
        self.generic_visit(node)

    def _add(self, name=""):
        """Add `self.name` as a member of the class, another name as one of the file; the present function for ""."""
        owners = self._scope[:-1] if self._is_function else self._scope
        is_of_class = name.startswith("self.") or not self._is_function
        parts = [*(owners if is_of_class else ()), name.removeprefix("self.")] if name else self._scope
        self.found.add(".".join(parts) or "<module>")


def dotted(node):
    """Return the dotted name that an expression is, "" for another expression."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def found_in(name, root):
    """Return the entries of a file: {"path: Class.name"}."""
    return {f"{name}: {found}" for found in Finder(root).found}


def entries():
    """Return the entries of the product's files."""
    return set().union(*(found_in(name, tree(name)) for name in python_files() if PRODUCT.match(name)))


def rows():
    """Return the cells of each row of the table."""
    section = (ROOT / DOCUMENT).read_text().partition(HEADING)[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]


def listed(table):
    """Return the entries that the rows of a table name."""
    return [entry for row in table for entry in re.findall(r"`([^`]+)`", row[0])]


def differences(found, names):
    """Return what to change in the document, as lines."""
    missing = [f"{DOCUMENT} has no row for `{each}`: add its users, its bound and its test" for each in found - names]
    gone = [f"{DOCUMENT} has a row for `{each}`, which the code no longer has: remove it" for each in names - found]
    return sorted(missing) + sorted(gone)


def test_every_loop_and_resource_has_a_row():
    names = listed(rows())
    assert len(names) == len(set(names)), "an entry has two rows"
    problems = differences(entries(), set(names) | COMPUTE)
    assert not problems, "\n" + "\n".join(problems)


def test_every_row_states_a_bound_and_names_tests_that_exist():
    problems = []
    for row in rows():
        if len(row) != 4 or not all(row):
            problems.append(f"{row[0]}: four cells are needed")
            continue
        tests = re.findall(r"`([\w/]+\.py)::(\w+)`", row[3])
        if not tests and row[3] != "none":
            problems.append(f"{row[0]}: name tests as `path::test_name`, or write none")
        missing = [f"{path}::{name}" for path, name in tests if f"def {name}(" not in (ROOT / path).read_text()]
        problems += [f"{row[0]}: there is no test {test}" for test in missing]
    assert not problems, "\n" + "\n".join(problems)


FAKES = {
    "self.free = eventlet.semaphore.Semaphore(2)": "Fake.free",
    "self.waiting: deque[int] = collections.deque()": "Fake.waiting",
    "free = threading.Lock()": "Fake.method",
    "eventlet.spawn_after(1, functools.partial(self.loop, 1))": "Fake.loop",
    "self.spawn_managed_thread(lambda: self.loop(), identifier='x')": "Fake.loop",
    "while not self.done: eventlet.sleep(1)": "Fake.method",
    "self.signal.wait()": "Fake.method",
}


@pytest.mark.parametrize(("code", "name"), FAKES.items(), ids=FAKES)
def test_a_new_loop_or_resource_needs_a_row(code, name):
    root = ast.parse(f"class Fake:\n def loop(self): return 1\n def method(self):\n  {code}")
    (problem,) = differences(found_in("orders/fake.py", root), set())
    assert f"no row for `orders/fake.py: {name}`" in problem


def test_a_timer_and_a_lock_of_a_module_need_rows():
    root = ast.parse("LOCK = Lock()\nclass Fake:\n @periodic(seconds=1)\n def tick(self): return 1")
    assert found_in("orders/fake.py", root) == {"orders/fake.py: LOCK", "orders/fake.py: Fake.tick"}


@pytest.mark.parametrize("code", ["rows = deque()", "self.signal.wait(timeout=1)", "self.tasks = []"])
def test_what_ends_by_itself_needs_no_row(code):
    root = ast.parse(f"class Fake:\n def method(self):\n  {code}")
    assert found_in("orders/fake.py", root) == set()


def test_a_row_without_its_code_is_reported():
    (problem,) = differences(set(), {"orders/fake.py: Fake.gone"})
    assert "no longer has" in problem
