"""DICOM objects that are written: where they lie, whose they are, what they say of themselves, and all or nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_cases import AGAINST, GRIDS, dicom_files, make_result, read_study, write_study

from NPCSynthLib.errors import Cancelled, InputError, OutputError, UsageError
from NPCSynthLib.inference.result import NODES_LEFT_OUT
from NPCSynthLib.output.dicom_export import export_dicom
from NPCSynthLib.output.dicom_source import find_sources
from NPCSynthLib.output.provenance import provenance
from NPCSynthLib.study.read import list_series, read_folder
from NPCSynthLib.study.volume import Volume

#: Modules that are to be copied as they are; what an archive files by, and what a clinician reads.
IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientWeight",
            "IssuerOfPatientID", "PatientComments", "StudyInstanceUID", "StudyDate", "StudyTime",
            "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "SpecificCharacterSet")


@pytest.fixture(scope="module", params=list(GRIDS))
def case(request, tmp_path_factory):
    """(study folder, study, result, classic export, enhanced export, series written) on each grid."""
    folder = tmp_path_factory.mktemp(request.param)
    source = write_study(folder / "study", request.param)
    study = read_study(source, request.param == AGAINST)
    result = make_result(study)
    written = export_dicom(result, provenance(result, study), dicom_files(source), folder / "classic")
    export_dicom(result, provenance(result, study), dicom_files(source), folder / "enhanced", enhanced=True)
    return source, study, result, folder / "classic", folder / "enhanced", written


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(study folder, study, result) on the oblique grid."""
    source = write_study(tmp_path_factory.mktemp("small") / "study", "oblique")
    study = read_study(source)
    return source, study, make_result(study)


def datasets(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in dicom_files(folder)]


def export(small, folder, **options):
    source, study, result = small
    return export_dicom(result, provenance(result, study), dicom_files(source), folder, **options)


def edited(source: Path, folder: Path, edit) -> Path:
    """A copy of a DICOM study with every data set changed by ``edit(dataset, file name)``."""
    for path in dicom_files(source):
        dataset = pydicom.dcmread(path)
        edit(dataset, path.name)
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(target, enforce_file_format=True)
    return folder


def source_slices(source: Path) -> dict:
    """SOPInstanceUID -> data set of the acquired T1."""
    return {str(d.SOPInstanceUID): d for d in datasets(min(path for path in source.iterdir() if path.is_dir()))}


# --- geometry and pixels ---------------------------------------------------------------------------------------------

def test_each_slice_lies_where_its_source_lies_and_holds_the_results_voxels(case):
    source, study, result, classic, _, _ = case
    acquired, array = source_slices(source), result.sequences[0].array
    made = datasets(classic / "T1C")
    assert len(made) == len(array)
    for dataset in made:
        own = dataset.SourceImageSequence[0]
        assert own.SpatialLocationsPreserved == "YES"
        theirs = acquired[own.ReferencedSOPInstanceUID]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            np.testing.assert_allclose(np.array(dataset[keyword].value, float), np.array(theirs[keyword].value, float),
                                       rtol=0, atol=1e-6)
        assert float(dataset.SliceThickness) == pytest.approx(float(theirs.SliceThickness), abs=1e-4)
        assert float(dataset.SpacingBetweenSlices) == pytest.approx(study.grid.spacing[2], abs=1e-4)
        index = np.linalg.inv(study.grid.ijk_to_lps) @ [*map(float, dataset.ImagePositionPatient), 1]
        np.testing.assert_allclose(index, [0, 0, round(index[2]), 1], atol=1e-5)
        np.testing.assert_array_equal(dataset.pixel_array, array[round(index[2])])


def test_the_enhanced_image_holds_the_same_in_one_file(case):
    _, study, result, _, enhanced, _ = case
    dataset = pydicom.dcmread(enhanced / "T1C.dcm")
    np.testing.assert_array_equal(dataset.pixel_array, result.sequences[0].array)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    np.testing.assert_allclose(orientation, study.grid.direction[:, :2].T.ravel(), atol=1e-6)
    np.testing.assert_allclose(np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float),
                               study.grid.spacing[[1, 0]], atol=1e-6)
    for k, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(position, (study.grid.ijk_to_lps @ [0, 0, k, 1])[:3], atol=1e-4)


