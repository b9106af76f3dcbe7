"""Draws the pictures of the README and the tutorial: ``python Testing/pictures.py [NAME ...]``.

A digital patient is loaded, two sequences are synthesized with the shipped weights, and the slice views are drawn as
Slicer's own classes draw them; the panel comes from the stand-in. Nobody's images are in them, and no face: the views
show slices alone.
"""

import io
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "Testing")]

import numpy as np  # noqa: E402
import slicer_stand_in  # noqa: E402

slicer = slicer_stand_in.install()

import qt  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402
from slicer_stand_in.slice_views import SliceViews  # noqa: E402

from NPCSynthLib.inference.result import INTENSITY_HIGH  # noqa: E402

OUT = ROOT / "Resources" / "Screenshots"
SEED, SOURCES, TARGETS = 7, ("T1", "T2"), ("T1C", "T2FS")
#: Slice view in pixels: three side by side still fit into a page.
SIZE = (420, 420)
PANEL_WIDTH, CONTOURS_WIDTH = 560, 948
FAILURES_SEED, FAILURES_WIDTH = 3, 1000
LARGEST = 150_000


def main(names):
    """Draw the pictures of these names; all when none is given."""
    if not names or "failures" in names:
        save(failures(), OUT / "failures.png")
    if not names or set(names) - {"failures"}:
        draw_views(names)


