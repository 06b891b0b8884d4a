"""Parts of a check that end in every way; a module of their own, which imports quickly."""

import os
import signal

from benchmarks.gpu.node import Row


def fine(node, budget):
    yield Row("nothing", {"is": "wrong"}, passed=True)


def wrong(node, budget):
    yield Row("something", {"is": "wrong"}, passed=False)


def raises(node, budget):
    yield Row("before", {"rows": 1})
    raise ValueError("no such\nluck")


def dies(node, budget):
    yield Row("before", {"rows": 1})
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(node, budget):
    yield Row("before", {"rows": 1})
    signal.pause()
