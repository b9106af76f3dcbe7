"""One self-contained HTML page about a result, for the person who reviews it: on the screen, printed, or as PDF.

It names nobody unless asked to: no names, dates, UIDs, file paths or series descriptions.
"""

import base64
import math
import re
from collections.abc import Callable, Collection, Sequence

import numpy as np

from ..errors import Cancelled
from ..inference.result import INTENSITY_HIGH, SynthesisResult, SynthesizedSequence
from ..qa.contours import TOLERANCES_MM, StructureAgreement, table_row
from ..study.study import Study
from ..vocabulary import is_known_structure, load_sequences
from .discretion import discreet, is_usual_prompt
from .page import bullets, facts, page, section, table, text
from .picture import picture
from .provenance import LIMITS, UNITS
from .slices import TUMOR_SEGMENTS, middle_slice, slice_uncertainty, slice_view, telling_slices
from .truth import Truth

TITLE = "NPCSynth report: synthetic images, research use only"
#: What a synthetic image must not be used for.
FORBIDDEN = (
    "Diagnosis, staging or judging response to treatment.",
    "Dose calculation, or as the planning image of a treatment.",
    "Deciding whether a lesion is there, is not there, or enhances.",
    "As the only image on which a target or an organ at risk is drawn.",
    "The clinical archive (PACS), the planning system or the patient's record.",
)
#: What the uncertainty of a sequence was scaled on. Whether it holds for a patient like this one, nobody has looked at.
SCALED = "acquired images of a few patients, none with nasopharyngeal carcinoma"
NOT_SCALED = "never checked for this: may be far too low"
#: What to look at on acquired images before anything is concluded from a result: where nasopharyngeal carcinoma spreads
#: and where synthesis goes wrong.
CHECKLIST = (
    ("Clivus and skull base marrow", "Signal of marrow as on the acquired images; no infiltration lost or invented."),
    ("Skull base foramina", "Ovale, rotundum, lacerum, jugular foramen, hypoglossal canal: both sides."),
    ("Cavernous sinus", "With Meckel's cave: symmetry, and enhancement only where it was acquired."),
    ("Pterygopalatine fossa", "Fat kept or lost as on the acquired images, both sides."),
    ("Parapharyngeal fat", "Planes as on the acquired images; the tumor's border neither sharpened nor blurred."),
    ("Retropharyngeal nodes", "Each acquired node found again at its size; none added."),
    ("Cervical nodes, both sides", "Each acquired node found again on its own side; none lost, none added."),
    ("Left and right", "As on the acquired images: a mirrored image or contour is not noticed by the program."),
    ("Each contour", "On an acquired image, slice by slice; tumor and nodes above all. Those not found may be there."),
    ("Dental artifact", "Its shadow is not filled in with invented anatomy."),
    ("First and last slices", "Edges of the field of view: complete, and uncertainty as expected."),
)


def overview(result: SynthesisResult, study: Study, truth: Truth | None = None) -> bytes:
    """PNG of the most telling slice with all the synthetic sequences, see ``picture``."""
    return picture(result, study, slice_view(result.grid, _tumor_slice(result, study, truth)), truth)


def report(
    result: SynthesisResult,
    study: Study,
    document: dict,
    truth: Truth | None = None,
    agreements: Sequence[StructureAgreement] = (),
    notes: Sequence[str] = (),
    identify: bool = False,
    caption: str = "",
    changed: Collection[str] = (),
    cancel: Callable[[], bool] | None = None,
) -> str:
    """The page as HTML text that needs no other file.

    Args:
        document: what ``provenance`` or ``write_result`` returned for this result; its "unusual", when it is there,
            holds sentences on what lies outside what the weights have seen.
        truth: acquired images and drawn structures to hold the result against; the structures are drawn into the
            pictures.
        agreements: a comparison of contours on the result's grid, as ``qa.contours`` gives it; ``notes``: sentences on
            reading them, or on why there are none, whose names of structures and files go unless ``identify``.
        identify: name the patient, the day of the run and the series as the scanner called them.
        caption: a sentence that says what was compared with what; by default predicted contours with the reference.
        changed: sequence ids of sources of ``study`` that are not as they were at the run.
        cancel: asked before each picture; when it returns True, Cancelled is raised.
    """
    told = _Told(document, identify)
    parts = [
        f"<header><p class='mark'>SYNTHETIC &ndash; research use only</p><h1>NPCSynth report</h1>"
        f"<p>{len(result.sources)} {study.how}, {len(result.sequences)} synthetic "
        f"{_plural('sequence', len(result.sequences))}; {text(document['software']['name'])} "
        f"{text(document['software']['version'])}.</p>{_digital(study)}"
        f"{_identity(study, document, identify)}</header>",
        section("Not to be used for", bullets(FORBIDDEN) + "<p>What else to know:</p>" + bullets(LIMITS), "limits"),
        section("Warnings", _warnings(document, told)),
        section("What went in", _source_table(study, document, told)),
        section("What was made", _output_table(result, study, document, told)),
        *(_pictures(synthetic, result, study, truth, agreements, changed, cancel) for synthetic in result.sequences),
    ]
    if truth is not None and (truth.images or truth.notes):
        said = bullets(truth.notes, "alarm") if truth.notes else ""
        compared = _image_table(result, study, truth) if truth.images else ""
        parts.append(section(f"Agreement with the {study.how} images", said + compared))
    if agreements or notes:
        compared = _contour_table(agreements, caption, told) if agreements else ""
        said = dict.fromkeys(_without_structures(agreements, told)(note) for note in notes)
        parts.append(section("Contours", compared + (bullets(said) if said else "")))
    parts += [
        section("Checklist for review", _checklist(), "checklist"),
        section("How it was made", _run_table(document)),
    ]
    if document["refused"]:
        parts.append(section("Series that were not used", _refused_table(document, told)))
    return page(TITLE, "\n".join(parts))


