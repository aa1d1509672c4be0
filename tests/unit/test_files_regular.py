"""What may be read: regular files up to a size, whatever bytes their names are made of."""

import json
import os
from pathlib import Path

import pytest

from jpeglm import files
from jpeglm.config import InputError
from jpeglm.files import file_size, printable, read_bytes


def test_only_regular_files_are_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert file_size(path) == 5 and read_bytes(path) == read_bytes(path, 5) == b"12345"
    with pytest.raises(InputError, match="is a folder"):
        read_bytes(tmp_path)
    with pytest.raises(InputError, match="there is no file"):
        read_bytes(tmp_path / "b")
    with pytest.raises(InputError, match="cannot use"):
        read_bytes(Path("a\0b"))
    with pytest.raises(InputError, match="more than the 0 MB"):
        read_bytes(path, 4)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_are_refused_at_once(tmp_path):
    """A pipe that nobody writes to would block for ever, /dev/zero would fill the memory."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="a pipe or a device"):
            read_bytes(path)


@pytest.mark.parametrize("name", ["/proc/self/maps", "/proc/kmsg"])
def test_a_file_that_hides_its_size_is_refused_at_once(name):
    """Some of them end, some wait for more for ever."""
    path = Path(name)
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        pytest.skip("this system has none, or not for us")
    assert path.is_file() and path.stat().st_size == 0
    with pytest.raises(InputError, match="save its content into a file first"):
        read_bytes(path, 100)
    with pytest.raises(InputError, match="save its content into a file first"):
        file_size(path)


def test_what_grows_while_it_is_read_is_cut(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"12345")
    monkeypatch.setattr(files, "file_size", lambda path, limit: 0)
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(InputError, match="more than"):
        read_bytes(tmp_path / "a", 4)
    (tmp_path / "none").touch()
    monkeypatch.undo()
    assert file_size(tmp_path / "none") == 0


def test_names_are_bytes():
    assert printable("straße/猫.jpg") == "straße/猫.jpg"
    name = os.fsdecode(b"caf\xe9.jpg")
    assert printable(name) == printable(Path(name)) == "caf\\xe9.jpg"
    assert printable("\ud800x") == "\\ud800x"
    assert printable("a\n\x1b[31m\x9b.jpg") == "a\\x0a\\x1b[31m\\x9b.jpg"
    json.dumps(printable(name), ensure_ascii=False).encode()
