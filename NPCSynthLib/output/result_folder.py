"""Results that were written earlier, read back for export."""

import json
from pathlib import Path

import numpy as np
import slicerio

from ..errors import InputError
from ..inference.result import Segment, SegmentationResult, SynthesisResult, SynthesizedSequence
from ..study.volume import Grid
from ..vocabulary import PREDICTED, load_structures
from .folder import MANIFEST
from .provenance import reference_grid, voxels_sha256
from .write import IMAGE_FILE, SEGMENTATION_FILE, UNCERTAINTY_FILE

_SAME_PLACE_MM = 0.01


def read_result(folder: str | Path) -> tuple[SynthesisResult, dict]:
    """The result in a folder that ``write_result`` wrote, and the content of its ``result.json``.

    Files that another program saved anew are read as long as every voxel is the same and lies where it did.

    Raises InputError when the folder holds no result, or one whose files are missing, damaged or were changed.
    """
    folder = Path(folder)
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        grid = reference_grid(document)
        outputs, files = document["outputs"], set(document["files"])
        facts = [(o["sequence"], o["prompt"], o["mean_uncertainty"], o["uncertainty_calibrated"],
                  tuple(o["interval_factors"].values())) for o in outputs]
        names = {entry["name"] for entry in document["segments"] or ()}
        model, sources = document["weights"], tuple(source["sequence"] for source in document["sources"])
        model["name"], model["version"], model["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder.name} holds no results of NPCSynth (its {MANIFEST} is missing or damaged). Give the folder that "
            "npcsynth synthesize wrote."
        ) from error
    told = [output.get(key) for output in outputs for key in ("voxels_sha256", "uncertainty_voxels_sha256")]
    if None in told or (SEGMENTATION_FILE in files and document.get("segmentation_voxels_sha256") is None):
        raise InputError(
            f"{MANIFEST} in {folder.name} lacks the SHA-256 of the voxels, so that nobody can tell whether the results "
            "were changed since: an earlier NPCSynth wrote it. Synthesize again."
        )
    sequences = tuple(
        SynthesizedSequence(
            sequence, _image(folder / IMAGE_FILE.format(sequence), grid, output["voxels_sha256"]),
            _image(folder / UNCERTAINTY_FILE.format(sequence), grid, output["uncertainty_voxels_sha256"]), *told,
        )
        for output, (sequence, *told) in zip(outputs, facts, strict=True)
    )  # fmt: skip
    segmentation = None
    if SEGMENTATION_FILE in files:
        segmentation = _segmentation(folder / SEGMENTATION_FILE, grid, names, document["segmentation_voxels_sha256"])
    result = SynthesisResult(grid, sequences, segmentation, sources, model, str(document.get("device", "")))
    return result, document


def _image(path: Path, grid: Grid, sha256: str) -> np.ndarray:
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path.name} is missing or damaged. Synthesize again.") from error
    array = sitk.GetArrayFromImage(image)
    as_written = (
        array.ndim == image.GetDimension() == 3
        and Grid.from_parts(array.shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
        .matches(grid, _SAME_PLACE_MM)
        and voxels_sha256(array) == sha256
    )  # fmt: skip
    if not as_written:
        raise InputError(
            f"{path.name} was changed since it was written, so that it is no longer what the network proposed. "
            "Synthesize again."
        )
    return array.astype(np.float32).astype(np.int16)  # saved anew, they may be fractions of another type


def _segmentation(path: Path, grid: Grid, names: set[str], sha256: str) -> SegmentationResult:
    try:
        content = slicerio.read_segmentation(str(path))
        voxels = np.asarray(content["voxels"]).T  # (k, j, i, layer); without the last where there is one layer
        voxels = voxels.reshape(*voxels.shape[:3], -1)
        voxels = _on_grid(voxels, np.asarray(content["ijkToLPS"], float), grid)
        drawn = {s["name"].removesuffix(PREDICTED): _drawn(voxels, s.get("layer", 0), s["labelValue"])
                 for s in content["segments"]}  # fmt: skip
    except Exception as error:  # of many types: pynrrd and slicerio do not agree on one
        raise InputError(f"{path.name} is missing or damaged. Synthesize again.") from error
    structures = [s for s in load_structures() if s.name in names]
    labelmap, external = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, bool)
    as_written = len(content["segments"]) == len(structures) and drawn.keys() == {s.name for s in structures}
    for structure in structures if as_written else ():
        if structure.label:
            labelmap[drawn[structure.name]] = structure.label
        else:
            external = drawn[structure.name]
    if not as_written or voxels_sha256(labelmap, external) != sha256:
        raise InputError(
            f"{path.name} was changed since it was written, so that it is no longer what the network proposed. "
            "Corrected contours cannot be exported as proposals. Synthesize again, or draw your own in a new "
            "segmentation."
        )
    segments = tuple(Segment(s.name, s.label, s.color, s.code) for s in structures)
    return SegmentationResult(labelmap, external, segments)


def _drawn(voxels: np.ndarray, layer: int, label: int) -> np.ndarray:
    """(k, j, i) bool mask of a segment; nothing where its layer is not there: 3D Slicer saves no empty ones."""
    if layer >= voxels.shape[3]:
        return np.zeros(voxels.shape[:3], bool)
    return voxels[..., layer] == label


def _on_grid(voxels: np.ndarray, matrix: np.ndarray, grid: Grid) -> np.ndarray:
    """The layers (k, j, i, layer) on the whole grid, without any when they are not a part of it.

    3D Slicer saves no more of a segmentation than the box that is not empty.
    """
    start = np.rint(np.linalg.solve(grid.ijk_to_lps, matrix)[:3, 3]).astype(int)
    place = grid.ijk_to_lps.copy()
    place[:, 3] = grid.ijk_to_lps @ [*start, 1]
    shape, first = voxels.shape[:3], start[::-1]
    last = first + shape
    inside = (first >= 0).all() and (last <= grid.shape).all()
    if not inside or not Grid(shape, matrix).matches(Grid(shape, place), _SAME_PLACE_MM):
        return np.zeros((*grid.shape, 0), voxels.dtype)
    whole = np.zeros((*grid.shape, voxels.shape[3]), voxels.dtype)
    whole[first[0] : last[0], first[1] : last[1], first[2] : last[2]] = voxels
    return whole