def test_a_slice_names_only_those_images_of_other_sources_that_show_the_place(small, tmp_path):
    """T2 has six slices of 20 mm; three neighbouring slices of 7 mm reach into some of them, never into all."""
    source, study, _ = small
    export(small, tmp_path / "out")
    t1, t2 = (set(study.source(s).original.metadata["SOPInstanceUIDs"]) for s in ("T1", "T2"))
    counts = []
    for dataset in datasets(tmp_path / "out" / "T1C"):
        named = [str(item.ReferencedSOPInstanceUID) for item in dataset.SourceImageSequence]
        own = set(named) & t1
        assert named[0] in t1 and set(named) <= t1 | t2 and len(own) in (2, 3), "a slice and its neighbors"
        counts.append(len(set(named) - own))
    assert min(counts) >= 1 and max(counts) < 6


@pytest.mark.parametrize("why", ["registered", "another frame of reference"])
def test_every_slice_names_the_whole_of_a_series_that_does_not_lie_where_its_header_says(small, tmp_path, why):
    source, study, result = small

    def elsewhere(dataset, _):
        if dataset.get("SeriesInstanceUID") == study.source("T2").original.metadata["SeriesInstanceUID"]:
            dataset.FrameOfReferenceUID = "1.2.3.4"

    document = provenance(result, study)
    if why == "registered":
        document["sources"][1]["registration"] = {"applied": True, "translation_mm": 30.0}
    else:
        source = edited(source, tmp_path / "study", elsewhere)
    export_dicom(result, document, dicom_files(source), tmp_path / "out")
    t2 = study.source("T2").original.metadata["SOPInstanceUIDs"]
    for dataset in datasets(tmp_path / "out" / "T1C"):
        named = {str(item.ReferencedSOPInstanceUID) for item in dataset.SourceImageSequence}
        assert set(t2) <= named


def test_slices_are_numbered_the_way_the_sources_are(small, tmp_path):
    source, _, _ = small

    def downward(dataset, _):
        if dataset.Modality == "MR":
            dataset.InstanceNumber = 100 - dataset.InstanceNumber

    turned = edited(source, tmp_path / "study", downward)
    study = read_study(turned)
    export((turned, study, make_result(study)), tmp_path / "out")
    acquired = source_slices(turned)
    pairs = [(int(d.InstanceNumber), int(acquired[d.SourceImageSequence[0].ReferencedSOPInstanceUID].InstanceNumber))
             for d in datasets(tmp_path / "out" / "T1C")]
    assert [own for own, _ in sorted(pairs, key=lambda pair: pair[1])] == list(range(1, len(pairs) + 1))


@pytest.mark.parametrize("shared", [True, False])
def test_results_of_an_enhanced_source_refer_to_its_frames(small, tmp_path, shared):
    """The source is an enhanced image whose frames run against the slices and, with ``shared`` False, carry their
    orientation one by one."""
    _, study, result = small
    export(small, tmp_path / "made", enhanced=True)
    acquired = pydicom.dcmread(tmp_path / "made" / "T1C.dcm")
    del acquired.SyntheticData
    frames = list(acquired.PerFrameFunctionalGroupsSequence)[::-1]
    if not shared:
        groups = acquired.SharedFunctionalGroupsSequence[0]
        for frame in frames:
            frame.PlaneOrientationSequence = groups.PlaneOrientationSequence
            frame.PixelMeasuresSequence = groups.PixelMeasuresSequence
        del groups.PlaneOrientationSequence, groups.PixelMeasuresSequence
    acquired.PerFrameFunctionalGroupsSequence = frames
    (tmp_path / "study").mkdir()
    acquired.save_as(tmp_path / "study" / "enhanced.dcm", enforce_file_format=True)
    count = len(frames)
    document = provenance(result, study)
    document["sources"] = [{**document["sources"][0], "SOPInstanceUIDs": [str(acquired.SOPInstanceUID)] * count,
                            "FrameNumbers": [str(n) for n in range(1, count + 1)]}]
    export_dicom(result, document, dicom_files(tmp_path / "study"), tmp_path / "out")
    made = datasets(tmp_path / "out" / "T1C")
    for dataset in made:
        item = dataset.SourceImageSequence[0]
        assert item.ReferencedSOPInstanceUID == acquired.SOPInstanceUID
        frame = frames[item.ReferencedFrameNumber - 1]
        assert dataset.ImagePositionPatient == frame.PlanePositionSequence[0].ImagePositionPatient
        assert dataset.InstanceNumber == item.ReferencedFrameNumber
    segmentation = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        item = groups.DerivationImageSequence[0].SourceImageSequence[0]
        frame = frames[item.ReferencedFrameNumber - 1]
        assert groups.PlanePositionSequence == frame.PlanePositionSequence
    contours = pydicom.dcmread(tmp_path / "out" / "contours.dcm")
    item = contours.ROIContourSequence[0].ContourSequence[0]
    frame = frames[item.ContourImageSequence[0].ReferencedFrameNumber - 1]
    corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
    offset = np.array(item.ContourData[:3], float) - corner
    assert abs(offset @ study.grid.direction[:, 2]) < 1e-3


