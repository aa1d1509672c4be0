"""What the tests of whole commands share."""

import sys

import pytest

from jpeglm import cli


@pytest.fixture
def in_process(monkeypatch, capfd):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["jpeglm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return run
