"""What reference contours are once they are read, and the check that they belong on an image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..vocabulary import PREDICTED, tg263_name
from .volume import Grid, Volume


@dataclass(frozen=True, eq=False)
class ReferenceStructure:
    """One structure that somebody drew.

    Attributes:
        name: TG-263 name, or the original one where the alias table does not know it; no two of a file are equal.
        original_name: as the file has it.
        shape: (k, j, i) of the grid.
        start: (k, j, i) of ``crop`` in the grid.
        crop: bool, the part of the mask around the structure: dozens of whole masks would fill the memory.
    """

    name: str
    original_name: str
    shape: tuple[int, int, int]
    start: tuple[int, int, int]
    crop: np.ndarray

    @classmethod
    def of(cls, name: str, mask: np.ndarray) -> "ReferenceStructure":
        """The structure with the file's name for it and a (k, j, i) bool mask."""
        axes = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        ranges = [(int(a[0]), int(a[-1]) + 1) if len(a) else (0, 0) for a in axes]
        crop = mask[tuple(slice(*r) for r in ranges)].copy()
        return cls(tg263_name(name), name, mask.shape, tuple(r[0] for r in ranges), crop)

    @property
    def mask(self) -> np.ndarray:
        """(k, j, i) bool on the grid, made anew at each call."""
        mask = np.zeros(self.shape, bool)
        mask[tuple(slice(a, a + n) for a, n in zip(self.start, self.crop.shape))] = self.crop
        return mask


@dataclass(frozen=True)
class ReferenceContours:
    """What a file of contours holds, on the grid of one image.

    Attributes:
        structures: in the file's order; a structure without contours has an empty mask.
        grid: the image's.
        frame_of_reference: its UID, or None where the file does not tell.
        series_uids: SeriesInstanceUIDs of the images that it refers to; may be empty.
        notes: sentences for the user: what was left out, cut off, resampled or could not be checked.
        left_out: (original name, sentence why) of each structure that is drawn but could not be used.
    """

    structures: tuple[ReferenceStructure, ...]
    grid: Grid
    frame_of_reference: str | None
    series_uids: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def structure(self, name: str) -> ReferenceStructure:
        """The structure of that TG-263 name; KeyError when there is none."""
        for structure in self.structures:
            if structure.name == name:
                return structure
        raise KeyError(name)


def named_apart(
    structures: Sequence[ReferenceStructure], whose: str
) -> tuple[tuple[ReferenceStructure, ...], list[str]]:
    """The structures, in order, none called as another one, and notes on those that had to be called otherwise.

    Who bears a name itself keeps it; of others that mean the same each is called as it was. ``whose`` they are is for
    the notes.
    """
    named, notes = {}, []
    # a prediction never takes the place of what bears another name of the same
    order = sorted(structures, key=lambda one: (one.original_name.endswith(PREDICTED), one.name != one.original_name))
    for structure in order:
        name, number = structure.name, 2
        if name in named:
            name = structure.original_name
            while name in named:
                name = f"{structure.original_name} ({number})"
                number += 1
            notes.append(f'"{structure.original_name}" means the same as another structure of {whose}; it is '
                         f'listed as "{name}".')
        named[name] = structure
    in_order = sorted(named.items(), key=lambda item: structures.index(item[1]))
    return tuple(replace(structure, name=name) for name, structure in in_order), notes


def check_frame(path: Path, frames: set[str], series_uids, image: Volume) -> list[str]:
    """Notes on what does not fit or cannot be checked.

    Raises InputError when the file names frames of reference, the image names one, and it is not among them.
    """
    name, frame = image.name or "the image", image.metadata.get("FrameOfReferenceUID")
    if not frames or not frame:
        lacking = path.name if not frames else name
        return [f"{lacking} does not name its frame of reference: that the contours of {path.name} belong on {name} "
                "could not be checked. Look at them before you trust any figure."]
    if frame not in frames:
        raise InputError(
            f"{path.name} lies in another frame of reference than {name}: its contours would come out in the wrong "
            "place. Give the contours that were drawn on this examination, or register and export them again."
        )
    series = image.metadata.get("SeriesInstanceUID")
    if series_uids and series and series not in series_uids:
        return [f"{path.name} was drawn on another series than {name}, in the same frame of reference. The contours "
                "are placed by their coordinates: check that the patient did not move between the series."]
    return []


def made_by_program(path: Path, names: tuple[str, ...] = ()) -> str:
    """The note on a file that says that a program made it, or only the structures of these names."""
    made, whose = (", ".join(names), "these") if names else ("it", "its")
    return f"{path.name} says that a program made {made}: {whose} contours are proposals, nobody's judgment."