# --- whose it is -----------------------------------------------------------------------------------------------------

def test_every_object_belongs_to_the_sources_patient_study_and_frame_of_reference(case):
    source, _, _, classic, enhanced, _ = case
    acquired = next(iter(source_slices(source).values()))
    for dataset in (*datasets(classic), *datasets(enhanced)):
        for keyword in (*IDENTITY, "FrameOfReferenceUID"):
            assert dataset.get(keyword) == acquired.get(keyword), keyword


def test_identity_in_the_character_set_of_the_hospital_is_copied_byte_for_byte(small, tmp_path):
    source, _, _ = small
    name, letters = "Wang^XiaoDong=王^小东".encode("gb18030"), "鼻咽癌".encode("gb18030")

    def chinese(dataset, _):
        dataset.SpecificCharacterSet = "GB18030"
        dataset[0x00100010] = pydicom.DataElement(0x00100010, "PN", pydicom.valuerep.PersonName(name, ["gb18030"]))
        dataset.PatientID, dataset.StudyDescription = "0815", letters.decode("gb18030")
        dataset.IssuerOfPatientID, dataset.PatientWeight, dataset.PatientAge = "Ward 7", "61.5", "057Y"

    turned = edited(source, tmp_path / "study", chinese)
    study = read_study(turned)
    export((turned, study, make_result(study)), tmp_path / "out")
    acquired = next(iter(source_slices(turned).values()))
    files = dicom_files(tmp_path / "out")
    for path in files:
        raw = path.read_bytes()
        assert name in raw and letters in raw
        dataset = pydicom.dcmread(path)
        for keyword in IDENTITY:
            assert dataset.get(keyword) == acquired.get(keyword), keyword
    assert "小东" in str(pydicom.dcmread(files[0]).PatientName)


# --- what it says of itself ------------------------------------------------------------------------------------------

def test_every_object_says_that_and_by_what_it_was_synthesized(case):
    _, _, _, classic, enhanced, _ = case
    for dataset in (*datasets(classic), *datasets(enhanced)):
        assert dataset.SyntheticData == "YES" and dataset.ContentQualification == "RESEARCH"
        assert dataset.SeriesDescription.startswith("SYNTH ")
        assert dataset.DerivationDescription.startswith("SYNTHETIC, research use only.")
        assert "ab" * 32 in dataset.DerivationDescription
        purposes = {item.PurposeOfReferenceCodeSequence[0].CodeValue: item
                    for item in dataset.ContributingEquipmentSequence}
        assert set(purposes) == {"109100", "109101"}
        synthesizer = purposes["109100"]
        assert synthesizer.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator == "DCM"
        assert synthesizer.Manufacturer == "NPCSynth" and synthesizer.DeviceSerialNumber == "ab" * 32
        assert purposes["109101"].ManufacturerModelName == "Digital phantom"


def test_provenance_for_programs_is_in_every_object(case):
    source, study, result, classic, enhanced, _ = case
    acquired = {str(d.SeriesInstanceUID) for d in datasets(source) if d.Modality == "MR"}
    for dataset in (*datasets(classic), *datasets(enhanced)):
        document = json.loads(dataset.private_block(0x0099, "NPCSynth")[0x01].value)
        assert document["weights"] == {"name": "test", "version": "0.1", "sha256": "ab" * 32}
        assert document["software"]["name"] == "NPCSynth" and document["created"] and document["synthetic"] is True
        assert {entry["SeriesInstanceUID"] for entry in document["sources"]} == acquired
        if dataset.Modality in ("MR", "OT"):
            assert document["output"]["prompt"] == result.sequences[0].prompt


GUESS = ("Enhancement in the synthetic T1C is a guess: no source was acquired with contrast agent. Never judge on it "
         "whether a lesion enhances.")


