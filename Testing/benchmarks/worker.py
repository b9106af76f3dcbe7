"""What the worker process costs: first start, later starts, pre-flight, Cancel, and its overhead over in-process.

    python Testing/benchmarks/worker.py

Every figure is measured in this one run, on the phantom (T1 and T2 to T1C, with segmentation) and the shipped weights.
Pre-flight prepares the study, which the run after it does not do again: what it adds to a run is the sum of both, less
a run without it.
"""

import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from NPCSynthLib.errors import Cancelled
from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.inference.process import WorkerProcess
from NPCSynthLib.inference.request import SynthesisRequest
from NPCSynthLib.phantom.patient import make_patient

REPEATS = 3


def seconds(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def cancel_latency(worker: WorkerProcess, volumes: dict) -> float:
    """From the first sign of synthesis, when the user presses Cancel, to the exception, the worker gone."""
    pressed = []

    def on_progress(_fraction: float, stage: str) -> None:
        if stage.startswith("Synthesizing") and not pressed:
            pressed.append(time.perf_counter())

    try:
        worker.compute(
            volumes, SynthesisRequest(("T1C", "FLAIR")), on_progress=on_progress, cancel=lambda: bool(pressed)
        )
    except Cancelled:
        return time.perf_counter() - pressed[0]
    raise RuntimeError("The run ended before it could be canceled.")


def main() -> None:
    volumes = make_patient(5, ("T1", "T2"), "full").volumes
    worker, here = WorkerProcess(), InProcess()

    def there() -> None:
        worker.compute(volumes, SynthesisRequest(("T1C",), segment=True))

    cold = seconds(there)
    warm = [seconds(there) for _ in range(REPEATS)]
    checked, after = [], []
    for _ in range(REPEATS):
        checked.append(seconds(lambda: worker.preflight(volumes, SynthesisRequest(("T1C",), segment=True))))
        after.append(seconds(there))
    here.compute(volumes, SynthesisRequest(("T1C",), segment=True))
    inside = [seconds(lambda: here.compute(volumes, SynthesisRequest(("T1C",), segment=True))) for _ in range(REPEATS)]
    latency = [cancel_latency(worker, volumes) for _ in range(REPEATS)]
    worker.close()
    if hasattr(os, "getloadavg"):
        print(f"load of the machine            {os.getloadavg()[0]:6.1f}     on {os.cpu_count()} cores")
    print(f"first job (cold start)         {cold:6.1f} s")
    print(f"later jobs (warm), median      {statistics.median(warm):6.1f} s   of {[round(x, 1) for x in warm]}")
    added = statistics.median(checked) + statistics.median(after) - statistics.median(warm)
    print(f"pre-flight (warm), median      {statistics.median(checked):6.1f} s   of {[round(x, 1) for x in checked]}")
    print(f"run after pre-flight, median   {statistics.median(after):6.1f} s   of {[round(x, 1) for x in after]}")
    print(f"pre-flight adds to a run       {added:6.1f} s")
    print(f"same call in-process, median   {statistics.median(inside):6.1f} s   of {[round(x, 1) for x in inside]}")
    print(f"worker / in-process            {statistics.median(warm) / statistics.median(inside):6.2f}")
    print(f"Cancel, slowest of {REPEATS}           {max(latency):6.2f} s")


if __name__ == "__main__":
    main()
