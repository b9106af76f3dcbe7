"""The latest results of the scene with all that a report about them shows: sources, acquired images, contours.

On the main thread ``copy_review`` takes what is needed out of the scene; what takes longer can be done in any thread.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import Cancelled, InputError, UsageError
from ..output.provenance import voxels_sha256
from ..qa.contours import StructureAgreement
from ..study.align import overlap
from ..study.build import build_study
from ..study.volume import Volume
from ..vocabulary import is_known_structure
from .belonging import acquired_belonging, belonging
from .collect import RUN, SOURCE_ROLE, SceneResult, changed_nodes, latest_nodes, latest_result
from .matrices import swap_ras_lps
from .segmentations import CopiedSegmentation, copy_segmentation, is_predicted, node_to_node
from .volumes import STUDY_TO_NODE, study_volumes, volume_from_node

#: Share of the progress that registering and normalizing the sources again takes.
_STUDY_SHARE = 0.6
#: mm, or voxels of the reference.
_SAME_PLACE = 0.01


@dataclass(frozen=True)
class SceneReview:
    """Everything that a report shows, sharing nothing with the scene.

    Attributes:
        found: the latest run's results.
        sources: sequence id -> image that they were made from.
        acquired: sequence id -> acquired image of a sequence that was synthesized too, in the same space.
        acquired_notes: sentences on whether acquired images belong to the run, and on those left out because they do
            not; they name no node.
        drawn: contours to draw into the pictures, or None.
        drawn_notes: sentences on whether they belong to the run and who made them; they name no node.
        reference_id: id of the volume node that gave the grid.
    """

    found: SceneResult
    sources: Mapping[str, Volume]
    acquired: Mapping[str, Volume]
    acquired_notes: tuple[str, ...]
    drawn: CopiedSegmentation | None
    drawn_notes: tuple[str, ...]
    reference_id: str

    def report(
        self,
        agreements: Sequence[StructureAgreement] = (),
        notes: Sequence[str] = (),
        identify: bool = False,
        caption: str = "",
        on_progress: Callable[[float, str], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> str:
        """The page as HTML, see ``output.report.report``.

        The sources are brought onto the grid once more, by the same steps as for the run.

        Raises:
            Cancelled.
            InputError: the sources, or the contours, are no longer what they were.
        """
        from ..output.report import report
        from ..output.truth import Truth, truth_on_grid

        document, result = dict(self.found.document), self.found.result
        study = build_study(
            self.sources, reference=document["reference_grid"]["sequence"], cancel=cancel,
            on_progress=lambda done, stage: on_progress(_STUDY_SHARE * done, stage) if on_progress else None,
        )  # fmt: skip
        if study.grid.shape != result.grid.shape:
            raise InputError("The volume that gave the grid has another size than when the results were made. Load "
                             "the acquired images again, or run once more.")  # fmt: skip
        changed = self._changed()
        if changed:
            document["warnings"] = [
                *document["warnings"], f"Changed since the run: {', '.join(changed)}. The pictures show what is there "
                "now, not what the results were made from. Load the acquired image again, or run once more.",
            ]  # fmt: skip
        truth = truth_on_grid(study, self.acquired, {}) if self.acquired else Truth({}, {})
        truth = replace(truth, notes=self.acquired_notes)
        if self.drawn is not None:
            contours = self.drawn.contours("the reference", cancel)
            truth = replace(truth, structures={s.name: s.mask for s in contours.structures})
            said = [*self.drawn_notes, *contours.notes, *(why for _, why in contours.left_out)]
            clean = str if identify else _without([*(s.original_name for s in contours.structures),
                                                   *(name for name, _ in contours.left_out)])
            document["warnings"] = [*document["warnings"], *map(clean, said)]
        if self.found.left_out:
            document["warnings"] = [
                *document["warnings"], "Not in this report, because it was changed after NPCSynth had made it or lacks "
                f"a part: {len(self.found.left_out)} of the results.",
            ]  # fmt: skip
        if result.segmentation is None:
            document["segments"] = []
        if cancel is not None and cancel():
            raise Cancelled()
        if on_progress is not None:
            on_progress(_STUDY_SHARE, "Drawing the pictures")
        return report(result, study, document, truth, agreements, notes, identify, caption, changed, cancel)

    def _changed(self) -> tuple[str, ...]:
        """Sequence ids of the sources whose voxels or place are no longer those of the run."""
        reference = self.found.document["reference_grid"]["sequence"]
        told = {source["sequence"]: source for source in self.found.document["sources"] if "voxels_sha256" in source}
        found = []
        for sequence, volume in self.sources.items():
            then = told.get(sequence)
            if then is None:  # made by an edition that did not keep it
                continue
            if sequence == reference:
                matrices = self.found.result.grid.ijk_to_lps, swap_ras_lps(
                    volume.metadata[STUDY_TO_NODE] @ swap_ras_lps(volume.grid.ijk_to_lps))
            else:
                # As seen from the reference: the frame in which all of them lie may be another one today.
                matrices = [np.linalg.inv(of_reference) @ own for of_reference, own in (
                    (told[reference]["ijk_to_lps"], np.array(then["ijk_to_lps"])),
                    (self.sources[reference].grid.ijk_to_lps, volume.grid.ijk_to_lps))]
            moved = (matrices[1] - matrices[0]) @ (*reversed(volume.array.shape), 1)
            if list(volume.array.shape) != then["shape_kji"] or np.abs(moved).max() > _SAME_PLACE or \
                    voxels_sha256(volume.array) != then["voxels_sha256"]:
                found.append(sequence)
        return tuple(found)


def copy_review(scene, acquired_nodes: Mapping | None = None, drawn=None) -> SceneReview:
    """Take out of the scene what a report on the latest run shows. The scene is not changed.

    Args:
        acquired_nodes: sequence id -> volume node; taken are those of sequences that the run made, where they belong
            to it (see ``belonging``).
        drawn: vtkMRMLSegmentationNode, or None.

    Raises:
        UsageError: there are no unchanged results.
        InputError: the sources are no longer there, or cannot be used; the contours do not belong on them.
    """
    found = latest_result(scene)
    if found is None or not found.result.sequences:
        raise UsageError("There are no unchanged synthetic images in the scene. Run first, then write the report.")
    nodes = _sources(scene, found.document)
    wanted = found.document["reference_grid"]["sequence"]
    if wanted not in nodes:
        raise InputError(f"The {wanted} volume that the results lie on was removed from the scene. Load it again and "
                         "run once more.")  # fmt: skip
    sources = study_volumes(nodes)
    reference = nodes[wanted]
    to_study = np.linalg.inv(sources[wanted].metadata[STUDY_TO_NODE])
    made = {synthetic.sequence for synthetic in found.result.sequences}
    ours = latest_nodes(scene)[0]
    acquired, told = {}, []
    for sequence, node in (acquired_nodes or {}).items():
        if sequence in made:
            belongs = acquired_belonging(ours, node, sequence)
            told += belongs.sentences
            if belongs.refusal:
                continue
            volume = volume_from_node(node, to_study @ node_to_node(node, reference))
            if overlap(sources[wanted].grid, volume.grid) > 0:
                acquired[sequence] = volume
            else:
                told.append(f"The acquired {sequence} lies elsewhere than these results, so it is not compared with "
                            "them.")
    copied, said = None, ()
    if drawn is not None:
        belongs = belonging(ours, drawn, "The segmentation that was chosen for the pictures")
        if belongs.refusal:
            raise InputError(f"{belongs.refusal} Choose another one, or none.")
        copied = copy_segmentation(drawn, reference)
        made = ("The contours that the pictures show as the reference's were made by a program, at least in part.",)
        said = (*belongs.notes, *(made if is_predicted(drawn) else ()))
    return SceneReview(found, sources, acquired, tuple(told), copied, said, reference.GetID())


def _without(names: Sequence[str]) -> Callable[[str], str]:
    """Takes names of structures that somebody chose out of a sentence."""
    own = sorted({name for name in names if not is_known_structure(name)}, key=len, reverse=True)
    if not own:
        return str
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, own))})(?!\w)")
    return lambda sentence: pattern.sub("a structure", sentence)


@dataclass(frozen=True)
class ComparedContours:
    """What a comparison of contours is of, for a report on the latest run.

    Attributes:
        caption: a sentence that says what was compared with what.
        notes: sentences that belong beside it.
        refusal: a sentence that says why it does not belong into the report; "" when it does.

    None of them names a node.
    """

    caption: str
    notes: tuple[str, ...]
    refusal: str


def compared_contours(scene, reference, compared, image) -> ComparedContours:
    """Whose contours a comparison is of, and whether it is about the patient of the latest run.

    Args:
        reference, compared: vtkMRMLSegmentationNode.
        image: vtkMRMLScalarVolumeNode that gave the grid.

    Raises InputError when the image lies under a transform that bends or shears it.
    """
    ours = latest_nodes(scene)[0]
    caption = f"{_whose(ours, compared)} against {_whose(ours, reference)} as the reference."
    caption = caption[0].upper() + caption[1:]
    notes: list[str] = []
    for node, what in ((image, "The image that the contours were compared on"),
                       (compared, "The compared segmentation"), (reference, "The reference segmentation")):
        belongs = belonging(ours, node, what)
        if belongs.refusal:
            return ComparedContours(caption, (), f"The comparison of contours was left out. {belongs.refusal}")
        notes += belongs.notes
    made = next((node for node in latest_nodes(scene) if node.IsA("vtkMRMLScalarVolumeNode")), image)
    grids = [volume_from_node(node, node_to_node(node, image), copy=False).grid for node in (image, made)]
    if overlap(*grids) == 0:
        return ComparedContours(caption, (), "The comparison of contours was left out. The image that they were "
                                             "compared on lies elsewhere than these results.")
    return ComparedContours(caption, tuple(dict.fromkeys(notes)), "")


def _whose(ours, node) -> str:
    if node.GetAttribute(RUN) == ours.GetAttribute(RUN):
        return "this run's contours" + (", changed since then," if changed_nodes([node]) else "")
    if node.GetAttribute(RUN):
        return "an earlier run's contours"
    return "contours that a program made, at least in part," if is_predicted(node) else "drawn contours"


def _sources(scene, document: dict) -> dict:
    """Sequence id -> volume node of the latest run's sources, as far as they are still there."""
    node = latest_nodes(scene)[0]
    there = [node.GetNthNodeReference(SOURCE_ROLE, n) for n in range(node.GetNumberOfNodeReferences(SOURCE_ROLE))]
    there = [source for source in there if source is not None]
    told = document["sources"]
    if len(there) == len(told):
        return {entry["sequence"]: source for entry, source in zip(told, there)}
    # Some were removed: the others are known by their names of then.
    names = {entry["description"]: entry["sequence"] for entry in told}
    return {names[source.GetName()]: source for source in there if source.GetName() in names}
