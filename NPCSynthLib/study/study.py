"""A patient's usable sequences, brought onto one grid: what the model works on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .volume import Grid, Volume

#: What the headers of the digital patient's images say, by DICOM keyword; no scanner says so.
DIGITAL_PATIENT = {"Manufacturer": "NPCSynth", "ManufacturerModelName": "Digital phantom"}


def is_simulated(metadata: Mapping) -> bool:
    """Whether header facts are those of an image of a digital patient, which was simulated, not acquired."""
    return all(metadata.get(keyword) == value for keyword, value in DIGITAL_PATIENT.items())


@dataclass(frozen=True)
class Source:
    """One acquired sequence, ready for the model.

    Attributes:
        sequence: id in the vocabulary, e.g. "T1".
        original: the volume as it was read (own grid, scanner's units).
        array: (k, j, i) float32 on ``Study.grid``, scaled so that 0 and 1 are the 0.5 and 99.5
            percentiles of the body; outside this source's field of view it is 0.
        inside: (k, j, i) bool, True where this source has data.
        registration: what was done to align it, in words and numbers
            (e.g. {"applied": True, "translation_mm": 2.1, "rotation_deg": 0.8, "metric_before": ...}).
        intensity_range: the two scanner-unit intensities that map to 0 and 1.
    """

    sequence: str
    original: Volume
    array: np.ndarray
    inside: np.ndarray
    registration: dict
    intensity_range: tuple[float, float]

    @property
    def how(self) -> str:
        """"acquired", or "simulated" for an image of a digital patient."""
        return "simulated" if is_simulated(self.original.metadata) else "acquired"


@dataclass(frozen=True)
class Study:
    """Everything that one synthesis starts from.

    Attributes:
        grid: the reference grid; every array in the study and in the result lies on it.
        reference: sequence id of the source whose grid it is.
        sources: aligned, normalised sources, one for each sequence.
        body: (k, j, i) bool mask of the patient on ``grid``.
        warnings: sentences for the user (what was assumed, which series was chosen and why).
        refused: (series name, reason) for every series that was not used.
    """

    grid: Grid
    reference: str
    sources: tuple[Source, ...]
    body: np.ndarray
    warnings: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = field(default=())

    @property
    def how(self) -> str:
        """"simulated" where all the sources are images of a digital patient, else "acquired"."""
        return "simulated" if all(source.how == "simulated" for source in self.sources) else "acquired"

    def source(self, sequence: str) -> Source:
        """The source of that sequence; KeyError when the study has none."""
        for source in self.sources:
            if source.sequence == sequence:
                return source
        raise KeyError(sequence)
