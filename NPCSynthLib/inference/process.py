"""The parent's side of the worker: start it, give it jobs, follow them, and kill it when asked to."""

import collections
import contextlib
import hashlib
import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from .. import errors
from ..errors import Cancelled, NPCSynthError, OutputError, WorkerError
from ..model.manifest import network_sha256, trained_sequences
from ..study.study import Study
from ..study.volume import Volume
from .exchange import JOB_SUFFIX, read_outcome, write_job
from .preflight import Check
from .request import SynthesisRequest
from .result import SynthesisResult

_POLL_SECONDS = 0.05
#: On Windows a file cannot be renamed while a virus scanner looks at it.
_OTHERS_SECONDS = 2
_DYING_SECONDS = 5
_KEPT_LINES = 50
#: So long the pipe of a dead worker is emptied for what it said last; a child of it may hold the pipe open.
_LAST_WORDS_SECONDS = 1
#: Of this computer alone: several may share a folder for temporary files, and do not see each other's processes.
_COMPUTER = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_JOB_PREFIX, _INBOX_PREFIX = f"npcsynth-job-{_COMPUTER}-", f"npcsynth-inbox-{_COMPUTER}-"
_HOME = Path(__file__).resolve().parents[2]
#: Folders of the jobs that are going on in this process, and inboxes of its workers.
_active: set[Path] = set()


