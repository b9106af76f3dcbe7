"""Compares two segmentations of the scene. Knows no widgets."""

from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from NPCSynthLib.errors import InputError, UsageError

from .parameters import COMPARED, CONTOUR_ROLES, IMAGE, REFERENCE


@dataclass(frozen=True)
class ContourTable:
    """What a comparison gave.

    agreements - NPCSynthLib.qa.contours.StructureAgreement of each structure. Their ``edges`` are named as ``images``.
    notes - Sentences on how the contours were read. Neither these nor the agreements name a node of the scene.
    images - Name of each image whose edges were looked at -> name of the acquired one that it imitates; None for an
      acquired image, and where the real one is missing.
    compared - What the compared structures are called, for pairing by hand.
    nodes - Ids of the reference, the compared segmentation and the image.
    contents - What the nodes held.
    """

    agreements: tuple
    notes: tuple
    images: dict
    compared: tuple
    nodes: tuple
    contents: tuple


class ContourComparison:
    """Compares two segmentations and keeps the latest table, for the panel and for the report::

        table = NPCSynthLogic().contours.compare(drawnNode, predictedNode, t1Node)
        [(one.name, one.dice) for one in table.agreements]

    ``table`` is the latest ContourTable, or None. ``isCurrent()`` tells whether it still shows what is in the scene.
    """

    def __init__(self):
        from NPCSynthLib.scene.origins import Origins

        self.table = None
        self._origins = Origins()
        self._known, self._knownOf = {}, None

    # What to compare

    def segmentations(self):
        """The segmentations that can be chosen."""
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return [node for node in nodes if not node.GetHideFromEditors()]

    def isPredicted(self, node):
        """Whether a program made this segmentation or some of it."""
        return self._origins.predicted(node)

    def chosen(self, parameterNode):
        """CONTOUR_ROLES -> node or None: what the user chose, else what goes without saying.

        That is as the reference a segmentation that no program made, as the compared one the latest predicted, and as
        the image the one that the reference was drawn on.
        """
        from NPCSynthLib.scene import drawn_on

        found = {role: parameterNode.contourNode(role) for role in CONTOUR_ROLES}
        nodes = self.segmentations()
        predicted = [node for node in nodes if self.isPredicted(node)]
        drawn = [node for node in nodes if node not in predicted]
        if found[REFERENCE] is None:
            found[REFERENCE] = next((node for node in drawn if node is not found[COMPARED]), None)
        if found[COMPARED] is None:
            candidates = [*drawn[::-1], *predicted]
            found[COMPARED] = next((node for node in candidates[::-1] if node is not found[REFERENCE]), None)
        if found[IMAGE] is None:
            assigned = parameterNode.assigned()
            own = drawn_on(found[REFERENCE]) if found[REFERENCE] is not None else None
            if own is not None and own.GetClassName() == "vtkMRMLScalarVolumeNode" and own.GetImageData() is not None:
                found[IMAGE] = own
            else:
                found[IMAGE] = assigned.get(parameterNode.reference) or next(iter(assigned.values()), None)
        return found

    def images(self, parameterNode, image):
        """The images whose edges are looked at: name -> (volume node, name of the acquired one that it imitates).

        The acquired sequences, and of each sequence the latest synthetic one. Names are sequences, never those of
        nodes, which may name a patient.
        """
        from NPCSynthLib.scene.collect import IMAGE as SYNTHETIC_IMAGE
        from NPCSynthLib.scene.collect import QUANTITY, SEQUENCE

        found = {sequence: (node, None) for sequence, node in parameterNode.assigned().items()}
        known = any(image is node for node, _imitated in found.values())
        if image is not None and not known and not image.GetAttribute(SEQUENCE):
            found = {_("image"): (image, None), **found}
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            sequence = node.GetAttribute(SEQUENCE)
            if sequence and node.GetAttribute(QUANTITY) == SYNTHETIC_IMAGE:
                real = sequence if sequence in found else None
                found[_("{sequence} (synthetic)").format(sequence=sequence)] = (node, real)
        return found

    # Comparing

    def compare(self, reference, compared, image, images=None, pairs=None):
        """Compare and return the ContourTable; for scripts. Arguments and errors as in ``prepare``."""
        compute = self.prepare(reference, compared, image, images or {}, pairs or {})
        return self.accept(compute(lambda fraction, stage: None, lambda: False))

    def prepare(self, reference, compared, image, images, pairs):
        """Check a comparison and copy what it needs out of the scene; main thread only.

        :param reference, compared: vtkMRMLSegmentationNode.
        :param image: vtkMRMLScalarVolumeNode that gives the grid, and must be in the scene as long as it computes.
        :param images: as ``self.images`` gives them.
        :param pairs: name in the reference -> name in the compared one, for what belongs together by hand.
        :return: a function of (onProgress, cancel) for any thread, whose outcome is for ``accept``.
        :raises NPCSynthError: what cannot be compared, with the reason. The function raises it too.
        """
        from NPCSynthLib.qa.contours import compare_contours
        from NPCSynthLib.scene import (
            content_of,
            copy_segmentation,
            drawn_on,
            is_synthetic,
            node_to_node,
            volume_from_node,
        )
        from NPCSynthLib.scene.belonging import belonging
        from NPCSynthLib.scene.volumes import check_node

        if reference is None or compared is None:
            raise UsageError(_("Choose two segmentations to compare: the reference, and the one that is judged by it."))
        if reference is compared:
            raise UsageError(
                _("“{name}” was chosen twice. Choose two different segmentations.").format(name=reference.GetName())
            )
        copies = [copy_segmentation(node, image) for node in (reference, compared)]
        notes, volumes, imitated = [], {}, {}
        for name, (node, real) in images.items():
            if belonging(image, node, name).refusal:
                notes.append(_("The edges in {image} were not looked at: it is of another patient.").format(image=name))
                continue
            try:
                check_node(node)
                volumes[name] = volume_from_node(node, node_to_node(node, image))
                imitated[name] = real
            except InputError:
                notes.append(_("The edges in {image} could not be looked at: it lies under a transform that bends or "
                               "shears it, or has no image.").format(image=name))
        for node, whose in ((reference, _("reference")), (compared, _("compared"))):
            if self.isPredicted(node):
                notes.append(
                    _("The {whose} contours were made by a program, at least in part: proposals, nobody's judgment "
                      "until somebody has checked them.").format(whose=whose)
                )
            elif drawn_on(node) is not None and is_synthetic(drawn_on(node)):
                notes.append(
                    _("The {whose} contours were drawn on a synthetic image: it shows what a network expects, not what "
                      "was measured.").format(whose=whose)
                )
        nodes = tuple(node.GetID() for node in (reference, compared, image))
        contents = tuple(content_of(node) for node in (reference, compared, image))
        # After one structure was redrawn or paired, the others need not be measured again.
        knownOf = contents[2], tuple((name, content_of(images[name][0])) for name in volumes)
        if knownOf != self._knownOf:
            self._known, self._knownOf = {}, knownOf
        known = self._known

        def compute(onProgress, cancel):
            onProgress(0.0, _("Reading the contours"))
            sides = [
                one.contours(whose, cancel)
                for one, whose in zip(copies, (_("the reference"), _("the compared contours")))
            ]
            agreements = compare_contours(
                *sides, volumes, pairs, known, lambda done, stage: onProgress(0.1 + 0.9 * done, stage), cancel
            )
            told = dict.fromkeys((*notes, *(note for side in sides for note in side.notes)))
            names = tuple(structure.name for structure in sides[1].structures)
            return ContourTable(agreements, tuple(told), imitated, names, nodes, contents)

        return compute

    def accept(self, table):
        """Keep what ``prepare``'s function gave, and return it; main thread only.

        :raises InputError: one of the nodes has gone meanwhile; the table before stays.
        """
        if any(slicer.mrmlScene.GetNodeByID(node) is None for node in table.nodes):
            raise InputError(_("One of the segmentations, or their image, was removed from the scene while they were "
                               "compared, so the comparison was dropped. Choose others and compare again."))
        self.table = table
        return table

    def clear(self):
        """Forget the table."""
        self.table = None
        self._known, self._knownOf = {}, None

    def isCurrent(self):
        """Whether the segmentations and the image are still as they were compared."""
        from NPCSynthLib.scene import content_of

        if self.table is None:
            return False
        nodes = [slicer.mrmlScene.GetNodeByID(node) for node in self.table.nodes]
        return None not in nodes and tuple(content_of(node) for node in nodes) == self.table.contents

    # With the table

    def show(self, agreement):
        """Center the slice views on the place where a structure's contours differ most.

        :raises UsageError: there is no such place.
        """
        from NPCSynthLib.scene import show_place

        image = slicer.mrmlScene.GetNodeByID(self.table.nodes[2])
        if image is None:
            raise UsageError(_("The image was removed from the scene. Load it again and compare again."))
        if agreement.place is None:
            raise UsageError(_("{name} is drawn nowhere.").format(name=agreement.name))
        show_place(agreement.place, image)

    def write(self, path):
        """Write the table as CSV; a file of that name is replaced. Names no patient and no node.

        :raises OutputError: it could not be written; what was there before is still there.
        """
        from NPCSynthLib.qa.contours import write_csv

        notes = [_("Made with NPCSynth, for research only.")]
        if not self.isCurrent():
            notes.append(_("The contours or their image were changed or removed after this table was made."))
        write_csv(self.table.agreements, path, (*notes, *self.table.notes), replace_it=True)
