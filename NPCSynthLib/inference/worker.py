"""The worker: a process of its own that computes, so that a crash or a cancel there costs nothing here.

It takes jobs as small files from a folder, its inbox, and answers with lines of JSON on its standard output; images
cross as files too (``exchange``). Standard input would not do: in Slicer a launcher starts Python, and on Windows it
passes nothing on. The worker stays warm between jobs, and ends by itself when nobody has asked anything for a while or
when its parent or the inbox is gone. ``process`` is the parent's side.
"""

import dataclasses
import json
import math
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path

import psutil

from ..errors import NPCSynthError, OutputError
from .exchange import JOB_SUFFIX

_PROGRESS_SECONDS = 0.1
_LOOK_SECONDS, _PARENT_SECONDS = 0.05, 0.5


def main(idle_seconds: float, inbox: Path, parent: int) -> None:
    """Serve until the program with the number ``parent`` or the inbox is gone, or nothing came for ``idle_seconds``."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    jobs: queue.Queue = queue.Queue()
    given: list[Path] = []

    def leave() -> None:
        """At once. What the parent left with us holds images of a patient."""
        for folder in (*given, inbox):
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    def take() -> None:
        for path in sorted(inbox.glob(f"*{JOB_SUFFIX}")):
            try:
                job = json.loads(path.read_text(encoding="utf-8"))
                path.unlink()
            except OSError:  # somebody else looks at it, such as a virus scanner: at the next look
                return
            given.append(Path(job["folder"]))
            jobs.put(job)

    def watch() -> None:
        asked = -math.inf
        while inbox.is_dir():
            if time.monotonic() - asked > _PARENT_SECONDS:
                asked = time.monotonic()
                if not _lives(program):
                    break
            take()
            time.sleep(_LOOK_SECONDS)
        take()
        leave()

    def say(message: dict) -> None:
        try:
            answers.write(json.dumps(message) + "\n")
            answers.flush()
        except OSError:  # nobody listens: the parent was killed
            take()
            leave()

    program = _program(parent)
    say({"progress": 0.0, "stage": "Starting PyTorch"})
    threading.Thread(target=watch, daemon=True).start()
    computers: list = []
    while True:
        try:
            job = jobs.get(timeout=idle_seconds)
        except queue.Empty:
            leave()  # a job that came now would be lost in a slow farewell
        folder = Path(job["folder"])
        say(_answer(folder, job["call"], computers, say))
        given.remove(folder)


def _program(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _lives(program: psutil.Process | None) -> bool:
    """Whether it still runs; another one that got its number is another one."""
    try:
        return program is not None and program.is_running() and (
            os.name == "nt" or program.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):  # not told: that is no reason to go
        return True


def _answer(folder: Path, call: str, computers: list, say) -> dict:
    """Do the job in ``folder``; ``computers`` holds the one that the first job makes."""
    try:
        if not computers:
            computers.append(_computer(folder.parent))
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
    main(float(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
