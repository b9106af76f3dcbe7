"""One slice of a result as a picture: inputs, synthetic and true images, error, uncertainty, contours."""

import io
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..inference.result import INTENSITY_HIGH, INTENSITY_LOW, SynthesisResult, SynthesizedSequence
from ..study.study import Study
from .slices import SliceView
from .truth import Truth

_COLUMNS = 4
_PANEL_INCHES = 2.7
_BACKGROUND, _TEXT, _WARNING, _DRAWN = "#16181c", "#e8e8e8", "#ffb000", "white"
#: Errors and uncertainties up to this part of the intensity range keep a color of their own.
_ERROR_TOP = 0.3 * (INTENSITY_HIGH - INTENSITY_LOW)


def picture(
    result: SynthesisResult, study: Study, view: SliceView, truth: Truth | None = None,
    sequences: Sequence[SynthesizedSequence] | None = None, changed: Collection[str] = (),
) -> bytes:  # fmt: skip
    """PNG of one slice; every synthetic panel is marked so in the image itself.

    Rows: the acquired inputs, and the contours on the reference; then, for each synthetic sequence, the image with the
    same contours, its acquired counterpart and absolute error where ``truth`` has them, and the uncertainty. What was
    acquired of a digital patient is called simulated.

    Args:
        sequences: those of the result that are shown; all by default.
        changed: sequence ids of the inputs that are not as they were when the result was made; said in their panels.
    """
    with matplotlib.rc_context({"font.size": 9, "text.color": _TEXT}):
        figure = _figure(result, study, view, truth, result.sequences if sequences is None else sequences,
                         changed)
        stream = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(stream, format="png", dpi=110, facecolor=_BACKGROUND, bbox_inches="tight", pad_inches=0.1)
    return stream.getvalue()


def _figure(result, study, view, truth, sequences, changed) -> Figure:
    contours = _contours(result, view, truth)
    has_contours = result.segmentation is not None or bool(truth and truth.structures)
    top_rows = math.ceil((len(study.sources) + has_contours) / _COLUMNS)
    rows = top_rows + len(sequences)
    shape = view.of(study.body).shape
    tall = shape[0] * view.aspect / shape[1]
    height = _PANEL_INCHES * tall + 0.3
    figure = Figure(figsize=(_COLUMNS * _PANEL_INCHES, rows * height + 0.45), layout="compressed")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    whose = "   |   DIGITAL PATIENT, not a person" if study.how == "simulated" else ""
    figure.suptitle(f"Slice {view.k + 1} of {result.grid.shape[0]}   |   SYNTHETIC IMAGES: research use only{whose}",
                    color=_WARNING, fontsize=10)

    panels = iter(axes[:top_rows].flat)
    for source in study.sources:
        what = "changed since the run" if source.sequence in changed else f"{source.how}, input"
        _image(next(panels), view, source.array * INTENSITY_HIGH, f"{source.sequence}  ({what})")
    if has_contours:
        axis = next(panels)
        reference = study.source(study.reference)
        what = "changed since the run" if study.reference in changed else reference.how
        _image(axis, view, reference.array * INTENSITY_HIGH, f"Contours on {study.reference}  ({what})")
        _draw(axis, contours)
        _legend(axis, contours)

    for row, synthetic in zip(axes[top_rows:], sequences, strict=True):
        name = synthetic.sequence
        panels = iter(row)
        axis = next(panels)
        _image(axis, view, synthetic.array, f"{name}  (synthetic)")
        _draw(axis, contours)
        axis.text(0.02, 0.98, "SYNTHETIC", transform=axis.transAxes, ha="left", va="top", color=_WARNING,
                  fontsize=9, fontweight="bold", bbox={"facecolor": _BACKGROUND, "edgecolor": "none", "pad": 1.5})
        true = truth.images.get(name) if truth else None
        if true is not None:
            _image(next(panels), view, true, f"{name}  ({study.how}, true)")
            _map(next(panels), view, np.abs(synthetic.array - true) * study.body, f"{name}  |synthetic - true|")
        _map(next(panels), view, synthetic.uncertainty * study.body, f"{name}  predicted uncertainty")
    return figure


def _image(axis, view: SliceView, array, title: str) -> None:
    axis.imshow(view.of(array), cmap="gray", vmin=INTENSITY_LOW, vmax=INTENSITY_HIGH, aspect=view.aspect,
                interpolation="nearest")
    _label(axis, view, title)


def _label(axis, view: SliceView, title: str) -> None:
    """The title, and the letters of the patient's sides at the edges."""
    axis.set_title(title, color=_TEXT)
    for x, letter in zip((0.02, 0.98), view.sides, strict=True):
        axis.text(x, 0.5, letter, transform=axis.transAxes, ha="left" if x < 0.5 else "right", va="center",
                  color=_TEXT, fontsize=8)


def _map(axis, view: SliceView, array, title: str) -> None:
    shown = axis.imshow(view.of(array), cmap="inferno", vmin=0, vmax=_ERROR_TOP, aspect=view.aspect,
                        interpolation="nearest")
    _label(axis, view, title)
    scale = axis.figure.colorbar(shown, cax=axis.inset_axes((0.15, 0.96, 0.7, 0.02)), orientation="horizontal")
    scale.ax.tick_params(labelsize=6, colors=_TEXT, length=2, pad=1)


class _Contour(NamedTuple):
    """One structure in the slice: its predicted and its drawn mask as shown, None where there is none."""

    name: str
    color: object
    predicted: np.ndarray | None
    drawn: np.ndarray | None


def _contours(result, view: SliceView, truth) -> list[_Contour]:
    """What is predicted, and what somebody drew; both may be empty in this slice."""
    drawn = dict(truth.structures) if truth else {}
    found = []
    for segment in result.segmentation.segments if result.segmentation is not None else ():
        mask = drawn.pop(segment.name, None)
        found.append(_Contour(segment.name, segment.color, view.of(result.segmentation.mask(segment)),
                              None if mask is None else view.of(mask)))
    return found + [_Contour(name, _DRAWN, None, view.of(mask)) for name, mask in drawn.items()]


def _draw(axis, contours: list[_Contour]) -> None:
    for contour in contours:
        for mask, style, color in ((contour.predicted, "solid", contour.color), (contour.drawn, "dotted", _DRAWN)):
            if mask is not None and mask.any() and not mask.all():
                axis.contour(mask, levels=[0.5], colors=[color], linestyles=style, linewidths=0.9)


def _legend(axis, contours: list[_Contour]) -> None:
    seen = [contour for contour in contours if contour.predicted is not None and
            any(mask is not None and mask.any() for mask in (contour.predicted, contour.drawn))]
    handles = [Line2D([], [], color=contour.color, label=contour.name) for contour in seen]
    if any(contour.drawn is not None and contour.drawn.any() for contour in contours):
        handles.append(Line2D([], [], color=_DRAWN, linestyle="dotted", label="reference"))
    if handles:
        axis.legend(handles=handles, loc="upper left", fontsize=6, frameon=False, labelcolor=_TEXT, handlelength=1.2,
                    borderaxespad=0.2, labelspacing=0.3)
