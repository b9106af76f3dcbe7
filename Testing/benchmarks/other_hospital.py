"""A simulated hospital whose images the shipped weights have not seen: six digital patients as a cohort of DICOM.

    python Testing/benchmarks/other_hospital.py cohort
    npcsynth train fine-tune --from weights --cohort cohort --hold-out p5 --hold-out p6 --out run

Repetition and echo times lie outside of what the weights were trained with (T1 with TR 950 ms, T2 with TE 150 ms,
little contrast agent), there is two to three times the noise of the phantom's own scanner and more coil shading, and
the patients are others. All sequences lie on one oblique grid of thick slices, so that no registration blurs the
comparison. It is a simulation: how real hospitals differ, it cannot tell.
"""

import sys
from pathlib import Path

import numpy as np

from NPCSynthLib.phantom.acquire import acquire, scan_grid
from NPCSynthLib.phantom.anatomy import make_anatomy
from NPCSynthLib.phantom.patient import Patient, write_dicom
from NPCSynthLib.phantom.signal import Protocol

_FIELD_T = 1.5
_PROTOCOLS = (
    Protocol("T1", _FIELD_T, "SE", 950.0, 22.0, None, 90.0, 0.0, 0.0),
    Protocol("T2", _FIELD_T, "TSE", 2600.0, 150.0, None, 90.0, 0.0, 0.0),
    Protocol("T1C", _FIELD_T, "SE", 950.0, 22.0, None, 90.0, 0.0, 0.2),
)
_FIRST_SEED = 7001


def make_patient(seed: int) -> Patient:
    """One patient of that hospital; anatomy of 1.5 mm, images of 1.2 x 1.2 x 4.4 mm."""
    anatomy = make_anatomy(seed, (158, 172, 140), (1.5, 1.5, 1.5))
    grid = scan_grid(anatomy, _PROTOCOLS[1])
    volumes, protocols = {}, {}
    for number, protocol in enumerate(_PROTOCOLS):
        rng = np.random.default_rng([seed, 301, number])
        protocols[protocol.sequence] = protocol
        volumes[protocol.sequence] = acquire(anatomy, protocol, rng, grid, noise=0.045, bias=0.35, motion=0.5)
    return Patient(anatomy, volumes, protocols)


def main(folder: Path) -> None:
    """Write p1 to p6 below the folder."""
    for number in range(6):
        write_dicom(make_patient(_FIRST_SEED + number), folder / f"p{number + 1}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