def test_warnings_and_registration_are_in_every_object_and_the_guess_in_words_in_its_image(small, tmp_path):
    source, study, result = small
    targets = make_result(study, ("T1C", "T2FS"))
    result = replace(targets, warnings=(GUESS, "T2 shows 60% of the body on the reference grid."))
    document = provenance(result, study)
    document["sources"][1]["registration"] = {"applied": True, "rotation_deg": 4.5}
    export_dicom(result, document, dicom_files(source), tmp_path / "out")
    for dataset in datasets(tmp_path / "out"):
        told = json.loads(dataset.private_block(0x0099, "NPCSynth")[0x01].value)
        assert told["warnings"] == document["warnings"] and len(told["warnings"]) >= 2
        assert told["sources"][1]["registration"]["rotation_deg"] == 4.5
        assert (GUESS in dataset.DerivationDescription) == ("T1C" in dataset.SeriesDescription)


@pytest.mark.parametrize("doubtful", [False, True])
def test_that_it_may_be_wrong_is_told_in_words_in_every_object(small, tmp_path, doubtful):
    """Most programs show the description and never the private element."""
    source, study, result = small
    unusual = ("T1 lies upside down.",) if doubtful else ()
    sequences = tuple(replace(one, calibrated=not doubtful) for one in result.sequences)
    export((source, study, replace(result, sequences=sequences, unusual=unusual)), tmp_path / "out")
    for dataset in datasets(tmp_path / "out"):
        told = dataset.DerivationDescription
        assert ("unlike what the network learned from" in told) == doubtful
        of_an_image = dataset.Modality in ("MR", "OT")
        assert ("never checked on acquired images" in told) == (doubtful and of_an_image)
        assert ("Prompt" in told) == of_an_image


@pytest.mark.parametrize("deidentify", [False, True])
@pytest.mark.parametrize("drawn", [True, False])
def test_nodes_that_were_left_out_are_told_where_the_contours_are_looked_at(small, tmp_path, deidentify, drawn):
    source, study, result = small
    told = f"{NODES_LEFT_OUT}: 3, of 0.5 ml in all. Look for nodes yourself."
    if drawn:
        labelmap = result.segmentation.labelmap.copy()
        labelmap[3:5, 2:4, 2:6] = next(s.label for s in result.segmentation.segments if s.name == "GTVn")
        result = replace(result, segmentation=replace(result.segmentation, labelmap=labelmap))
    document = provenance(replace(result, warnings=(told,)), study)
    document["sources"][0]["description"] = "network of nodes"  # words of the sentence are none that identify
    export_dicom(result, document, dicom_files(source), tmp_path / "out", deidentify=deidentify)
    contours = pydicom.dcmread(tmp_path / "out" / "contours.dcm")
    assert f"Check every contour. {told}" in contours.StructureSetDescription
    assert ("nothing was found: GTVn" in contours.StructureSetDescription) == (not drawn)
    assert len(contours.StructureSetDescription) <= 1024
    described = {roi.ROIName: roi.get("ROIDescription", "") for roi in contours.StructureSetROISequence}
    assert [name for name, words in described.items() if words == told] == (["GTVn^SYN"] if drawn else [])
    segments = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm").SegmentSequence
    assert [s.SegmentLabel for s in segments if s.get("SegmentDescription") == told] == ["GTVn^SYN"]


def test_nothing_is_said_of_nodes_when_none_was_left_out(case):
    _, _, _, classic, _, _ = case
    contours = pydicom.dcmread(classic / "contours.dcm")
    assert "left out" not in contours.StructureSetDescription
    assert not any("left out" in roi.get("ROIDescription", "") for roi in contours.StructureSetROISequence)
    assert not any("SegmentDescription" in s for s in pydicom.dcmread(classic / "segmentation.dcm").SegmentSequence)


def test_a_synthetic_mr_claims_no_acquisition(case):
    _, _, _, classic, enhanced, _ = case
    for dataset in (*datasets(classic / "T1C"), pydicom.dcmread(enhanced / "T1C.dcm")):
        assert dataset.Modality == "MR" and dataset.ImageType[0] == "DERIVED"
        assert not any("Contrast" in element.keyword for element in dataset if element.keyword != "AcquisitionContrast")
        for keyword in ("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "MagneticFieldStrength",
                        "AcquisitionDate", "AcquisitionTime"):
            assert dataset.get(keyword) in (None, ""), keyword
    assert datasets(classic / "T1C")[0].ImageType == ["DERIVED", "SECONDARY", "OTHER"]


