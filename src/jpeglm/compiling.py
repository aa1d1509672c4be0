"""The first run on a machine: what takes so long, and how far it is.

    with compiling(81):
        model.warm_up()

numba makes machine code of the kernels when they are first called and keeps it. What is found in
its cache is no event of the compiler's, so a later start shows nothing and pays nothing. Trade-off:
how many functions there will be is known only from earlier first runs (a test counts them), and
where some lie in the cache already, there are fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from jpeglm.kernels import COMPILED
from jpeglm.progress import Reporter

WHY = "compiling up to {} functions for this machine's processor, so that drawing is fast: once, {}"


@contextmanager
def watched(told: Callable[[int], None]) -> Iterator[None]:
    """While this lasts, `told` is called with how many of the package's functions have been
    compiled: with 0 when the first begins, then after each; never if all lie in the cache."""
    if not COMPILED:
        yield
        return
    from numba.core import event

    class Count(event.Listener):
        """numba holds a lock while it compiles, so that no two threads are here at a time."""

        done: int | None = None

        def on_start(self, event: Any) -> None:
            if _is_ours(event) and self.done is None:
                self.done = 0
                told(0)

        def on_end(self, event: Any) -> None:
            if _is_ours(event):
                self.done = (self.done or 0) + 1
                told(self.done)

    with event.install_listener("numba:compile", Count()):
        yield


def _is_ours(event: Any) -> bool:
    """numba's own functions, many small ones, are not counted: other versions have others."""
    return str(event.data["dispatcher"].py_func.__module__).startswith("jpeglm.")


@contextmanager
def compiling(functions: int, takes: str = "40 s to 3 minutes") -> Iterator[None]:
    """Say why it takes so long and show progress, from the first function that is compiled here
    on; functions: how many a first run compiles, which takes so long."""
    with ExitStack() as stack:
        reports: list[Reporter] = []

        def told(done: int) -> None:
            if not reports:
                reports.append(stack.enter_context(Reporter("compile", "functions")))
                reports[0].say(WHY.format(functions, takes))
            reports[0](done, max(functions, done))

        with watched(told):
            yield
