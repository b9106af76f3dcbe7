"""Section: how well two segmentations agree, structure by structure."""

import math
from typing import NamedTuple

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from NPCSynthLib.qa.contours import TOLERANCES_MM
from NPCSynthLib.qa.ratings import (
    FAIR,
    GOOD,
    LIMITS,
    POOR,
    UPPER_LIMITS,
    has_stronger_edge,
    is_invented,
    is_missed,
    overall,
    rate_edges,
    ratings,
)  # fmt: skip

from .parameters import COMPARED, IMAGE, REFERENCE
from .selectors import makeNodeSelector

#: Sign and background of each rating. Dark text is set with them, whatever the application's theme.
LOOKS = {GOOD: ("✓", "#d5ecd4"), FAIR: ("~", "#fbeab8"), POOR: ("✗", "#f6cfc8")}
_TEXT_COLOR = "#1a1a1a"
#: Worst first; before all of them what was missed.
_MISSED, _ORDER = -1, {POOR: 0, FAIR: 1, GOOD: 2}


class Column(NamedTuple):
    """One column of the table.

    value - Agreement -> number or text to sort by; NaN and "" come last.
    text - Agreement -> what stands there.
    rating - Agreement -> GOOD, FAIR, POOR or None.
    warning - Agreement -> what to know of this value, or "".
    """

    title: str
    toolTip: str
    value: object
    text: object
    rating: object
    warning: object = lambda one: ""


