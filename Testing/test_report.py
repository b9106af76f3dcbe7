"""The report: one page that stands alone, with the figures of the data, for everybody, and without identity."""

import re
from dataclasses import replace

import numpy as np
import pytest
from page_reader import Page

from NPCSynthLib.inference.result import SynthesisResult, SynthesizedSequence
from NPCSynthLib.output.discretion import discreet
from NPCSynthLib.output.provenance import provenance
from NPCSynthLib.output.report import CHECKLIST, report
from NPCSynthLib.output.slices import middle_slice, slice_uncertainty
from NPCSynthLib.output.truth import Truth, truth_on_grid
from NPCSynthLib.output.write import write_result
from NPCSynthLib.qa.contours import StructureAgreement, compare_structures, table_row
from NPCSynthLib.study.build import study_from_folder
from NPCSynthLib.study.study import DIGITAL_PATIENT
from NPCSynthLib.study.volume import Grid, Volume


@pytest.fixture(autouse=True)
def quick_pictures(request, monkeypatch):
    """Pictures are drawn only where a test looks at them."""
    if "drawn" not in request.keywords:
        monkeypatch.setattr("NPCSynthLib.output.report.picture", lambda *_what: b"\x89PNG")


def without_pictures(page: str) -> str:
    """Pictures hold any letters."""
    return re.sub(r"base64,[^'\"]*", "", page)


@pytest.fixture
def uneven(result, study):
    """The result with an uncertainty that is highest in slice 4, and yet higher in a corner that holds no body."""
    uncertainty = np.full(study.grid.shape, 40, np.int16)
    uncertainty[4] = 90
    uncertainty[9, :5] = 3000
    inside = float(uncertainty[study.body].mean())
    return replace(result, sequences=(replace(result.sequences[0], uncertainty=uncertainty, mean_uncertainty=inside),))


def agreement(name, **facts):
    return StructureAgreement(name, 0.8, (0.5, 0.7, 0.9), 4.2, 1.3, 10.0, 12.0, 6, **facts)


def table_with(page: Page, head: str) -> list[list[str]]:
    return next(table for table in page.tables if head in table[0])


def test_the_page_needs_no_other_file_and_runs_nothing(result, study):
    page = report(result, study, provenance(result, study))
    assert "http" not in without_pictures(page) and "url(" not in page
    parsed = Page(page)
    assert {tag for tag, _ in parsed.elements} & {"script", "link", "iframe"} == set()
    assert parsed.every("img") and all(img["src"].startswith("data:image/png;base64,") for img in parsed.every("img"))


