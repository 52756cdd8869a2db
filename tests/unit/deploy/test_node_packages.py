"""npm is replaced by a script, so that nothing is downloaded."""

import pytest

from deploy.local import node_packages


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder with packages, and an npm that notes its calls and creates one package."""
    monkeypatch.setattr(node_packages, "ROOT", tmp_path)
    sources = tmp_path / "page"
    sources.mkdir()
    for name in node_packages.SOURCES:
        (sources / name).write_text("{}")
    return sources


def npm(tmp_path, monkeypatch, *, code=0):
    script = tmp_path / "npm.sh"
    script.write_text(f"echo call >> {tmp_path}/calls; echo what npm says; mkdir -p node_modules/thing; exit {code}\n")
    monkeypatch.setattr(node_packages, "_npm", lambda: ["sh", str(script)])


def calls(tmp_path):
    return (tmp_path / "calls").read_text().count("call")


def test_packages_are_installed_once_and_again_after_a_change(sources, tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch)
    for _ in range(2):
        assert (node_packages.ensure(sources, sources) / "thing").is_dir()
    assert calls(tmp_path) == 1
    (sources / "package-lock.json").write_text('{"changed": true}')
    node_packages.ensure(sources, sources)
    assert calls(tmp_path) == 2


def test_a_failure_says_why_and_leaves_the_old_packages(sources, tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch)
    node_packages.ensure(sources, sources)
    (sources / "package.json").write_text('{"changed": true}')
    npm(tmp_path, monkeypatch, code=1)
    with pytest.raises(node_packages.NotInstalled, match="what npm says"):
        node_packages.ensure(sources, sources)
    assert (sources / "node_modules/thing").is_dir()


@pytest.mark.parametrize(("option", "code"), [((), 1), (("--optional",), 0)])
def test_make_run_goes_on_without_the_packages(sources, tmp_path, monkeypatch, capsys, option, code):
    npm(tmp_path, monkeypatch, code=1)
    monkeypatch.setattr("sys.argv", ["node_packages", "page", *option])
    assert node_packages.main() == code
    printed = capsys.readouterr()
    assert "what npm says" in printed.out + printed.err
