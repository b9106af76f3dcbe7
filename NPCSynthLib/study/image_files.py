"""Image files other than DICOM: NIfTI, NRRD and MetaImage, through SimpleITK."""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..vocabulary import load_sequences
from .check import refuse_not_numbers
from .volume import Volume, from_sitk

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_SYNTHETIC_NAME = re.compile(r"(?i)(?<![a-z])synth(etic)?(?![a-z])")
_NIFTI = re.compile(r"(?i)^(?P<stem>.+)\.nii(\.gz)?$")
#: Field of a NIfTI-1 header -> (format, offset). ITK reads no NIfTI-2.
_FIELDS = {
    "sizeof_hdr": ("i4", 0), "dim": ("8i2", 40), "datatype": ("i2", 70), "bitpix": ("i2", 72), "pixdim": ("8f4", 76),
    "vox_offset": ("f4", 108), "qform_code": ("i2", 252), "sform_code": ("i2", 254), "quatern": ("3f4", 256),
    "qoffset": ("3f4", 268), "srow": ("(3,4)f4", 280),
}  # fmt: skip
_HEADER = np.dtype({
    "names": list(_FIELDS), "formats": [f for f, _ in _FIELDS.values()], "offsets": [o for _, o in _FIELDS.values()],
    "itemsize": 348,
})  # fmt: skip
#: NIfTI's number of a type -> type, of those that can hold what is no number.
_FLOATS = {16: "f4", 64: "f8"}


def nifti_files(folder: Path) -> dict[str, Path]:
    """Name without ".nii" or ".nii.gz" -> file, of what lies in a folder and is not hidden."""
    files = {path: _NIFTI.match(path.name) for path in sorted(folder.glob("*")) if path.is_file()}
    return {match["stem"]: path for path, match in files.items() if match and not path.name.startswith(".")}


def sequence_files(folder: Path) -> dict[str, Path]:
    """Sequence id -> file of that name ("T1.nii.gz", "t1c.nii"), in the vocabulary's order."""
    found = {stem.lower(): path for stem, path in nifti_files(folder).items()}
    return {sequence: found[sequence.lower()] for sequence in load_sequences() if sequence.lower() in found}


def named_synthetic(name: str) -> bool:
    """Whether the name of a file or a node says that it is synthetic, as the names of all results do."""
    return _SYNTHETIC_NAME.search(name) is not None


def made_by_npcsynth(path: Path) -> bool:
    """True when an image file says that it is synthetic: NPCSynth writes so into every name and every header."""
    import SimpleITK as sitk

    if named_synthetic(path.name):
        return True
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


def read_image_file(path: Path, labels: bool = False) -> Volume:
    """A float32 (k, j, i) volume from one NIfTI, NRRD or MetaImage file.

    Args:
        labels: whether it is to be read as contours, which may be a program's.

    Raises InputError naming the file.
    """
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
        if named_synthetic(path.name) and not labels:
            raise InputError(f"{path.name} says in its name that it was synthesized, not acquired. Give the acquired "
                             "image, or leave it out; if the name is wrong, rename the file.")
        if ".nii" in path.name.lower():
            _check_nifti(path)
        image = reader.Execute()
    except (RuntimeError, OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
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


def _check_nifti(path: Path) -> None:
    """What ITK is silent about.

    Raises InputError when the file gives two different orientations, of which ITK takes one, or holds NaN or infinite
    values; EOFError, OSError or ValueError when it holds fewer bytes than its header says, or no such header. ITK gives
    zeros in place of both.
    """
    with _opened(path) as file:
        header, order = _nifti_header(file)
        _check_one_orientation(path.name, header)
        dims = header["dim"].tolist()
        needed = int(np.prod([max(d, 1) for d in dims[1 : dims[0] + 1]], dtype=np.int64)) * int(header["bitpix"]) // 8
        file.seek(max(int(header["vox_offset"]), _HEADER.itemsize))  # where ITK begins, too
        kind = _FLOATS.get(int(header["datatype"]))
        length, bad = 0, 0
        while piece := file.read(1 << 20):
            if kind:
                voxels = np.frombuffer(piece[: max(needed - length, 0)], order + kind)  # not what follows them
                bad += int(np.count_nonzero(~np.isfinite(voxels)))
            length += len(piece)
    if length < needed:
        raise EOFError(f"{length} of {needed} bytes")
    refuse_not_numbers(path.name, bad)


def check_orientation(path: Path) -> None:
    """For an image that somebody else has read: raises InputError when its file is NIfTI and gives two different
    orientations, of which ITK takes one."""
    if not _NIFTI.match(path.name):
        return
    try:
        with _opened(path) as file:
            header, _ = _nifti_header(file)
    except (OSError, EOFError, ValueError, zlib.error):
        return  # gone, or replaced by something else
    _check_one_orientation(path.name, header)


def _opened(path: Path):
    return (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb")


def _nifti_header(file) -> tuple[np.void, str]:
    """The header at the beginning of a file, and its byte order; ValueError when there is none."""
    content = file.read(_HEADER.itemsize)
    order = "<" if content[:4] == b"\x5c\x01\0\0" else ">"
    header = np.frombuffer(content, _HEADER.newbyteorder(order), count=1)[0]
    if header["sizeof_hdr"] != _HEADER.itemsize:
        raise ValueError("no NIfTI-1 header")
    return header, order


def _check_one_orientation(name: str, header: np.void) -> None:
    """Raises InputError when qform and sform put a corner of the image at different places, or a lone sform has other
    voxel sizes than pixdim, which is what ITK takes.

    A qform as it is stored knows a rotation near half a turn to a thousandth of a radian only: so much more is allowed
    the farther a corner is from the first voxel.
    """
    if header["sform_code"] <= 0:
        return
    sform = header["srow"].astype(float)
    lengths = np.linalg.norm(sform[:, :3], axis=0)
    other = _qform(header) if header["qform_code"] > 0 else sform * [*(_voxel_size(header) / lengths), 1]
    last = header["dim"][1:4].astype(float) - 1
    corners = np.array([(i, j, k, 1) for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])]).T
    apart = np.linalg.norm((other - sform) @ corners, axis=0)
    reach = np.linalg.norm(sform[:, :3] @ corners[:3], axis=0)
    if not (apart <= 0.1 * lengths.min() + 0.0015 * reach).all():
        raise InputError(f"{name} gives two different orientations or voxel sizes (its qform, sform and pixdim do not "
                         "agree), and nothing tells which is right. Convert it again from DICOM, or check left and "
                         "right in a program that writes them alike, for example Slicer, and save it from there.")


def _qform(header: np.void) -> np.ndarray:
    """(3, 4) voxel (i, j, k, 1) to RAS mm, by the quaternion."""
    b, c, d = header["quatern"].astype(float)
    a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
    a, b, c, d = np.array([a, b, c, d]) / np.linalg.norm([a, b, c, d])
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])
    size = _voxel_size(header) * (1, 1, -1 if header["pixdim"][0] < 0 else 1)
    return np.column_stack([rotation * size, header["qoffset"]])


def _voxel_size(header: np.void) -> np.ndarray:
    """(3,) in mm along (i, j, k), 1 where there is none."""
    size = header["pixdim"][1:4].astype(float)
    return np.where(size > 0, size, 1)


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