class ContourSection:
    """Choose two segmentations, compare them, and look at where they differ."""

    def __init__(self, logic, runner, messages):
        self.logic, self.runner, self.messages = logic, runner, messages
        self._parameterNode = None
        self._updating = False
        self._shown = None
        self._sorting = None
        self._offered = [""]
        self.columns = []
        self.rows = []
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.text = _("Contour QA")
        layout = qt.QVBoxLayout(self.widget)
        form = qt.QFormLayout()
        layout.addLayout(form)
        self.selectors = {}
        for role, label, toolTip in (
            (REFERENCE, _("&Reference contours:"), _(
                "The contours that count as right: an RTSTRUCT or SEG that was loaded, or any segmentation.")),
            (COMPARED, _("Com&pared contours:"), _(
                "The contours that are judged by the reference: NPCSynth's own, or any other segmentation.")),
            (IMAGE, _("&Image of the contours:"), _(
                "The acquired image that the contours were drawn on. They are compared on its voxels.")),
        ):
            self.selectors[role] = self._makeSelector(role, toolTip)
            form.addRow(label, self.selectors[role])
        self.compareButton = qt.QPushButton(_("&Compare contours"))
        self.compareButton.connect("clicked(bool)", lambda *_checked: self.compare())
        layout.addWidget(self.compareButton)
        self.stateLabel = qt.QLabel()
        self.stateLabel.wordWrap = True
        layout.addWidget(self.stateLabel)
        self.table = self._makeTable()
        layout.addWidget(self.table)
        buttons = qt.QHBoxLayout()
        layout.addLayout(buttons)
        self.showButton = qt.QPushButton(_("Show &worst slice"))
        self.showButton.toolTip = _("Center the slice views where the contours of the chosen row differ most.")
        self.showButton.connect("clicked(bool)", lambda *_checked: self.show(self.table.currentRow()))
        self.exportButton = qt.QPushButton(_("E&xport table…"))
        self.exportButton.toolTip = _(
            "Write the table as CSV. It names no patient, volume or file; structures are called as they were drawn.")
        self.exportButton.connect("clicked(bool)", lambda *_checked: self.export())
        self.sortButton = qt.QPushButton(_("&Sort by this column"))
        self.sortButton.toolTip = _("Sort the table by the column of the chosen cell, as a click on its head does.")
        self.sortButton.connect("clicked(bool)", lambda *_checked: self.sortBy(self.table.currentColumn()))
        for button in (self.showButton, self.sortButton, self.exportButton):
            buttons.addWidget(button)
        pairing = qt.QHBoxLayout()
        layout.addLayout(pairing)
        self.pairLabel = qt.QLabel(_("Compare the chosen structure wit&h:"))
        self.pairComboBox = qt.QComboBox()
        self.pairComboBox.toolTip = _(
            "Structures are matched by their TG-263 names and the usual aliases. Choose here what belongs to a "
            "structure of the reference whose name does not match; the table is then made anew.")
        self.pairComboBox.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        self.pairComboBox.connect("activated(int)", self._onPaired)
        self.pairLabel.setBuddy(self.pairComboBox)
        pairing.addWidget(self.pairLabel)
        pairing.addWidget(self.pairComboBox, 1)
        self.notesLabel = qt.QLabel()
        self.notesLabel.wordWrap = True
        self.notesLabel.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        layout.addWidget(self.notesLabel)
        self.refresh()

    def _makeSelector(self, role, toolTip):
        kind = "vtkMRMLScalarVolumeNode" if role == IMAGE else "vtkMRMLSegmentationNode"
        selector = makeNodeSelector(kind, _("choose"), lambda node, role=role: self._onChosen(role, node))
        selector.toolTip = toolTip
        return selector

    def _makeTable(self):
        table = qt.QTableWidget()
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setTabKeyNavigation(False)  # Tab leaves the table, as it does any other widget
        table.setMinimumHeight(180)
        table.verticalHeader().setVisible(False)
        table.toolTip = _("Click on a row, or press Enter in it, to see where its contours differ most.")
        table.connect("cellClicked(int,int)", lambda row, column: self.show(row))
        table.connect("cellActivated(int,int)", lambda row, column: self.show(row))  # Enter
        table.connect("itemSelectionChanged()", self._refreshPairing)
        header = table.horizontalHeader()
        # Not Qt's own sorting: that would put numbers in the order of their letters.
        header.connect("sectionClicked(int)", self.sortBy)
        return table

    def setParameterNode(self, node):
        """Show this node's choice; without one, the scene is closed, and the table with it."""
        self._parameterNode = node
        if node is None:
            self.logic.contours.clear()
        self.refresh()

    def setRunning(self, running):
        """One thing at a time; looking at the table is possible all the while."""
        self.refresh()

    def cleanup(self):
        """Nothing of its own goes on."""
        self._parameterNode = None

    def refresh(self):
        """Show the choice, and the table if it is another one."""
        if self._updating:
            return
        self._updating = True
        try:
            chosen = self._chosen()
            for role, selector in self.selectors.items():
                if selector.currentNode() is not chosen[role]:
                    selector.setCurrentNode(chosen[role])
                selector.enabled = not self.runner.running
            self._refreshButton(chosen)
            table = self.logic.contours.table
            if self._shown is not table:
                self._shown = table
                self._makeColumns()
                self._sorting = None
                self._fill()
            buttons = (self.showButton, self.sortButton, self.exportButton)
            for widget in (self.table, *buttons, self.pairLabel, self.pairComboBox):
                widget.visible = table is not None
            outdated = table is not None and not self.logic.contours.isCurrent()
            self.stateLabel.text = _(
                "⚠ The contours or their image were changed or removed after this table was made. Compare again."
            ) if outdated else ""
            self.stateLabel.visible = outdated
            self.notesLabel.text = "\n".join(table.notes) if table is not None else ""
            self.notesLabel.visible = bool(table is not None and table.notes)
            self._refreshPairing()
        finally:
            self._updating = False

    def _refreshButton(self, chosen):
        if self.runner.running:
            reason = _("Running.")
        elif chosen[REFERENCE] is None or chosen[COMPARED] is None:
            reason = _("Load or draw contours, and choose two segmentations above.")
        elif chosen[IMAGE] is None:
            reason = _("Choose the image that the contours were drawn on.")
        else:
            reason = ""
        self.compareButton.enabled = not reason
        self.compareButton.toolTip = reason or _(
            "Measure how well the contours agree, structure by structure. Slicer stays usable meanwhile; “Cancel” "
            "above stops it.")

    def _chosen(self):
        if self._parameterNode is None:
            return {role: None for role in self.selectors}
        return self.logic.contours.chosen(self._parameterNode)

    def _onChosen(self, role, node):
        if not self._updating and self._parameterNode is not None:
            self._parameterNode.setContourNode(role, node)

    # Comparing

    def compare(self):
        """Compare in the background."""
        try:
            chosen = self._chosen()
            with slicer.util.WaitCursor():
                compute = self.logic.contours.prepare(
                    chosen[REFERENCE], chosen[COMPARED], chosen[IMAGE],
                    self.logic.contours.images(self._parameterNode, chosen[IMAGE]), self._pairs())
            self.logic.ensureDependencies()
        except Exception as error:
            self.messages.showError(error)
            return
        self.runner.start(compute, self._onCompared)

    def _onCompared(self, outcome, seconds):
        table = self.logic.contours.accept(outcome)
        both = sum(overall(one) is not None and not is_missed(one) and not is_invented(one) for one in table.agreements)
        self.messages.show(
            _("Compared {both} of {count} structures in {seconds:.0f} s. The column “Agreement” says what kept the "
              "others from it.").format(both=both, count=len(table.agreements), seconds=seconds)
            if both < len(table.agreements)
            else _("Compared {count} structures in {seconds:.0f} s.").format(count=both, seconds=seconds))
        self.refresh()

    # The table

    def _makeColumns(self):
        def number(title, toolTip, value, measure=None, form="{:.2f}"):
            def text(one):
                return "" if math.isnan(value(one)) else form.format(value(one))

            return Column(title, toolTip, value, text, lambda one: ratings(one)[measure] if measure else None)

        def told(title, toolTip, value):
            return Column(title, toolTip, lambda one: value(one).lower(), value, lambda one: None)

        limits = _("✓ good from {0:g}, ~ fair from {1:g}, else ✗ poor. For orientation only: no criterion by which "
                   "contours are accepted.")
        below = _("✓ good up to {0:g} mm, ~ fair up to {1:g} mm, else ✗ poor. For orientation only: no criterion by "
                  "which contours are accepted.")
        self.columns = [
            told(_("Structure"), _("TG-263 name."), lambda one: one.name),
            Column(
                _("Agreement"),
                _("The worst of the words for Dice, surface Dice at 2 mm and HD95: each of them has its limits, shown "
                  "with its own column. What only the reference has counts as poor, and so does a tumor that only the "
                  "compared have: they stand first when the worst are on top. For orientation only: no criterion by "
                  "which contours are accepted."),
                lambda one: _MISSED if is_missed(one) or is_invented(one) else _ORDER.get(overall(one), math.nan),
                self._word, overall),
            number(_("Dice"), _("Overlap of the volumes, 0 to 1. At the same distance small structures have lower "
                                "values.") + "\n" + limits.format(*LIMITS["dice"]), lambda one: one.dice, "dice"),
            *(
                number(
                    _("Surface\nDice {mm:g} mm").format(mm=mm),
                    _("Part of both surfaces that lies within {mm:g} mm of the other one, 0 to 1.").format(mm=mm) + "\n"
                    + limits.format(*LIMITS[f"surface_dice_{mm:g}mm"]),
                    lambda one, n=n: one.surface_dice[n], f"surface_dice_{mm:g}mm")
                for n, mm in enumerate(TOLERANCES_MM)
            ),
            number(_("HD95\n(mm)"), _("95 % of the surfaces lie nearer to each other than this.") + "\n"
                   + below.format(*LIMITS["hd95_mm"]), lambda one: one.hd95_mm, "hd95_mm", "{:.1f}"),
            number(_("Mean distance\n(mm)"), _("Mean distance from surface to surface.") + "\n"
                   + below.format(*LIMITS["mean_distance_mm"]), lambda one: one.mean_distance_mm, "mean_distance_mm"),
            number(_("Reference\n(ml)"), _("Volume in the reference."), lambda one: one.reference_ml),
            number(_("Compared\n(ml)"), _("Volume in the compared contours."), lambda one: one.predicted_ml),
            number(
                _("Difference\n(ml)"),
                _("Compared minus reference: + is larger than the reference.\n✓ good up to {0:.0%} of the reference, "
                  "~ fair up to {1:.0%}, else ✗ poor. For orientation only: no criterion by which contours are "
                  "accepted.").format(*LIMITS["volume_difference"]),
                lambda one: one.difference_ml, "volume_difference", "{:+.2f}"),
            *(self._edgeColumn(image, real) for image, real in (self._shown.images if self._shown else {}).items()),
            told(_("Name in the reference"), _("As the reference calls it."), lambda one: one.reference_name),
            told(_("Name compared"), _("As the compared contours call it."), lambda one: one.predicted_name),
        ]

    def _edgeColumn(self, image, real):
        toolTip = _(
            "How well the contour follows edges in {image}: how much the brightness changes right across it, as a part "
            "of the body's brightness range. 0: there is nothing to be seen where the contour runs. It is the "
            "reference's contour, or the compared one where the reference has none. Images count where they lie in the "
            "scene: in one that is not aligned with the contours the values are lower."
        ).format(image=image)
        if real is not None:
            toolTip += "\n" + _(
                "✓ good from {0:.0%} to {2:.0%} of the value in the acquired {real}, ~ fair from {1:.0%} to {3:.0%}, "
                "else ✗ poor. Below, the synthetic image does not show what the contour was drawn by; above, there is "
                "a stronger edge than in the acquired image: it may be invented. A good value does not make an edge "
                "real."
            ).format(*LIMITS["edges"], *UPPER_LIMITS["edges"], real=real)

        def value(one):
            return one.edges.get(image, math.nan)

        return Column(
            _("Edges in\n{image}").format(image=image), toolTip, value,
            lambda one: "" if math.isnan(value(one)) else f"{value(one):.3f}",
            lambda one: rate_edges(one, image, real) if real is not None else None,
            lambda one: _("Stronger edge than in the acquired image ({acquired:.3f}): it may be invented.").format(
                acquired=one.edges[real]) if real is not None and has_stronger_edge(one, image, real) else "")

    def _word(self, one):
        if is_missed(one):
            return _("only in the reference: missed")
        if is_invented(one):
            return _("only in the compared: invented?")
        rating = overall(one)
        if rating is not None:
            return {GOOD: _("good"), FAIR: _("fair"), POOR: _("poor")}[rating]
        if one.predicted_name and not one.reference_name:
            return _("only in the compared")
        return _("cannot be compared")

    def sortBy(self, column):
        """Sort by a column, the least on top; the other way round the next time. What has no value stays below."""
        descending = self._sorting == (column, False)
        self._sorting = (column, descending)
        self._fill()

    def _fill(self):
        table = self._shown
        rows = list(table.agreements) if table is not None else []
        header = self.table.horizontalHeader()
        header.setSortIndicatorShown(self._sorting is not None)
        if self._sorting is not None:
            column, descending = self._sorting
            value = self.columns[column].value
            known = [one for one in rows if value(one) == value(one) and value(one) != ""]  # NaN is not itself
            unknown = [one for one in rows if not any(one is other for other in known)]
            rows = sorted(known, key=value, reverse=descending) + unknown
            header.setSortIndicator(column, qt.Qt.DescendingOrder if descending else qt.Qt.AscendingOrder)
        current, cell = self.table.currentRow(), self.table.currentColumn()
        selected = self.rows[current] if 0 <= current < len(self.rows) else None
        self.rows = rows
        self.table.clear()
        self.table.setColumnCount(len(self.columns))
        self.table.setRowCount(len(rows))
        for number, column in enumerate(self.columns):
            title = qt.QTableWidgetItem(column.title)
            title.setToolTip(column.toolTip)
            self.table.setHorizontalHeaderItem(number, title)
        for row, one in enumerate(rows):
            for number, column in enumerate(self.columns):
                self.table.setItem(row, number, self._item(column, one))
        self.table.resizeColumnsToContents()
        for row, one in enumerate(rows):
            if one is selected:
                self.table.setCurrentCell(row, cell)

    def _item(self, column, one):
        rating, text = column.rating(one), column.text(one)
        item = qt.QTableWidgetItem(f"{LOOKS[rating][0]} {text}" if rating else text)
        if rating:
            item.setBackground(qt.QBrush(qt.QColor(LOOKS[rating][1])))
            item.setForeground(qt.QBrush(qt.QColor(_TEXT_COLOR)))
        item.setToolTip("\n".join(part for part in (one.name, column.warning(one), one.remark, column.toolTip) if part))
        return item

    def show(self, row):
        """Center the slice views on the worst slice of a row."""
        if not 0 <= row < len(self.rows):
            return
        try:
            self.logic.contours.show(self.rows[row])
        except Exception as error:
            self.messages.showError(error)

    # Pairing by hand

    def _refreshPairing(self):
        row = self.table.currentRow()
        one = self.rows[row] if 0 <= row < len(self.rows) else None
        self._offered = [""]
        self.pairComboBox.clear()
        self.pairComboBox.addItem(_("what its name means"))
        possible = one is not None and bool(one.reference_name) and not self.runner.running
        self.showButton.enabled = self.sortButton.enabled = one is not None
        self.pairComboBox.enabled = possible
        if not possible or self._parameterNode is None:
            return
        self._offered += self._shown.compared
        for name in self._shown.compared:
            self.pairComboBox.addItem(name)
        paired = self._pairs().get(one.name, "")
        self.pairComboBox.currentIndex = self._offered.index(paired) if paired in self._offered else 0

    def _onPaired(self, index):
        row = self.table.currentRow()
        if self._updating or self._parameterNode is None or not 0 <= row < len(self.rows):
            return
        self.pair(self.rows[row].name, self._offered[index])

    def _pairs(self):
        chosen = self._chosen()
        return self._parameterNode.pairsOf(chosen[REFERENCE], chosen[COMPARED])

    def pair(self, reference, compared):
        """Compare these two structures from now on, whatever their names mean; with "" again what the name means."""
        chosen = self._chosen()
        pairs = {a: b for a, b in self._pairs().items() if a != reference and b != compared}
        pairs |= {reference: compared} if compared else {}
        self._parameterNode.setPairs(chosen[REFERENCE], chosen[COMPARED], pairs)
        self.compare()

    # Export

    def export(self):
        """Write the table where the user wants it."""
        path = qt.QFileDialog.getSaveFileName(None, _("Table of the contours"), "contours.csv", "CSV (*.csv)")
        if not path:
            return
        try:
            self.logic.contours.write(path)
        except Exception as error:
            self.messages.showError(error)
            return
        self.messages.show(_("Wrote {path}.").format(path=path))
