"""Results that were written earlier, read back for export."""

import json
from pathlib import Path

import numpy as np
import slicerio

from ..errors import InputError
from ..inference.result import Segment, SegmentationResult, SynthesisResult, SynthesizedSequence
from ..study.volume import Grid
from ..vocabulary import load_structures
from .folder import MANIFEST
from .write import SEGMENTATION


def read_result(folder: str | Path) -> tuple[SynthesisResult, dict]:
    """The result in a folder that ``write_result`` wrote, and the content of its ``result.json``.

    Raises InputError when the folder holds no result, or one whose files are missing, damaged or were changed.
    """
    folder = Path(folder)
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        grid = Grid(tuple(document["reference_grid"]["shape_kji"]), np.array(document["reference_grid"]["ijk_to_lps"]))
        outputs, files = document["outputs"], set(document["files"])
        model, sources = document["weights"], tuple(source["sequence"] for source in document["sources"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder.name} holds no results of NPCSynth (its {MANIFEST} is missing or damaged). Give the folder that "
            "npcsynth synthesize wrote."
        ) from error
    sequences = tuple(
        SynthesizedSequence(
            output["sequence"], _image(folder / f"{output['sequence']}.nii.gz", grid),
            _image(folder / f"{output['sequence']}_uncertainty.nii.gz", grid), output["prompt"],
            output["mean_uncertainty"], output["uncertainty_calibrated"], tuple(output["interval_factors"].values()),
        )
        for output in outputs
    )  # fmt: skip
    segmentation = _segmentation(folder / SEGMENTATION, grid) if SEGMENTATION in files else None
    result = SynthesisResult(grid, sequences, segmentation, sources, model, str(document.get("device", "")))
    return result, document


def _image(path: Path, grid: Grid) -> np.ndarray:
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path.name} is missing or damaged. Synthesize again.") from error
    array = sitk.GetArrayFromImage(image)
    found = Grid.from_parts(array.shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    if array.dtype != np.int16 or not found.matches(grid, tolerance_mm=0.01):
        raise InputError(f"{path.name} was changed since it was written. Synthesize again.")
    return array


def _segmentation(path: Path, grid: Grid) -> SegmentationResult:
    try:
        content = slicerio.read_segmentation(str(path))
        voxels = np.ascontiguousarray(np.asarray(content["voxels"]).T)  # (k, j, i, layer)
        present = {segment["name"]: segment for segment in content["segments"]}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path.name} is missing or damaged. Synthesize again.") from error
    structures = [structure for structure in load_structures() if structure.name in present]
    as_written = voxels.ndim == 4 and voxels.shape[:3] == tuple(grid.shape) and len(structures) == len(present) and all(
        present[s.name]["labelValue"] == (s.label or 1) for s in structures
    )
    if not as_written:
        raise InputError(
            f"{path.name} was changed since it was written, so that it is no longer what the network proposed. "
            "Export your own contours from 3D Slicer, or synthesize again."
        )
    segments = tuple(Segment(s.name, s.label, s.color, s.code) for s in structures)
    return SegmentationResult(voxels[..., 0].astype(np.uint8), voxels[..., 1] > 0, segments)
