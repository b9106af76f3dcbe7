"""Labels of a patient, each on the image that it was drawn on; what does not sit on an image is told and left out."""

from collections.abc import Callable, Mapping

import numpy as np

from ..errors import InputError
from ..study.align import overlap
from ..study.contours import read_contours
from ..study.read import read_file
from ..study.volume import Volume
from ..vocabulary import PREDICTED
from .layouts import LabelFile, PatientFiles
from .mask_orientation import place_mask


def read_labels(
    files: PatientFiles, volumes: Mapping[str, Volume], note: Callable[[str], None]
) -> list[tuple[str | None, Volume]]:
    """The labels that can be used.

    Args:
        volumes: sequence id -> volume, those of ``files.images`` that could be read.
        note: takes a sentence for each label that is not used, or not as its header says.

    Returns:
        (sequence that it was drawn on, or None where it lies by its coordinates; uint8 volume, above 0 inside).
    """
    labels = []
    for label in files.labels:
        try:
            labels.append(_read_label(label, volumes, lambda text: note(f"{files.name}: {text}")))
        except InputError as error:
            note(f"{files.name}: {label.path.name} is not used: {error}")
    return labels


def _read_label(label: LabelFile, volumes, note) -> tuple[str | None, Volume]:
    if label.is_contours:
        return _tumors(label, volumes, note)
    mask = read_file(label.path)
    if label.of is None:
        if not (mask.array > 0).any():
            raise InputError("it is empty.")
        if not any(overlap(mask.grid, volume.grid) for volume in volumes.values()):
            raise InputError("it lies on a grid that does not overlap any image.")
        return None, Volume((mask.array > 0).astype(np.uint8), mask.grid, mask.name)
    if label.of not in volumes:
        raise InputError(f"its image, {label.of}, is not used.")
    placement = place_mask(mask, volumes[label.of])
    if placement.doubt:
        raise InputError(placement.doubt)
    if not placement.by_header:
        note(f"{label.path.name} is used {placement.how}, which is how it sits on {label.of} "
             f"({placement.confidence:.0%} sure); its header says otherwise.")
    return label.of, Volume(placement.mask.astype(np.uint8), volumes[label.of].grid, mask.name)


def _tumors(
    label: LabelFile, volumes: Mapping[str, Volume], note: Callable[[str], None]
) -> tuple[str, Volume]:
    """All gross tumor volumes of a DICOM RTSTRUCT or SEG, on the image that it refers to."""
    reasons, contours, sequence = [], None, None
    for candidate, volume in volumes.items():
        try:
            contours, sequence = read_contours(label.path, volume), candidate
            break
        except InputError as error:
            reasons.append(str(error))
    if contours is None:
        raise InputError(reasons[0] if reasons else "no image is used that it could lie on.")
    referred = [s for s, volume in volumes.items() if volume.metadata.get("SeriesInstanceUID") in contours.series_uids]
    if referred and sequence not in referred:
        sequence = referred[0]
        contours = read_contours(label.path, volumes[sequence])
    for sentence in contours.notes:
        note(f"{label.path.name}: {sentence}")
    tumors = [one.mask for one in contours.structures
              if one.name.upper().startswith("GTV") and not one.original_name.endswith(PREDICTED)]
    if not tumors:
        raise InputError("it holds no structure called GTV.")
    return sequence, Volume(np.logical_or.reduce(tumors).astype(np.uint8), volumes[sequence].grid, label.path.name)
