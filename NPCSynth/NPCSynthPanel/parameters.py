"""What the user chose, saved with the scene."""

import functools
from typing import Annotated

import slicer
from slicer.parameterNodeWrapper import Choice, parameterNodeWrapper

from NPCSynthLib.errors import WeightsError
from NPCSynthLib.model.manifest import trained_sequences
from NPCSynthLib.model.store import weights_folder
from NPCSynthLib.vocabulary import load_sequences

#: What the user can choose -> NPCSynthLib.inference.device.choose_device's name for it.
DEVICES = {"Automatic": None, "GPU": "gpu", "CPU": "cpu"}
#: What can be done with a sequence: its volume is a source; it is made; neither.
USE, SYNTHESIZE, LEAVE = "use", "synthesize", "leave"
#: In a comparison of contours: the segmentation that counts as right, the one that is judged, the image of both.
REFERENCE, COMPARED, IMAGE = CONTOUR_ROLES = ("Reference", "Compared", "Image")


@functools.cache
def _sequencesOf(weights):
    """What weights of this key were trained to make. The key vouches for it, and the panel asks often."""
    return trained_sequences(weights_folder(weights))


@parameterNodeWrapper
class NPCSynthParameterNode:
    """What the user chose, saved with the scene. Nodes are node references beside these: volumes "Source.<sequence>",
    what is compared "Contours.<role>" (``CONTOUR_ROLES``), for whom pairs were made "Pairs.<role>", and what the report
    draws "Report.Contours".

    segment - Whether to segment tumor and organs at risk too.
    device - Where to compute.
    reference - Sequence whose grid the results get; empty for automatic.
    actions - Sequence id -> USE, SYNTHESIZE or LEAVE where that is not what goes without saying: use a volume that is
      there, synthesize a sequence that is missing, leave it where the weights do not know it.
    pairs - Structures of the reference contours -> of the compared ones that belong together whatever they are called.
    batchFolder - Folder of the batch that the section on several patients shows; empty without one.
    study - Key of the subject hierarchy's study whose volumes are offered (``NPCSynthLib.scene.studies``); empty for
      all volumes of the scene.
    weights - Key of imported weights (``NPCSynthLib.model.store``); empty for those that ship with NPCSynth.
    prompts - Target's sequence id -> the user's own words for it; what is blank goes without saying.
    """

    segment: bool = True
    device: Annotated[str, Choice(list(DEVICES))] = "Automatic"
    reference: str = ""
    actions: dict[str, str] = {}
    batchFolder: str = ""
    study: str = ""
    weights: str = ""
    prompts: dict[str, str] = {}
    pairs: dict[str, str] = {}

    def assigned(self):
        """Sequence id -> the volume node that was chosen for it, whatever is to be done with it."""
        found = {s: self.parameterNode.GetNodeReference(f"Source.{s}") for s in load_sequences()}
        return {sequence: node for sequence, node in found.items() if node is not None}

    def sources(self):
        """Sequence id -> volume node that goes into a run."""
        return {sequence: node for sequence, node in self.assigned().items() if self.action(sequence) == USE}

    def targets(self):
        """Sequence ids that a run makes. One whose volume is there can be among them, to compare the two."""
        return [sequence for sequence in load_sequences() if self.action(sequence) == SYNTHESIZE]

    def promptsOf(self, targets):
        """The user's own words for these targets, as far as there are any."""
        return {target: words for target, words in self.prompts.items() if target in targets}

    def setPrompt(self, target, words):
        """The user's own words for a target; blank for the usual prompt."""
        others = {t: w for t, w in self.prompts.items() if t != target}
        self.prompts = {**others, target: words.strip()} if words.strip() else others

    def canSynthesize(self, sequence):
        """Whether the chosen weights were trained to make a sequence.

        True where they are not on this computer: a run says so.
        """
        try:
            return sequence in _sequencesOf(self.weights)
        except WeightsError:
            return True

    def possibleActions(self, sequence):
        """What can be done with a sequence; the first goes without saying."""
        there = self.parameterNode.GetNodeReference(f"Source.{sequence}") is not None
        possible = {USE: there, SYNTHESIZE: self.canSynthesize(sequence), LEAVE: True}
        return tuple(action for action, isPossible in possible.items() if isPossible)

    def action(self, sequence):
        """What is to be done with a sequence."""
        possible = self.possibleActions(sequence)
        chosen = self.actions.get(sequence)
        return chosen if chosen in possible else possible[0]

    def setAction(self, sequence, action):
        """Choose what is to be done with a sequence: one of its ``possibleActions``."""
        others = {s: a for s, a in self.actions.items() if s != sequence}
        goesWithoutSaying = action == self.possibleActions(sequence)[0]
        self.actions = others if goesWithoutSaying else {**others, sequence: action}

    def assign(self, volumes):
        """Choose volumes; what was to be done with these sequences is forgotten.

        :param volumes: sequence id -> volume node, or None where there is none. A volume is one sequence: it is taken
          away from any other that it was chosen for.
        """
        with slicer.util.NodeModify(self.parameterNode):
            changed = {s: n for s, n in volumes.items() if self.assigned().get(s) is not n}
            taken = [node for node in changed.values() if node is not None]
            for other, node in self.assigned().items():
                if other not in volumes and any(node is one for one in taken):
                    changed[other] = None
            for sequence, node in changed.items():
                self.parameterNode.SetNodeReferenceID(f"Source.{sequence}", node.GetID() if node is not None else None)
            if any(sequence in changed for sequence in self.actions):
                self.actions = {s: a for s, a in self.actions.items() if s not in changed}

    def contourNode(self, role):
        """The node that was chosen for one of CONTOUR_ROLES, or None."""
        return self.parameterNode.GetNodeReference(f"Contours.{role}")

    def reportContours(self):
        """The segmentation node that is drawn into the report's pictures, or None."""
        return self.parameterNode.GetNodeReference("Report.Contours")

    def setReportContours(self, node):
        """Choose it, or None."""
        self.parameterNode.SetNodeReferenceID("Report.Contours", node.GetID() if node is not None else None)

    def setContourNode(self, role, node):
        """Choose a node for one of CONTOUR_ROLES, or None."""
        self.parameterNode.SetNodeReferenceID(f"Contours.{role}", node.GetID() if node is not None else None)

    def pairsOf(self, reference, compared):
        """``pairs``, where they were made for these two segmentation nodes."""
        made = [self.parameterNode.GetNodeReference(f"Pairs.{role}") for role in (REFERENCE, COMPARED)]
        return dict(self.pairs) if made == [reference, compared] else {}

    def setPairs(self, reference, compared, pairs):
        """What belongs together in these two segmentation nodes."""
        with slicer.util.NodeModify(self.parameterNode):
            for role, node in ((REFERENCE, reference), (COMPARED, compared)):
                self.parameterNode.SetNodeReferenceID(f"Pairs.{role}", node.GetID())
            self.pairs = pairs
