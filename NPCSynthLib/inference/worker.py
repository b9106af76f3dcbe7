"""The worker: a process of its own that computes, so that a crash or a cancel there costs nothing here.

It takes jobs as lines of JSON on its standard input and answers with lines on its standard output; images cross as
files (``exchange``). It stays warm between jobs, and ends by itself when nobody has asked anything for a while or when
its parent is gone. ``process`` is the parent's side.
"""

import dataclasses
import json
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from ..errors import NPCSynthError, OutputError

_PROGRESS_SECONDS = 0.1


def main(idle_seconds: float) -> None:
    """Serve until the input ends or nothing has come for ``idle_seconds``."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    jobs: queue.Queue = queue.Queue()
    given: list[Path] = []

    def read() -> None:
        for line in sys.stdin:
            job = json.loads(line)
            given.append(Path(job["folder"]))
            jobs.put(job)
        # The parent is gone, perhaps killed: what it left with us holds images of a patient.
        for folder in list(given):
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    def say(message: dict) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    say({"progress": 0.0, "stage": "Starting PyTorch"})
    # Before anybody waits for input: on Windows the first import of numpy hangs while a thread reads from a pipe
    # (numpy issue 24290). What cannot be imported is told in answer to the job.
    with suppress(Exception):
        import psutil  # noqa: F401

        from . import exchange, synthesizer  # noqa: F401
    threading.Thread(target=read, daemon=True).start()
    computers: list = []
    while True:
        try:
            job = jobs.get(timeout=idle_seconds)
        except queue.Empty:
            os._exit(0)  # at once: a job that came now would be lost in a slow farewell
        folder = Path(job["folder"])
        answer = _answer(folder, job["call"], computers, say)
        given.remove(folder)
        say(answer)


def _answer(folder: Path, call: str, computers: list, say) -> dict:
    """Do the job in ``folder``; ``computers`` holds the one that the first job makes."""
    try:
        if not computers:
            computers.append(_computer(folder.parent))
        import psutil

        from .exchange import read_job, write_outcome

        computer = computers[0]
        own = psutil.Process()
        told, doing = 0.0, ""

        def on_progress(fraction: float, stage: str) -> None:
            nonlocal told, doing
            now, began = time.monotonic(), stage.split(maxsplit=1)[0]
            if began != doing or now - told > _PROGRESS_SECONDS:  # no stage is passed over, however short
                told, doing = now, began
                where = [computer.device] if computer.device else []
                where.append(f"{own.memory_info().rss / 1e9:.1f} GB")
                say({"progress": fraction, "stage": f"{stage} ({'; '.join(where)})"})

        volumes, request = read_job(folder)
        if call == "preflight":
            checks = computer.preflight(volumes, request, on_progress=on_progress)
            return {"checks": [dataclasses.asdict(check) for check in checks]}
        study, result = computer.compute(volumes, request, on_progress=on_progress)
        try:
            write_outcome(folder, study, result)
        except OSError as error:
            raise OutputError(
                f"The result could not be handed over: {folder.parent} cannot be written ({error.strerror or error}). "
                "Free some disk space there and run again."
            ) from error
        return {"done": True}
    except NPCSynthError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        # PyTorch's words for it on the CPU, on Linux and on Windows
        out_of_memory = isinstance(error, MemoryError) or "allocate memory" in str(error) or \
            "not enough memory" in str(error)
        return {"error": "MemoryError" if out_of_memory else "Exception", "message": traceback.format_exc()}


def _computer(handover: Path):
    from .job import InProcess

    return InProcess(handover=handover)


if __name__ == "__main__":
    main(float(sys.argv[1]))