def failures():
    """Where the shipped weights fail, on a digital patient: slices through the tumor and through the eyes."""
    from NPCSynthLib.evaluation.phantom_cases import phantom, scanned
    from NPCSynthLib.inference.synthesizer import Synthesizer
    from NPCSynthLib.output.picture import picture
    from NPCSynthLib.output.slices import slice_view
    from NPCSynthLib.output.truth import Truth

    anatomy = phantom(FAILURES_SEED)
    study = scanned(anatomy, SOURCES)
    result = Synthesizer(device="cpu").run(study, ["T1C"], segment=True)
    true = scanned(anatomy, ["T1C"]).sources[0]
    truth = Truth({"T1C": true.array * INTENSITY_HIGH},
                  {name: mask for name, mask in anatomy.structures.items() if name != "External"})
    sheets = []
    for name in ("GTVp", "Eye_L"):
        k = int(np.median(np.nonzero(anatomy.structures[name])[0]))
        sheets.append(Image.open(io.BytesIO(picture(result, study, slice_view(result.grid, k), truth))).convert("RGB"))
    sheet = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), sheets[0].getpixel((0, 0)))
    top = 0
    for one in sheets:
        sheet.paste(one, (0, top))
        top += one.height
    return sheet.resize((FAILURES_WIDTH, sheet.height * FAILURES_WIDTH // sheet.width), Image.LANCZOS)


def draw_views(names):
    """The pictures of slice views and of the panel."""
    module = slicer_stand_in.load_module(ROOT / "NPCSynth" / "NPCSynth.py")
    from segmentation_cases import add_labels

    from NPCSynthLib.inference.job import InProcess
    from NPCSynthLib.phantom.patient import make_patient, structures_on
    from NPCSynthLib.scene import add_volume
    from NPCSynthLib.scene.layouts import PANES
    from NPCSynthPanel.parameters import COMPARED, IMAGE, REFERENCE

    scene = slicer_stand_in.new_scene()
    views = SliceViews(scene, slicer.app.applicationLogic(), size=SIZE)
    panel = slicer_stand_in.open_panel(module.NPCSynthWidget)
    panel.logic.computer = InProcess()
    patient = make_patient(SEED, sequences=(*SOURCES, "T1C"))
    nodes = {s: add_volume(scene, volume, f"Phantom {s}") for s, volume in patient.volumes.items()}
    place = tumor(patient)
    created = panel.logic.process({s: nodes[s] for s in SOURCES}, list(TARGETS), reference="T1")
    panel.study.detect()
    panel._parameterNode.setAction("T1C", "synthesize")  # acquired, to be compared with
    created.segmentation.GetDisplayNode().SetVisibility(False)
    slicer.util.setSliceViewerLayers(background=nodes["T1"])
    views["Red"].node.SetOrientation("Axial")
    views["Red"].logic.FitSliceToBackground()
    views["Red"].node.JumpSliceByOffsetting(*place)
    section = next(one for one in panel.sections if type(one).__name__ == "ResultsSection")
    panel.refresh()
    section.choose("T1C")

    def comparison():
        section.compare()
        titles = (nodes["T1"].GetName(), created.volumes["T1C"].GetName(), f"{nodes['T1C'].GetName()}, simulated")
        return beside([views[name].render() for name in PANES], titles)

    def uncertainty():
        section.uncertainty()
        title = f"{created.volumes['T1C'].GetName()} and its uncertainty"
        return beside([views["Red"].render()], [title])

    def draw_panel():
        section.back()
        fit(panel.parent, PANEL_WIDTH)
        return picture_of(panel.parent)

    def contours():
        grid = patient.volumes["T1"].grid
        drawn = {name: share > 0.5 for name, share in structures_on(patient.anatomy, grid).items()}
        add_labels(scene, grid, drawn, "Phantom contours", drawn_on=nodes["T1"], shared=False)
        panel.refresh()
        qa = next(one for one in panel.sections if type(one).__name__ == "ContourSection")
        chosen = panel.logic.contours.chosen(panel._parameterNode)
        images = panel.logic.contours.images(panel._parameterNode, chosen[IMAGE])
        panel.logic.contours.compare(chosen[REFERENCE], chosen[COMPARED], chosen[IMAGE], images)
        panel.refresh()
        qa.sortBy([column.title for column in qa.columns].index("Agreement"))
        rows = sum(qa.table.rowHeight(row) for row in range(qa.table.rowCount))
        qa.table.setMinimumHeight(rows + 54)  # and the head, and the bar to scroll by
        fit(panel.parent, CONTOURS_WIDTH)
        return picture_of(qa.widget)

    OUT.mkdir(exist_ok=True)
    for name, draw in (
        ("comparison", comparison), ("uncertainty", uncertainty), ("panel", draw_panel), ("contours", contours),
    ):  # fmt: skip
        if not names or name in names:
            save(draw(), OUT / f"{name}.png")
    panel.cleanup()


def fit(panel, width):
    """Make the panel as high as it needs to be."""
    panel.resize(width, 10)
    panel.resize(width, panel.layout().heightForWidth(width))
    slicer.app.processEvents()


def picture_of(widget):
    """A widget as it is drawn."""
    pixels = widget.grab().toImage().convertToFormat(qt.QImage.Format_RGB888)
    lines = np.frombuffer(pixels.constBits(), np.uint8).reshape(pixels.height(), pixels.bytesPerLine())
    return Image.fromarray(lines[:, :3 * pixels.width()].reshape(pixels.height(), pixels.width(), 3).copy())


def tumor(patient):
    """Middle of the phantom's tumor, RAS mm."""
    grid = patient.anatomy.grid
    k, j, i = np.argwhere(patient.structures["GTVp"]).mean(axis=0)
    return (np.diag([-1, -1, 1, 1]) @ grid.ijk_to_lps @ [i, j, k, 1])[:3]


def beside(pictures, titles):
    """Pictures (row, column, 3) side by side, each with its title below."""
    font, gap, strip = ImageFont.load_default(15), 4, 26
    rows, columns, _colors = pictures[0].shape
    sheet = Image.new("RGB", (len(pictures) * (columns + gap) - gap, rows + strip), "white")
    for number, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        left = number * (columns + gap)
        sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (left, 0))
        ImageDraw.Draw(sheet).text((left + columns / 2, rows + strip / 2), title, "black", font, anchor="mm")
    return sheet


def save(picture, path):
    """As PNG, with as few colors as it takes to stay small."""
    for colors in (None, 256, 128, 64):
        reduced = picture if colors is None else picture.quantize(colors)
        reduced.save(path, optimize=True)
        if path.stat().st_size < LARGEST:
            break
    print(f"{path.relative_to(ROOT)}: {picture.size[0]} x {picture.size[1]}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
