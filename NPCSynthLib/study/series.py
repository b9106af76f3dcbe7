"""One DICOM series: from the headers of its slices to volumes."""

from functools import partial

import numpy as np

from ..errors import InputError
from . import stacks
from .check import check_usable
from .identify import SURE_REFUSAL, Identification, identify
from .pixels import SlicePixels
from .refuse import is_diffusion_weighted
from .scan import series_name, stop_if
from .volume import Volume


def read_series(frames: list, volumes: list, refused: list, warnings: list, cancel) -> None:
    """Read one series and append what comes of it: volumes, (name, reason) of what is refused, sentences of warning.

    ``frames``: its slices in any order. A bad series ends in ``refused`` and raises nothing; Cancelled does.
    """
    name = series_name(frames[0].facts)
    try:
        _check_whole(frames)
    except InputError as error:
        refused.append((name, str(error)))
        return
    parts = identify_parts(frames)
    usable = []
    for part, told in parts:
        if told.sequence is None and told.confidence >= SURE_REFUSAL:
            refused.append((name, told.reason))
        else:
            usable.append(part)
    pixels = SlicePixels()
    for n, part in enumerate(usable, 1):
        label = _part_label(part, usable, n)
        try:
            arranged = stacks.arrange(part, pixels, partial(_warn, warnings, name + label))
            for repetition, ordered in arranged:
                suffix = f"{label} ({repetition})" if repetition else label
                volume = _volume(ordered, name + suffix, pixels, cancel)
                warnings.extend(check_usable(volume))
                volumes.append(volume)
                if len(parts) == 1 and len(arranged) == 1:
                    warnings.extend(_numbering_warning(ordered, name))
        except InputError as error:
            refused.append((name + label, str(error)))


def identify_parts(frames: list) -> list[tuple[list, Identification]]:
    """The parts of a series that can each be a volume (see ``stacks.split_series``), and which sequence each is.

    Where one part is diffusion-weighted by its b-value all are: the images at b = 0 are no ordinary T2.
    """
    parts = stacks.split_series(frames)
    weighted = any(is_diffusion_weighted(frame.facts) for frame in frames)
    diffusion = Identification(None, 0.95, "part of a diffusion-weighted series (others of its images have a b-value)")
    told = [(part, identify(part[0].facts, series_name(part[0].facts))) for part in parts]
    return [(part, diffusion if weighted and one.sequence else one) for part, one in told]


def _warn(warnings: list, name: str, text: str) -> None:
    warnings.append(f"{name}: {text}.")


def _check_whole(frames: list) -> None:
    """Raises InputError with the bare reason when some of the slices have lost part of their header."""
    if identify(frames[0].facts, "").sequence is None and len(frames) == 1:
        return
    damaged = [f for f in frames if f.position is None or f.orientation is None or f.pixel_spacing is None
               or f.size is None]
    if damaged and len(damaged) < len(frames):
        raise InputError(f"{len(damaged)} of its {len(frames)} slices have no valid position, pixel spacing or size "
                         f"(first: file {damaged[0].path.name}); export it again")


def _part_label(part: list, parts: list, number: int) -> str:
    if len(parts) == 1:
        return ""
    times = [p[0].facts.get("EchoTime") for p in parts]
    if all(isinstance(t, float) for t in times) and len(set(times)) == len(parts):
        return f" (TE {part[0].facts['EchoTime']:g} ms)"
    return f" (part {number})"


def _numbering_warning(frames: list, name: str) -> list[str]:
    """Evenly spaced slices whose numbers do not begin at 1 or leave some out: ends, or every second, may be gone."""
    numbers = sorted({f.instance for f in frames})
    if frames[0].index is not None or len(numbers) != len(frames) or numbers[0] < 1:
        return []
    if numbers[0] == 1 and numbers[-1] == len(numbers):
        return []
    if numbers[-1] - numbers[0] + 1 == len(numbers) and numbers[0] > len(numbers):
        return []
    return [f"{name}: its {len(numbers)} slices are numbered {numbers[0]} to {numbers[-1]}; slices may be missing "
            "at an end."]


def _volume(frames: list, name: str, pixels: SlicePixels, cancel) -> Volume:
    """Slices in order -> volume. Raises InputError with the bare reason, Cancelled."""
    grid = stacks.grid_of(frames)
    # Before memory is taken for all of it, the first slice must be there: a damaged header may ask for gigabytes.
    pixels(frames[0])
    array = np.empty(grid.shape, np.float32)
    # File by file, so that each is decoded once.
    for k in sorted(range(len(frames)), key=lambda k: (frames[k].path, frames[k].index or 0)):
        stop_if(cancel)
        array[k] = pixels(frames[k])
    return Volume(array, grid, name, _metadata(frames))


def _metadata(frames: list) -> dict:
    """Facts of the first slice, and in k order the SOP instance of each slice and its frame number if enhanced."""
    metadata = dict(frames[0].facts)
    metadata["SOPInstanceUIDs"] = [f.uid for f in frames]
    if frames[0].index is not None:
        metadata["FrameNumbers"] = [str(f.index + 1) for f in frames]
    folders = {f.path.parent for f in frames}
    one_file = len({f.path for f in frames}) == 1
    metadata["source_path"] = str(frames[0].path if one_file else sorted(folders)[0])
    return metadata
