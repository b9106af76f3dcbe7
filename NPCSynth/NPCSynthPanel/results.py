"""Section: the synthetic images that were made, and looking at them."""

import html

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from NPCSynthLib.vocabulary import get_sequence

_MAP_COLORS = _(
    "Colors: a predicted error of 5 to 30 % of the image's range of gray (50-300 of 1000 in the legend). Below 5 % and "
    "outside the body nothing is colored: that does not mean that there is no error."
)
#: Turns a second while flickering -> text of the choice.
SPEEDS = {1: _("1 a second"), 2: _("2 a second"), 4: _("4 a second")}


class ResultsSection:
    """One row an output; the buttons below work on the row that is chosen."""

    def __init__(self, logic, runner, messages):
        self.logic, self.runner, self.messages = logic, runner, messages
        self._parameterNode = None
        self._views = None
        self._outputs = []
        self._filling = False
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.text = _("Results")
        layout = qt.QVBoxLayout(self.widget)

        self.table = qt.QTableWidget()
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.setColumnCount(4)
        self.table.setHorizontalHeaderLabels(
            [_("Synthetic image"), _("Uncertainty"), _("Like the training data?"), _("Warnings")]
        )
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.Stretch)  # has the longest texts
        for column in (0, 2, 3):
            self.table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        self.table.setMinimumHeight(110)
        self.table.setTabKeyNavigation(False)  # Tab leads on to the buttons; the arrow keys choose the row
        self.table.connect("itemSelectionChanged()", self._onRowChosen)
        layout.addWidget(self.table)

        self.aboutLabel = qt.QLabel()
        self.aboutLabel.wordWrap = True
        self.aboutLabel.setTextInteractionFlags(qt.Qt.TextSelectableByMouse | qt.Qt.TextSelectableByKeyboard)
        layout.addWidget(self.aboutLabel)

        grid = qt.QGridLayout()
        layout.addLayout(grid)
        self.compareButton = self._button(_("Side by side"), self.compare)
        self.flickerButton = self._button(_("Flicker"), self.flicker)
        self.flickerButton.setCheckable(True)
        self.speedComboBox = qt.QComboBox()
        self.speedComboBox.toolTip = _("How often the images take turns.")
        for text in SPEEDS.values():
            self.speedComboBox.addItem(text)
        self.speedComboBox.currentIndex = 1
        self.speedComboBox.connect("currentIndexChanged(int)", self._onSpeedChosen)
        self.checkerboardButton = self._button(_("Checkerboard"), self.checkerboard)
        self.differenceButton = self._button(_("Difference"), self.difference)
        self.uncertaintyButton = self._button(_("Uncertainty map"), self.uncertainty)
        self.backButton = self._button(_("Back to normal views"), self.back)
        self.backButton.toolTip = _("Show the layout, images and brightness as they were before.")
        self.deleteButton = self._button(_("Delete…"), self.delete)
        self.deleteButton.toolTip = _("Take this synthetic image and its uncertainty out of the scene.")
        for place, widget in enumerate((
            self.compareButton, self.flickerButton, self.speedComboBox, self.uncertaintyButton, self.checkerboardButton,
            self.differenceButton, self.backButton, self.deleteButton,
        )):  # fmt: skip
            grid.addWidget(widget, place // 3, place % 3)
        self.opacityLabel = qt.QLabel(_("&Color of the map:"))
        self.opacitySlider = qt.QSlider(qt.Qt.Horizontal)
        self.opacitySlider.maximum = 100
        self.opacitySlider.toolTip = _(
            "How much the map covers the image. All the way to the right its colors are exactly those of the legend.")
        self.opacitySlider.connect("valueChanged(int)", self._onOpacityChosen)
        self.opacityLabel.setBuddy(self.opacitySlider)
        row = qt.QHBoxLayout()
        row.addWidget(self.opacityLabel)
        row.addWidget(self.opacitySlider, 1)
        layout.addLayout(row)
        self._flickerTimer = qt.QTimer()
        self._flickerTimer.connect("timeout()", self._onFlickerTimer)
        self._onSpeedChosen(1)

    def _button(self, text, slot):
        button = qt.QPushButton(text)
        button.enabled = False
        button.connect("clicked(bool)", lambda *_checked: slot())
        return button

    def setParameterNode(self, node):
        """The assigned volumes are the acquired ones to compare with. None: the scene is about to be closed."""
        self._parameterNode = node
        if node is None:
            self.back()
            self._views = None
        self.refresh()

    def setRunning(self, running):
        """Results can be looked at meanwhile, but not taken away."""
        self.refresh()

    def refresh(self):
        """Show what is in the scene, and keep the chosen row."""
        chosen = self.chosen()
        self._outputs = self.logic.outputs() if self._parameterNode is not None else []
        row = next(
            (n for n, output in enumerate(self._outputs) if chosen is not None and output.image is chosen.image), 0
        )
        self._filling = True
        try:
            self.table.setRowCount(len(self._outputs))
            for number, output in enumerate(self._outputs):
                for column, (text, toolTip) in enumerate(self._cells(output)):
                    item = qt.QTableWidgetItem(text)
                    item.setToolTip(toolTip)
                    self.table.setItem(number, column, item)
            if self._outputs:
                self.table.selectRow(row)
        finally:
            self._filling = False
        self._refreshChosen()

    def cleanup(self):
        """Give the views back."""
        self._flickerTimer.stop()
        if self._views is not None:
            self._views.back()
        self._views = self._parameterNode = None

    def chosen(self):
        """The SceneOutput of the chosen row, or None."""
        row = self.table.currentRow()
        return self._outputs[row] if 0 <= row < len(self._outputs) else None

    def choose(self, sequence):
        """Choose the first row of a sequence."""
        for row, output in enumerate(self._outputs):
            if output.sequence == sequence:
                self.table.selectRow(row)
                return

    # What the rows say

    def _cells(self, output):
        name = get_sequence(output.sequence).name
        if output.mean_uncertainty is None:
            uncertainty = ("?", _("The provenance does not say how uncertain it is."))
        else:
            sentence = _(
                "Predicted mean error in the body: {percent:.1f} % of the image's range of gray. An estimate of the "
                "model itself: low uncertainty does not prove that a lesion is, or is not, there."
            ).format(percent=100 * output.mean_uncertainty)
            if output.calibrated:
                text = _("{percent:.1f} %")
                sentence += " " + _("It was scaled on acquired images of a few patients, none with nasopharyngeal "
                                    "carcinoma.")
            else:
                text = _("{percent:.1f} %, may be far too low")
                sentence += " " + _("For this sequence, or for words of your own, it was never checked on acquired "
                                    "images: the true error may be far larger.")
            uncertainty = (text.format(percent=100 * output.mean_uncertainty), sentence)
        if output.unusual is None:
            unusual = (
                _("unknown"),
                _("Not checked: these weights do not know what the images that they learned from look like."),
            )  # fmt: skip
        elif output.unusual:
            unusual = (_("⚠ no"), "\n".join(output.unusual))
        else:
            unusual = (
                _("nothing noticed"),
                _("Nothing unusual was noticed. That does not prove that the images are like those learned from."),
            )
        count = str(len(output.warnings)) if output.warnings else _("none")
        return (
            (output.image.GetName(), name), uncertainty, unusual,
            (count, "\n".join(output.warnings) or _("The run had nothing to note.")),
        )

    def _refreshChosen(self):
        output = self.chosen()
        acquired = self._acquired(output)
        real = self._real(output)
        self.aboutLabel.visible = output is not None
        if output is not None:
            sentences = [toolTip for _text, toolTip in self._cells(output)[1:3]]
            sentences += [one for one in output.warnings if one not in (output.unusual or ())]
            sentences += self._belonging(output).sentences
            # Series names come from DICOM headers: shown as they are, not as markup.
            self.aboutLabel.text = "<br>".join(html.escape(one).replace("\n", "<br>") for one in sentences)
        none = _("Run first, or load a scene with results.")
        self._offer(self.compareButton, acquired, none if output is None else _(
            "The acquired volume was deleted."), _(
            "An acquired source, the synthetic image and, if there is one, the acquired {sequence}: linked, at the "
            "same place and magnification."
        ), output)  # fmt: skip
        self._offer(self.flickerButton, acquired, none if output is None else _(
            "The acquired volume was deleted."), _(
            "The acquired image and the synthetic one take turns in the same views. With an acquired {sequence} it is "
            "that one, else a source of another contrast. Press again to stop."
        ), output)  # fmt: skip
        missing = none if output is None else self._belonging(output).refusal or _(
            "Only with an acquired {sequence} volume: assign it in the study table, where “leave” keeps it out of the "
            "next run."
        ).format(sequence=output.sequence)
        self._offer(self.checkerboardButton, real, missing, _(
            "Squares of the acquired and the synthetic {sequence} by turns. Do edges go on across them?"
        ), output)  # fmt: skip
        self._offer(self.differenceButton, real, missing, _(
            "How far the synthetic {sequence} is from the acquired one, in color over the acquired image."
        ) + "\n" + _MAP_COLORS, output)  # fmt: skip
        self._offer(self.uncertaintyButton, output.uncertainty if output is not None else None, (
            none if output is None else _("The uncertainty map was deleted.")), _(
            "The predicted error in color over the synthetic image, with a legend."
        ) + "\n" + _MAP_COLORS, output)  # fmt: skip
        self.deleteButton.enabled = output is not None and not self.runner.running
        opacity = self._views.map_opacity if self._views is not None else None
        for widget in (self.opacityLabel, self.opacitySlider):
            widget.enabled = opacity is not None
        if opacity is not None:
            self.opacitySlider.blockSignals(True)  # or showing an opacity would round it
            self.opacitySlider.value = round(100 * opacity)
            self.opacitySlider.blockSignals(False)
        self.backButton.enabled = self._views is not None and self._views.changed
        if self._flickerTimer.active and acquired is None:
            self._stopFlicker()

    def _offer(self, button, possible, reason, toolTip, output):
        button.enabled = possible is not None
        button.toolTip = reason if possible is None else toolTip.format(sequence=output.sequence)

    # What can be compared

    def _real(self, output):
        """The acquired volume of the same sequence and patient, or None."""
        return None if output is None or self._belonging(output).refusal else self._assigned(output)

    def _assigned(self, output):
        return self._parameterNode.assigned().get(output.sequence) if self._parameterNode is not None else None

    def _belonging(self, output):
        """Whether what is assigned to the output's sequence now is of the run's patient."""
        return self.logic.belonging(output, self._assigned(output))

    def _acquired(self, output):
        return self._real(output) or (output.source if output is not None else None)

    # What the buttons do

    def compare(self):
        """Source, synthetic and, if it is there, acquired, side by side."""
        output = self.chosen()
        volumes = [output.source, output.image, self._real(output)]
        self._look(lambda views: views.compare([node for node in volumes if node is not None]))

    def flicker(self):
        """Begin, or stop when it goes on already."""
        if self._flickerTimer.active:
            self._stopFlicker()
            return
        output = self.chosen()
        if self._look(lambda views: views.flicker(self._acquired(output), output.image)):
            self._flickerTimer.start()
            self.flickerButton.setChecked(True)

    def checkerboard(self):
        """Squares of the acquired and the synthetic image."""
        output = self.chosen()
        self._look(lambda views: views.checkerboard(self._real(output), output.image))

    def difference(self):
        """The absolute difference over the acquired image."""
        output = self.chosen()
        self._look(lambda views: views.difference(self._real(output), output.image))

    def uncertainty(self):
        """The predicted error over the synthetic image."""
        output = self.chosen()
        self._look(lambda views: views.uncertainty(output.image, output.uncertainty))

    def back(self):
        """The views as they were before."""
        self._stopFlicker()
        if self._views is not None:
            self._views.back()
        self._refreshChosen()

    def delete(self):
        """Take the chosen output out of the scene, after asking."""
        output = self.chosen()
        nodes = [node for node in (output.image, output.uncertainty) if node is not None]
        names = ", ".join(node.GetName() for node in nodes)
        question = _("Remove these nodes from the scene? That cannot be undone.\n{names}").format(names=names)
        if self.messages.confirm(question):
            self.back()  # or a view would be left empty
            self.logic.removeNodes(nodes)
            self.messages.show(_("Removed: {names}.").format(names=names))
            self.refresh()

    def _look(self, how):
        """Change the views. Returns whether that was possible."""
        self._stopFlicker()
        try:
            with slicer.util.WaitCursor():
                if self._views is None:
                    self._views = self.logic.resultViews()
                how(self._views)
        except Exception as error:
            self.messages.showError(error)
            return False
        finally:
            self._refreshChosen()
        return True

    # Flicker

    def _onFlickerTimer(self):
        if self._views is None or not self._views.turn():
            self._stopFlicker()

    def _stopFlicker(self):
        self._flickerTimer.stop()
        self.flickerButton.setChecked(False)
        if self._views is not None:
            self._views.stop_flicker()

    def _onSpeedChosen(self, index):
        self._flickerTimer.setInterval(round(1000 / list(SPEEDS)[index]))

    def _onOpacityChosen(self, percent):
        if self._views is not None and self._views.map_opacity is not None:
            self._views.set_map_opacity(percent / 100)

    def _onRowChosen(self):
        if not self._filling:
            self._refreshChosen()
