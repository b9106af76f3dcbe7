"""Section: what a run does beside the choice of sequences."""

from pathlib import Path

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from NPCSynthLib.errors import NPCSynthError
from NPCSynthLib.model.store import import_weights, model_card, stored_weights, weights_folder


class SettingsSection:
    """Segmentation, the grid of the results, the device, the weights."""

    def __init__(self, messages):
        self.messages = messages
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
        self._weights = []
        self._card = None
        self.weightsComboBox = qt.QComboBox()
        self.weightsComboBox.toolTip = _(
            "The trained network. Imported weights are verified and kept on this computer, for you alone."
        )
        self.weightsComboBox.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        self.weightsComboBox.connect("currentIndexChanged(int)", self._onWeightsChanged)
        form.addRow(_("Weights:"), self.weightsComboBox)
        self.importButton = qt.QPushButton(_("Import from file…"))
        self.importButton.toolTip = _(
            "Add weights that you were given: a zip file, or the manifest.json in their folder. Nothing is downloaded."
        )
        self.importButton.connect("clicked(bool)", lambda *_checked: self.importWeights())
        self.cardButton = qt.QPushButton(_("Model card"))
        self.cardButton.toolTip = _("What these weights learned from, how good they are, and what they are not for.")
        self.cardButton.connect("clicked(bool)", lambda *_checked: self.showCard())
        buttons = qt.QHBoxLayout()
        buttons.addWidget(self.importButton)
        buttons.addWidget(self.cardButton)
        form.addRow("", buttons)

    def setParameterNode(self, node):
        """Show and change this node's choices."""
        self._disconnect()
        self._parameterNode = node
        self._weights = list(stored_weights())  # from disk: not at every refresh
        if node is not None:
            # Not connectGui, which gives no tag to disconnect by.
            self._guiTag = node.connectParametersToGui(
                {"segment": self.segmentCheckBox, "device": self.deviceComboBox}
            )
        self.refresh()

    def setRunning(self, running):
        """The settings are fixed during a run."""
        for widget in (
            self.segmentCheckBox, self.referenceComboBox, self.deviceComboBox, self.weightsComboBox, self.importButton,
        ):  # fmt: skip
            widget.enabled = not running

    def refresh(self):
        """Offer the grids of the chosen volumes, and the weights."""
        sources, chosen = [], ""
        if self._parameterNode is not None:
            sources, chosen = list(self._parameterNode.sources()), self._parameterNode.reference
        self._updating = True
        try:
            self.referenceComboBox.clear()
            for text in (_("Automatic"), *sources):
                self.referenceComboBox.addItem(text)
            self.referenceComboBox.currentIndex = sources.index(chosen) + 1 if chosen in sources else 0
            self._refreshWeights()
        finally:
            self._updating = False

    def _refreshWeights(self):
        keys = self._weightsKeys()
        texts = {weights.key: f"{weights.name} {weights.version}" for weights in self._weights}
        self.weightsComboBox.clear()
        for key in keys:
            text = texts.get(key) or (_("not on this computer: {key}").format(key=key) if key else _("as shipped"))
            self.weightsComboBox.addItem(text)
        chosen = self._parameterNode.weights if self._parameterNode is not None else ""
        self.weightsComboBox.currentIndex = keys.index(chosen)

    def _weightsKeys(self):
        """Keys in the order of the list: the shipped ones, what was imported, and a choice made on another computer."""
        keys = ["", *(weights.key for weights in self._weights)]
        chosen = self._parameterNode.weights if self._parameterNode is not None else ""
        return keys if chosen in keys else [*keys, chosen]

    def importWeights(self):
        """Let the user choose a file, verify what is in it, keep it and use it."""
        path = qt.QFileDialog.getOpenFileName(
            None, _("Weights to import"), "", _("Weights") + " (*.zip manifest.json)"
        )
        if not path or self._parameterNode is None:
            return
        try:
            with slicer.util.WaitCursor():
                imported = import_weights(Path(path))
        except NPCSynthError as error:
            self.messages.showError(error)
            return
        self._weights = list(stored_weights())
        self._parameterNode.weights = imported.key
        self._parameterNode.parameterNode.Modified()  # also where they were chosen already, before they were here
        self.messages.show(_("Imported and verified: {name} {version}. It will be used from now on.").format(
            name=imported.name, version=imported.version
        ))

    def showCard(self):
        """The model card in a window of its own, which may stay open."""
        try:
            key = self._parameterNode.weights if self._parameterNode is not None else ""
            text = model_card(weights_folder(key))
        except NPCSynthError as error:
            self.messages.showError(error)
            return
        self._closeCard()
        self._card = qt.QDialog()
        self._card.windowTitle = _("NPCSynth: model card")
        layout = qt.QVBoxLayout(self._card)
        browser = qt.QTextBrowser()
        browser.openExternalLinks = True
        browser.setMarkdown(text)
        layout.addWidget(browser)
        self._card.resize(800, 800)
        self._card.show()

    def _closeCard(self):
        if self._card is not None:
            self._card.close()
            self._card = None

    def cleanup(self):
        """Let go of the parameter node."""
        self._closeCard()
        self._disconnect()
        self._parameterNode = None

    def _disconnect(self):
        if self._parameterNode is None:
            return
        try:
            self._parameterNode.disconnectGui(self._guiTag)
        except (ValueError, AttributeError, SystemError):
            pass  # Qt has deleted the widgets already, and with them the connections; PythonQt says so in three ways

    def _onReferenceChanged(self, index):
        if self._updating or self._parameterNode is None:
            return
        sources = list(self._parameterNode.sources())
        self._parameterNode.reference = sources[index - 1] if 0 < index <= len(sources) else ""

    def _onWeightsChanged(self, index):
        if self._updating or self._parameterNode is None:
            return
        self._parameterNode.weights = self._weightsKeys()[max(0, index)]
