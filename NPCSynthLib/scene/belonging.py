"""Whether a node of the scene shows the patient, the frame of reference and the day of a run's sources.

Results of one patient stay in the scene while the next one is chosen: what is assigned now need not be theirs.
"""

import json
from dataclasses import dataclass
from functools import lru_cache

from .collect import PROVENANCE, RUN, SOURCE_ROLE
from .segmentations import drawn_on, segmentation_header
from .volumes import header_from_node, header_of_instance, is_synthetic


@dataclass(frozen=True)
class Belonging:
    """Whether something may be held against a run's results.

    Attributes:
        refusal: a sentence that says why not; "" when it may.
        notes: sentences on what must be said beside it.

    Neither names a node or a patient.
    """

    refusal: str = ""
    notes: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that is to be said."""
        return (self.refusal,) if self.refusal else self.notes


@dataclass(frozen=True)
class _Facts:
    """Identifiers as DICOM has them; empty where they are not known."""

    patients: frozenset[str] = frozenset()
    studies: frozenset[str] = frozenset()
    frames: frozenset[str] = frozenset()
    days: frozenset[str] = frozenset()


def acquired_belonging(result_node, node, sequence: str) -> Belonging:
    """Whether a volume is the acquired image that a synthetic one of this sequence is to be compared with.

    Args:
        result_node: any node of the run.
        node: vtkMRMLScalarVolumeNode that is assigned to ``sequence``.
    """
    count = result_node.GetNumberOfNodeReferences(SOURCE_ROLE)
    if any(node is result_node.GetNthNodeReference(SOURCE_ROLE, n) for n in range(count)):
        return Belonging(f"The volume that is assigned to {sequence} is one that these results were made from, so they "
                         "are not compared with it.")
    if is_synthetic(node):
        return Belonging(f"The volume that is assigned to {sequence} was synthesized, not acquired, so these results "
                         "are not compared with it.")
    return belonging(result_node, node, f"The acquired {sequence}")


def belonging(result_node, node, what: str) -> Belonging:
    """Whether a node is of the patient that a run's results are of.

    Another patient is refused. Another frame of reference than the reference source's, or another day than any of the
    sources', is noted, and so is it when nothing tells whether the patient is the same. Nodes of the run itself, and
    plain files beside plain files, have nothing to note.

    Args:
        result_node: any node of the run, or an acquired volume that stands for the patient.
        node: a volume or segmentation, acquired, drawn or of another run.
        what: what to call it in sentences, "The acquired T1C".
    """
    if node.GetAttribute(RUN) and node.GetAttribute(RUN) == result_node.GetAttribute(RUN):
        return Belonging()
    ours, theirs = _facts_of(result_node), _facts_of(node)
    if ours.patients and theirs.patients:
        if not ours.patients & theirs.patients:
            return Belonging(f"{what} is of another patient than these results, so it is not used with them.")
        notes = []
    elif ours.studies & theirs.studies or not (_known(ours) or _known(theirs)):
        notes = []
    else:
        notes = [f"Nothing says whether {what[0].lower()}{what[1:]} is of the same patient as these results: a DICOM "
                 "header is missing. Make sure that it is."]
    if ours.frames and theirs.frames and not ours.frames & theirs.frames:
        notes.append(f"{what} has another DICOM frame of reference than these results (the patient may have been "
                     "repositioned, or scanned on another day). Check that the two match before you trust a "
                     "difference.")
    if ours.days and theirs.days and not ours.days & theirs.days:
        notes.append(f"{what} is of another day than the images that these results were made from: the anatomy may "
                     "have changed between them.")
    return Belonging(notes=tuple(notes))


def _known(facts: _Facts) -> bool:
    return bool(facts.patients or facts.studies)


def _facts_of(node) -> _Facts:
    text = node.GetAttribute(PROVENANCE)
    if text:
        return _facts_of_run(text)
    if not node.IsA("vtkMRMLSegmentationNode"):
        header = header_from_node(node)
    else:
        header = segmentation_header(node)
        if header is None and drawn_on(node) is not None:
            return _facts_of(drawn_on(node))
    return _facts([header or {}], [header or {}])


def _facts_of_run(text: str) -> _Facts:
    """Of the sources in a provenance document, which names nobody: the patient is asked from the DICOM database."""
    sources, reference = _sources_of(text)
    headers = [header_of_instance(uids[0]) for source in sources if (uids := source.get("SOPInstanceUIDs"))]
    found = _facts(headers, [source for source in sources if source["sequence"] == reference])
    return _Facts(found.patients, _values(sources, "StudyInstanceUID"), found.frames, found.days)


@lru_cache(maxsize=32)
def _sources_of(text: str) -> tuple[list[dict], str]:
    """Asked for often, and it lists every slice. Not to be changed."""
    document = json.loads(text)
    return document["sources"], document["reference_grid"]["sequence"]


def _facts(headers, placed) -> _Facts:
    return _Facts(_values(headers, "PatientID"), _values(headers, "StudyInstanceUID"),
                  _values(placed, "FrameOfReferenceUID"), _values(headers, "StudyDate"))


def _values(headers, key: str) -> frozenset[str]:
    return frozenset(str(header.get(key) or "").strip() for header in headers) - {""}