class _Told:
    """What may be told of names and sentences: all of it, or nothing that leads to the patient."""

    def __init__(self, document: dict, identify: bool):
        self.identify = identify
        self.sentence = str if identify else discreet(document)
        self._others: dict[str, list[str]] = {}

    def prompt(self, output: dict) -> str:
        """The words that the model was given; own words may name somebody."""
        return output["prompt"] if self.identify or is_usual_prompt(output) else "own words, left out"

    def image(self, name: str) -> str:
        """What an image is called: by its sequence, or as somebody named it."""
        usual = name.removesuffix(" (synthetic)").removesuffix(" (acquired)") in load_sequences()
        return name if self.identify or usual else self._numbered("image", name)

    def structure(self, name: str) -> str:
        """A structure's name: one outside the vocabulary is whatever somebody typed."""
        return name if self.identify or is_known_structure(name) else self._numbered("other structure", name)

    def _numbered(self, kind: str, name: str) -> str:
        known = self._others.setdefault(kind, [])
        if name not in known:
            known.append(name)
        return f"{kind} {known.index(name) + 1}"


def _digital(study: Study) -> str:
    if study.how != "simulated":
        return ""
    return ("<p><strong>A digital patient, not a person: the images that went in, and those that the results are "
            "compared with, were simulated by NPCSynth.</strong></p>")


def _identity(study: Study, document: dict, identify: bool) -> str:
    if not identify:
        return (
            "<p>Patient (to be filled in by hand): <span class='line'></span></p>"
            "<p class='small'>This report names nobody: names, dates, identifiers and series descriptions were left "
            "out. A face can still be recognized in images of a head.</p>"
        )
    header = study.source(study.reference).original.metadata
    name = " ".join(str(header.get("PatientName") or "").replace("^", " ").replace("=", " ").split())
    rows = (
        ("Patient", name or "not recorded"), ("ID", header.get("PatientID") or "not recorded"),
        ("Made on", document["created"]),
    )  # fmt: skip
    return facts(rows)


def _warnings(document: dict, told: _Told) -> str:
    parts = []
    unusual = list(dict.fromkeys(document["unusual"] or ()))
    if unusual:
        parts.append("<p><strong>Outside what the weights have seen:</strong></p>" +
                     bullets(map(told.sentence, unusual), "alarm"))
    others = [sentence for sentence in document["warnings"] if sentence not in unusual]
    if others:
        parts.append(bullets(dict.fromkeys(map(told.sentence, others))))
    return "".join(parts) or "<p>None. That proves nothing: look at the images all the same.</p>"


def _source_table(study: Study, document: dict, told: _Told) -> str:
    head = ["Sequence", "Voxels", "Size (mm)", "Alignment"]
    if told.identify:
        head.insert(1, "Series")
    rows = []
    for source in document["sources"]:
        voxels = " x ".join(map(str, reversed(source["shape_kji"])))
        size = " x ".join(f"{mm:.2f}" for mm in source["spacing_ijk_mm"])
        is_reference = source["sequence"] == document["reference_grid"]["sequence"]
        alignment = "Reference: the results lie on its grid." if is_reference else \
            told.sentence(source["registration"].get("reason", ""))
        row = [source["sequence"], voxels, size, alignment]
        if told.identify:
            row.insert(1, source["description"])
        rows.append(row)
    return table(head, rows, f"{study.how.capitalize()} images.")


