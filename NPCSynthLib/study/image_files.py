"""Image files other than DICOM: NIfTI, NRRD and MetaImage, through SimpleITK."""

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..vocabulary import load_sequences
from .volume import Volume, from_sitk

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_NIFTI = re.compile(r"(?i)^(?P<stem>.+)\.nii(\.gz)?$")


def nifti_files(folder: Path) -> dict[str, Path]:
    """Name without ".nii" or ".nii.gz" -> file, of what lies in a folder and is not hidden."""
    files = {path: _NIFTI.match(path.name) for path in sorted(folder.glob("*")) if path.is_file()}
    return {match["stem"]: path for path, match in files.items() if match and not path.name.startswith(".")}


def sequence_files(folder: Path) -> dict[str, Path]:
    """Sequence id -> file of that name ("T1.nii.gz", "t1c.nii"), in the vocabulary's order."""
    found = {stem.lower(): path for stem, path in nifti_files(folder).items()}
    return {sequence: found[sequence.lower()] for sequence in load_sequences() if sequence.lower() in found}


def made_by_npcsynth(path: Path) -> bool:
    """True when an image file says of itself that it is synthetic: NPCSynth writes so into every header."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False  # not an image: whoever reads it will say so
    return _says_synthetic(reader)


def _says_synthetic(reader) -> bool:
    notes = [reader.GetMetaData(k) for k in ("ITK_FileNotes", "descrip") if reader.HasMetaDataKey(k)]
    return any(note.strip().startswith("SYNTHETIC") for note in notes)


def read_image_file(path: Path) -> Volume:
    """A float32 (k, j, i) volume from one NIfTI, NRRD or MetaImage file. Raises InputError naming the file."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    _check_text_header(path)
    try:
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        _check_shape(path.name, size, components, sitk.GetPixelIDValueAsString(reader.GetPixelID()))
        if _says_synthetic(reader):
            raise InputError(
                f"{path.name} was synthesized by NPCSynth, not acquired. Give the acquired image, or leave it out.")
        if ".nii" in path.name.lower():
            _check_nifti_complete(path)
        image = reader.Execute()
    except (RuntimeError, OSError, EOFError, ValueError, OverflowError, zlib.error, struct.error) as error:
        if "orthonormal" in str(error):
            raise InputError(f"{path.name} has axes that are not perpendicular (sheared). Resample it first, for "
                             "example in Slicer.") from error
        raise InputError(f"{path.name} cannot be read: it is damaged, cut short or not what its name says. Export or "
                         "copy it again.") from error
    while image.GetDimension() > 3:
        image = image[..., 0]
    metadata = {"source_path": str(path)}
    if image.GetPixelID() in (sitk.sitkUInt8, sitk.sitkInt8):
        metadata["BitsStored"] = 8.0
    keys = {k: reader.GetMetaData(k) for k in ("qform_code", "sform_code") if reader.HasMetaDataKey(k)}
    if keys and not any(value.strip() not in ("", "0") for value in keys.values()):
        metadata["orientation_missing"] = "YES"
    volume = from_sitk(image, path.name, metadata)
    return Volume(volume.array.astype(np.float32), volume.grid, volume.name, volume.metadata)


def _check_nifti_complete(path: Path) -> None:
    """Raises EOFError or OSError when the file holds fewer bytes than its header says: ITK reads zeros instead."""
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
        header = file.read(540)
        order = "<" if header[:4] in (b"\x5c\x01\0\0", b"\x1c\x02\0\0") else ">"
        # Offsets of bits a voxel, dimensions and start of the voxels: NIfTI-1 (348 bytes) or NIfTI-2 (540 bytes).
        if struct.unpack(order + "i", header[:4])[0] == 540:
            (bits,), dims = struct.unpack_from(order + "h", header, 14), struct.unpack_from(order + "8q", header, 16)
            (start,) = struct.unpack_from(order + "q", header, 168)
        else:
            (bits,), dims = struct.unpack_from(order + "h", header, 72), struct.unpack_from(order + "8h", header, 40)
            (start,) = struct.unpack_from(order + "f", header, 108)
        needed = int(start) + int(np.prod([max(d, 1) for d in dims[1 : dims[0] + 1]], dtype=np.int64)) * bits // 8
        length = len(header)
        while chunk := file.read(1 << 20):
            length += len(chunk)
    if length < needed:
        raise EOFError(f"{length} of {needed} bytes")


def _check_text_header(path: Path) -> None:
    """Raises InputError where a NRRD or MetaImage header takes its voxels from outside of its folder, or claims so many
    dimensions that ITK crashes.
    """
    if ".nii" in path.name.lower():
        return
    with open(path, "rb") as file:
        lines = file.read(1 << 16).split(b"\n")
    for line in lines:
        dimensions = re.match(rb"(?i)(?:NDims\s*=|dimension:)\s*(\d+)", line)
        if dimensions and int(dimensions[1][:9]) > 10:
            raise InputError(f"{path.name} cannot be read: its header is damaged. Export or copy it again.")
        name = re.match(rb"(?i)(?:ElementDataFile\s*=|data ?file:)\s*(\S*)", line)
        if name and (name[1].startswith((b"/", b"\\")) or b".." in name[1] or b":" in name[1]):
            raise InputError(f"{path.name} takes its voxels from a file outside of its folder. Put both into one "
                             "folder, or save it as one file.")


def _check_shape(name: str, size: tuple, components: int, pixel_type: str) -> None:
    if components > 1:
        raise InputError(f"{name} has {components} values a voxel (color or vector). Give a gray-scale image.")
    if "complex" in pixel_type:
        raise InputError(f"{name} holds complex values. Give the magnitude image.")
    if len(size) > 3 and max(size[3:]) > 1:
        raise InputError(f"{name} has four dimensions ({' x '.join(map(str, size))}). Give one volume for each "
                         "sequence.")
    if len(size) < 3 or min(size[:3]) < 2:
        raise InputError(f"{name} is a single slice ({' x '.join(map(str, size))}). Give the whole volume.")
