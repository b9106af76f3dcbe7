"""One slice of a result as a picture: inputs, synthetic and true images, error, uncertainty, segmentation."""

import io
import math

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..inference.result import INTENSITY_HIGH, INTENSITY_LOW, SynthesisResult
from ..study.study import Study
from .slices import SliceView
from .truth import Truth

_COLUMNS = 4
_PANEL_INCHES = 2.7
_BACKGROUND, _TEXT, _WARNING = "#16181c", "#e8e8e8", "#ffb000"
#: Errors and uncertainties up to this part of the intensity range keep a color of their own.
_ERROR_TOP = 0.3 * (INTENSITY_HIGH - INTENSITY_LOW)


def picture(result: SynthesisResult, study: Study, view: SliceView, truth: Truth | None = None) -> bytes:
    """PNG of one slice; every synthetic panel is marked so in the image itself.

    Rows: the acquired inputs and the segmentation; then, for each synthetic sequence, the image, its true counterpart
    and absolute error where ``truth`` has them, and the uncertainty.
    """
    with matplotlib.rc_context({"font.size": 9, "text.color": _TEXT}):
        figure = _figure(result, study, view, truth)
        stream = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(stream, format="png", dpi=110, facecolor=_BACKGROUND, bbox_inches="tight", pad_inches=0.1)
    return stream.getvalue()


def _figure(result, study, view, truth) -> Figure:
    has_segments = result.segmentation is not None
    top_rows = math.ceil((len(study.sources) + has_segments) / _COLUMNS)
    rows = top_rows + len(result.sequences)
    shape = view.of(study.body).shape
    tall = shape[0] * view.aspect / shape[1]
    height = _PANEL_INCHES * tall + 0.3
    figure = Figure(figsize=(_COLUMNS * _PANEL_INCHES, rows * height + 0.45), layout="compressed")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle(f"Slice {view.k + 1} of {result.grid.shape[0]}   |   SYNTHETIC IMAGES: research use only",
                    color=_WARNING, fontsize=10)

    panels = iter(axes[:top_rows].flat)
    for source in study.sources:
        _image(next(panels), view, source.array * INTENSITY_HIGH, f"{source.sequence}  (acquired, input)")
    if has_segments:
        _segmentation(next(panels), result, study, view, truth)

    for row, synthetic in zip(axes[top_rows:], result.sequences, strict=True):
        name = synthetic.sequence
        panels = iter(row)
        axis = next(panels)
        _image(axis, view, synthetic.array, f"{name}  (synthetic)")
        axis.text(0.02, 0.98, "SYNTHETIC", transform=axis.transAxes, ha="left", va="top", color=_WARNING,
                  fontsize=9, fontweight="bold", bbox={"facecolor": _BACKGROUND, "edgecolor": "none", "pad": 1.5})
        true = truth.images.get(name) if truth else None
        if true is not None:
            _image(next(panels), view, true, f"{name}  (true)")
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


def _segmentation(axis, result, study, view, truth) -> None:
    reference = study.source(study.reference)
    drawn = truth.structures if truth else {}
    _image(axis, view, reference.array * INTENSITY_HIGH, f"Segmentation on {study.reference}  (predicted)")
    legend = []
    for segment in result.segmentation.segments:
        predicted = view.of(result.segmentation.mask(segment))
        true = view.of(drawn[segment.name]) if segment.name in drawn else np.zeros_like(predicted)
        for mask, style, color in ((predicted, "solid", segment.color), (true, "dotted", "white")):
            if mask.any() and not mask.all():
                axis.contour(mask, levels=[0.5], colors=[color], linestyles=style, linewidths=1.1)
        if predicted.any() or true.any():
            legend.append(Line2D([], [], color=segment.color, label=segment.name))
    if drawn:
        legend.append(Line2D([], [], color="white", linestyle="dotted", label="true"))
    if legend:
        axis.legend(handles=legend, loc="upper left", fontsize=6, frameon=False, labelcolor=_TEXT, handlelength=1.2,
                    borderaxespad=0.2, labelspacing=0.3)
