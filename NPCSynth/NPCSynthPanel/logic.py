"""Everything that the module does, without a panel."""

import shutil
import sys
import time
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from NPCSynthLib.errors import InputError, UsageError
from NPCSynthLib.inference.process import WorkerProcess
from NPCSynthLib.inference.request import SynthesisRequest
from NPCSynthLib.vocabulary import get_sequence, load_sequences

from .contour_comparison import ContourComparison
from .dependencies import ensureDependencies, ensurePackages, ensurePromptPackages
from .parameters import DEVICES, NPCSynthParameterNode
from .report_writer import ReportWriter


def pythonExecutable():
    """Slicer's Python, since ``sys.executable`` is Slicer itself there; outside Slicer this Python."""
    return shutil.which("PythonSlicer") or sys.executable


class NPCSynthLogic(ScriptedLoadableModuleLogic):
    """Everything that the module does, for scripts too::

        logic = NPCSynthLogic()
        nodes = logic.process({"T1": t1Node, "T2": t2Node}, ["T1C", "FLAIR"])
        nodes.volumes["T1C"]

    :param computer: does the computing; by default a worker process that is started by the first run and kept warm,
      so that the window never freezes and a run can be ended at once. ``NPCSynthLib.inference.job.InProcess()`` does
      the same in this process.
    """

    def __init__(self, computer=None):
        ScriptedLoadableModuleLogic.__init__(self)
        self.computer = WorkerProcess(python=pythonExecutable()) if computer is None else computer
        self._identified = {}
        self._synthetic = {}
        self._belongs = {}
        self.contours = ContourComparison()
        self.reports = ReportWriter(self.contours)

    def getParameterNode(self):
        """The choices saved in the scene."""
        return NPCSynthParameterNode(super().getParameterNode())

    # Which volume is which sequence

    def studies(self):
        """The subject hierarchy's studies that hold volumes which may be sources."""
        from NPCSynthLib.scene import studies

        candidates = {node.GetID() for node in self.candidateNodes()}
        return [study for study in studies(slicer.mrmlScene) if any(v.GetID() in candidates for v in study.volumes)]

    def candidateNodes(self, study=""):
        """Volumes in the scene that may be sources: scalar, with an image, not made by NPCSynth, not hidden.

        :param study: key of a study: its volumes only. All when it is empty or no longer there.
        """
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if study:
            from NPCSynthLib.scene import studies

            nodes = next((list(one.volumes) for one in studies(slicer.mrmlScene) if one.key == study), nodes)
        return [
            node
            for node in nodes
            if node.GetClassName() == "vtkMRMLScalarVolumeNode" and node.GetImageData() is not None
            and not node.GetHideFromEditors() and not self._isSynthetic(node)
        ]

    def _isSynthetic(self, node):
        """Made by a program, not acquired. The header is on disk, and the panel asks often."""
        from NPCSynthLib.scene import is_synthetic

        # The voxels count too: they may be those of a result, which may come later.
        key = (
            node.GetID(), node.GetName(), node.GetAttribute("DICOM.instanceUIDs"), node.GetImageData().GetMTime(),
            node.GetScene().GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"),
        )  # fmt: skip
        if key not in self._synthetic:
            self._synthetic[key] = is_synthetic(node)
        return self._synthetic[key]

    def identify(self, node):
        """What NPCSynthLib.study.identify says about a volume node, from its DICOM header or else its name."""
        from NPCSynthLib.scene import header_from_node
        from NPCSynthLib.study.identify import identify

        # The header is read from disk, and the panel asks often.
        key = (node.GetAttribute("DICOM.instanceUIDs"), node.GetName())
        if key not in self._identified:
            self._identified[key] = identify(header_from_node(node), node.GetName())
        return self._identified[key]

    def proposeAssignment(self, nodes=None):
        """Tell which volume is which sequence, by the rules of NPCSynthLib.study.build.assign.

        :return: sequence id -> volume node, and sentences about the volumes that were left out.
        """
        from NPCSynthLib.scene import volume_from_node
        from NPCSynthLib.study.build import assign

        described, notes = [], []
        for node in self.candidateNodes() if nodes is None else nodes:
            try:
                described.append((volume_from_node(node, copy=False), node))
            except InputError as error:
                notes.append(str(error))
        chosen, warnings, refused = assign([volume for volume, _node in described])
        notes += warnings
        notes += [_("“{name}” is not used: {reason}").format(name=name, reason=reason) for name, reason in refused]
        proposals = {
            sequence: next(node for volume, node in described if volume is taken) for sequence, taken in chosen.items()
        }
        return proposals, notes

    def confidence(self, sequence, node):
        """How well a chosen volume fits its sequence.

        :return: 0..1, or None when it was not recognized as this sequence; and a sentence that says why.
        """
        identification = self.identify(node)
        if identification.sequence == sequence:
            return identification.confidence, _("Looks like {sequence}, {percent:.0f} % sure: {reason}").format(
                sequence=sequence, percent=100 * identification.confidence, reason=identification.reason
            )
        if identification.sequence is None:
            return None, _("Chosen by you. By itself it was not recognized: {reason}").format(
                reason=identification.reason
            )
        return None, _("Chosen by you. By itself it looks like {sequence}: {reason}").format(
            sequence=identification.sequence, reason=identification.reason
        )

    # The job

    def process(
        self, volumeNodes, targets=None, segment=True, device=None, reference=None, onProgress=None, cancel=None,
        prompts=None, weights=None,
    ):
        """Synthesize and add the results to the scene; returns when done. Can be used without GUI.

        :param volumeNodes: sequence id -> vtkMRMLScalarVolumeNode.
        :param targets: sequence ids to synthesize; by default all that are missing and that the weights were
          trained to make.
        :param segment: also segment tumor and organs at risk.
        :param device: "GPU", "CPU", or None to let NPCSynth choose.
        :param reference: sequence id of the source whose grid the results get; by default the best one.
        :param onProgress: called with a fraction 0..1 and a stage in words.
        :param cancel: called often; return True to stop.
        :param prompts: sequence id -> free text instead of the usual prompt of a target.
        :param weights: folder of the weights; by default those that ship with NPCSynth.
        :return: NPCSynthLib.scene.SceneNodes.
        :raises NPCSynthError: with a message for the user; Cancelled among them. The scene is then as it was before.
        """
        if targets is None:
            targets = [s for s in self.computer.sequences(weights) if s not in volumeNodes]
        volumes = self.prepare(volumeNodes, targets)
        self.ensureDependencies(prompts=bool(prompts))
        if device not in (None, *DEVICES):
            raise UsageError(_("“{choice}” is no device. Choose one of: {choices}.").format(
                choice=device, choices=", ".join(DEVICES)
            ))
        request = SynthesisRequest(
            tuple(targets), reference, segment, DEVICES.get(device), prompts or {}, weights
        )
        study, result = self.computer.compute(volumes, request, on_progress=onProgress, cancel=cancel)
        return self.addToScene(result, study, volumeNodes)

    def prepare(self, volumeNodes, targets):
        """Check a request and copy the images out of the scene; main thread only.

        :return: sequence id -> NPCSynthLib Volume.
        """
        from NPCSynthLib.scene import study_volumes

        if not volumeNodes:
            raise UsageError(_("No source was chosen. Choose at least one MR volume."))
        for sequence in (*volumeNodes, *targets):
            if sequence not in load_sequences():
                get_sequence(sequence)  # raises with the nearest known name, or knows it by an alias
                raise UsageError(_("Name sequences by their id: {ids}.").format(ids=", ".join(load_sequences())))
        both = [s for s in targets if s in volumeNodes]
        if both:
            raise UsageError(
                _("{sequence} is both a source and a target. Remove it from one of them.").format(sequence=both[0])
            )
        if not targets:
            raise UsageError(_("Nothing to synthesize was chosen. Choose at least one missing sequence."))
        return study_volumes(volumeNodes)

    def addToScene(self, result, study, volumeNodes):
        """Add a result to the scene as one unit; main thread only."""
        from NPCSynthLib.scene import add_result

        return add_result(result, study, volumeNodes, slicer.mrmlScene)

    # Results

    def hasResults(self):
        """Whether results of NPCSynth lie in the scene."""
        from NPCSynthLib.scene import result_nodes

        return bool(result_nodes(slicer.mrmlScene))

    def latestResultNames(self):
        """Names of the nodes that the latest run added, and of those among them that were changed since."""
        from NPCSynthLib.scene import changed_nodes, latest_nodes

        nodes = latest_nodes(slicer.mrmlScene)
        return [node.GetName() for node in nodes], [node.GetName() for node in changed_nodes(nodes)]

    def latestResultStudy(self):
        """Patient and study that the latest results lie in, as the Data module calls them, or "". Never log it."""
        from NPCSynthLib.scene import latest_nodes, studies

        ids = {node.GetID() for node in latest_nodes(slicer.mrmlScene)}
        return next((study.name for study in studies(slicer.mrmlScene)
                     if any(volume.GetID() in ids for volume in study.volumes)), "")

    def removeLatestResult(self):
        """Delete the nodes that the latest run added."""
        from NPCSynthLib.scene import latest_nodes

        self.removeNodes(latest_nodes(slicer.mrmlScene))

    def removeNodes(self, nodes):
        """Delete nodes of results."""
        from NPCSynthLib.scene import remove_nodes

        remove_nodes(slicer.mrmlScene, nodes)

    def outputs(self):
        """The synthetic images of all runs in the scene, as ``NPCSynthLib.scene.SceneOutput``."""
        from NPCSynthLib.scene import scene_outputs

        return scene_outputs(slicer.mrmlScene)

    def belonging(self, output, node):
        """Whether a volume may be compared with a SceneOutput as the acquired image of its sequence.

        :param node: vtkMRMLScalarVolumeNode, or None where there is none.
        :return: NPCSynthLib.scene.Belonging.
        """
        from NPCSynthLib.scene import Belonging, acquired_belonging
        from NPCSynthLib.scene.collect import RUN

        if node is None:
            return Belonging()
        # Headers are on disk, and the panel asks often.
        key = (output.image.GetAttribute(RUN), output.sequence, node.GetID(), node.GetName(),
               node.GetAttribute("DICOM.instanceUIDs"))
        if key not in self._belongs:
            self._belongs[key] = acquired_belonging(output.image, node, output.sequence)
        return self._belongs[key]

    def resultViews(self):
        """What shows them in the slice views: ``NPCSynthLib.scene.views.ResultViews``."""
        from NPCSynthLib.scene.views import ResultViews

        return ResultViews(slicer.mrmlScene, slicer.app.applicationLogic(), slicer.app.processEvents)

    def prepareExport(self, parentFolder):
        """What is needed to write the latest results as DICOM; main thread only.

        :return: a function of (onProgress, cancel) for any thread, which gives the new folder and the series written,
          and the names of the nodes that are left out because they were changed.
        :raises NPCSynthError: there is nothing to export. The function raises it too, and leaves nothing behind.
        """
        from NPCSynthLib.scene import latest_result

        found = latest_result(slicer.mrmlScene)
        if found is None or not (found.result.sequences or found.result.segmentation):
            raise UsageError(_("There are no unchanged results of NPCSynth in the scene. Run first, then export."))
        series = [source.get("SeriesInstanceUID") for source in found.document["sources"]]
        database = getattr(slicer, "dicomDatabase", None)
        files = [path for uid in series if uid and database is not None for path in database.filesForSeries(uid)]
        folder = Path(parentFolder) / time.strftime("NPCSynth %Y-%m-%d %H.%M.%S")

        def export(onProgress, cancel):
            from NPCSynthLib.output.dicom_export import export_dicom

            written = export_dicom(
                found.result, found.document, files, folder, on_progress=onProgress, cancel=cancel
            )
            return folder, written

        return export, found.left_out

    def addToDatabase(self, folder, series):
        """Copy exported files into Slicer's DICOM database. Returns whether all series are there then."""
        database = getattr(slicer, "dicomDatabase", None)
        if database is None or not database.isOpen:
            return False
        from DICOMLib import DICOMUtils

        DICOMUtils.importDicom(str(folder), copyFiles=True)
        return all(database.filesForSeries(one.uid) for one in series)

    def ensureDependencies(self, prompts=False):
        """Install what is missing after asking; main thread only, and only when a run is about to begin.

        :param prompts: also what prompts in free text need.
        :raises NPCSynthError: the user declined, or something could not be installed.
        """
        ensureDependencies()
        if prompts:
            ensurePromptPackages()

    def ensurePackages(self):
        """The part of ``ensureDependencies`` that is not PyTorch."""
        ensurePackages()

    # Sample data

    def loadPhantomPatient(self, seed=1, sequences=("T1", "T2"), size="full"):
        """Add volumes of a simulated patient to the scene.

        :return: sequence id -> vtkMRMLScalarVolumeNode.
        """
        from NPCSynthLib.phantom.patient import make_patient
        from NPCSynthLib.scene import add_volume

        volumes = make_patient(seed, sequences=tuple(sequences), size=size).volumes
        return {s: add_volume(slicer.mrmlScene, volumes[s], f"Phantom {s}") for s in sequences}
