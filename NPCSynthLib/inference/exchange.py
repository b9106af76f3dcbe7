"""Jobs and their outcomes as files, so that they can cross to another process: JSON beside ``.npy``, no pickle."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..study.study import Source, Study
from ..study.volume import Grid, Volume
from .request import SynthesisRequest
from .result import Segment, SegmentationResult, SynthesisResult, SynthesizedSequence

#: Ends the name of a file in a worker's inbox that is a job, and whole.
JOB_SUFFIX = ".job"


def write_job(folder: Path, volumes: Mapping[str, Volume], request: SynthesisRequest) -> None:
    """Leave what ``read_job`` reads."""
    entries = {}
    for number, (sequence, volume) in enumerate(volumes.items()):
        _save(folder, f"volume{number}", volume.array)
        plain = {k: v for k, v in volume.metadata.items() if isinstance(v, (str, int, float, bool, list, tuple))}
        entries[sequence] = {"grid": _grid(volume.grid), "name": volume.name, "metadata": plain}
    _write(folder, "job", {"volumes": entries, "request": request.to_dict()})


def read_job(folder: Path) -> tuple[dict[str, Volume], SynthesisRequest]:
    """The volumes, with what of their metadata is plain, and what is asked for."""
    document = _read(folder, "job")
    volumes = {
        sequence: Volume(_load(folder, f"volume{n}"), _to_grid(entry["grid"]), entry["name"], entry["metadata"])
        for n, (sequence, entry) in enumerate(document["volumes"].items())
    }
    return volumes, SynthesisRequest.from_dict(document["request"])


def write_outcome(folder: Path, study: Study, result: SynthesisResult) -> None:
    """Leave what ``read_outcome`` reads."""
    _save(folder, "body", study.body)
    for n, source in enumerate(study.sources):
        _save(folder, f"source{n}", source.array)
        _save(folder, f"inside{n}", source.inside)
    for n, made in enumerate(result.sequences):
        _save(folder, f"synthetic{n}", made.array)
        _save(folder, f"uncertainty{n}", made.uncertainty)
    segments = None
    if result.segmentation is not None:
        _save(folder, "labelmap", result.segmentation.labelmap)
        _save(folder, "external", result.segmentation.external)
        segments = [dataclasses.asdict(s) for s in result.segmentation.segments]
    document = {
        "study": {
            "grid": _grid(study.grid), "reference": study.reference, "warnings": study.warnings,
            "refused": study.refused, "sources": [
                {"sequence": s.sequence, "registration": s.registration, "intensity_range": s.intensity_range}
                for s in study.sources
            ],
        },
        "result": {
            "sequences": [_without_arrays(made) for made in result.sequences], "segments": segments,
            "sources": result.sources, "model": result.model, "device": result.device, "seconds": result.seconds,
            "warnings": result.warnings, "unusual": result.unusual,
        },
    }  # fmt: skip
    _write(folder, "outcome", document)


def read_outcome(folder: Path, volumes: Mapping[str, Volume]) -> tuple[Study, SynthesisResult]:
    """What ``write_outcome`` left; ``volumes`` are those that the job was given."""
    document = _read(folder, "outcome")
    about, made = document["study"], document["result"]
    grid = _to_grid(about["grid"])
    sources = tuple(
        Source(s["sequence"], volumes[s["sequence"]], _load(folder, f"source{n}"), _load(folder, f"inside{n}"),
               s["registration"], tuple(s["intensity_range"]))
        for n, s in enumerate(about["sources"])
    )  # fmt: skip
    study = Study(
        grid, about["reference"], sources, _load(folder, "body"), tuple(about["warnings"]),
        tuple(tuple(pair) for pair in about["refused"]),
    )  # fmt: skip
    segmentation = None
    if made["segments"] is not None:
        segments = tuple(Segment(**{**s, "color": tuple(s["color"])}) for s in made["segments"])
        segmentation = SegmentationResult(_load(folder, "labelmap"), _load(folder, "external"), segments)
    sequences = tuple(
        SynthesizedSequence(
            array=_load(folder, f"synthetic{n}"), uncertainty=_load(folder, f"uncertainty{n}"),
            **{**s, "interval_factors": tuple(s["interval_factors"])},
        )  # fmt: skip
        for n, s in enumerate(made["sequences"])
    )
    result = SynthesisResult(
        grid, sequences, segmentation, tuple(made["sources"]), made["model"], made["device"], made["seconds"],
        tuple(made["warnings"]), tuple(made["unusual"]),
    )  # fmt: skip
    return study, result


def _without_arrays(item) -> dict:
    return {f.name: getattr(item, f.name) for f in dataclasses.fields(item)
            if not isinstance(getattr(item, f.name), np.ndarray)}  # fmt: skip


def _grid(grid: Grid) -> dict:
    return {"shape": list(grid.shape), "ijk_to_lps": grid.ijk_to_lps.tolist()}


def _to_grid(entry: dict) -> Grid:
    return Grid(tuple(entry["shape"]), np.array(entry["ijk_to_lps"]))


def _save(folder: Path, name: str, array: np.ndarray) -> None:
    np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _load(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", allow_pickle=False)


def _write(folder: Path, name: str, document: dict) -> None:
    def plain(value):
        return value.item() if isinstance(value, np.generic) else value.tolist()

    (folder / f"{name}.json").write_text(json.dumps(document, default=plain), encoding="utf-8")


def _read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
