"""Training samples made from label maps by the phantom's signal equations, with random tissues and protocols."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from ..phantom.signal import ANY_ECHO, random_echo_time, random_protocol, signal
from ..phantom.tissues import TISSUES
from ..study.normalize import PERCENTILES
from ..vocabulary import get_sequence, load_classes, training_prompt
from .augmentation import degrade, smooth_field
from .labelmaps import LabelMap
from .sample import IGNORE, Sample, choose_plane, random_frame

_FINE = 2  # labels are looked up at twice the resolution and averaged: partial volume
_STRIPPED = {"gray_matter", "white_matter", "some_gray", "some_white", "deep_gray", "cerebellum_gray",
             "cerebellum_white", "csf", "ventricle", "brainstem", "white_lesion", "vessel", "choroid_plexus", "lesion",
             "lesion_core"}  # fmt: skip


def _look_up(labelmap: LabelMap, rng, size: int):
    """Labels (layers, 2*size, 2*size) of a random slab, the flat voxel index, and the slab's geometry."""
    plane = choose_plane(rng, 0.75)
    slice_mm = float(rng.choice((1.0, 1.2, 3.0, 4.0, 5.0), p=(0.35, 0.1, 0.2, 0.2, 0.15)))
    pixel_mm = float(rng.uniform(0.7, 1.3))
    shape = np.array(labelmap.classes.shape)
    extent = shape * labelmap.spacing
    centre = (_random_body_voxel(labelmap.classes, rng) + 0.5) * labelmap.spacing
    for axis in range(3):  # in-plane, crops lean towards the middle of the head
        if axis != plane:
            centre[axis] += rng.uniform(0.2, 0.8) * (extent[axis] / 2 - centre[axis])
    frame = random_frame(rng, plane, slice_mm, pixel_mm)
    steps = frame / labelmap.spacing
    start = centre / labelmap.spacing
    layers = 3 if slice_mm < 2 else 6
    dz = (np.arange(layers, dtype=np.float32) - (layers - 1) / 2) * (3 / layers)
    dr = (np.arange(_FINE * size, dtype=np.float32) - (_FINE * size - 1) / 2) / _FINE
    index = None
    outside = None
    for axis in range(3):
        at = (
            np.float32(start[axis])
            + (dz * np.float32(steps[0, axis]))[:, None, None]
            + (dr * np.float32(steps[1, axis]))[None, :, None]
            + (dr * np.float32(steps[2, axis]))[None, None, :]
        )
        at = at.astype(np.int32)
        beyond = (at < 0) | (at >= shape[axis])
        outside = beyond if outside is None else outside | beyond
        np.clip(at, 0, shape[axis] - 1, out=at)
        index = at if index is None else index * np.int32(shape[axis]) + at
    labels = labelmap.classes.ravel()[index]
    labels[outside] = 0
    return labels, index, outside, pixel_mm, frame


