"""Damaged image folders, each made from a seed, and what the reader must do with every one of them.

A case is a small good folder (classic, enhanced, compressed or implicit DICOM, NIfTI, NRRD, MetaImage) in which one or
more files were damaged: bytes, lengths, tags, values, or what files say about each other.
"""

import struct
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from test_read import compress, enhanced_file, stored_pixels, tilted_grid, write_series

from NPCSynthLib.errors import InputError
from NPCSynthLib.study.read import list_series, read_file, read_folder

#: A case must be over within this many seconds of processor time.
TIME_LIMIT_S = 5.0
#: Memory that a case may take: twice its files, with a floor for what libraries load and keep.
MEMORY_FLOOR = 64 * 2**20

#: Values that no reader expects, as they stand in the file.
BAD_VALUES = (
    b"", b"nan", b"NaN\\nan\\NaN", b"inf\\-inf\\1", b"0", b"0\\0", b"0\\0\\0", b"-1", b"1e308\\1e308\\1e308", b"1e-320",
    b"abc", b"1\\2", b"1\\2\\3\\4\\5\\6\\7", b"\\\\\\\\", b"1,5\\2,5", b" ", b"\0\0", b"99999999999999999999", b"1.2.3",
    b"../../../etc/passwd", b"C:\\Windows\\x", b"\\\\server\\share", b"/dev/zero", b"file:///etc/passwd", b"%s%n",
    b"{0}", b"\x1b[31mred\x07", b"\xff\xfe\xfd", "鼻咽\\部".encode(), b"A" * 70000, b"\xc2\xb2", b"1\\0\\0\\1\\0\\0",
    b"2\\0\\0\\0\\2\\0",
    b"T1\\T2\\FLAIR", b"[bold]x[/bold]", b"'; DROP TABLE", b"=1+1",
)
NUMBERS = (0, 1, 2, 7, 255, 256, 4096, 32767, 32768, 65535)
KEYWORDS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
    "Modality", "ImageType", "SeriesDescription", "ProtocolName", "EchoTime", "RepetitionTime", "InversionTime",
    "FlipAngle", "InstanceNumber", "SeriesNumber", "AcquisitionNumber", "TriggerTime", "TemporalPositionIdentifier",
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "StudyDate", "PhotometricInterpretation",
    "NumberOfFrames", "ScanningSequence", "ContrastBolusAgent", "BodyPartExamined", "EchoNumbers", "DiffusionBValue",
)
SHORTS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")
IDENTITIES = ("Doe", "Jane", "4711")


@dataclass(frozen=True)
class Outcome:
    """What the reader did with one case: ``problem`` is "" when it kept its promises."""

    mutation: str
    answer: str
    seconds: float
    memory: int
    problem: str


