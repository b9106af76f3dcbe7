"""A self-contained HTML page about one result: pictures, tables, warnings, limits."""

import base64
import html

from ..inference.result import INTENSITY_HIGH, SynthesisResult
from ..study.study import Study
from .picture import picture
from .provenance import LIMITS, UNITS
from .slices import TUMOR_SEGMENTS, slice_view, telling_slices
from .truth import Truth

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
.limits { border: 2px solid #b45309; background: #fffbeb; padding: .6rem 1rem; border-radius: 6px; }
table { border-collapse: collapse; margin: .6rem 0; } caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { width: 100%; height: auto; border-radius: 4px; }
figure { margin: 1rem 0; }
"""


def overview(result: SynthesisResult, study: Study, truth: Truth | None = None) -> bytes:
    """PNG of the most telling slice, see ``picture``."""
    return picture(result, study, slice_view(result.grid, _slices(result, study, truth)[0]), truth)


def report(result: SynthesisResult, study: Study, document: dict, truth: Truth | None = None) -> str:
    """The page as HTML text that needs no other file.

    Args:
        document: what ``provenance`` or ``write_result`` returned for this result.
        truth: acquired images and drawn structures to hold the result against.
    """
    parts = [
        "<h1>NPCSynth report</h1>",
        f"<p>{len(result.sources)} acquired, {len(result.sequences)} synthetic sequences; "
        f"{_text(document['software']['name'])} {_text(document['software']['version'])}.</p>",
        '<div class="limits"><strong>Limits</strong>' + _list(LIMITS) + "</div>",
        "<h2>Images</h2>",
        f"<p>All on one scale: {_text(UNITS)} Panels marked SYNTHETIC were computed, not measured. "
        "Colored contours are predicted, white dotted ones true. Axial and coronal slices are seen as in the clinic: "
        "the patient's right is on the left.</p>",
    ]
    for k in _slices(result, study, truth):
        encoded = base64.b64encode(picture(result, study, slice_view(result.grid, k), truth)).decode("ascii")
        parts.append(f'<figure><img alt="Slice {k + 1}: acquired and synthetic images side by side" '
                     f'src="data:image/png;base64,{encoded}"></figure>')
    if truth is not None:
        parts.append("<h2>Agreement with the true images</h2>" + _image_table(result, study, truth))
        if result.segmentation is not None and truth.structures:
            parts.append(_structure_table(result, truth))
    parts += ["<h2>Sources</h2>", _source_table(document), "<h2>Run</h2>", _run_table(document)]
    if document["warnings"]:
        parts.append("<h2>Warnings</h2>" + _list(document["warnings"]))
    if document["refused"]:
        rows = [(entry["series"], entry["reason"]) for entry in document["refused"]]
        parts.append("<h2>Series that were not used</h2>" + _table(("Series", "Reason"), rows))
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>NPCSynth report</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _slices(result, study, truth) -> list[int]:
    drawn = truth.structures if truth else {}
    tumor = next((drawn[name] for name in TUMOR_SEGMENTS if name in drawn and drawn[name].any()), None)
    return telling_slices(result, study.body, tumor)


def _image_table(result, study, truth) -> str:
    from ..qa.image_metrics import compare

    regions = {"body": study.body}
    regions |= {name: truth.structures[name] for name in TUMOR_SEGMENTS if name in truth.structures}
    rows = []
    for synthetic in result.sequences:
        true = truth.images.get(synthetic.sequence)
        if true is None:
            continue
        for region, mask in regions.items():
            if not mask.any():
                continue
            found = compare(synthetic.array / INTENSITY_HIGH, true / INTENSITY_HIGH, mask, result.grid.spacing)
            rows.append((
                synthetic.sequence, region, f"{found.ssim:.3f}", f"{found.psnr:.1f} dB",
                f"{INTENSITY_HIGH * found.mae:.0f}", f"{synthetic.uncertainty[mask].mean():.0f}",
                f"{found.sharpness:.2f}",
            ))
    head = ("Sequence", "Within", "SSIM", "PSNR", "Mean absolute error", "Predicted mean error", "Sharpness")
    return _table(head, rows, "In 3D, on the true image's own scale (0 to 1000). Sharpness below 1 is blurred.")


def _structure_table(result, truth) -> str:
    from ..qa.contours import dice

    rows = [
        (segment.name, f"{dice(result.segmentation.mask(segment), truth.structures[segment.name]):.2f}")
        for segment in result.segmentation.segments if segment.name in truth.structures
    ]
    return _table(("Structure", "Dice"), rows, "Predicted against true structures: 1 is perfect, 0 no overlap at all.")


def _source_table(document) -> str:
    rows = []
    for source in document["sources"]:
        voxels = " x ".join(map(str, reversed(source["shape_kji"])))
        size = " x ".join(f"{mm:.2f}" for mm in source["spacing_ijk_mm"])
        is_reference = source["sequence"] == document["reference_grid"]["sequence"]
        alignment = "reference" if is_reference else source["registration"].get("reason", "")
        rows.append((source["sequence"], source["description"], voxels, size, alignment))
    return _table(("Sequence", "Series", "Voxels", "Size (mm)", "Alignment"), rows)


def _run_table(document) -> str:
    weights = document["weights"]
    rows = [
        ("Weights", f"{weights['name']} {weights['version']}, sha256 {weights['sha256']}"),
        ("Device", document["device"]),
        *((f"Time: {stage}", f"{seconds:.1f} s") for stage, seconds in document["seconds"].items()),
    ]
    return _table(("", ""), rows)


def _table(head, rows, caption: str = "") -> str:
    cells = "".join(f"<th>{_text(name)}</th>" for name in head)
    lines = [f"<table>{f'<caption>{_text(caption)}</caption>' if caption else ''}<tr>{cells}</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(f"<td{_number(cell)}>{_text(cell)}</td>" for cell in row) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _number(cell) -> str:
    return ' class="number"' if str(cell)[:1].isdigit() and len(str(cell)) < 10 else ""


def _list(sentences) -> str:
    return "<ul>" + "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences) + "</ul>"


def _text(value) -> str:
    return html.escape(str(value))
