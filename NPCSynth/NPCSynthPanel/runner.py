"""One computation at a time in the background, followed from the main thread."""

import threading
import time

import qt
from slicer.i18n import tr as _

from NPCSynthLib.errors import Cancelled


class Runner:
    """Runs functions in a thread of their own and takes over what they give on the main thread.

    :param onChanged: called when a computation has begun or ended.
    :param onProgress: called with the BackgroundRun, about ten times a second while it computes.
    :param onError: called with what a computation, or taking over what it gave, raised.
    """

    def __init__(self, onChanged, onProgress, onError):
        self._onChanged, self._onProgress, self._onError = onChanged, onProgress, onError
        self.current = None
        self._fading = []
        self._pollTimer = qt.QTimer()
        self._pollTimer.setInterval(10)
        self._pollTimer.connect("timeout()", self._poll)

    @property
    def running(self):
        """Whether a computation goes on."""
        return self.current is not None

    def start(self, compute, finish, needsScene=True, onError=None):
        """Run ``compute(onProgress, cancel)`` in the background, then ``finish(outcome, seconds)`` here.

        Nothing happens while another computation runs: a wait cursor lets a second click of the user through, and the
        computation that this one began is the one that was asked for.

        ``onError`` is called with what either raised, where that takes more than to say so.

        ``compute`` must not touch the scene or any widget. It calls ``onProgress(fraction, stage)`` with a fraction
        0..1 and a stage in words, and raises Cancelled soon after ``cancel()`` has become true. What does not need the
        scene goes on when the scene is closed.
        """
        if self.running:
            return
        # A canceled run may still finish its slice; two at once would need twice the memory.
        fading = [run.thread for run in self._fading]
        self.current = BackgroundRun(compute, finish, onError or self._onError, needsScene, waitFor=fading)
        self._onChanged()
        self.current.thread.start()
        self._pollTimer.start()

    def cancel(self):
        """Give up the computation; its thread ends at its next look at the flag. Returns whether there was one."""
        run, self.current = self.current, None
        if run is None:
            return False
        run.cancel()
        self._fading.append(run)
        self._onChanged()
        return True

    def close(self, patience):
        """Give up everything, and wait at most ``patience`` seconds for each thread; nobody is told any more."""
        self._pollTimer.stop()
        runs = [run for run in (self.current, *self._fading) if run is not None]
        self.current, self._fading = None, []
        for run in runs:
            run.cancel()
        # A thread that computes while Python shuts down can take Slicer down with it.
        for run in runs:
            run.thread.join(patience)

    def _poll(self):
        running = ([self.current] if self.running else []) + self._fading
        for run in running:
            # Slicer's event loop holds Python's global lock, so other threads only work while we wait here.
            run.thread.join(0.03)
        self._fading = [run for run in self._fading if run.thread.is_alive()]
        run = self.current
        if run is None:
            if not self._fading:
                self._pollTimer.stop()
            return
        if run.thread.is_alive():
            self._onProgress(run)
            return
        self.current = None
        try:
            if run.error is not None:
                raise run.error
            run.finish(run.outcome, run.seconds())
        except Exception as error:
            run.onError(error)
        self._onChanged()


class BackgroundRun:
    """One computation in a thread of its own.

    ``outcome`` or ``error`` is set once ``thread`` has ended; ``fraction`` and ``stage`` say how far it is.
    """

    def __init__(self, compute, finish, onError, needsScene=True, waitFor=()):
        self.finish, self.onError, self.needsScene = finish, onError, needsScene
        self.fraction = 0.0
        self.stage = ""
        self.outcome = None
        self.error = None
        self._canceled = threading.Event()
        self._compute = compute
        self._waitFor = list(waitFor)
        self._began = time.monotonic()
        # A daemon: a run must not keep Slicer from closing.
        self.thread = threading.Thread(target=self._work, name="NPCSynth", daemon=True)

    def cancel(self):
        """Ask the computation to stop soon."""
        self._canceled.set()

    def seconds(self):
        """Wall time since the beginning."""
        return time.monotonic() - self._began

    def timeLeft(self):
        """"about 40 s left", or "" while nobody can tell."""
        elapsed = self.seconds()
        if elapsed < 2 or self.fraction < 0.05:
            return ""
        left = elapsed * (1 - self.fraction) / self.fraction
        if left < 90:
            return _("about {seconds} s left").format(seconds=max(1, round(left)))
        return _("about {minutes} min left").format(minutes=round(left / 60))

    def _progress(self, fraction, stage):
        self.fraction, self.stage = fraction, stage

    def _work(self):
        try:
            for thread in self._waitFor:
                thread.join()
            if self._canceled.is_set():
                raise Cancelled()
            self.outcome = self._compute(self._progress, self._canceled.is_set)
        except Exception as error:
            self.error = error