def test_everybody_can_read_it(result, study):
    truth = Truth({"T2FS": result.sequences[0].array.astype(np.float32)}, {"Brain": study.body})
    page = Page(report(result, study, provenance(result, study), truth, [agreement("Brain")]))
    assert page.every("html")[0]["lang"] == "en" and page.every("title")
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and set(levels) == {1, 2}
    assert all(len(img["alt"]) > 20 for img in page.every("img"))
    assert all(cell.get("scope") in ("col", "row") for cell in page.every("th"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {label["for"] for label in page.every("label")}
    assert all(field.get("aria-label") or field["id"] in labels for field in page.every("input"))
    named = {section["aria-labelledby"] for section in page.every("section")}
    assert named <= set(ids)


@pytest.mark.parametrize("axes, side", [
    ((1, 2, 3), "below"), ((1, 2, -3), "above"), ((2, -3, 1), "the right"), ((2, -3, -1), "the left"),
    ((1, -3, 2), "the front"), ((1, -3, -2), "the back"),
])  # fmt: skip
def test_it_is_said_from_where_slices_are_counted(axes, side):
    """Axes i, j, k toward left (1), posterior (2), superior (3), or against."""
    direction = np.zeros((3, 3))
    for column, axis in enumerate(axes):
        direction[abs(axis) - 1, column] = np.sign(axis)
    tilt, _ = np.linalg.qr(direction + 0.1 * np.ones((3, 3)))
    tilt *= np.sign((tilt * direction).sum(axis=0))
    assert Grid.from_parts((4, 5, 6), (1, 1, 3), (0, 0, 0), tilt).first_side == side


def test_where_nothing_was_acquired_nothing_is_judged(result, study):
    """The acquired image ends half way; where it is, the synthetic one is right to the last gray."""
    made = result.sequences[0]
    true = Volume(made.array[:, :, : study.grid.shape[2] // 2].astype(np.float32),
                  Grid(made.array[:, :, : study.grid.shape[2] // 2].shape, study.grid.ijk_to_lps))
    truth = truth_on_grid(study, {made.sequence: true}, {})
    assert np.isnan(truth.images[made.sequence][:, :, -1]).all()
    half = replace(truth, images={made.sequence: np.where(np.isnan(truth.images[made.sequence]), np.nan, made.array)})
    rows = table_with(Page(report(result, study, provenance(result, study), half)), "Mean absolute error")
    assert rows[1][rows[0].index("Mean absolute error")] == "0"


def test_paper_breaks_between_pictures_and_repeats_the_mark(result, study):
    page = report(result, study, provenance(result, study))
    printed = page[page.index("@media print"):]
    assert "break-before: page" in printed and "break-inside: avoid" in printed
    assert "@top-center { content: \"SYNTHETIC" in page


def test_the_checklist_has_a_box_a_remark_and_initials_for_each_place(result, study):
    page = Page(report(result, study, provenance(result, study)))
    rows = table_with(page, "Checked")[1:]
    assert len(rows) == len(CHECKLIST) == 11
    told = " ".join(row[1].lower() for row in rows)
    for place in ("clivus", "foramina", "cavernous sinus", "pterygopalatine fossa", "parapharyngeal fat",
                  "retropharyngeal nodes", "cervical nodes", "left and right", "each contour",
                  "dental artifact", "first and last slices"):
        assert place in told
    kinds = [field["type"] for field in page.every("input")]
    assert kinds.count("checkbox") == 11 and kinds.count("text") == 22


def test_figures_are_those_of_the_data(uneven, study):
    document = provenance(uneven, study)
    page = Page(report(uneven, study, document))
    row = table_with(page, "Mean uncertainty")[1]
    assert row[0] == "T2FS (synthetic)"
    assert row[2] == f"{uneven.sequences[0].uncertainty[study.body].mean():.0f}"
    assert row[3] == "90 (slice 5)"
    assert "less than a quarter of the body" in page.text
    volumes = {row[0]: row[1] for row in table_with(page, "Volume")[1:]}
    assert volumes["GTVp"] == f"{5 * 3 * 12 * 0.9 * 1.1 * 5.0 / 1000:.1f} ml" and volumes["GTVn"] == "not found"
    assert document["weights"]["sha256"] in page.text and "CPU" in page.text and "1.2 s" in page.text
    assert "Outside the training domain." in page.text


def test_what_the_uncertainty_was_scaled_on_is_not_called_a_check(result, study):
    guessed = replace(result.sequences[0], sequence="FLAIR", calibrated=False)
    result = replace(result, sequences=(*result.sequences, guessed))
    page = Page(report(result, study, provenance(result, study)))
    head, *rows = table_with(page, "Uncertainty scaled on")
    assert "none with nasopharyngeal carcinoma" in rows[0][4]
    assert rows[1][4] == "never checked for this: may be far too low"
    assert "checked on real images" not in page.text


def test_pictures_show_the_worst_and_the_middle_slice_of_each_synthetic_sequence(uneven, study):
    second = replace(uneven.sequences[0], sequence="FLAIR", uncertainty=uneven.sequences[0].uncertainty[::-1].copy())
    both = replace(uneven, sequences=(*uneven.sequences, second))
    page = Page(report(both, study, provenance(both, study)))
    captions = re.findall(r"Slice (\d+) of 12 from [a-z ]+: ([^.]*)", page.text)
    worst = [int(k) for k, why in captions if "highest mean uncertainty within the body (90)" in why]
    assert worst == [5, 8]
    assert [int(k) for k, why in captions if "middle of the body" in why] == [middle_slice(study.body) + 1] * 2
    for img in page.every("img"):
        assert "marked SYNTHETIC" in img["alt"] and "acquired T1, T2" in img["alt"]


def test_the_report_on_a_digital_patient_says_that_it_is_no_person(result, study):
    truth = Truth({"T2FS": result.sequences[0].array.astype(np.float32)}, {})
    digital = replace(study, sources=tuple(
        replace(source, original=replace(source.original, metadata=dict(DIGITAL_PATIENT))) for source in study.sources))
    page = Page(report(result, digital, provenance(result, digital), truth))
    assert "A digital patient, not a person" in page.text and "Agreement with the simulated images" in page.text
    assert "2 simulated, 1 synthetic sequence;" in page.text and "Simulated images." in page.text
    assert all("simulated T1, T2" in img["alt"] and "the simulated one" in img["alt"] for img in page.every("img"))
    page = Page(report(result, study, provenance(result, study), truth))
    assert "igital patient" not in page.text and "imulated" not in page.text
    assert "Agreement with the acquired images" in page.text and "2 acquired, 1 synthetic sequence;" in page.text


def test_a_slice_with_next_to_no_body_is_not_the_worst(result, study):
    body = study.body.copy()
    body[10] = False
    body[10, 10, 10] = True
    uncertainty = np.where(np.arange(12)[:, None, None] == 10, 500, 50) * np.ones(body.shape, np.int16)
    along = slice_uncertainty(replace(result.sequences[0], uncertainty=uncertainty), body)
    assert np.isnan(along[10]) and np.isnan(along[0]) and np.nanmax(along) == 50


def test_the_picture_of_the_largest_contour_deviation_is_there(result, study):
    predicted = {"Brain": np.zeros(study.grid.shape, bool)}
    predicted["Brain"][4:8, 8:14, 5:20] = True
    drawn = {"Brain": predicted["Brain"].copy()}
    drawn["Brain"][6, 5:30, 5:20] = True
    agreements = compare_structures(drawn, predicted, study.grid)
    page = Page(report(result, study, provenance(result, study), Truth({}, drawn), agreements))
    assert f"contours of Brain differ most here (HD95 {agreements[0].hd95_mm:.1f} mm)" in page.text
    row = table_with(page, "Dice")[1]
    told = table_row(agreements[0])
    assert row[:2] == ["Brain", str(told["dice"])] and str(told["hd95_mm"]) in row
    assert row[table_with(page, "Dice")[0].index("Worst slice")] == "7"  # people count from one


def test_edges_are_in_the_contour_table(result, study):
    told = agreement("Brain", edges={"T1": 0.2134, "T2FS (synthetic)": 0.1, "ax t1 Doe": 0.3})
    head, row = table_with(Page(report(result, study, provenance(result, study), None, [told])), "Dice")
    assert row[head.index("Edges in T1")] == "0.2134" and "Edges in T2FS (synthetic)" in head
    assert "Edges in image 1" in head


@pytest.mark.parametrize("unusual, told", [
    (["T1 looks unlike all that was seen."], True), ([], False), (None, False),
])
def test_what_the_weights_have_not_seen_is_told_first(result, study, unusual, told):
    document = {**provenance(result, study), "unusual": unusual}
    text = Page(report(result, study, document)).text
    assert ("Outside what the weights have seen" in text) is told
    assert ("T1 looks unlike all" in text) is told


def test_what_is_unusual_is_not_told_twice(result, study):
    result = replace(result, unusual=("T1 is cut off.",), warnings=("T1 is cut off.", "Another."))
    page = Page(report(result, study, provenance(result, study)))
    assert page.text.count("T1 is cut off.") == 1 and "Another." in page.text


@pytest.fixture(scope="module")
def dicom_patient(tmp_path_factory):
    """A phantom in DICOM whose headers, series descriptions and folder name him, twice where a warning comes of it."""
    import pydicom

    from NPCSynthLib.phantom.patient import make_patient, write_dicom

    folder = tmp_path_factory.mktemp("Muster_Klara")
    write_dicom(make_patient(3, sequences=("T1", "T2"), size="small"), folder, ("T1", "T2"))
    for path in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientID = "Muster^Klara", "HN-004711"
        if dataset.Modality != "MR":
            dataset.save_as(path)
            continue
        dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20230517"
        dataset.SeriesTime = dataset.AcquisitionTime = "143522"
        dataset.SeriesDescription = f"{dataset.SeriesDescription} Muster 4711"
        dataset.save_as(path)
    copy = folder / "again"
    copy.mkdir()
    for path in [p for p in folder.rglob("*.dcm") if "t1" in p.parent.name]:
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID = dataset.SeriesInstanceUID[:60] + ".9"
        dataset.SOPInstanceUID = dataset.SOPInstanceUID[:60] + ".9"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesNumber = 77
        dataset.SeriesTime = dataset.AcquisitionTime = "150000"
        dataset.save_as(copy / path.name)
    study = study_from_folder(folder)
    array = (1000 * study.sources[0].array.clip(0, 1)).astype(np.int16)
    own_words = SynthesizedSequence("FLAIR", array, array // 10, "FLAIR for Klara", 30.0)
    result = SynthesisResult(study.grid, (own_words,), None, ("T1", "T2"), {"name": "t", "version": "0", "sha256": "0"},
                             "CPU", {}, ("The model does not know these words of the prompt for FLAIR: klara.",))
    return study, result


def test_nothing_leads_to_the_patient_by_default(dicom_patient):
    study, result = dicom_patient
    document = provenance(result, study)
    known = str(document)
    assert "Muster" in known and "15:00:00" in known  # what is to be left out is there
    masks = {"Brain": study.body, "GTV Muster": study.body}
    remark = "Of the reference, Hirn Muster was left out."
    dated = agreement("GTV Meier 20240105", remark="Of the reference, GTV Meier 20240105 was left out.")
    agreements = [agreement("Brain", remark=remark, reference_name="Hirn Muster"), agreement("GTV Muster"), dated]
    page = report(result, study, document, Truth({}, masks), agreements, ["muster_rtss.dcm was left out."])
    text = without_pictures(page)
    for secret in ("muster", "meier", "klara", "4711", "2023", "17.05", "14:35", "143522", "15:00"):
        assert secret not in text.lower(), secret
    for source in study.sources:
        assert source.original.name not in text
        for key, value in source.original.metadata.items():
            if key.endswith("UID") and isinstance(value, str):
                assert value not in text, key
    assert not re.search(r"\b\d+(\.\d+){4,}\b", text)
    assert not re.search(r"\b20\d{2}-\d{2}-\d{2}", text)  # the day of the run
    assert "both look like T1" in text  # the warning itself is told
    assert "own words, left out" in text and "other structure 1" in text


def test_notes_on_reading_contours_are_told_without_names(dicom_patient):
    study, result = dicom_patient
    agreements = [agreement("Brain", reference_name="Hirn Muster"), agreement("GTV K.M.")]
    notes = ("The reference contours were made by a program, at least in part.",
             "GTV K.M. of the reference is cut off.",
             "Hidden in the views, and compared all the same: Hirn Muster, GTV K.M..", "muster_rtss.dcm is damaged.",
             'The reference lies on another voxel grid than the image; "Hirn Muster" too.')
    document = provenance(result, study)
    text = Page(report(result, study, document, None, agreements, notes)).text
    assert notes[0] in text and "other structure 1 of the reference is cut off." in text
    assert "compared all the same: Brain, other structure 1" in text and "on another voxel grid" in text
    assert "Muster" not in text and "K.M." not in text and "muster" not in text
    assert notes[1] in Page(report(result, study, document, None, agreements, notes, identify=True)).text


def test_the_table_of_contours_says_what_was_compared(result, study):
    document = provenance(result, study)
    assert "Predicted contours against the reference." in report(result, study, document, None, [agreement("Brain")])
    page = report(result, study, document, None, [agreement("Brain")], caption="Drawn contours against others.")
    assert "Drawn contours against others. 1 is perfect" in page and "Predicted contours against" not in page
    page = Page(report(result, study, document, None, (), ["The comparison was left out."]))
    assert "The comparison was left out." in page.text and not any("Dice" in table[0] for table in page.tables)


def test_identity_is_there_when_asked_for(dicom_patient):
    study, result = dicom_patient
    document = provenance(result, study)
    text = Page(report(result, study, document, identify=True)).text
    assert "Muster Klara" in text and "HN-004711" in text and document["created"] in text
    assert study.sources[0].original.name in text and "FLAIR for Klara" in text


def test_images_without_a_header_have_no_name_to_tell(result, study):
    sources = tuple(replace(s, original=replace(s.original, metadata={})) for s in study.sources)
    study = replace(study, sources=sources)
    assert "not recorded" in Page(report(result, study, provenance(result, study), identify=True)).text


def test_texts_of_the_patient_cannot_become_markup(result, study):
    source = study.sources[0]
    source = replace(source, original=replace(source.original, name="<script>alert(1)</script>",
                                              metadata={"PatientName": "<b>O'Neill</b>"}))
    study = replace(study, sources=(source, study.sources[1]), warnings=('<img src=x> "T1"',))
    page = Page(report(result, study, provenance(result, study), identify=True))
    assert not page.every("script") and not page.every("b") and all("alt" in img for img in page.every("img"))
    assert "<b>O'Neill</b>" in page.text


@pytest.mark.parametrize("sentence, kept", [
    ('"T1 tra Doe" (series 5, 14:35:22) looks like T1 too.', "a series (series 5, …) looks like T1 too."),
    ("T1 tra Doe (echo 2): 3 slices are missing.", "a series (echo 2): 3 slices are missing."),
    ("Of doe, /hospital/doe/x.dcm of 2023-05-17 is damaged.", "Of …, … of … is damaged."),
    ("T2 was moved by 2.1 mm and 0.8 degrees.", "T2 was moved by 2.1 mm and 0.8 degrees."),
])
def test_sentences_keep_their_meaning_and_lose_the_name(result, study, sentence, kept):
    document = provenance(result, study)
    document["sources"][0]["description"] = "T1 tra Doe"
    assert discreet(document)(sentence) == kept


def test_a_result_folder_gets_the_report_on_request(result, study, tmp_path):
    document = write_result(result, study, tmp_path / "out", report=True, scene=False)
    assert "report.html" in document["files"]
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "T2FS" in page.text and "SYNTHETIC" in page.text
    assert "report.html" not in write_result(result, study, tmp_path / "other", scene=False)["files"]