def test_series_are_new_and_every_uid_is_given_once(case):
    source, _, _, classic, enhanced, written = case
    made, acquired = (*datasets(classic), *datasets(enhanced)), datasets(source)
    uids = [str(dataset.SOPInstanceUID) for dataset in made]
    assert len(set(uids)) == len(uids)
    assert {str(d.SeriesInstanceUID) for d in made}.isdisjoint(str(d.SeriesInstanceUID) for d in acquired)
    assert [one.modality for one in written] == ["MR", "OT", "SEG", "RTSTRUCT"]
    for one in written:
        assert {str(pydicom.dcmread(classic / file).SeriesInstanceUID) for file in one.files} == {one.uid}
    numbers = {int(d.SeriesNumber) for d in datasets(classic)}
    assert len(numbers) == 4 and numbers.isdisjoint(int(d.SeriesNumber) for d in acquired)


def test_structures_carry_names_codes_and_what_drew_them_and_refer_to_the_source(case):
    source, study, result, classic, _, _ = case
    dataset = pydicom.dcmread(classic / "segmentation.dcm")
    assert [s.SegmentLabel for s in dataset.SegmentSequence] == [f"{s.name}^SYN" for s in result.segmentation.segments]
    for item, segment in zip(dataset.SegmentSequence, result.segmentation.segments, strict=True):
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        assert [kind.CodingSchemeDesignator, kind.CodeValue, kind.CodeMeaning] == segment.code["type"]
        modifier = kind.get("SegmentedPropertyTypeModifierCodeSequence")
        assert (modifier[0].CodeValue if modifier else None) == (segment.code["modifier"] or [None, None])[1]
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert item.SegmentAlgorithmType == "AUTOMATIC" and algorithm.AlgorithmVersion == "0.1"
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    t1 = study.source("T1").original.metadata
    series = dataset.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == t1["SeriesInstanceUID"]
    assert {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence} <= set(t1["SOPInstanceUIDs"])
    contours = pydicom.dcmread(classic / "contours.dcm")
    frame = contours.ReferencedFrameOfReferenceSequence[0]
    referenced = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == t1["SeriesInstanceUID"]
    drawn = {roi.ROIName for roi in contours.StructureSetROISequence}
    assert drawn == {f"{s.name}^SYN" for s in result.segmentation.segments} - {"GTVn^SYN"}
    assert all(len(name) <= 16 for name in drawn), "TG-263: planning systems cut off what is longer"
    assert drawn == {one.ROIObservationLabel for one in contours.RTROIObservationsSequence}
    types = {one.ROIObservationLabel: one.RTROIInterpretedType for one in contours.RTROIObservationsSequence}
    assert types["GTVp^SYN"] == "" and types["Brain^SYN"] == "ORGAN", "a target is for a person to say"
    assert "nothing was found: GTVn; they may be there all the same." in contours.StructureSetDescription


def test_each_object_refers_to_the_images_that_the_readme_says(case):
    """A synthetic image to all that it was made from; structures to the reference alone, contours in their own way."""
    _, study, _, classic, enhanced, _ = case

    def named(datasets):
        return {str(item.ReferencedSOPInstanceUID) for dataset in datasets for frame in (
            dataset, *(g.DerivationImageSequence[0] for g in dataset.get("PerFrameFunctionalGroupsSequence", ())),
        ) for item in frame.get("SourceImageSequence", ())}

    t1, t2 = (set(study.source(s).original.metadata["SOPInstanceUIDs"]) for s in ("T1", "T2"))
    for images in (datasets(classic / "T1C"), [pydicom.dcmread(enhanced / "T1C.dcm")]):
        assert t1 <= named(images) <= t1 | t2 and named(images) & t2
    assert named([pydicom.dcmread(classic / "segmentation.dcm")]) <= t1
    assert named(datasets(classic / "T1C")).isdisjoint(named([pydicom.dcmread(classic / "T1C_uncertainty.dcm")]))
    assert "SourceImageSequence" not in pydicom.dcmread(classic / "contours.dcm")


def test_uncertainty_refers_to_the_synthetic_series_that_it_is_of(case):
    _, _, _, classic, enhanced, _ = case
    for folder, image in ((classic, classic / "T1C" / "IM0001.dcm"), (enhanced, enhanced / "T1C.dcm")):
        series = pydicom.dcmread(folder / "T1C_uncertainty.dcm").ReferencedSeriesSequence[0]
        assert series.SeriesInstanceUID == pydicom.dcmread(image).SeriesInstanceUID


