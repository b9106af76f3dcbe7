"""From volumes to a Study: the rules for grid, duplicates, overlap and refusals."""

import numpy as np
import pytest
import SimpleITK as sitk

from NPCSynthLib.errors import Cancelled, InputError, UsageError
from NPCSynthLib.study.build import assign, build_study, choose_reference, study_from_folder
from NPCSynthLib.study.normalize import body_mask, percentiles
from NPCSynthLib.study.volume import Grid, Volume, to_sitk

CENTER = np.array([4.0, -12.0, 30.0])


def grid_of(shape, spacing, angle=0.2, center=CENTER):
    c, s = np.cos(angle), np.sin(angle)
    direction = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    half = (np.array(shape[::-1]) - 1) / 2
    return Grid.from_parts(shape, spacing, center - direction * np.array(spacing) @ half, direction)


def head(grid, brain=500, fluid=100, name="T1 tra", **metadata):
    """A head with two dark ventricles, off-center, in noise."""
    k, j, i = np.indices(grid.shape)
    points = grid.ijk_to_lps[:3, :3] @ np.stack([i.ravel(), j.ravel(), k.ravel()]) + grid.ijk_to_lps[:3, 3:]
    points = points - CENTER[:, None]

    def within(center, radii):
        return (((points - np.array(center)[:, None]) / np.array(radii)[:, None]) ** 2).sum(0) <= 1

    image = np.where(within((0, 0, 0), (60, 72, 60)), 900.0, 0.0)
    image[within((0, 0, 0), (52, 64, 54))] = brain
    image[within((14, 0, 8), (8, 24, 12))] = fluid
    image[within((-16, 4, 10), (6, 18, 9))] = fluid
    image = image.reshape(grid.shape) + np.abs(np.random.default_rng(len(name)).normal(0, 8, grid.shape))
    return Volume(image.astype(np.float32), grid, name, dict(metadata))


FINE = grid_of((40, 72, 64), (2.2, 2.2, 3.3))
THICK = grid_of((24, 90, 80), (1.8, 1.8, 6.0), angle=0.0)


@pytest.fixture(scope="module")
def two():
    return {"T2": head(THICK, 300, 1000, "T2 tra"), "T1": head(FINE)}


@pytest.fixture(scope="module")
def study(two):
    return build_study(two)


def test_doubtful_series_and_other_days_are_said():
    header = {"Modality": "MR", "RepetitionTime": 500.0, "EchoTime": 12.0, "SeriesDescription": "t2_tse_tra"}
    chosen, warnings, _ = assign([head(FINE, name="t2_tse_tra", **header)])
    doubtful = [w for w in warnings if "% sure" in w]
    assert len(chosen) == 1 and len(doubtful) == 1 and "t2_tse_tra" in doubtful[0]
    study = build_study({"T1": head(FINE, StudyDate="20260101"), "T2": head(FINE, 300, 1000, StudyDate="20260301")})
    assert any("different days" in w for w in study.warnings)


def test_sources_lie_on_the_reference_grid_scaled_by_their_own_body(study, two):
    assert study.reference == "T1" and study.grid.matches(FINE)
    for source in study.sources:
        assert source.array.shape == FINE.shape == source.inside.shape == study.body.shape
        assert source.array.dtype == np.float32 and source.inside.dtype == bool
        original = two[source.sequence]
        mask = body_mask(original.array, original.grid.spacing)
        assert source.intensity_range == percentiles(original.array, mask)
        assert (source.array[~source.inside] == 0).all()
    t1 = study.source("T1")
    low, high = t1.intensity_range
    assert np.allclose(t1.array, np.clip((two["T1"].array - low) / (high - low), -0.5, 2), atol=1e-5)
    assert study.source("T2").registration["reason"].startswith("Already aligned")


def test_contrasts_agree_in_space_after_resampling(study):
    ventricles = study.source("T2").array > 0.8
    inner = ventricles & (study.source("T1").array < 0.35)
    assert inner.sum() > 0.8 * (ventricles & (np.abs(study.source("T1").array - 1) > 0.3)).sum() > 0


