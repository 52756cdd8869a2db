import pytest

from extensions.security import key_reloader
from extensions.security.key_reloader import KeyFile


def load(path):
    text = path.read_text()
    if text == "broken":
        raise ValueError("no key")
    return [text]


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(key_reloader, "CHECK_SECONDS", 0)
    (tmp_path / "keys").write_text("one")
    return tmp_path / "keys"


def test_an_unchanged_file_gives_the_same_object(file):
    keys = KeyFile(file, load)
    assert keys.get() == ["one"]
    assert keys.get() is keys.get()


def test_a_changed_file_is_loaded_again(file):
    keys = KeyFile(file, load)
    file.write_text("and two")
    assert keys.get() == ["and two"]


def test_a_file_that_cannot_be_loaded_changes_nothing(file, caplog):
    keys = KeyFile(file, load)
    file.write_text("broken")
    assert keys.get() == ["one"]
    assert "no key" in caplog.text
    file.unlink()
    assert keys.get() == ["one"]
    file.write_text("mended")
    assert keys.get() == ["mended"]


def test_the_first_load_must_succeed(file):
    file.write_text("broken")
    with pytest.raises(ValueError, match="no key"):
        KeyFile(file, load)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        KeyFile(file, load)


def test_the_file_is_checked_once_per_interval(file, monkeypatch):
    monkeypatch.setattr(key_reloader, "CHECK_SECONDS", 60)
    keys = KeyFile(file, load)
    file.write_text("and two")
    assert keys.get() == ["one"]