def test_own_objects_are_refused_as_sources(case):
    _, _, _, classic, enhanced, _ = case
    for folder in (classic, enhanced):
        assert {entry.identification.sequence for entry in list_series(folder)} == {None}
        with pytest.raises(InputError):
            read_folder(folder)


def test_a_prompt_in_letters_that_the_hospitals_character_set_lacks(small, tmp_path):
    source, study, result = small
    prompt = "T1 加权, 增强"
    result = replace(result, sequences=(replace(result.sequences[0], prompt=prompt),))
    export((source, study, result), tmp_path / "out")
    dataset = pydicom.dcmread(tmp_path / "out" / "T1C_uncertainty.dcm")
    assert "own words: its contrast may be unusual. Prompt: T1 ??, ??" in dataset.DerivationDescription
    assert json.loads(dataset.private_block(0x0099, "NPCSynth")[0x01].value)["output"]["prompt"] == prompt


# --- de-identification -----------------------------------------------------------------------------------------------

SECRETS = {
    "PatientName": "Secret^Susan", "PatientID": "SECRET-4711", "PatientBirthDate": "19661122",
    "OtherPatientIDs": "SECRET-2", "AccessionNumber": "SECRETACC", "StudyID": "SECRETSID", "StudyDate": "20231224",
    "StudyTime": "112233",
    "SeriesDate": "20231224", "ReferringPhysicianName": "Secret^Doctor", "InstitutionName": "Secret Hospital",
    "InstitutionAddress": "Secret Street 1", "StationName": "SECRETSTATION", "DeviceSerialNumber": "SECRETSERIAL",
    "OperatorsName": "Secret^Operator", "PatientAddress": "Secret Road 2", "StudyDescription": "Secret study",
    "PatientComments": "secret comment", "PatientTelephoneNumbers": "0123456789", "PatientAge": "057Y",
    "AdmittingDiagnosesDescription": "secret diagnosis", "NameOfPhysiciansReadingStudy": "Secret^Reader",
    "PatientBirthDateInAlternativeCalendar": "SECRET S41", "PatientDeathDateInAlternativeCalendar": "SECRET R5",
    "LongitudinalTemporalOffsetFromEvent": 4711.25, "PositionReferenceIndicator": "SECRET SPOT",
    "AdditionalPatientHistory": "secret history", "SeriesDescription": "t1 secret lab", "ProtocolName": "t1_secretlab",
}


@pytest.fixture(scope="module")
def deidentified(small, tmp_path_factory):
    """(acquired study full of secrets, its de-identified classic export)"""
    source, _, _ = small

    def tell(dataset, _):
        for keyword, value in SECRETS.items():
            setattr(dataset, keyword, value)
        nested = pydicom.Dataset()
        nested.PatientID, nested.IssuerOfPatientID, nested.TypeOfPatientID = "SECRET-NESTED", "Secret issuer", "TEXT"
        dataset.OtherPatientIDsSequence = [nested]
        code = pydicom.Dataset()
        # The profile keeps codes, and a hospital's own name its departments.
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99LOCAL", "MR head"
        code.InstitutionName, code.InstanceCreatorUID = "Secret nested hospital", "1.2.3.4711"
        dataset.ProcedureCodeSequence = [code]
        dataset.RequestingServiceCodeSequence = dataset.SourcePatientGroupIdentificationSequence = [code]
        issuer = pydicom.Dataset()
        issuer.UniversalEntityID, issuer.UniversalEntityIDType = "secret.hospital", "DNS"
        dataset.IssuerOfPatientIDQualifiersSequence = [issuer]
        dataset.private_block(0x0033, "SECRET MAKER", create=True).add_new(1, "LO", "secret private")

    folder = tmp_path_factory.mktemp("deidentified")
    turned = edited(source, folder / "study", tell)
    study = read_study(turned)
    sequence = replace(make_result(study).sequences[0], prompt="T1 of Susan Secret")
    warnings = (GUESS, "T1 shows 60% of the body.", '"t1 secret lab" is used as T1, 55% sure.',
                "The model does not know these words of the prompt for T1C: susan.")
    study = replace(study, sources=tuple(replace(s, registration={"applied": True, "rotation_deg": 4.5, "warning":
                                                                  '"t1 secret lab" could not be'})
                                         for s in study.sources))
    result = replace(make_result(study), sequences=(sequence,), warnings=warnings)
    export((turned, study, result), folder / "out", deidentify=True)
    return turned, folder / "out"