def test_body_is_the_head(study):
    volume_ml = study.body.sum() * np.prod(FINE.spacing) / 1000
    k = (FINE.shape[0] * FINE.spacing[2]) / 2
    assert volume_ml == pytest.approx(4 / 3 * np.pi * 60 * 72 * min(60, k + 5) / 1000, rel=0.08)


def test_order_of_the_sources_does_not_matter(study, two):
    other = build_study({"T1": two["T1"], "T2": two["T2"]})
    assert other.reference == study.reference
    for sequence in two:
        assert np.array_equal(other.source(sequence).array, study.source(sequence).array)


def test_named_reference_wins_and_the_choice_is_said_otherwise(study, two):
    named = build_study(two, reference="t2w", register=False)
    assert named.reference == "T2" and named.grid.matches(THICK)
    assert "switched off" in named.source("T1").registration["reason"]
    assert any("grid of T1 (2.2 x 2.2 x 3.3 mm)" in w for w in study.warnings)
    assert not any("Results lie on" in w for w in named.warnings)


def test_small_fine_slab_does_not_become_the_reference():
    slab = grid_of((10, 80, 80), (1, 1, 2))
    assert choose_reference({"T2": head(slab), "T1": head(FINE)}) == "T1"


def test_contrast_enhanced_leads_among_equals():
    assert choose_reference({"T1": head(FINE), "T1C": head(FINE), "T2": head(FINE)}) == "T1C"


def test_partial_overlap_is_kept_with_a_percentage():
    low = grid_of((20, 72, 64), (2.2, 2.2, 3.3), center=CENTER + np.array([0, 8.0, -40]))
    study = build_study({"T1": head(FINE), "T2": head(low, 300, 1000, "T2 neck")}, reference="T1", register=False)
    inside = study.source("T2").inside
    assert 0.2 < inside.mean() < 0.8
    assert (study.source("T2").array[~inside] == 0).all()
    assert any("T2 shows" in w and "%" in w for w in study.warnings)


def test_no_overlap_is_refused_naming_both():
    away = head(grid_of((20, 30, 30), (4, 4, 6)), name="T2 knee")
    matrix = away.grid.ijk_to_lps.copy()
    matrix[:3, 3] += 2000
    with pytest.raises(InputError, match="T2 knee.*T1 tra.*same patient"):
        build_study({"T1": head(FINE), "T2": Volume(away.array, Grid(away.grid.shape, matrix), "T2 knee")}, "T1")


def test_shifted_source_is_brought_back(two):
    matrix = THICK.ijk_to_lps.copy()
    matrix[:3, 3] += (7, -5, 6)
    moved = Volume(two["T2"].array, Grid(THICK.shape, matrix), "T2 tra")
    study = build_study({"T1": two["T1"], "T2": moved})
    report = study.source("T2").registration
    assert report["applied"] and report["translation_mm"] == pytest.approx(np.sqrt(110), abs=1.0)


def test_different_frames_of_reference_are_said(two):
    t1 = Volume(two["T1"].array, FINE, "T1 tra", {"FrameOfReferenceUID": "1.2.3"})
    t2 = Volume(two["T2"].array, THICK, "T2 tra", {"FrameOfReferenceUID": "1.2.4"})
    study = build_study({"T1": t1, "T2": t2}, register=False)
    assert any("different frames of reference" in w for w in study.warnings)


@pytest.mark.parametrize("key", ["PatientID", "PatientName", "PatientBirthDate"])
def test_two_patients_are_refused_without_saying_who(two, key):
    """Also where one of the two, or both, have no ID."""
    volumes = {s: Volume(v.array, v.grid, v.name, {key: f"ID-{s}"}) for s, v in two.items()}
    with pytest.raises(InputError, match="different patients") as caught:
        build_study(volumes)
    assert "ID-" not in str(caught.value)


def test_one_image_under_two_names_is_refused(two):
    """It would be taken for two acquisitions, by the command line and by a batch too."""
    copy = Volume(two["T1"].array.copy(), two["T1"].grid, "copy of it")
    with pytest.raises(InputError, match="T1 and T1C are the same image.*copy of it"):
        build_study({"T1": two["T1"], "T1C": copy})


