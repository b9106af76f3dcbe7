"""Real images for training: every patient's sequences on one grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..errors import InputError
from ..study.align import align, resample
from ..study.normalize import body_mask, normalize, percentiles
from ..study.volume import Volume, from_sitk, one_grid, to_sitk
from ..vocabulary import get_sequence, load_classes, training_prompt
from .augmentation import degrade, smooth_field
from .labels import read_labels
from .layouts import PatientFiles, find_cohort, read_image
from .sample import IGNORE, NO_TUMOR, Sample, choose_plane, random_frame

#: Of the data folder: patients with several sequences, and heads with one or two.
_FOLDERS = ("cohorts", "heads")


@dataclass(frozen=True)
class Patient:
    """One patient's registered sequences on one grid, axes as in ``LabelMap`` (axial, anterior first, right first).

    Attributes:
        name: "<cohort>/<patient>".
        sequences: ids in the order of ``images``.
        images: (S, k, j, i) float16, 0..1 = the body's 0.5 and 99.5 percentiles.
        covered: (S, k, j, i) bool, where each sequence was acquired.
        body, lesion: (k, j, i) bool.
        spacing: (k, j, i) mm.
    """

    name: str
    sequences: tuple[str, ...]
    images: torch.Tensor
    covered: torch.Tensor
    body: np.ndarray
    lesion: np.ndarray
    spacing: np.ndarray


def _oriented(volume: Volume) -> Volume:
    """The same voxels with axes nearest to axial LPS order."""
    import SimpleITK as sitk

    return from_sitk(sitk.DICOMOrient(to_sitk(volume.array, volume.grid), "LPS"), volume.name)


def load_patient(files: PatientFiles, note: Callable[[str], None]) -> list[Patient]:
    """Read one patient: once when the sequences share a grid, else once on the grid of each, registered to it.

    Each sequence is scaled on its own grid before it is resampled, as ``build_study`` does. What cannot be used is left
    out and told.

    Args:
        note: takes a sentence for each file that is not used, or not as it came.
    """
    volumes, raw = {}, {}
    for sequence, file in files.images.items():
        try:
            raw[sequence] = read_image(sequence, file)
            volumes[sequence] = _prepare(_oriented(raw[sequence]))
        except InputError as error:
            note(f"{files.name}: {sequence} is not used: {error}")
    labels = read_labels(files, {s: raw[s] for s in volumes}, note)
    labels = [(of, _oriented(label)) for of, label in labels]
    if not volumes:
        return []
    same_grid = one_grid(raw[sequence].grid for sequence in volumes)
    grids = sorted(volumes)[:1] if same_grid else sorted(volumes)
    return [_on_grid(files.name, volumes, labels, grid_of, not same_grid, note) for grid_of in grids]


@dataclass(frozen=True)
class _Prepared:
    """A volume, its body (k, j, i) bool, and the volume scaled by it."""

    volume: Volume
    body: np.ndarray
    scaled: Volume


def _prepare(volume: Volume) -> _Prepared:
    body = body_mask(volume.array, volume.grid.spacing)
    low, high = percentiles(volume.array, body)
    return _Prepared(volume, body, Volume(normalize(volume.array, low, high), volume.grid, volume.name))


def _on_grid(
    name: str, volumes: dict[str, _Prepared], labels: list[tuple[str | None, Volume]], grid_of: str, register: bool,
    note: Callable[[str], None],
) -> Patient:  # fmt: skip
    fixed = volumes[grid_of].volume
    images, inside, bodies, moves = {}, [], [], {}
    for sequence, one in volumes.items():
        transform = None
        if register and sequence != grid_of:
            try:
                transform, report = align(one.volume, fixed, one.body, volumes[grid_of].body)
            except InputError as error:
                note(f"{name}: {sequence} is not used beside {grid_of}: {error}")
                continue
            if report["warning"]:
                note(f"{name}: {report['warning']}")
        moves[sequence] = transform
        image, covered = resample(one.scaled, fixed.grid, transform)
        inside.append(torch.from_numpy(covered))
        body = Volume(one.body.astype(np.float32), one.volume.grid)
        bodies.append(resample(body, fixed.grid, transform)[0] > 0.5)
        images[sequence] = torch.from_numpy(np.clip(image, 0, 2)).half()
    lesion = np.zeros(fixed.grid.shape, bool)
    for of, label in labels:
        if of is None or of in moves:
            lesion |= resample(label, fixed.grid, moves.get(of), "nearest")[0] > 0.5
    return Patient(
        name, tuple(images), torch.stack(list(images.values())), torch.stack(inside), np.logical_or.reduce(bodies),
        lesion, fixed.grid.spacing[::-1].copy(),
    )  # fmt: skip


def load_training_patients(
    data_dir: Path | None, cohort: Sequence[PatientFiles] = (), note: Callable[[str], None] = lambda text: None,
    held_out: Sequence[PatientFiles] = (),
) -> list[Patient]:  # fmt: skip
    """Every patient of ``cohorts`` that is not for validation, the single sequences of ``heads``, and those given.

    A patient whose sequences have grids of their own comes once for each of the grids.

    Args:
        held_out: whoever is one of them, or of ``cohort``, by files or headers is not taken from ``data_dir``.
    """
    but = (*cohort, *held_out)
    files, heads = (patients_in(data_dir / name, but, note) if data_dir else [] for name in _FOLDERS)
    patients = [patient for one in (*files, *cohort) if not one.validation for patient in load_patient(one, note)]
    # single sequences for the most part; on one grid where they are not
    return patients + [p for one in heads if not one.validation for p in load_patient(one, note)[:1]]


def patients_in(
    folder: Path, but: Sequence[PatientFiles], note: Callable[[str], None] = lambda text: None
) -> list[PatientFiles]:
    """Who lies in a folder, but for some, by files or headers; none when it is not there or holds nobody.

    Args:
        note: takes a sentence for each patient or file that is not used.
    """
    if not folder.is_dir():
        return []
    try:
        found = find_cohort(folder)
    except InputError as error:
        note(str(error))
        return []
    people = {one.person for one in but} - {""}
    paths = {image.path.resolve() for one in but for image in one.images.values()}  # folders and files may be links
    wanted = [one for one in found.patients
              if one.person not in people and paths.isdisjoint(image.path.resolve() for image in one.images.values())]
    for problem in (*found.problems, *(f"{one.name}: {problem}" for one in wanted for problem in one.problems)):
        note(problem)
    return wanted


def crop_patient(
    patient: Patient, source_ids: list[str], target_ids: list[str], rng: np.random.Generator, size: int, place: int
) -> Sample:
    """A random crop of one patient in the sequences asked for (all must be there)."""
    isotropic = patient.spacing.max() < 1.6 * patient.spacing.min()
    plane = choose_plane(rng, 0.7) if isotropic else 0
    pixel_mm = float(rng.uniform(0.75, 1.25))
    slice_mm = float(rng.choice((1.0, 1.2, 3.0))) if isotropic else float(patient.spacing[0])
    frame = random_frame(rng, plane, slice_mm, pixel_mm) / patient.spacing
    shape = np.array(patient.body.shape)
    while True:
        centre = rng.integers(0, shape)
        if patient.body[tuple(centre)]:
            break
    centre = centre.astype(np.float64)
    for axis in range(3):
        if axis != plane:
            centre[axis] += rng.uniform(0, 0.8) * (shape[axis] / 2 - centre[axis])
    axes = [np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in (3, size, size)]
    grid = np.empty((3, size, size, 3), np.float32)
    for axis in range(3):  # grid_sample wants (i, j, k) in -1..1
        at = (
            np.float32(centre[axis])
            + (axes[0] * np.float32(frame[0, axis]))[:, None, None]
            + (axes[1] * np.float32(frame[1, axis]))[None, :, None]
            + (axes[2] * np.float32(frame[2, axis]))[None, None, :]
        )
        grid[..., 2 - axis] = 2 * at / max(1, shape[axis] - 1) - 1
    low = np.floor([(grid[..., 2 - a].min() + 1) / 2 * (shape[a] - 1) for a in range(3)]).astype(int)
    high = np.ceil([(grid[..., 2 - a].max() + 1) / 2 * (shape[a] - 1) for a in range(3)]).astype(int)
    wanted = list(dict.fromkeys([*source_ids, *target_ids]))
    rows = [patient.sequences.index(s) for s in wanted]
    box = tuple(slice(max(0, a), max(0, min(n, b + 2))) for a, b, n in zip(low, high, shape, strict=True))
    part = torch.cat([patient.images[(rows, *box)].float(), patient.covered[(rows, *box)].float()])
    for axis in range(3):  # the same coordinates, relative to the part that was cut out
        n, first = part.shape[1 + axis], box[axis].start
        at = (grid[..., 2 - axis] + 1) / 2 * max(1, shape[axis] - 1) - first
        grid[..., 2 - axis] = 2 * at / max(1, n - 1) - 1
    coordinates = torch.from_numpy(grid)[None]
    stacks = F.grid_sample(part[None], coordinates, align_corners=True)[0].numpy()
    stacks, covered = stacks[: len(rows)], stacks[len(rows) :, 1] > 0.99
    masks = torch.from_numpy(np.stack([patient.body[box], patient.lesion[box]])).float()
    middle = F.grid_sample(masks[None], coordinates[:, 1:2], align_corners=True)[0, :, 0].numpy() > 0.5
    images = dict(zip(wanted, stacks, strict=True))
    if rng.random() < 0.3:  # one shading for all sequences: shared, so it is anatomy to nobody
        shading = np.exp(0.1 * smooth_field(rng, (size, size), 2)).astype(np.float32)
        images = {s: image * shading for s, image in images.items()}
    return Sample(
        sources=np.stack([degrade(images[s], rng, 0.8) for s in source_ids]),
        targets=np.stack([images[t][1] for t in target_ids]),
        known=np.stack([covered[wanted.index(t)] for t in target_ids]),
        source_ids=source_ids,
        target_ids=target_ids,
        source_prompts=[training_prompt(get_sequence(s), rng) for s in source_ids],
        target_prompts=[training_prompt(get_sequence(t), rng) for t in target_ids],
        body=middle[0],
        lesion=middle[1],
        structures=np.where(middle[0], IGNORE, load_classes().index("background")).astype(np.uint8),
        pixel_mm=pixel_mm,
        place=place,
    )


@dataclass(frozen=True)
class TumorSlice:
    """One T2 slice of an NPC patient: ``image`` (H, W) float32 0..1, ``tumor`` (H, W) bool, about 0.9 mm a pixel."""

    image: np.ndarray
    tumor: np.ndarray


def load_tumor_slices(folder: Path, held_out: int = 4) -> list[TumorSlice]:
    """The slices of ``npc_t2`` but the last ``held_out``, at half their resolution.

    The masks of that set lie upside down on their images (rows reversed): as they come, tumors lie in brainstem and
    cerebellum; reversed, they fill the nasopharynx and end at its walls. They are turned here.

    Raises InputError when an image or its mask is missing, damaged or empty.
    """
    slices = []
    for file in sorted((folder / "images").glob("*.jpg"))[: -held_out or None]:
        image, mask = (_half_resolution(path) for path in (file, folder / "masks" / file.name))
        tumor = mask[::-1] >= 128
        if not tumor.any():
            raise InputError(f"The mask {file.name} of npc_t2 is empty. Copy it again, or take it and its image out.")
        try:
            low, high = percentiles(image, body_mask(image[None], (0.9, 0.9, 5.0))[0])
        except InputError as error:
            raise InputError(f"The image {file.name} of npc_t2: {error}") from error
        slices.append(TumorSlice(np.clip(normalize(image, low, high), 0, 2), tumor))
    return slices


def _half_resolution(path: Path) -> np.ndarray:
    try:
        return np.asarray(Image.open(path).convert("L").resize((256, 256), Image.Resampling.BOX), np.float32)
    except OSError as error:
        raise InputError(
            f"{path.parent.name}/{path.name} of npc_t2 is missing or damaged. Copy it again, or take out image and "
            "mask."
        ) from error


def crop_tumor(item: TumorSlice, rng: np.random.Generator, size: int, place: int) -> Sample:
    """A random crop around the tumor; its T2 is both source and target."""
    rows, columns = np.nonzero(item.tumor)
    pick = int(rng.integers(len(rows)))
    scale = float(rng.uniform(0.75, 1.3))
    angle = float(rng.normal(0, 0.15))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    n = item.image.shape[0]
    steps = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * scale
    centre_r = rows[pick] + rng.uniform(-35, 35)
    centre_c = columns[pick] + rng.uniform(-35, 35)
    r = centre_r + steps[:, None] * np.cos(angle) + steps[None] * mirror * np.sin(angle)
    c = centre_c - steps[:, None] * np.sin(angle) + steps[None] * mirror * np.cos(angle)
    grid = torch.from_numpy(np.stack([2 * c / (n - 1) - 1, 2 * r / (n - 1) - 1], axis=-1).astype(np.float32))
    both = torch.from_numpy(np.stack([item.image, item.tumor.astype(np.float32)]))
    image, tumor = F.grid_sample(both[None], grid[None], align_corners=True)[0].numpy()
    classes = load_classes()
    structures = np.where(tumor > 0.5, classes.index("GTVp"), IGNORE).astype(np.uint8)
    # nobody contoured anything else: what is not tumor may be any organ, or a node
    structures[(tumor <= 0.5) & (image > 0.02)] = NO_TUMOR
    prompt = training_prompt(get_sequence("T2"), rng)
    return Sample(
        sources=degrade(np.repeat(image[None], 3, axis=0), rng, 0.8)[None],
        targets=image[None],
        known=np.ones((1, size, size), bool),
        source_ids=["T2"],
        target_ids=["T2"],
        source_prompts=[prompt],
        target_prompts=[prompt],
        body=image > 0.03,
        lesion=tumor > 0.5,
        structures=structures,
        pixel_mm=0.9 * scale,
        place=place,
    )
