"""Digital patients that training never met, where the truth is known for every sequence and every tissue.

Training makes its phantoms from seeds of 1000 and more; these have the first ones.
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from ..phantom.acquire import tissue_signal
from ..phantom.anatomy import Anatomy, make_anatomy
from ..phantom.signal import Protocol, typical_protocol
from ..study.build import build_study
from ..study.study import DIGITAL_PATIENT, Study
from ..study.volume import Volume
from ..training.augmentation import rician

#: Axial slices of 4 mm from below the nasopharynx to the orbits, 1 mm pixels: shape and spacing along (k, j, i).
SHAPE, SPACING_MM = (24, 240, 200), (4.0, 1.0, 1.0)
_NOISE = 0.01  # of the brightest tissue


@lru_cache(maxsize=2)
def phantom(seed: int, shape: tuple[int, int, int] = SHAPE) -> Anatomy:
    """The patient of that seed, with a tumor, in a field of view of ``shape`` (k, j, i) voxels."""
    return make_anatomy(seed, shape, SPACING_MM)


def scan(anatomy: Anatomy, protocol: Protocol) -> Volume:
    """One sequence on the anatomy's own grid, every tissue where the anatomy says: (k, j, i) float32, little noise."""
    image = tissue_signal(anatomy, protocol)
    rng = np.random.default_rng([anatomy.seed, 300, *protocol.sequence.encode()])
    image = rician(image, _NOISE * float(np.percentile(image, 99.5)), rng)
    return Volume(image, anatomy.grid, protocol.sequence, dict(DIGITAL_PATIENT))


def scanned(anatomy: Anatomy, sequences: Iterable[str]) -> Study:
    """A study of these sequences by their typical protocols at 3 T, all on one grid."""
    return build_study({s: scan(anatomy, typical_protocol(s)) for s in sequences}, register=False)