@pytest.mark.parametrize(("array", "word"), [
    (np.full(FINE.shape, 3.0), "every voxel"), (np.full(FINE.shape, np.nan), "not numbers"),
], ids=["constant", "NaN"])
def test_unusable_volume_is_refused_by_name(two, array, word):
    with pytest.raises(InputError, match=f"T2 broken.*{word}"):
        build_study({"T1": two["T1"], "T2": Volume(array, FINE, "T2 broken")})


def test_wrong_requests(two):
    with pytest.raises(UsageError, match="at least one"):
        build_study({})
    with pytest.raises(UsageError, match="not among the sources"):
        build_study(two, reference="FLAIR")
    with pytest.raises(UsageError, match="not a sequence"):
        build_study({"T9": two["T1"]})


def test_cancel_and_progress(two):
    heard = []
    with pytest.raises(Cancelled):
        build_study(two, on_progress=lambda f, t: heard.append((f, t)), cancel=lambda: len(heard) >= 2)
    assert len(heard) == 2 and heard[0][0] == 0 and heard[1][0] < 1


def test_bias_correction_flattens_shading():
    volume = head(FINE)
    shade = np.linspace(0.5, 1.5, FINE.shape[2])
    shaded = Volume(volume.array * shade, FINE, "T1 tra")
    k, j, i = np.indices(FINE.shape)
    brain = ((k - 22) / 8) ** 2 + ((j - 50) / 8) ** 2 + ((i - 32) / 20) ** 2 < 1
    plain, corrected = (
        build_study({"T1": shaded}, bias_correction=b).source("T1").array[brain] for b in (False, True))
    assert corrected.std() / corrected.mean() < 0.75 * plain.std() / plain.mean()


def test_of_two_t1_series_the_finer_is_used_and_said():
    coarse = head(grid_of((20, 40, 36), (4, 4, 5)), name="t1_tse_cor")
    fine = head(FINE, name="t1_tse_tra")
    t2 = head(THICK, name="t2_tse_tra")
    chosen, warnings, refused = assign([coarse, fine, t2])
    assert list(chosen) == ["T1", "T2"] and chosen["T1"] is fine
    assert len(warnings) == 1 and all(n in warnings[0] for n in ("t1_tse_tra", "t1_tse_cor", "smaller voxels"))
    assert refused[0][0] == "t1_tse_cor"


def pair(name, **later):
    """Two series of one name and grid, half an hour apart."""
    day = {"AcquisitionDate": "20200101"}
    return (head(FINE, name=name, **day, AcquisitionTime="101500.5", SeriesNumber=3),
            head(FINE, name=name, **(day | {"AcquisitionTime": "104500", "SeriesNumber": 9} | later)))


@pytest.mark.parametrize("sequence,name", [("T1", "t1_tse_tra"), ("T1FS", "t1_tse_fs_tra")])
def test_of_two_equal_unenhanced_t1_series_the_earlier_is_used(sequence, name):
    first, after = pair(name)
    for order in ([first, after], [after, first]):
        chosen, warnings, refused = assign(order)
        assert chosen[sequence] is first
        for text in (warnings[0], refused[0][1]):
            assert all(said in text for said in (
                "(series 3, 10:15:00)", "(series 9, 10:45:00)", "earlier", "contrast agent")), text


def test_of_two_equal_series_that_contrast_agent_does_not_change_the_later_is_used():
    for first, repeat in (pair("t2_tse_tra"), pair("t1_tse_tra_Gd")):
        for order in ([first, repeat], [repeat, first]):
            chosen, warnings, _ = assign(order)
            assert list(chosen.values())[0] is repeat and "later" in warnings[0]
            assert "contrast agent" not in warnings[0]


def test_of_two_equal_t1_series_of_two_days_the_later_day_is_used():
    first, months_after = pair("t1_tse_tra", AcquisitionDate="20200401", AcquisitionTime="090000")
    chosen, warnings, _ = assign([first, months_after])
    assert chosen["T1"] is months_after and "later day" in warnings[0]


def test_folder_of_files_becomes_a_study(tmp_path, two):
    for sequence, volume in two.items():
        sitk.WriteImage(to_sitk(volume.array, volume.grid), str(tmp_path / f"{sequence}.nii.gz"))
    study = study_from_folder(tmp_path, register=False)
    assert {s.sequence for s in study.sources} == {"T1", "T2"}
    assert study.grid.matches(FINE, 1e-2)
