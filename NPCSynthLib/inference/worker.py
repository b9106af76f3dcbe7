"""The worker: a process of its own that computes, so that a crash or a cancel there costs nothing here.

It takes jobs as lines of JSON on its standard input and answers with lines on its standard output; images cross as
files (``exchange``). It stays warm between jobs, and ends by itself when nobody has asked anything for a while or when
its parent is gone. ``process`` is the parent's side.
"""

import json
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path

from ..errors import NPCSynthError

_PROGRESS_SECONDS = 0.1


def main(weights: str | None, idle_seconds: float) -> None:
    """Serve until the input ends or nothing has come for ``idle_seconds``."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    jobs: queue.Queue = queue.Queue()
    current: list[Path] = []

    def read() -> None:
        for line in sys.stdin:
            jobs.put(json.loads(line))
        # The parent is gone, perhaps killed: what it left with us holds images of a patient.
        for folder in current:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    computer = None
    while True:
        try:
            job = jobs.get(timeout=idle_seconds)
        except queue.Empty:
            return
        current[:] = [Path(job["folder"])]
        if computer is None:
            _say(answers, {"progress": 0.0, "stage": "Starting PyTorch"})
            computer = _computer(weights)
        answer = _answer(current[0], computer, lambda message: _say(answers, message))
        current.clear()
        _say(answers, answer)


def _say(stream, message: dict) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _computer(weights: str | None):
    from .job import InProcess
    from .synthesizer import Synthesizer

    return InProcess(lambda device: Synthesizer(weights=weights, device=device))


def _answer(folder: Path, computer, say) -> dict:
    import psutil

    from .exchange import read_job, write_outcome

    own = psutil.Process()
    told = 0.0

    def on_progress(fraction: float, stage: str) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > _PROGRESS_SECONDS:
            told = now
            say({"progress": fraction, "stage": f"{stage} ({own.memory_info().rss / 1e9:.1f} GB)"})

    try:
        volumes, options = read_job(folder)
        study, result = computer.compute(volumes, on_progress=on_progress, **options)
        write_outcome(folder, study, result)
        return {"done": True}
    except NPCSynthError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        out_of_memory = isinstance(error, MemoryError) or "allocate memory" in str(error)  # PyTorch on the CPU
        return {"error": "MemoryError" if out_of_memory else "Exception", "message": traceback.format_exc()}
