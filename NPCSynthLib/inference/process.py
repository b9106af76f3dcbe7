"""The parent's side of the worker: start it, give it jobs, follow them, and kill it when asked to."""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .. import errors
from ..errors import Cancelled, NPCSynthError, OutputError, WorkerError
from ..study.study import Study
from ..study.volume import Volume
from .exchange import read_outcome, write_job
from .result import SynthesisResult

_POLL_SECONDS = 0.05
_FOLDER_PREFIX = "npcsynth-job-"
_HOME = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """Runs jobs in a process of its own, one at a time; started by the first job and kept warm for the next.

    Args:
        python: the interpreter to start; in Slicer that is PythonSlicer, since ``sys.executable`` is Slicer itself.
        weights: a weights folder, or None for the shipped ones.
        idle_seconds: the worker ends by itself after this long without a job.
    """

    def __init__(self, python: str | None = None, weights: Path | None = None, idle_seconds: float = 600):
        self._python = python or sys.executable
        self._weights = None if weights is None else str(weights)
        self._idle_seconds = idle_seconds
        self._process: subprocess.Popen | None = None
        self._lines: queue.Queue = queue.Queue()
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the worker while it lives."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if alive else None

    def compute(
        self,
        volumes: Mapping[str, Volume],
        targets: Sequence[str],
        reference: str | None = None,
        segment: bool = True,
        device: str | None = None,
        on_progress: Callable[[float, str], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> tuple[Study, SynthesisResult]:
        """What ``InProcess.compute`` does, elsewhere. Blocks; call it from a thread where a window must stay alive.

        Args:
            device: as for ``Synthesizer``.
            cancel: asked twenty times a second; the worker and all its children are killed at once.

        Raises:
            Cancelled. OutputError: no room for the images on disk. WorkerError: the worker ended or could not be
            started. Otherwise what ``InProcess.compute`` raises.
        """
        with self._lock:
            _remove_orphans()
            folder = None
            try:
                try:
                    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-"))
                    options = {"targets": list(targets), "reference": reference, "segment": segment, "device": device}
                    write_job(folder, volumes, options)
                except OSError as error:
                    raise OutputError(
                        f"The images could not be handed to the computation: {tempfile.gettempdir()} cannot be "
                        f"written ({error.strerror}). Free some disk space there and run again."
                    ) from error
                self._send({"folder": str(folder)})
                self._follow(on_progress, cancel)
                return read_outcome(folder, volumes)
            finally:
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """End the worker and everything that it started, now."""
        process, self._process = self._process, None
        if process is None:
            return
        import psutil

        try:
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        except psutil.NoSuchProcess:
            family = []
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        with contextlib.suppress(OSError):  # what was not yet written has nowhere to go
            process.stdin.close()
        process.wait()

    def _send(self, job: dict) -> None:
        for _attempt in range(2):  # a warm worker may end of idleness this very moment
            if self.pid is None:
                self.close()
                self._start()
            try:
                self._process.stdin.write(json.dumps(job) + "\n")
                self._process.stdin.flush()
                return
            except OSError:
                self.close()
        raise WorkerError("The computation ended before it had begun. Nothing was changed. Run again.")

    def _start(self) -> None:
        code = (
            f"import sys; sys.path.insert(0, {str(_HOME)!r}); from NPCSynthLib.inference.worker import main; "
            f"main({self._weights!r}, {self._idle_seconds})"
        )
        try:
            self._process = subprocess.Popen(
                [self._python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, encoding="utf-8", creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )  # fmt: skip
        except OSError as error:
            raise WorkerError(
                f"The computation could not be started with {self._python} ({error.strerror}). Install NPCSynth again."
            ) from error
        self._lines = queue.Queue()
        threading.Thread(target=_read_lines, args=(self._process.stdout, self._lines), daemon=True).start()

    def _follow(self, on_progress, cancel) -> None:
        """Until the job is done. Raises when it ends in any other way."""
        while True:
            if cancel is not None and cancel():
                self.close()
                raise Cancelled()
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                raise self._ended()
            message = json.loads(line)
            if "progress" in message:
                if on_progress is not None:
                    on_progress(message["progress"], message["stage"])
            elif "error" in message:
                raise _to_error(message)
            else:
                return

    def _ended(self) -> WorkerError:
        process, self._process = self._process, None
        code = process.wait() if process is not None else None
        with contextlib.suppress(OSError):  # what was not yet written has nowhere to go
            process.stdin.close()
        if code in (-9, 137):
            return WorkerError(
                "The computation was ended by the system, most likely because memory ran out. Nothing was changed. "
                "Close other programs and run again, or run on the CPU."
            )
        return WorkerError(
            f"The computation ended unexpectedly (code {code}). Nothing was changed. Run again; if it happens again, "
            "run on the CPU."
        )


def _read_lines(stream, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
    stream.close()


def _to_error(message: dict) -> NPCSynthError:
    kind = getattr(errors, message["error"], None)
    if kind is not None:
        return kind(message["message"])
    if message["error"] == "MemoryError":
        return WorkerError("The memory was too small for this study. Nothing was changed. Close other programs and "
                           "run again.")  # fmt: skip
    error = WorkerError("The computation failed and nothing was changed. The details are in the application's log.")
    error.details = message["message"]
    return error


def _remove_orphans() -> None:
    """Folders of a program and a worker that were both killed."""
    import psutil

    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(_FOLDER_PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
