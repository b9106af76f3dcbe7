"""Makes a folder of many small DICOM files, reads it, and prints time and peak memory. The folder is removed.

    python Testing/benchmarks/read_many_files.py [files]
"""

import resource
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SLICES = 40
#: Of a hundred series: what a hospital's folder of one patient holds (description, parameters, image type).
SERIES = (
    ("t1_tse_tra", 550.0, 11.0, "M"), ("t2_tse_tra", 4200.0, 98.0, "M"), ("localizer", 8.0, 3.0, "M"),
    ("ep2d_diff_b1000_ADC", 5000.0, 70.0, "ADC"), ("ep2d_bold", 2000.0, 30.0, "M"),
)


#: Stand in the pattern for what differs from file to file, at the length of what replaces it.
_SERIES_UID, _INSTANCE_UID = "1.2.826.0.1.3680043.8.498.1111111111", "1.2.826.0.1.3680043.8.498.2222222222"
_SERIES_NUMBER, _INSTANCE_NUMBER, _PLACE = "333333", "444444", "5555.5"


def make_folder(folder: Path, count: int) -> None:
    """``count`` files of 64 x 64 pixels in nested folders, without extension, slices in random order."""
    rng = np.random.default_rng(0)
    patterns = [_pattern(rng, *kind) for kind in SERIES]
    for series in range(-(-count // SLICES)):
        target = folder / f"disk{series % 7}" / f"{series:04d}"
        target.mkdir(parents=True)
        for k in rng.permutation(min(SLICES, count - series * SLICES)):
            content = patterns[series % len(SERIES)]
            for mark, value in ((_SERIES_UID, f"{_SERIES_UID[:-10]}1{series:09d}"),
                                (_SERIES_NUMBER, f"{series + 1:06d}"),
                                (_INSTANCE_UID, f"{_INSTANCE_UID[:-10]}2{series:05d}{k:04d}"),
                                (_INSTANCE_NUMBER, f"{k + 1:06d}"), (_PLACE, f"{4 * k:04d}.0")):
                content = content.replace(mark.encode(), value.encode())
            (target / f"I{int(rng.integers(10**9)):09d}").write_bytes(content)


def _pattern(rng, description: str, repetition_time: float, echo_time: float, kind: str) -> bytes:
    """A DICOM file with marks for what differs from slice to slice."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, _INSTANCE_UID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, _INSTANCE_UID
    ds.Modality, ds.PatientID, ds.PatientName, ds.StudyDate = "MR", "1", "Benchmark", "20250101"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", _SERIES_UID, "1.2.4"
    ds.SeriesDescription = ds.ProtocolName = description
    ds.SeriesNumber, ds.InstanceNumber = _SERIES_NUMBER, _INSTANCE_NUMBER
    ds.ImageType = ["ORIGINAL", "PRIMARY", kind, "ND"]
    ds.ScanningSequence, ds.RepetitionTime, ds.EchoTime = "SE", repetition_time, echo_time
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.Rows, ds.Columns = 16, 12, 11, 64, 64
    ds.PixelSpacing, ds.SliceThickness = [3.0, 3.0], 4.0
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], ["-96.0", "-96.0", _PLACE]
    # What scanners add and nobody needs here.
    ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", rng.bytes(8000))
    ds.PixelData = rng.integers(0, 4000, (64, 64)).astype(np.uint16).tobytes()
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    from NPCSynthLib.study.read import list_series, read_folder

    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        make_folder(Path(name), count)
        print(f"{count} files made in {time.perf_counter() - start:.0f} s")
        before = _peak_mib()
        for what, read in (("headers only", list_series), ("all usable series", read_folder)):
            calls = []
            start, busy = time.perf_counter(), time.process_time()
            found = read(name, lambda fraction, text: calls.append(fraction))
            seconds, busy = time.perf_counter() - start, time.process_time() - busy
            number = len(found) if isinstance(found, tuple) else len(found.volumes)
            print(f"{what}: {seconds:.1f} s ({busy:.1f} s of one core, {1000 * busy / count:.2f} ms a file), "
                  f"{number} entries, "
                  f"{len(calls)} reports of progress, peak memory {_peak_mib():.0f} MiB (started at {before:.0f})")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
