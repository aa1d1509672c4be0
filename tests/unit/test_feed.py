"""Batches made beforehand, by a thread or by processes, are those of the loader, in its order."""

import itertools
import os
import signal
import sys

import numpy as np
import pytest

from jpeglm.data.loader import TrainingLoader
from jpeglm.data.token_set import in_memory

feed = pytest.importorskip("jpeglm.training.feed", reason="needs torch")


def loader(fim=0.5):
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 24, 60)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = rng.integers(0, 1000, offsets[-1]).astype(np.uint16)
    labels = np.full(60, -1, np.int32)
    found = in_memory(tokens, offsets, labels, lengths * 8, np.zeros(60, np.int32))

    def arrange(ids, dice):
        return np.concatenate([ids[::-1], [1500 + dice.integers(0, 9)]])

    return TrainingLoader(found, "pictures", 128, 64, fim=fim, holes=(arrange, 1500))


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
@pytest.mark.parametrize("start", [0, 7])
def test_processes_give_the_loaders_own_batches_over_epochs(monkeypatch, start):
    monkeypatch.setattr(feed, "cores", lambda: 4)
    plain, far = loader(), loader()
    plain.seek(start)
    far.seek(start)
    assert feed.workers(far, "cuda") == 3
    batches = feed.feed(far, "cuda")
    count = 2 * plain.steps_per_epoch + 3
    own = list(itertools.islice(iter(plain), count))
    assert all(same(a, b) for a, b in zip(own, itertools.islice(batches, count), strict=True))
    assert any((part["input_ids"] >= 1500).any() for part in own)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_a_signal_to_the_group_leaves_the_workers_alone(monkeypatch):
    monkeypatch.setattr(feed, "cores", lambda: 2)
    batches = feed.feed(loader(), "cuda")
    next(batches)
    (worker,) = batches._workers
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    for _ in range(20):
        next(batches)
    assert worker.is_alive()
    del batches
    worker.join(10)
    assert not worker.is_alive()


def test_a_thread_is_enough_without_holes_or_without_a_gpu():
    assert feed.workers(loader(), "cpu") == 0
    plain = TrainingLoader(
        in_memory(
            np.arange(100, dtype=np.uint16), np.array([0, 50, 100]), np.full(2, -1, np.int32),
            np.zeros(2, np.int64), np.zeros(2, np.int32),
        ),
        "pictures", 100, 64,
    )  # fmt: skip
    assert feed.workers(plain, "cuda") == 0
    again = list(itertools.islice(feed.feed(loader(), "cpu"), 5))
    assert all(same(a, b) for a, b in zip(again, loader()))