def _output_table(result: SynthesisResult, study: Study, document: dict, told: _Told) -> str:
    rows = []
    prompts = {output["sequence"]: told.prompt(output) for output in document["outputs"]}
    for synthetic in result.sequences:
        along = slice_uncertainty(synthetic, study.body)
        worst = "" if np.isnan(along).all() else f"{np.nanmax(along):.0f} (slice {int(np.nanargmax(along)) + 1})"
        rows.append((
            f"{synthetic.sequence} (synthetic)", prompts.get(synthetic.sequence, ""),
            f"{synthetic.mean_uncertainty:.0f}", worst, SCALED if synthetic.calibrated else NOT_SCALED,
        ))  # fmt: skip
    head = ("Sequence", "Asked for as", "Mean uncertainty", "Highest in a slice", "Uncertainty scaled on")
    caption = (f"Synthetic images. {UNITS} Uncertainty is the predicted mean absolute error within the body, so "
               "scaled. “Highest in a slice” leaves out slices with less than a quarter of the body that the largest "
               f"one holds. Slices are counted from {result.grid.first_side}, whatever numbers the files have.")
    parts = [table(head, rows, caption)]
    volumes = [(told.structure(s["name"]), f"{s['volume_ml']:.1f} ml" if s["volume_ml"] else "not found")
               for s in document["segments"]]  # fmt: skip
    if volumes:
        parts.append(table(("Structure", "Volume"), volumes, "Predicted contours: proposals, to be checked one by one "
                            "on acquired images. What was not found may be there all the same."))  # fmt: skip
    return "".join(parts)


def _pictures(
    synthetic: SynthesizedSequence, result: SynthesisResult, study: Study, truth: Truth | None, agreements, changed,
    cancel,
) -> str:
    figures = []
    for k, why in _slices(synthetic, result, study, truth, agreements).items():
        if cancel is not None and cancel():
            raise Cancelled()
        image = picture(result, study, slice_view(result.grid, k), truth, [synthetic], changed)
        png = base64.b64encode(image).decode("ascii")
        where = f"Slice {k + 1} of {result.grid.shape[0]} from {result.grid.first_side}"
        alt = (
            f"{where}: {study.how} {', '.join(result.sources)}; synthetic {synthetic.sequence}, marked SYNTHETIC"
            + (f", the {study.how} one and their difference" if truth and synthetic.sequence in truth.images else "")
            + "; its predicted uncertainty; contours"
        )
        figures.append(
            f"<figure><img alt='{text(alt)}' src='data:image/png;base64,{png}'>"
            f"<figcaption>{where}: {text('; '.join(why))}.</figcaption></figure>"
        )
    explained = (
        "<p class='small'>All on one scale. Panels marked SYNTHETIC were computed, not measured. Colored contours are "
        "predicted, white dotted ones the reference's. The patient's right is on the left (R, L), or anterior on the "
        "left (A, P).</p>"
    )
    return section(f"{synthetic.sequence}, SYNTHETIC", explained + "".join(figures), "pictures")


def _slices(synthetic, result, study, truth, agreements) -> dict[int, list[str]]:
    """Slice index k -> why it is shown."""
    chosen: dict[int, list[str]] = {}
    along = slice_uncertainty(synthetic, study.body)
    if not np.isnan(along).all():
        worst = int(np.nanargmax(along))
        chosen.setdefault(worst, []).append(f"highest mean uncertainty within the body ({along[worst]:.0f})")
    measured = [a for a in agreements if a.worst_slice is not None and not math.isnan(a.hd95_mm)]
    if measured:
        farthest = max(measured, key=lambda a: a.hd95_mm)
        name = farthest.name if is_known_structure(farthest.name) else "a structure"
        chosen.setdefault(farthest.worst_slice, []).append(
            f"the compared contours of {name} differ most here (HD95 {farthest.hd95_mm:.1f} mm)")
    if _tumor(result, truth):
        chosen.setdefault(_tumor_slice(result, study, truth), []).append("the tumor's largest slice")
    chosen.setdefault(middle_slice(study.body), []).append("middle of the body")
    return chosen


def _tumor(result: SynthesisResult, truth: Truth | None) -> str:
    """Name of the tumor structure that there is, drawn or predicted; "" without."""
    drawn = truth.structures if truth else {}
    segments = result.segmentation.segments if result.segmentation is not None else ()
    there = {name for name in TUMOR_SEGMENTS if name in drawn and drawn[name].any()}
    there |= {s.name for s in segments if s.name in TUMOR_SEGMENTS and result.segmentation.mask(s).any()}
    return next((name for name in TUMOR_SEGMENTS if name in there), "")


def _tumor_slice(result, study, truth) -> int:
    drawn = truth.structures if truth else {}
    tumor = next((drawn[name] for name in TUMOR_SEGMENTS if name in drawn and drawn[name].any()), None)
    return telling_slices(result, study.body, tumor, count=1)[0]


