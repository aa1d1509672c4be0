"""Progress lines in a log: rate and ETA, of the part that is running."""

import sys

from jpeglm import progress
from jpeglm.progress import Reporter, clock


def test_clock():
    assert [clock(s) for s in (0, 59.4, 61, 3600, 36_000)] == [
        "0:00", "0:59", "1:01", "1:00:00", "10:00:00",
    ]  # fmt: skip


def test_rates_belong_to_the_part_that_runs(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Reporter("measure", "pictures") as report:
        for part in ("one", "two"):
            for done in (0, 50, 100):
                report(done, 200, part)
                now[0] += 10
    lines = capsys.readouterr().err.splitlines()
    assert "measure: 50 of 200 pictures, 5/s, ETA 0:30, one" in lines
    assert "measure: 100 of 200 pictures, 5/s, ETA 0:20, two" in lines
    assert not any("-" in line for line in lines)


def test_quiet_says_nothing(capsys):
    with Reporter("measure", "pictures", quiet=True) as report:
        report(1, 2)
        report.say("hello")
    assert capsys.readouterr().err == ""


def test_a_reader_that_goes_away_stops_no_work(monkeypatch):
    class Gone:
        def write(self, _):
            raise BrokenPipeError(32, "Broken pipe")

        def flush(self):
            pass

        def isatty(self):
            return False

    monkeypatch.setattr(progress, "LOG_SECONDS", -1.0)
    with Reporter("measure", "pictures") as report:
        monkeypatch.setattr(sys, "stderr", Gone())
        report(1, 2)
        report(2, 2)
        report.say("hello")