def _random_body_voxel(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    while True:
        voxel = rng.integers(0, classes.shape)
        if classes[tuple(voxel)]:
            return voxel


def _average(fine: np.ndarray) -> np.ndarray:
    """(layers, 2H, 2W) to (3, H, W) by averaging."""
    rows = fine[:, ::2] + fine[:, 1::2]  # slices add much faster than a mean over six axes
    pixels = (rows[:, :, ::2] + rows[:, :, 1::2]) * np.float32(0.25)
    return pixels if len(fine) == 3 else (pixels[::2] + pixels[1::2]) * np.float32(0.5)


def _add_lesion(labels: np.ndarray, rng, tissue_count: int):
    """Paint a blob of two new labels into the head; returns the lesion's (2H, 2W) mask in the middle layer."""
    inside = labels[labels.shape[0] // 2] > 0
    if not inside.any():
        return None
    rows, columns = np.nonzero(inside)
    pick = int(rng.integers(len(rows)))
    side = labels.shape[-1]
    r = np.arange(side, dtype=np.float32) - rows[pick]
    c = np.arange(side, dtype=np.float32) - columns[pick]
    radius = _FINE * rng.uniform(2.5, 16)
    stretch = float(np.exp(rng.normal(0, 0.3)))
    distance = np.sqrt((r[:, None] * stretch) ** 2 + (c[None] / stretch) ** 2) / radius
    distance = distance + 0.25 * smooth_field(rng, distance.shape, 16)
    blob = (distance < 1) & inside
    labels[:, blob] = np.where(labels[:, blob] > 0, tissue_count, 0)
    core = blob & (distance < rng.uniform(0.3, 0.8))
    if rng.random() < 0.5:
        labels[:, core] = np.where(labels[:, core] > 0, tissue_count + 1, 0)
    return blob


def simulate(
    labelmap: LabelMap, source_ids: list[str], target_ids: list[str], rng: np.random.Generator, size: int, place: int,
    echo_times: float = 0.0,
) -> Sample:  # fmt: skip
    """A sample whose every sequence is acquired from the same random tissues.

    Args:
        echo_times: so often a T2-weighted target has an echo time far outside of what is typical, named in its prompt.
    """
    labels, index, outside, pixel_mm, _ = _look_up(labelmap, rng, size)
    names = list(labelmap.names)
    counts = labelmap.counts.astype(np.float64).copy()
    counts[0] = 0  # air around the patient is no part of the body
    tissues = labelmap.tissues(rng)
    phantom = labelmap.structures is not None
    if not phantom and rng.random() < 0.3:  # skull-stripped, as research cohorts are
        keep = np.array([n in _STRIPPED for n in names])
        labels[~keep[labels]] = 0
        counts[~keep] = 0
    lesion = None
    if rng.random() < (0.15 if phantom else 0.4):
        lesion = _add_lesion(labels, rng, len(names))
    tissues += [str(rng.choice(("npc_tumor", "edema", "glioma_enhancing", "white_matter_lesion", "nodal_tumor"))),
                str(rng.choice(("necrosis", "glioma_enhancing", "npc_tumor")))]  # fmt: skip
    counts = np.concatenate([counts, [0, 0]])

    table = [TISSUES[t] for t in tissues]
    jitter = np.exp(rng.normal(0, (0.10, 0.12, 0.05, 0.3), (len(table), 4)))
    fat = np.clip(np.array([t.fat_fraction for t in table]) + rng.normal(0, 0.05, len(table)) *
                  np.array([0 < t.fat_fraction < 0.9 for t in table]), 0, 1)  # fmt: skip
    pd = np.array([t.pd for t in table]) * jitter[:, 2]
    uptake = np.array([t.enhancement for t in table]) * jitter[:, 3]
    flow_void = np.array([t.flow_void for t in table])
    field_t = float(rng.choice((1.5, 3.0)))
    t1 = np.array([t.t1_ms[field_t] for t in table]) * jitter[:, 0]
    t2 = np.array([t.t2_ms[field_t] for t in table]) * jitter[:, 1]

    # texture: two smooth-plus-fine fields that vary T1 and T2 within each tissue, the same for every sequence
    fine = labels.shape
    grain = rng.uniform(0.0, 0.04)
    field1 = 0.06 * smooth_field(rng, fine[1:], 20)[None] + grain * rng.standard_normal(fine, dtype=np.float32)
    field2 = 0.06 * smooth_field(rng, fine[1:], 14)[None] + grain * rng.standard_normal(fine, dtype=np.float32)

    images, prompts = {}, {}
    for sequence_id in dict.fromkeys([*source_ids, *target_ids]):
        protocol = random_protocol(sequence_id, rng, field_t)
        any_echo = sequence_id not in source_ids and rng.random() < echo_times and protocol.sequence in ANY_ECHO
        if any_echo:
            protocol = replace(protocol, TE_ms=random_echo_time(rng))
        base = signal(t1, t2, pd, fat, uptake, protocol, flow_void)
        d1 = (signal(t1 * 1.05, t2, pd * 1.01, fat, uptake, protocol, flow_void) - base) / np.float32(0.05)
        d2 = (signal(t1, t2 * 1.05, pd, fat, uptake, protocol, flow_void) - base) / np.float32(0.05)
        fine_image = base[labels] + d1[labels] * field1 + d2[labels] * field2
        image = np.maximum(_average(fine_image), 0)
        low, high = _weighted_percentiles(base, counts)
        image = np.clip((image - low) / (high - low), 0, 2)
        blur = rng.uniform(0.0, 0.6)
        images[sequence_id] = ndimage.gaussian_filter(image, (0, blur, blur)) if blur > 0.2 else image
        timing = {"TR": protocol.TR_ms, "TE": protocol.TE_ms, "TI": protocol.TI_ms}
        told = any_echo or rng.random() < 0.3
        prompts[sequence_id] = training_prompt(get_sequence(sequence_id), rng, timing if told else None)

    middle = labels.shape[0] // 2
    centre = labels[middle, ::_FINE, ::_FINE]
    if phantom:
        structures = labelmap.structures.ravel()[index[middle, ::_FINE, ::_FINE]].copy()
        structures[outside[middle, ::_FINE, ::_FINE]] = 0
        classes = load_classes()
        tumor = np.isin(structures, (classes.index("GTVp"), classes.index("GTVn")))
    else:
        structures = np.append(labelmap.structure_table(), [IGNORE, IGNORE])[centre].astype(np.uint8)
        tumor = np.zeros(centre.shape, bool)
    if lesion is not None:
        tumor = tumor | lesion[::_FINE, ::_FINE]
        structures[lesion[::_FINE, ::_FINE]] = IGNORE
    return Sample(
        sources=np.stack([degrade(images[s], rng) for s in source_ids]),
        targets=np.stack([images[t][1] for t in target_ids]),
        known=np.ones((len(target_ids), size, size), bool),
        source_ids=source_ids,
        target_ids=target_ids,
        source_prompts=[prompts[s] for s in source_ids],
        target_prompts=[prompts[t] for t in target_ids],
        body=centre > 0,
        lesion=tumor,
        structures=structures,
        pixel_mm=pixel_mm,
        place=place,
    )


def _weighted_percentiles(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Percentiles of the whole body, from each class's signal and its number of voxels."""
    order = np.argsort(values)
    share = np.cumsum(counts[order]) / counts.sum()
    low, high = (float(values[order][min(np.searchsorted(share, q / 100), len(values) - 1)]) for q in PERCENTILES)
    return low, max(high, low + 1e-3)
