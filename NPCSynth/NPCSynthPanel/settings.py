"""Section: what a run does beside the choice of sequences."""

import ctk
import qt
from slicer.i18n import tr as _


class SettingsSection:
    """Segmentation, the grid of the results, the device."""

    def __init__(self):
        self._parameterNode = None
        self._guiTag = None
        self._updating = False
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.text = _("Settings")
        form = qt.QFormLayout(self.widget)
        self.segmentCheckBox = qt.QCheckBox(_("Tumor and organs at risk"))
        self.segmentCheckBox.toolTip = _(
            "Also propose contours of the tumor, the nodes and the organs at risk. Check each of them on acquired "
            "images."
        )
        form.addRow(_("Segmentation:"), self.segmentCheckBox)
        self.referenceComboBox = qt.QComboBox()
        self.referenceComboBox.toolTip = _(
            "The results get exactly the voxel grid of this acquired sequence. Choose the one that your contours were "
            "drawn on."
        )
        self.referenceComboBox.connect("currentIndexChanged(int)", self._onReferenceChanged)
        form.addRow(_("Grid of the results:"), self.referenceComboBox)
        self.deviceComboBox = qt.QComboBox()
        self.deviceComboBox.toolTip = _("Automatic takes the GPU where there is one with enough memory, else the CPU.")
        form.addRow(_("Compute on:"), self.deviceComboBox)

    def setParameterNode(self, node):
        """Show and change this node's choices."""
        self._disconnect()
        self._parameterNode = node
        if node is not None:
            # Not connectGui, which gives no tag to disconnect by.
            self._guiTag = node.connectParametersToGui(
                {"segment": self.segmentCheckBox, "device": self.deviceComboBox}
            )
        self.refresh()

    def setRunning(self, running):
        """The settings are fixed during a run."""
        for widget in (self.segmentCheckBox, self.referenceComboBox, self.deviceComboBox):
            widget.enabled = not running

    def refresh(self):
        """Offer the grids of the chosen volumes."""
        sources, chosen = [], ""
        if self._parameterNode is not None:
            sources, chosen = list(self._parameterNode.sources()), self._parameterNode.reference
        self._updating = True
        try:
            self.referenceComboBox.clear()
            for text in (_("Automatic"), *sources):
                self.referenceComboBox.addItem(text)
            self.referenceComboBox.currentIndex = sources.index(chosen) + 1 if chosen in sources else 0
        finally:
            self._updating = False

    def cleanup(self):
        """Let go of the parameter node."""
        self._disconnect()
        self._parameterNode = None

    def _disconnect(self):
        if self._parameterNode is None:
            return
        try:
            self._parameterNode.disconnectGui(self._guiTag)
        except ValueError:
            pass  # Qt has deleted the widgets already, and with them the connections

    def _onReferenceChanged(self, index):
        if self._updating or self._parameterNode is None:
            return
        sources = list(self._parameterNode.sources())
        self._parameterNode.reference = sources[index - 1] if 0 < index <= len(sources) else ""