def test_nothing_that_identifies_is_left_in_any_file(deidentified):
    source, out = deidentified
    uids = {str(e.value) for d in datasets(source) for e in d.iterall() if e.VR == "UI" and
            e.keyword not in ("SOPClassUID", "ReferencedSOPClassUID")}
    secrets = [*(s.encode() for s in uids), *(s.encode() for v in SECRETS.values() for s in str(v).split("^")),
               b"Susan", b"susan", b"NESTED", b"secret", b"Secret", b"SECRET", b"99LOCAL"]
    files = dicom_files(out)
    assert len(files) > 5
    for path in files:
        raw = path.read_bytes()
        assert [s for s in secrets if s in raw] == [], path.name



def test_of_patient_and_study_nothing_but_a_pseudonym_is_left(deidentified):
    _, out = deidentified
    kept = {"PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientIdentityRemoved",
            "DeidentificationMethod", "DeidentificationMethodCodeSequence"}
    for dataset in datasets(out):
        assert {e.keyword for e in dataset if e.tag.group in (0x0010, 0x0012, 0x0032, 0x0038)} == kept
        assert "LongitudinalTemporalOffsetFromEvent" not in dataset and "ProcedureCodeSequence" not in dataset
        for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName", "StudyID"):
            assert not dataset[keyword].value, keyword


def test_deidentified_provenance_keeps_the_warnings_and_registrations_that_name_no_series(deidentified):
    _, out = deidentified
    for dataset in datasets(out):
        told = json.loads(dataset.private_block(0x0099, "NPCSynth")[0x01].value)
        assert told["warnings"] == [GUESS, "T1 shows 60% of the body."]
        assert [s["registration"] for s in told["sources"]] == [{"applied": True, "rotation_deg": 4.5}] * 2


