"""The public DICOM headers and what each is, as read by a person (``data/identify_truth.csv``)."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).parent / "data" / "identify_truth.csv"


@dataclass(frozen=True)
class LabeledHeader:
    """One header file; ``truth`` is a sequence id, or None for what must be refused, of which ``kind`` tells more."""

    path: Path
    truth: str | None
    kind: str


def public_data(part: str) -> Path | None:
    """A folder of the public samples, beside the checkout or where NPCSYNTH_DATA says; None where it is missing."""
    data = Path(os.environ.get("NPCSYNTH_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    return data / part if (data / part).is_dir() else None


def labeled_headers(folder: Path) -> list[LabeledHeader]:
    """Every row of the table spread over its files; ``folder`` holds the public headers."""
    with open(_TABLE, encoding="utf-8") as file:
        return [
            LabeledHeader(folder / row["source"] / f"{number:03d}.dcm", row["truth"] or None,
                          row["truth"] or row["kind"])
            for row in csv.DictReader(file) for number in _numbers(row["files"])
        ]


def _numbers(ranges: str):
    for part in ranges.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
