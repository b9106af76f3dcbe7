"""The outputs of the scene's results, one by one: for a table, for looking at them, and for taking one away."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache

from ..inference.result import INTENSITY_HIGH, INTENSITY_LOW, NOT_CHECKED
from .collect import IMAGE, PROVENANCE, QUANTITY, RUN, SEQUENCE, SOURCE_ROLE, UNCERTAINTY, result_nodes
from .matrices import ijk_to_ras

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class SceneOutput:
    """One synthetic sequence of a run.

    Attributes:
        image: its vtkMRMLScalarVolumeNode.
        uncertainty: the volume node of its predicted error; None when it was deleted.
        sequence: id in the vocabulary.
        mean_uncertainty: predicted mean absolute error in the body, as a fraction of the range between the 0.5 and
            99.5 percentiles; None where the provenance does not say.
        calibrated: whether the uncertainty of this sequence was scaled on acquired images.
        unusual: sentences that say why the study is unlike the training data, empty when it is like them; None when
            that was not looked at.
        warnings: the run's sentences for the user, without those that name other outputs of it only.
        source: the acquired volume node that gave the grid, else another one of the run's; None when all are gone.
    """

    image: object
    uncertainty: object
    sequence: str
    mean_uncertainty: float | None
    calibrated: bool
    unusual: tuple[str, ...] | None
    warnings: tuple[str, ...]
    source: object


def scene_outputs(scene) -> list[SceneOutput]:
    """Every synthetic image that a run has put into the scene, in the order of the scene; copies included."""
    nodes = result_nodes(scene)
    return [_output(node, nodes) for node in nodes if node.GetAttribute(QUANTITY) == IMAGE]


def remove_nodes(scene, nodes) -> None:
    """Remove nodes with their display and storage nodes. Slicer cannot undo that: it takes volumes out of its undo."""
    for node in nodes:
        for number in reversed(range(node.GetNumberOfDisplayNodes())):
            scene.RemoveNode(node.GetNthDisplayNode(number))
        if node.GetStorageNode() is not None:
            scene.RemoveNode(node.GetStorageNode())
        scene.RemoveNode(node)


def _output(image, nodes) -> SceneOutput:
    document = _document(image.GetAttribute(PROVENANCE))
    sequence = image.GetAttribute(SEQUENCE)
    about = next((one for one in document.get("outputs", ()) if one["sequence"] == sequence), {})
    mean = about.get("mean_uncertainty")
    warnings = tuple(document.get("warnings", ()))
    names = {key: {one["sequence"] for one in document.get(key, ())} for key in ("outputs", "sources")}
    elsewhere, here = names["outputs"] - {sequence}, names["sources"] | {sequence}
    looked = "unusual" in document and NOT_CHECKED not in warnings
    return SceneOutput(
        image,
        next(
            (
                node for node in nodes
                if (node.GetAttribute(RUN), node.GetAttribute(SEQUENCE), node.GetAttribute(QUANTITY))
                == (image.GetAttribute(RUN), sequence, UNCERTAINTY)
            ),
            None,
        ),
        sequence,
        None if mean is None else mean / (INTENSITY_HIGH - INTENSITY_LOW),
        bool(about.get("uncertainty_calibrated", False)),
        tuple(document["unusual"] or ()) if looked else None,
        tuple(w for w in warnings if not (named := set(_WORD.findall(w))) & elsewhere or named & here),
        _source(image),
    )  # fmt: skip


def _source(image):
    sources = [image.GetNthNodeReference(SOURCE_ROLE, n) for n in range(image.GetNumberOfNodeReferences(SOURCE_ROLE))]
    sources = [node for node in sources if node is not None and node.GetImageData() is not None]
    voxels, matrix = image.GetImageData(), ijk_to_ras(image)
    for node in sources if voxels is not None else ():  # the file of a saved result may have gone
        same_size = node.GetImageData().GetDimensions() == voxels.GetDimensions()
        if same_size and abs(ijk_to_ras(node) - matrix).max() < 1e-3:
            return node
    return sources[0] if sources else None


@lru_cache(maxsize=32)
def _document(text: str) -> dict:
    """Asked for often, and it lists every slice of the sources. Not to be changed."""
    return json.loads(text)