def _image_table(result: SynthesisResult, study: Study, truth: Truth) -> str:
    from ..qa.image_metrics import compare

    regions = {"body": study.body}
    regions |= {name: truth.structures[name] for name in TUMOR_SEGMENTS if name in truth.structures}
    rows = []
    for synthetic in result.sequences:
        true = truth.images.get(synthetic.sequence)
        if true is None:
            continue
        acquired = np.isfinite(true)
        true = np.where(acquired, true, synthetic.array)
        for region, whole in regions.items():
            mask = whole & acquired
            if not mask.any():
                continue
            found = compare(synthetic.array / INTENSITY_HIGH, true / INTENSITY_HIGH, mask, result.grid.spacing)
            rows.append((
                synthetic.sequence, region, f"{found.ssim:.3f}", f"{found.psnr:.1f} dB",
                f"{INTENSITY_HIGH * found.mae:.0f}", f"{synthetic.uncertainty[mask].mean():.0f}",
                f"{found.sharpness:.2f}",
            ))  # fmt: skip
    head = ("Sequence", "Within", "SSIM", "PSNR", "Mean absolute error", "Predicted mean error", "Sharpness")
    return table(head, rows, "In 3D where both are there, on the true image's own scale (0 to 1000). Sharpness below 1 "
                 "is blurred.")


def _contour_table(agreements, caption: str, told: _Told) -> str:
    heads = {
        "dice": "Dice", **{f"surface_dice_{mm:g}mm": f"Surface Dice {mm:g} mm" for mm in TOLERANCES_MM},
        "hd95_mm": "HD95 (mm)", "mean_distance_mm": "Mean distance (mm)", "reference_ml": "Reference (ml)",
        "predicted_ml": "Compared (ml)", "difference_ml": "Difference (ml)", "worst_slice": "Worst slice",
    }  # fmt: skip
    images = dict.fromkeys(image for agreement in agreements for image in agreement.edges)
    heads |= {f"edges_{image}": f"Edges in {told.image(image)}" for image in images}
    rows, clean = [], _without_structures(agreements, told)
    for agreement in agreements:
        row = table_row(agreement)
        rows.append([told.structure(agreement.name), *(row.get(key) for key in heads), clean(agreement.remark)])
    return table(("Structure", *heads.values(), "Remark"), rows,
                 (caption or "Predicted contours against the reference.")
                 + " 1 is perfect agreement, 0 none at all; no figure says which of the two is right."
                 + (" Edges: change of brightness across the contour, as part of the body's range; 0 is none."
                    if images else ""), "wide")  # fmt: skip


def _without_structures(agreements, told: _Told) -> Callable[[str], str]:
    """Takes out of a note what may name somebody: what people called their structures, and what ``told`` takes out."""
    if told.identify:
        return str
    own = {
        name: told.structure(one.name) for one in agreements
        for name in (one.name, one.reference_name, one.predicted_name) if len(name) > 1 and not is_known_structure(name)
    }  # fmt: skip
    longest = "|".join(re.escape(name) for name in sorted(own, key=len, reverse=True))

    def clean(note: str) -> str:
        renamed = re.sub(rf"(?<!\w)(?:{longest})(?!\w)", lambda found: own[found[0]], note) if own else note
        return told.sentence(renamed)

    return clean


def _checklist() -> str:
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("Checked", "What", "Remark", "Initials"))
    rows = []
    for number, (what, how) in enumerate(CHECKLIST):
        rows.append(
            f"<tr><td class='tick'><input type='checkbox' id='check{number}'></td>"
            f"<th scope='row'><label for='check{number}'>{text(what)}</label><br><span class='small'>{text(how)}"
            f"</span></th>"
            f"<td><input type='text' class='remark' aria-label='Remark on {text(what)}'></td>"
            f"<td><input type='text' class='initials' aria-label='Initials for {text(what)}'></td></tr>"
        )
    return (
        "<p>On the acquired images, each beside the synthetic ones. Ticks and remarks are not saved with this file: "
        "print it, on paper or as PDF.</p>"
        f"<table class='fill'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "<p>Reviewed by: <span class='line'></span> Date: <span class='line short'></span></p>"
    )


def _run_table(document: dict) -> str:
    weights = document["weights"]
    rows = [
        ("Weights", f"{weights['name']} {weights['version']}"),
        ("SHA-256 of the weights", weights["sha256"]),
        ("Device", document["device"]),
        *((f"Time: {stage}", f"{seconds:.1f} s") for stage, seconds in document["seconds"].items()),
    ]
    return facts(rows)


def _refused_table(document: dict, told: _Told) -> str:
    rows = [(entry["series"] if told.identify else number, told.sentence(entry["reason"]))
            for number, entry in enumerate(document["refused"], start=1)]  # fmt: skip
    return table(("Series", "Reason"), rows)


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
