"""What a run tells about itself while it goes on: a table, TensorBoard events and a picture."""

import csv
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

_PICTURE_STEPS = 200
_EVENT_STEPS = 10
_ROWS = 6
#: Gives synthetic and real images, (M, H, W) each.
Preview = Callable[[], tuple[torch.Tensor, torch.Tensor]]


class Journal:
    """Context manager that keeps ``log.csv``, TensorBoard events and ``progress.png`` in a folder; None keeps nothing.

    TensorBoard is left out where the package is not installed. What cannot be written ends the log, not the run.

    Args:
        note: takes a sentence when the log ends early.
    """

    def __init__(self, folder: Path | None, note: Callable[[str], None]):
        self.folder, self._note = folder, note
        self._file = self._events = None

    def __enter__(self) -> "Journal":
        self._started = time.monotonic()
        if self.folder is not None:
            try:
                self._open()
            except OSError as error:
                self._end(error)
        return self

    def __exit__(self, *error) -> None:
        self._close()

    def _open(self) -> None:
        self._file = (self.folder / "log.csv").open("a", newline="", encoding="utf-8")
        self._table = csv.writer(self._file)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._events = SummaryWriter(str(self.folder / "events"))

    def _close(self) -> None:
        kept, self._file, self._events = (self._file, self._events), None, None
        for one in kept:
            with suppress(OSError):  # of what could not be written before, closing tries again
                if one is not None:
                    one.close()

    def _end(self, error: OSError) -> None:
        self._close()
        self._note(f"The log of the run cannot be written ({error.strerror or error}). Training goes on without it.")

    def write(self, step: int, losses: dict[str, float], preview: Preview) -> None:
        """Note the losses of a step, and now and then a picture."""
        if self._file is None:
            return
        try:
            self._write(step, losses, preview)
        except OSError as error:
            self._end(error)

    def _write(self, step: int, losses: dict[str, float], preview: Preview) -> None:
        if self._file.tell() == 0:
            self._table.writerow(["step", "seconds", *losses])
        seconds = round(time.monotonic() - self._started, 2)
        self._table.writerow([step, seconds, *(round(v, 5) for v in losses.values())])
        self._file.flush()
        if self._events is not None and step % _EVENT_STEPS == 0:
            for name, value in losses.items():
                self._events.add_scalar(f"loss/{name}", value, step)
        if step % _PICTURE_STEPS == 0:
            picture = grid(preview)
            Image.fromarray(picture).save(self.folder / "progress.png")
            if self._events is not None:
                self._events.add_image("synthetic | real | error", picture, step, dataformats="HW")


@torch.no_grad()
def grid(preview: Preview) -> np.ndarray:
    """uint8 picture, a row for each image: synthetic, real, and three times their difference."""
    made, real = (x[:_ROWS].float().clamp(0, 1.2).cpu().numpy() / 1.2 for x in preview())
    rows = [np.concatenate([m, r, np.clip(3 * np.abs(m - r), 0, 1)], axis=1) for m, r in zip(made, real, strict=True)]
    return (255 * np.concatenate(rows)).astype(np.uint8)
