"""What a result was made from, by what and how: the content of ``result.json``. No patient's name or ID."""

import hashlib
from datetime import datetime, timezone

import numpy as np

from .. import __version__
from ..inference.intervals import LEVELS
from ..inference.result import SynthesisResult
from ..study.study import Source, Study
from ..study.volume import Grid

UNITS = "0 and 1000 are the 0.5 and 99.5 percentiles of the body."
LIMITS = (
    "Research use only: not a medical device.",
    "Synthetic images show what a network expects, not what was measured: a lesion may be missing or invented.",
    "Low uncertainty does not prove that a lesion is, or is not, there.",
    "Contours are proposals, those of the tumor above all: check each of them on acquired images. A structure that "
    "was not found may be there all the same.",
    "Never compute dose on a synthetic image.",
)
#: Header entries of the sources that are kept: they point back to the series and name nobody.
_SERIES_KEYS = (
    "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "Manufacturer", "MagneticFieldStrength",
    "RepetitionTime", "EchoTime", "InversionTime", "SOPInstanceUIDs", "FrameNumbers",
)


def provenance(result: SynthesisResult, study: Study) -> dict:
    """Facts about ``result`` as plain JSON types.

    Keys: software, synthetic, intended_use, limits, created, weights, device, seconds, units, reference_grid
    (shape as (k, j, i), matrix from (i, j, k) to LPS mm), sources (each with its own such matrix and a digest of its
    voxels), outputs (each with digests of its image and of its uncertainty), segments, segmentation_voxels_sha256 (of
    the label map and then External; None without a segmentation; all digests as ``voxels_sha256`` gives them), refused,
    warnings, unusual (those of the warnings that say why an input is unlike what the weights learned from).
    """
    found = result.segmentation
    document = {
        "software": {"name": "NPCSynth", "version": __version__},
        "synthetic": True,
        "intended_use": "research",
        "limits": list(LIMITS),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "weights": dict(result.model),
        "device": result.device,
        "seconds": {stage: round(float(seconds), 3) for stage, seconds in result.seconds.items()},
        "units": UNITS,
        "reference_grid": {
            "sequence": study.reference,
            "shape_kji": list(result.grid.shape),
            "spacing_ijk_mm": result.grid.spacing.tolist(),
            "ijk_to_lps": result.grid.ijk_to_lps.tolist(),
        },
        "sources": [_source(source) for source in study.sources if source.sequence in result.sources],
        "outputs": [
            {
                "sequence": synthetic.sequence,
                "prompt": synthetic.prompt,
                "mean_uncertainty": round(float(synthetic.mean_uncertainty), 2),
                "uncertainty_calibrated": synthetic.calibrated,
                "interval_factors": {
                    f"{level:.0%}": round(factor, 3) for level, factor in zip(LEVELS, synthetic.interval_factors)
                },
                "voxels_sha256": voxels_sha256(synthetic.array),
                "uncertainty_voxels_sha256": voxels_sha256(synthetic.uncertainty),
            }
            for synthetic in result.sequences
        ],
        "segments": _segments(result),
        "segmentation_voxels_sha256": found and voxels_sha256(found.labelmap, found.external),
        "refused": [{"series": name, "reason": reason} for name, reason in study.refused],
        "warnings": list(dict.fromkeys((*study.warnings, *result.warnings))),
        "unusual": list(result.unusual),
    }
    return plain(document)


def _segments(result: SynthesisResult) -> list[dict]:
    if result.segmentation is None:
        return []
    voxel_ml = abs(float(np.linalg.det(result.grid.ijk_to_lps[:3, :3]))) / 1000
    found = result.segmentation
    return [
        {"name": s.name, "volume_ml": round(int(np.count_nonzero(found.mask(s))) * voxel_ml, 2)} for s in found.segments
    ]


def _source(source: Source) -> dict:
    volume = source.original
    return {
        "sequence": source.sequence,
        "description": volume.name,
        **{key: volume.metadata[key] for key in _SERIES_KEYS if volume.metadata.get(key) not in (None, "")},
        "shape_kji": list(volume.array.shape),
        "spacing_ijk_mm": volume.grid.spacing.tolist(),
        "ijk_to_lps": volume.grid.ijk_to_lps.tolist(),
        "voxels_sha256": voxels_sha256(volume.array),
        "registration": source.registration,
        "intensity_range": [float(value) for value in source.intensity_range],
    }


def reference_grid(document: dict) -> Grid:
    """The grid of a result by the content of its ``result.json``. Raises KeyError, TypeError, ValueError."""
    about = document["reference_grid"]
    return Grid(tuple(about["shape_kji"]), np.array(about["ijk_to_lps"]))


def voxels_sha256(*arrays: np.ndarray) -> str:
    """Hexadecimal SHA-256 of (k, j, i) images' voxels, one image after the other, as little-endian float32 in C order.

    The same whatever type a program or a file keeps them in. The shape is not in it: it belongs to the grid.
    """
    total = hashlib.sha256()
    for array in arrays:
        for image in array:
            total.update(np.ascontiguousarray(image, "<f4").tobytes())
    return total.hexdigest()


def plain(value):
    """``value`` with NumPy scalars and arrays, tuples and pydicom values turned into JSON's own types."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, str)):
        return value if not isinstance(value, str) else str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        # JSON has no NaN or infinity.
        return float(value) if value == value and abs(value) != float("inf") else None
    return str(value)