def test_deidentified_objects_say_so_and_still_belong_together(deidentified):
    _, out = deidentified
    made = datasets(out)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert len({str(d.get(keyword)) for d in made}) == 1, keyword
    for dataset in made:
        assert dataset.PatientIdentityRemoved == "YES" and "PS3.15" in dataset.DeidentificationMethod
        assert dataset.LongitudinalTemporalInformationModified == "REMOVED"
        assert dataset.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert dataset.SyntheticData == "YES" and dataset.SeriesDescription.startswith("SYNTH")
        assert dataset.PatientID.startswith("ANON-")
    by_modality = {d.Modality: d for d in made}
    named = {str(d.SourceImageSequence[0].ReferencedSOPInstanceUID) for d in made if d.Modality == "MR"}
    drawn = {str(i.ReferencedSOPInstanceUID)
             for i in by_modality["SEG"].ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    frame = by_modality["RTSTRUCT"].ReferencedFrameOfReferenceSequence[0]
    contoured = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert drawn <= named
    assert {str(i.ReferencedSOPInstanceUID) for i in contoured.ContourImageSequence} == named
    assert contoured.SeriesInstanceUID == by_modality["SEG"].ReferencedSeriesSequence[0].SeriesInstanceUID
    document = json.loads(by_modality["SEG"].private_block(0x0099, "NPCSynth")[0x01].value)
    assert contoured.SeriesInstanceUID == document["sources"][0]["SeriesInstanceUID"]
    assert frame.FrameOfReferenceUID == by_modality["MR"].FrameOfReferenceUID


def test_nothing_is_deidentified_unasked(case):
    _, _, _, classic, enhanced, _ = case
    assert not any("PatientIdentityRemoved" in dataset for dataset in (*datasets(classic), *datasets(enhanced)))


def test_nothing_of_the_patient_is_said_in_warnings_or_logs(small, tmp_path, caplog, recwarn, capfd):
    source, study, result = small

    def odd_name(dataset, _):
        dataset.PatientName, dataset.PatientID = "SingleComponentName", "4711"

    turned = edited(source, tmp_path / "study", odd_name)
    study = read_study(turned)
    recwarn.clear()
    with caplog.at_level("DEBUG"):
        export((turned, study, result), tmp_path / "out")
        export((turned, study, result), tmp_path / "enhanced", enhanced=True)
    said = " ".join([caplog.text, *(str(w.message) for w in recwarn), *capfd.readouterr()])
    uids = [str(d.SOPInstanceUID) for d in datasets(turned)]
    assert [secret for secret in ("SingleComponentName", "4711", *uids) if secret in said] == []


# --- all or nothing --------------------------------------------------------------------------------------------------

def test_a_result_from_nifti_is_refused_with_the_remedy(small, tmp_path):
    source, study, result = small
    for number, one in enumerate(study.sources):  # the reference, and one beside it, whose patient nobody knows
        plain = replace(one, original=Volume(one.array, study.grid, f"{one.sequence}.nii.gz", {}))
        mixed = replace(study, sources=tuple(plain if n == number else s for n, s in enumerate(study.sources)))
        with pytest.raises(InputError, match=f"{one.sequence} was not read from DICOM.*Synthesize from DICOM series"):
            export_dicom(result, provenance(result, mixed), dicom_files(source), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_another_study_folder_is_refused(small, tmp_path):
    _, study, result = small
    with pytest.raises(InputError, match="9 of the 9 DICOM files that T1 was read from are not in the study folder"):
        export_dicom(result, provenance(result, study), [], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["moved", "turned", "stretched", "cropped"])
def test_an_image_that_no_longer_lies_where_its_series_does_is_refused(small, tmp_path, change):
    source, study, result = small
    document = provenance(result, study)
    matrix = study.grid.ijk_to_lps.copy()
    if change == "moved":
        matrix[:3, 3] += (0, 0, 1)
    elif change == "turned":
        matrix[:3, :2] = matrix[:3, 1::-1]
    elif change == "stretched":
        matrix[:3, 0] *= 1.01
    else:
        document["reference_grid"]["shape_kji"][2] -= 1
    document["reference_grid"]["ijk_to_lps"] = matrix.tolist()
    with pytest.raises(InputError, match="do not lie where the DICOM series of the reference T1 does"):
        find_sources(document, dicom_files(source))


def test_the_distance_from_slice_to_slice_is_told_of_every_source(small):
    source, study, result = small
    for series in find_sources(provenance(result, study), dicom_files(source)):
        steps = np.linalg.norm(np.diff([frame.position for frame in series.frames], axis=0), axis=1)
        assert steps == pytest.approx(series.spacing, abs=0.11), "in the order of their places"


def test_a_source_without_frame_of_reference_is_refused(small, tmp_path):
    source, study, result = small

    def lose(dataset, _):
        del dataset.FrameOfReferenceUID

    turned = edited(source, tmp_path / "study", lose)
    with pytest.raises(InputError, match="names no frame of reference"):
        export_dicom(result, provenance(result, study), dicom_files(turned), tmp_path / "out")


def test_a_folder_with_files_is_never_written_to(small, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.dcm").write_text("mine")
    with pytest.raises(UsageError, match="already holds files"):
        export(small, tmp_path / "out")
    assert [(p.name, p.read_text()) for p in (tmp_path / "out").iterdir()] == [("mine.dcm", "mine")]


def test_a_full_disk_is_said_and_leaves_nothing(small, tmp_path):
    """The system cuts every file off at 9 kB, as a full disk would: slices fit, the segmentation does not."""
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, hard))
    try:
        with pytest.raises(OutputError, match="Nothing partial was left"):
            export(small, tmp_path / "new" / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["canceled", "interrupted"])
def test_nothing_is_left_when_the_export_stops_midway(small, tmp_path, how):
    seen = []

    def progress(fraction, _):
        seen.append(fraction)
        if how == "interrupted" and len(seen) == 3:
            assert any(tmp_path.rglob("IM*.dcm"))  # it is midway indeed
            raise KeyboardInterrupt

    with pytest.raises(Cancelled if how == "canceled" else KeyboardInterrupt):
        export(small, tmp_path / "out", on_progress=progress, cancel=lambda: how == "canceled" and len(seen) == 2)
    assert len(seen) >= 2 and list(tmp_path.iterdir()) == []


def test_what_was_lost_in_one_source_is_said_to_be_lost_in_the_result(small, tmp_path):
    source, study, result = small
    t2 = study.source("T2").original.metadata["SeriesInstanceUID"]

    def compress(dataset, _):
        if dataset.get("SeriesInstanceUID") == t2:
            dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", 8.0
            dataset.LossyImageCompressionMethod = "ISO_10918_1"

    source = edited(source, tmp_path / "study", compress)
    export_dicom(result, provenance(result, study), dicom_files(source), tmp_path / "out")
    for dataset in datasets(tmp_path / "out" / "T1C"):
        assert (dataset.LossyImageCompression, float(dataset.LossyImageCompressionRatio)) == ("01", 8.0)
