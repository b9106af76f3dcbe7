"""Who was trained on and who was held out, remembered beside the checkpoint: a resumed run must not mix them up."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, OutputError
from ..model.manifest import manifest_of_any
from .layouts import PatientFiles

_FILE = "held_out.json"


def trained_before(folder: Path, held: Sequence[PatientFiles], resume: bool) -> list[str]:
    """Names of the cohort's patients that the run in a folder was trained on already; none when it begins anew.

    Raises InputError when somebody who is now held out is among them.
    """
    path = folder / _FILE
    before = []
    if resume and path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["trained_on"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f'{_FILE} in "{folder.name}" is damaged: nothing tells whom the run was trained on. '
                             "Choose another folder, or begin again with --fresh.") from error
    mixed = sorted({one.name for one in held} & set(before))
    if mixed:
        raise InputError(f'The run in "{folder.name}" was trained on {", ".join(mixed)} already: no comparison on them '
                         "would be fair. Choose another folder, or begin again with --fresh.")
    return before


def remember(
    folder: Path, trained: Sequence[PatientFiles], held: Sequence[PatientFiles], before: Sequence[str]
) -> None:
    """Write the split into the folder of a run; of several processes the first one does.

    Args:
        before: what :func:`trained_before` gave.

    Raises OutputError: the folder cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    path = folder / _FILE
    document = {"trained_on": sorted({one.name for one in trained} | set(before)),
                "held_out": [one.name for one in held]}
    partial = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)  # the others read it meanwhile
    except OSError as error:
        raise OutputError(f'"{folder.name}" cannot be written to ({error.strerror or error}). Choose another '
                          "folder.") from error


def seen_before(weights: Path, held: Sequence[PatientFiles]) -> list[str]:
    """Sentences on patients held out whom the weights that a run starts from were trained on, by their manifest.

    Raises WeightsError: there are no weights.
    """
    lines = manifest_of_any(weights)[1].get("training_data", [])
    known = {word.strip() for line in lines for word in line.split(":", 1)[-1].split(",")}
    return [f"{one.name} is held out, but the weights that the run starts from were trained on a patient of that name: "
            "before and after may both look too good." for one in held if one.name in known]