class WorkerProcess:
    """Runs jobs in a process of its own, one at a time; started by the first job and kept warm for the next.

    Args:
        python: the interpreter to start; in Slicer that is PythonSlicer, since ``sys.executable`` is Slicer itself.
        weights: the weights folder for jobs that name none; None for the shipped ones.
        idle_seconds: the worker ends by itself after this long without a job.
    """

    def __init__(self, python: str | None = None, weights: Path | None = None, idle_seconds: float = 600):
        self._python = python or sys.executable
        self._weights = weights
        self._idle_seconds = idle_seconds
        self._process: subprocess.Popen | None = None
        self._inbox: Path | None = None
        self._lines: queue.Queue = queue.Queue()
        self._last_words: collections.deque = collections.deque(maxlen=_KEPT_LINES)
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the worker while it lives."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def sequences(self, weights: Path | None = None) -> tuple[str, ...]:
        """As ``InProcess.sequences``; the worker is not asked for it."""
        return trained_sequences(weights or self._weights)

    def network_sha256(self, weights: Path | None = None) -> str:
        """As ``InProcess.network_sha256``; the worker is not asked for it."""
        return network_sha256(weights or self._weights)

    def preflight(
        self,
        volumes: Mapping[str, Volume],
        request: SynthesisRequest,
        on_progress: Callable[[float, str], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> tuple[Check, ...]:
        """What ``InProcess.preflight`` finds, with the disk that the images cross over; see ``compute``."""
        return self._run("preflight", volumes, request, on_progress, cancel,
                         lambda folder, answer: tuple(Check(**check) for check in answer["checks"]))

    def compute(
        self,
        volumes: Mapping[str, Volume],
        request: SynthesisRequest,
        on_progress: Callable[[float, str], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> tuple[Study, SynthesisResult]:
        """What ``InProcess.compute`` does, elsewhere. Blocks; call it from a thread where a window must stay alive.

        Args:
            on_progress: the stage names device and memory in use too.
            cancel: asked twenty times a second; the worker and all its children are killed at once.

        Raises:
            Cancelled. OutputError: no room for the images on disk. WorkerError: the worker ended or could not be
            started. Otherwise what ``InProcess.compute`` raises.
        """
        return self._run("compute", volumes, request, on_progress, cancel,
                         lambda folder, answer: read_outcome(folder, volumes))

    def _run(self, call: str, volumes: Mapping[str, Volume], request: SynthesisRequest, on_progress, cancel, take):
        """One job in a folder of its own, which is gone afterwards; ``take`` reads what it left there."""
        request = replace(request, weights=request.weights or self._weights)
        with self._lock:
            folder = temporary = None
            try:
                try:
                    temporary = tempfile.gettempdir()
                    _remove_orphans()
                    folder = _temporary_folder(_JOB_PREFIX)
                    write_job(folder, volumes, request)
                except OSError as error:
                    raise _no_room(temporary or "the folder for temporary files", error) from error
                answer = self._ask(folder, call, on_progress, cancel)
                if "error" in answer:
                    raise self._to_error(answer)
                return take(folder, answer)
            finally:
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    _active.discard(folder)

    def close(self) -> None:
        """End the worker and everything that it started, now, and wait until they are gone."""
        process, self._process = self._process, None
        if process is None:
            return
        import psutil

        family = []
        if process.poll() is None:  # once it has ended, its number may be another program's
            with contextlib.suppress(psutil.NoSuchProcess):
                # In Slicer the process is a launcher, and the worker its child.
                family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=_DYING_SECONDS)
        process.wait()
        self._forget_inbox()

    def _forget_inbox(self) -> None:
        if self._inbox is not None:
            shutil.rmtree(self._inbox, ignore_errors=True)
            _active.discard(self._inbox)
            self._inbox = None

    def _ask(self, folder: Path, call: str, on_progress, cancel) -> dict:
        """Give the job and follow it to its answer."""
        job = {"folder": str(folder), "call": call}
        try:
            self._send(job)
            answer = self._follow(on_progress, cancel)
            if answer is None:  # it had just ended, for want of work or killed from outside
                self._send(job)
                answer = self._follow(on_progress, cancel)
            if answer is None:
                raise _broken_down(self._process.returncode, self._last_words)
        except BaseException:
            self.close()  # whatever it still had to say would be taken for the next job's answer
            raise
        return answer

    def _send(self, job: dict) -> None:
        if self.pid is None:
            self.close()
            self._start()
        # An inbox that is gone was that of a worker which has ended: no answer will come, which _follow sees.
        draft = self._inbox / Path(job["folder"]).name
        until = time.monotonic() + _OTHERS_SECONDS
        while True:
            try:
                draft.write_text(json.dumps(job), encoding="utf-8")
                draft.replace(draft.with_suffix(JOB_SUFFIX))
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if not isinstance(error, PermissionError) or time.monotonic() > until:
                    raise _no_room(str(self._inbox.parent), error) from error
                time.sleep(_POLL_SECONDS)

    def _start(self) -> None:
        if "python" not in Path(self._python).name.lower():
            raise WorkerError(
                f"{self._python} is not Python (in Slicer: PythonSlicer), so that nothing can be computed. Install "
                "Slicer again."
            )
        try:
            self._inbox = _temporary_folder(_INBOX_PREFIX)
        except OSError as error:
            raise _no_room(tempfile.gettempdir(), error) from error
        command = [self._python, "-m", "NPCSynthLib.inference.worker", str(self._idle_seconds), str(self._inbox),
                   str(os.getpid())]  # fmt: skip
        try:
            self._process = subprocess.Popen(
                command, cwd=_HOME, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, encoding="utf-8", errors="replace",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )  # fmt: skip
        except OSError as error:
            self._forget_inbox()
            raise WorkerError(
                f"The computation could not be started with {self._python} ({error.strerror}). Install NPCSynth again."
            ) from error
        self._lines = queue.Queue()
        self._last_words = collections.deque(maxlen=_KEPT_LINES)
        answers = threading.Thread(target=_pass_on, args=(self._process.stdout, self._lines), daemon=True)
        self._listener = threading.Thread(target=_remember, args=(self._process.stderr, self._last_words), daemon=True)
        answers.start()
        self._listener.start()

    def _follow(self, on_progress, cancel) -> dict | None:
        """The answer to the job; None when the worker ended without having said anything about it."""
        process, silent = self._process, True
        while True:
            if cancel is not None and cancel():
                raise Cancelled()
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                code = process.wait()
                self._listener.join(_LAST_WORDS_SECONDS)
                if silent:
                    return None
                raise _broken_down(code, self._last_words)
            silent = False
            message = json.loads(line)
            if "progress" not in message:
                return message
            if on_progress is not None:
                on_progress(message["progress"], message["stage"])

    def _to_error(self, message: dict) -> NPCSynthError:
        kind = getattr(errors, message["error"], None)
        if kind is not None:
            return kind(message["message"])
        self.close()  # a GPU that failed once fails on in the same process
        if message["error"] == "MemoryError":
            return WorkerError("The memory was too small for this study. Nothing was changed. Close other programs and "
                               "run again.", details=message["message"])  # fmt: skip
        return WorkerError(
            "The computation failed. Nothing was changed. Run it again; if it fails again, report it (see "
            "Troubleshooting). The details are in the application's log.",
            details=message["message"], cpu_may_help=True,
        )


def _no_room(where: str, error: OSError) -> OutputError:
    return OutputError(f"The images could not be handed to the computation: {where} cannot be written "
                       f"({error.strerror or error}). Free some disk space there and run again.")


def _broken_down(code: int, last_words) -> WorkerError:
    return WorkerError(
        "The computation broke down, most likely because memory ran out or a driver failed. Nothing was changed. "
        "Close other programs and run again.",
        details=f"The worker ended with code {code}.\n{''.join(last_words)}", cpu_may_help=True,
    )


def _pass_on(stream, lines: queue.Queue) -> None:
    """Lines as they come, then None."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _remember(stream, last_words: collections.deque) -> None:
    """What the worker prints: read, so that it never waits for us, and kept for the case that it breaks down."""
    with stream:
        last_words.extend(stream)


def _temporary_folder(prefix: str) -> Path:
    """One of this process's own. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    _active.add(folder)
    return folder


def _remove_orphans() -> None:
    """Folders that could not be removed in their time, or whose program and worker were both killed."""
    import psutil

    for prefix in (_JOB_PREFIX, _INBOX_PREFIX):
        for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            owner = folder.name.removeprefix(prefix).split("-")[0]
            ours = owner == str(os.getpid()) and folder not in _active
            if ours or (owner.isdigit() and not psutil.pid_exists(int(owner))):
                shutil.rmtree(folder, ignore_errors=True)