@lru_cache(maxsize=1)
def good_folders() -> dict[str, dict[str, bytes]]:
    """Name -> {file name: content} of folders that the reader reads."""
    folders = {}
    with tempfile.TemporaryDirectory() as name:
        root, grid = Path(name), tilted_grid((5, 16, 12))
        write_series(root / "classic", grid=grid)
        for compressor in ("RLE", "JPEG", "JPEG2000"):
            write_series(root / compressor, grid=grid)
            for path in [p for p in (root / compressor).rglob("*") if p.is_file()]:
                compress(path, compressor, False)
        write_series(root / "implicit", grid=grid)
        for path in [p for p in (root / "implicit").rglob("*") if p.is_file()]:
            ds = pydicom.dcmread(path)
            ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            ds.save_as(path, implicit_vr=True, little_endian=True)
        stored = stored_pixels(grid.shape)
        enhanced_file(root / "enhanced" / "x.dcm", grid, {15.0: stored, 95.0: stored[::-1]}, {1: 2.0})
        image = sitk.GetImageFromArray(stored.astype(np.int16))
        image.SetSpacing((0.7, 1.3, 4.5))
        for suffix in ("nii", "nii.gz", "nrrd", "mha"):
            (root / suffix).mkdir()
            sitk.WriteImage(image, str(root / suffix / f"T1.{suffix}"))
        for folder in root.iterdir():
            folders[folder.name] = {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return folders


def damage(seed: int) -> tuple[str, dict[str, bytes]]:
    """(what was done, {file name: content}) of one case; the same seed gives the same case."""
    rng = np.random.default_rng([seed, 77])
    folders = good_folders()
    kinds = sorted(folders)
    kind = kinds[seed % len(kinds)]
    files = dict(folders[kind])
    is_dicom = "." not in next(iter(files)) or kind == "enhanced"
    actions = [_truncate, _flip, _blank, _insert, _remove, _repeat, _lengths, _swap_words, _junk_after]
    if is_dicom:
        actions += [_value, _value, _value, _short, _short, _without, _syntax, _charset, _shared_values, _nested]
    else:
        actions += [_text_header, _text_header, _text_header]
    action = actions[(seed // len(kinds)) % len(actions)]
    chosen = list(files) if rng.random() < 0.3 else [str(rng.choice(list(files)))]
    if action is _shared_values:
        return f"{kind}: {action.__name__}", _shared_values(rng, files)
    draw = int(rng.integers(2**31))
    for name in chosen:
        # One draw for all files: where all are damaged they are damaged alike.
        files[name] = action(np.random.default_rng(draw), files[name])
    return f"{kind}: {action.__name__} in {len(chosen)} of {len(files)} files", files


def run(seed: int, folder: Path) -> Outcome:
    """Write the case into an empty folder, read it in every way, and judge what comes of it."""
    mutation, files = damage(seed)
    for n, (name, content) in enumerate(files.items()):
        (folder / str(n % 2)).mkdir(exist_ok=True)
        (folder / str(n % 2) / name).write_bytes(content)
    _reset_peak()
    before, start = _resident(), time.process_time()
    problems, answers = [], []
    single = [p for p in folder.rglob("*") if p.is_file()][:1]
    for read, paths in ((list_series, [folder]), (read_folder, [folder]), (read_file, single)):
        for path in paths:
            try:
                found = read(path)
            except InputError as error:
                answers.append("refused whole")
                sentences = [str(error)]
            except Exception as error:
                answers.append("crash")
                problems.append(f"{read.__name__} raised {type(error).__name__}: {str(error)[:200]}")
                continue
            else:
                answers.append("read")
                sentences = []
                if read is read_folder:
                    sentences = [reason for _, reason in found.refused] + list(found.warnings)
                elif read is list_series:
                    sentences = [entry.identification.reason for entry in found]
            problems += [f"{read.__name__} said: {s[:200]!r}" for s in sentences if not _is_clear(s, folder)]
    seconds = time.process_time() - start
    memory = max(0, _peak() - before)
    allowed = max(MEMORY_FLOOR, 2 * sum(map(len, files.values())))
    if seconds > TIME_LIMIT_S:
        problems.append(f"took {seconds:.1f} s")
    if memory > allowed:
        problems.append(f"took {memory / 2**20:.0f} MiB for {sum(map(len, files.values())) / 2**20:.2f} MiB of files")
    return Outcome(mutation, answers[1], seconds, memory, "; ".join(problems))


def _is_clear(sentence: str, folder: Path) -> bool:
    """A sentence for a person: words, printable, not endless, without identity, internal names or the folder's path."""
    foreign = ("Traceback", "Error(", "object at 0x", "errno", "NoneType", str(folder), *IDENTITIES)
    return len(sentence.split()) >= 3 and len(sentence) < 1500 and sentence.isprintable() and not any(
        word in sentence for word in foreign)


# --- bytes -----------------------------------------------------------------------------------------------------------

def _truncate(rng, data: bytes) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def _flip(rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 20))):
        changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
    return bytes(changed)


def _blank(rng, data: bytes) -> bytes:
    start = int(rng.integers(len(data)))
    count = int(rng.integers(1, 200))
    return data[:start] + bytes([int(rng.choice([0, 255]))]) * len(data[start : start + count]) + data[start + count :]


def _insert(rng, data: bytes) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + rng.bytes(int(rng.integers(1, 300))) + data[start:]


def _remove(rng, data: bytes) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 300)) :]


def _repeat(rng, data: bytes) -> bytes:
    start = int(rng.integers(len(data)))
    piece = data[start : start + int(rng.integers(8, 400))]
    return data[:start] + piece * int(rng.integers(2, 5)) + data[start:]


