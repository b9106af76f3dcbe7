"""Reference contours in: RTSTRUCT, DICOM SEG, ``.seg.nrrd`` and label files become masks on the image's grid."""

from pathlib import Path

from ..errors import InputError
from ..vocabulary import PREDICTED
from .contours_dicom import read_rtstruct, read_seg
from .contours_files import read_label_image, read_segmentation_file
from .contours_structures import ReferenceContours, ReferenceStructure, made_by_program, named_apart
from .headers import looks_like_dicom, read_header
from .read import IMAGE_SUFFIXES
from .volume import Volume

__all__ = ["ReferenceContours", "ReferenceStructure", "read_contours"]

_KINDS = "a DICOM RTSTRUCT or SEG, a .seg.nrrd or a label image (.nii, .nii.gz, .nrrd, .mha)"
_RTSTRUCT, _SEG = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.66.4"
_LABELMAP_SEG = "1.2.840.10008.5.1.4.1.1.66.7"


def read_contours(path, image: Volume) -> ReferenceContours:
    """Read the structures of a file onto the grid of an image.

    Contours of an RTSTRUCT are filled as ``contours_raster`` says; masks on another grid take the nearest voxel.

    Args:
        path: RTSTRUCT or SEG (known by content), ``.seg.nrrd``, or an image of labels: with one label the structure is
            called as the file, with several "Label 1", "Label 2" …
        image: the image that the contours belong to, as ``study.read`` gives it.

    Raises:
        InputError: the file is missing, damaged or of another kind; it lies in another frame of reference than the
            image; or it holds no structure that can be used.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path.name} does not exist, or is a folder. Give the file that holds the contours.")
    if path.name.lower().endswith((".seg.nrrd", ".seg.nhdr")):
        return _finished(path, image, *read_segmentation_file(path, image))
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return _finished(path, image, *read_label_image(path, image))
    dataset = read_header(path) if looks_like_dicom(path) else None
    kind = str(dataset.get("SOPClassUID", "")) if dataset is not None else ""
    left_out = []
    if kind == _RTSTRUCT:
        structures, frame, series_uids, notes, left_out = read_rtstruct(dataset, path, image)
    elif kind in (_SEG, _LABELMAP_SEG):
        structures, frame, series_uids, notes = read_seg(path, image)
    else:
        raise InputError(f"{path.name} does not hold contours, or is damaged. Give {_KINDS}.")
    if str(dataset.get("SyntheticData", "")) == "YES":
        notes.append(made_by_program(path))
    return _finished(path, image, structures, frame, series_uids, notes, left_out)


def _finished(path: Path, image: Volume, structures, frame, series_uids, notes, left_out=()) -> ReferenceContours:
    notes = [*notes, *(why for _, why in left_out)]
    if not structures:
        reasons = " " + " ".join(notes) if notes else ""
        raise InputError(f"{path.name} holds no contours that can be used.{reasons} Export it again.")
    predicted = tuple(one.original_name for one in structures if one.original_name.endswith(PREDICTED))
    if predicted and made_by_program(path) not in notes:  # its header was lost on the way
        notes.append(made_by_program(path, predicted))
    unique, told = named_apart(structures, path.name)
    return ReferenceContours(
        unique, image.grid, frame, tuple(series_uids), tuple(dict.fromkeys([*notes, *told])), tuple(left_out))
