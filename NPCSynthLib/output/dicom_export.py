"""A result as DICOM: MR series, uncertainty, segmentation and contours, filed with the images that it was made from."""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset

from ..errors import Cancelled
from ..inference.result import SynthesisResult
from .deidentify import deidentified
from .dicom_derived import contours_object, segmentation_object, uncertainty_object
from .dicom_header import NewSeries, Origin
from .dicom_mr import classic_mr, enhanced_mr
from .dicom_source import find_sources
from .folder import new_folder

SEGMENTATION, CONTOURS = "segmentation", "contours"


@dataclass(frozen=True)
class ExportedSeries:
    """One DICOM series that was written.

    Attributes:
        uid: SeriesInstanceUID.
        modality: "MR", "SEG", "RTSTRUCT", or "OT" (other: the uncertainty).
        description: SeriesDescription.
        files: its files, relative to the export's folder.
        left_out: names of structures that it lacks because nothing was found.
    """

    uid: str
    modality: str
    description: str
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def export_dicom(
    result: SynthesisResult,
    document: dict,
    files: Iterable[Path],
    folder: str | Path,
    enhanced: bool = False,
    deidentify: bool = False,
    on_progress: Callable[[float, str], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> tuple[ExportedSeries, ...]:
    """Write a result into a new folder as DICOM objects of the source's patient, study and frame of reference.

    For each sequence a series of MR images and a parametric map of its uncertainty; for the structures a segmentation
    and an RT Structure Set. The folder appears complete at the end, or not at all.

    Args:
        document: ``provenance(result, study)``, or the content of ``result.json``.
        files: DICOM files among which the acquired images are that the result was made from.
        enhanced: one enhanced multi-frame MR image for each sequence instead of one classic image for each slice.
        deidentify: take the patient's identity out (DICOM PS3.15 basic profile); otherwise it is copied unchanged, so
            that the objects file with the patient.
        on_progress: called with (fraction 0..1, what is being written).
        cancel: asked between objects; True stops the export.

    Raises:
        InputError: the reference was not read from DICOM, or its images are not among ``files``.
        UsageError: the folder already holds something.
        OutputError: the folder cannot be written, or the disk is full. Cancelled.
    """
    with new_folder(folder) as temporary:
        return write_dicom(result, document, files, temporary, enhanced, deidentify, on_progress, cancel)


def write_dicom(
    result: SynthesisResult, document: dict, files: Iterable[Path], folder: Path, enhanced: bool = False,
    deidentify: bool = False, on_progress: Callable[[float, str], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> tuple[ExportedSeries, ...]:  # fmt: skip
    """What ``export_dicom`` does, into an existing folder that the caller makes whole (see ``new_folder``)."""
    with _without_identity_in_messages():
        return _write_all(result, document, files, folder, enhanced, deidentify, on_progress, cancel)


@contextmanager
def _without_identity_in_messages() -> Iterator[None]:
    """pydicom and highdicom quote names and UIDs of the patient in warnings and logs."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write_all(
    result, document, files, folder, enhanced, deidentify, on_progress, cancel
) -> tuple[ExportedSeries, ...]:
    origin = Origin(find_sources(document, files, cancel), document, datetime.now())
    if deidentify:
        origin = deidentified(origin)
    outputs = {output["sequence"]: output for output in origin.document["outputs"]}
    steps = 2 * (len(result.sequences) + (result.segmentation is not None))
    written: list[ExportedSeries] = []

    def step(what: str) -> NewSeries:
        if cancel and cancel():
            raise Cancelled()
        if on_progress:
            on_progress(len(written) / steps, f"Writing {what}")
        return NewSeries.named(len(written), what)

    for synthetic in result.sequences:
        name, output = synthetic.sequence, outputs[synthetic.sequence]
        series = step(name)
        images = [enhanced_mr(synthetic, output, origin, series)] if enhanced else \
            classic_mr(synthetic, output, origin, series)
        written.append(_save(images, folder, name))
        series = step(f"{name} uncertainty")
        written.append(_save([uncertainty_object(synthetic, output, images, origin, series)], folder,
                             f"{name}_uncertainty"))
    if result.segmentation is not None:
        series = step("structures")
        written.append(_save([segmentation_object(result.segmentation, origin, series)], folder, SEGMENTATION))
        series = step("contours")
        contours, empty = contours_object(result.segmentation, result.grid, origin, series)
        written.append(replace(_save([contours], folder, CONTOURS), left_out=empty))
    if on_progress:
        on_progress(1.0, "Written")
    return tuple(written)


def _save(datasets: list[Dataset], folder: Path, name: str) -> ExportedSeries:
    """One file ``<name>.dcm``, or a folder ``<name>`` of many."""
    first = datasets[0]
    if len(datasets) == 1:
        paths = [folder / f"{name}.dcm"]
    else:
        (folder / name).mkdir()
        paths = [folder / name / f"IM{int(dataset.InstanceNumber):04d}.dcm" for dataset in datasets]
    for dataset, path in zip(datasets, paths, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return ExportedSeries(
        str(first.SeriesInstanceUID), str(first.Modality), str(first.SeriesDescription),
        tuple(sorted(path.relative_to(folder).as_posix() for path in paths)),
    )  # fmt: skip