def _lengths(rng, data: bytes) -> bytes:
    """Change length fields: of explicit elements where there are some, else of any four bytes."""
    changed = bytearray(data)
    upper = range(ord("A"), ord("Z") + 1)
    places = [n for n in range(132, min(len(data) - 8, 4000)) if data[n] in upper and data[n + 1] in upper]
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.choice(places)) + 2 if places else int(rng.integers(max(len(data) - 4, 1)))
        if rng.random() < 0.5:
            changed[start : start + 2] = struct.pack("<H", int(rng.choice([0, 1, 3, 255, 4097, 65534, 65535])))
        else:
            length = int(rng.choice([0, 1, 2**16, 2**31, 2**32 - 2, 2**32 - 1]))
            changed[start + 2 : start + 6] = struct.pack("<I", length)
    return bytes(changed)


def _swap_words(rng, data: bytes) -> bytes:
    """Swap two pairs of bytes near each other: tags, representations or values change places."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        a = int(rng.integers(0, max(min(len(data) - 60, 3000), 1))) // 2 * 2
        b = a + int(rng.integers(1, 16)) * 2
        changed[a : a + 2], changed[b : b + 2] = changed[b : b + 2], changed[a : a + 2]
    return bytes(changed)


def _junk_after(rng, data: bytes) -> bytes:
    return data + (rng.bytes(3000) if rng.random() < 0.5 else b"\0" * 40000)


# --- DICOM values ----------------------------------------------------------------------------------------------------

def _dicom(data: bytes):
    from io import BytesIO

    return pydicom.dcmread(BytesIO(data))


def _bytes(ds) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    pydicom.dcmwrite(buffer, ds)
    return buffer.getvalue()


def _put(ds, keyword: str, value: bytes) -> None:
    """The value goes into the file as it is, unchecked."""
    tag, syntax = Tag(keyword), ds.file_meta.TransferSyntaxUID
    value = value[:60000] + b" " * (len(value[:60000]) % 2)
    representation = pydicom.datadict.dictionary_VR(tag).split(" ")[0]
    ds[tag] = RawDataElement(tag, representation, len(value), value, 0, syntax.is_implicit_VR, True)


def _value(rng, data: bytes) -> bytes:
    ds = _dicom(data)
    for _ in range(int(rng.integers(1, 3))):
        _put(ds, str(rng.choice(KEYWORDS)), BAD_VALUES[int(rng.integers(len(BAD_VALUES)))])
    return _bytes(ds)


def _short(rng, data: bytes) -> bytes:
    """Dimensions and bit depths, huge ones too."""
    ds = _dicom(data)
    for keyword in rng.choice(SHORTS, int(rng.integers(1, 4)), replace=False):
        _put(ds, str(keyword), struct.pack("<H", int(rng.choice(NUMBERS))))
    if rng.random() < 0.4:
        _put(ds, "NumberOfFrames", str(int(rng.choice([0, -3, 2, 5, 10**6, 2**31 - 1]))).encode())
    return _bytes(ds)


def _without(rng, data: bytes) -> bytes:
    ds = _dicom(data)
    present = [element.tag for element in ds]
    for tag in rng.permutation(len(present))[: int(rng.integers(1, 5))]:
        del ds[present[int(tag)]]
    return _bytes(ds)


def _syntax(rng, data: bytes) -> bytes:
    """Pixels and header encoded otherwise than the file says."""
    start = data.index(b"\x02\x00\x10\x00UI")
    length = struct.unpack("<H", data[start + 6 : start + 8])[0]
    choices = (b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99",
               b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.5",
               b"1.2.840.10008.1.2.4.102", b"9.9.9", b"")
    value = choices[int(rng.integers(len(choices)))][:length].ljust(length, b"\0")
    return data[: start + 8] + value + data[start + 8 + length :]


def _charset(rng, data: bytes) -> bytes:
    ds = _dicom(data)
    sets = (b"ISO_IR 192", b"ISO_IR 100\\ISO 2022 IR 87", b"GB18030", b"nonsense", b"\\ISO 2022 IR 149", b"ISO_IR 13",
            b"utf8")
    for keyword in ("SeriesDescription", "PatientName", "StudyDescription", "InstitutionName"):
        _put(ds, keyword, bytes(rng.integers(27, 256, int(rng.integers(1, 60))).astype(np.uint8)))
    _put(ds, "SpecificCharacterSet", sets[int(rng.integers(len(sets)))])
    return _bytes(ds)


def _nested(rng, data: bytes) -> bytes:
    """Functional groups cut, emptied, or nested without end; in classic files sequences that do not belong there."""
    ds = _dicom(data)
    choice = int(rng.integers(5))
    if choice == 0 or "PerFrameFunctionalGroupsSequence" not in ds:
        return _deep(ds.file_meta.TransferSyntaxUID.is_implicit_VR, int(rng.choice([3, 300, 3000])), data)
    if choice == 1:
        del ds.PerFrameFunctionalGroupsSequence[int(rng.integers(4)) :]
    elif choice == 2:
        ds.PerFrameFunctionalGroupsSequence[int(rng.integers(8))] = pydicom.Dataset()
    elif choice == 3:
        ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence = []
    else:
        place = ds.PerFrameFunctionalGroupsSequence[int(rng.integers(8))].PlanePositionSequence[0]
        _put_into(place, BAD_VALUES[int(rng.integers(len(BAD_VALUES)))])
    return _bytes(ds)


def _deep(implicit: bool, depth: int, data: bytes) -> bytes:
    """A sequence within a sequence within …, none of which says how long it is."""
    sequence = b"\x00\x52\x29\x92" + (b"" if implicit else b"SQ\0\0") + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    place = data.rindex(b"\xe0\x7f\x10\x00")
    return data[:place] + sequence * depth + end * depth + data[place:]


def _put_into(place, value: bytes) -> None:
    tag = Tag("ImagePositionPatient")
    value = value[:60000] + b" " * (len(value[:60000]) % 2)
    place[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)


def _shared_values(rng, files: dict[str, bytes]) -> dict[str, bytes]:
    """Files that contradict each other: one value given to all of them, or another to one."""
    keyword = str(rng.choice(("SOPInstanceUID", "ImagePositionPatient", "InstanceNumber", "ImageOrientationPatient",
                              "PixelSpacing", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "EchoTime",
                              "StudyInstanceUID", "SeriesDescription")))
    parts = {name: _dicom(content) for name, content in files.items()}
    names = list(parts)
    source = parts[names[0]].get(keyword)
    some = names if rng.random() < 0.5 else names[: int(rng.integers(1, len(names) + 1))]
    for name in some:
        if rng.random() < 0.5 and source is not None:
            setattr(parts[name], keyword, source)
        else:
            _put(parts[name], keyword, BAD_VALUES[int(rng.integers(len(BAD_VALUES)))])
    return {name: _bytes(ds) for name, ds in parts.items()}


# --- other files -----------------------------------------------------------------------------------------------------

def _text_header(rng, data: bytes) -> bytes:
    """Numbers of a NRRD or MetaImage header, or dimensions and sizes of a NIfTI one, set to absurd values."""
    if data[:4] == b"NRRD" or b"DimSize" in data[:400]:
        end = data.index(b"ElementDataFile = LOCAL") if b"DimSize" in data[:400] else data.index(b"\n\n")
        lines = data[:end].split(b"\n")
        n = int(rng.integers(1, len(lines)))
        sign = b" = " if b" = " in lines[n] else b": "
        values = (b"99999 99999 99999", b"-1 2 3", b"0 0 0", b"nan nan nan", b"(nan,0,0) (0,1,0) (0,0,1)", b"", b"x",
                  b"4", b"(0,0,0) (0,0,0) (0,0,0)", b"1e300 1 1", b"2000000000 2 2", b"/etc/passwd", b"../../x.raw")
        lines[n] = lines[n].split(sign)[0] + sign + values[int(rng.integers(len(values)))]
        return b"\n".join(lines) + data[end:]
    changed = bytearray(data)
    where = int(rng.choice([40, 42, 44, 46, 48, 70, 72, 76, 80, 84, 88, 108, 112, 252, 254, 280, 296, 344]))
    bad = (struct.pack("<h", int(rng.integers(-32768, 32768))), struct.pack("<i", 2**31 - 1),
           *(struct.pack("<f", value) for value in (float("nan"), 1e30, 0.0)))[int(rng.integers(5))]
    changed[where : where + len(bad)] = bad
    return bytes(changed)


# --- memory ----------------------------------------------------------------------------------------------------------

def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux: memory is not judged there
        pass


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def _resident() -> int:
    return _status("VmRSS:")


def _peak() -> int:
    return _status("VmHWM:")
