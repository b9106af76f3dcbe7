"""From volumes to a Study: choose the grid, register, resample, normalize.

Which grid is the reference, unless the user names it: among the sources that cover at least 80 % of what the
best-covering source shows of the joint field of view, the one with the smallest voxel volume; where that ties, a
contrast-enhanced sequence first (contours are drawn on it), then the vocabulary's order. A small high-resolution
slab thus never cuts the patient short, and no detail is thrown away where the coverage is equal.

Which series stands for a sequence when several look like it: the one identified with the higher confidence; else
the smaller voxels; else the one acquired later (a repeat usually replaces a spoiled first try). Where the sequence has
a contrast-enhanced counterpart (T1, T1FS), the earlier one of the day instead: two alike are often the scans before
and after contrast agent, with nothing recorded of it.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..errors import Cancelled, InputError, UsageError
from ..vocabulary import get_sequence, load_sequences
from .align import align, apart, no_overlap_message, resample
from .normalize import body_mask, n4, normalize, percentiles
from .study import Source, Study
from .volume import Grid, Volume

#: A source that shows less than this part of the body on the reference grid earns a warning.
FULL_COVERAGE = 0.95
#: A series recognized with less confidence than this earns a warning.
DOUBTFUL = 0.55

Progress = Callable[[float, str], None]


def build_study(
    volumes: Mapping[str, Volume],
    reference: str | None = None,
    register: bool = True,
    bias_correction: bool = False,
    on_progress: Progress | None = None,
    cancel: Callable[[], bool] | None = None,
    warnings=(),
    refused=(),
) -> Study:
    """Bring the volumes of one patient onto one grid and one intensity scale.

    Args:
        volumes: sequence id -> volume. The grids may differ in every respect.
        reference: sequence whose grid everything is brought onto; None for the rule in this module's docstring.
        register: measure and correct rigid misalignment to the reference.
        bias_correction: remove coil shading (N4) from every source first.
        on_progress: called with (fraction 0..1, what is being done).
        cancel: asked before every step; when it returns True, Cancelled is raised.
        warnings, refused: passed on into the study, from reading and assigning.

    Each source is scaled by the 0.5 and 99.5 percentiles of the body on its own grid, before resampling, so that its
    scale does not depend on which reference was chosen.

    Raises:
        UsageError: no volume, or an unknown sequence or reference.
        InputError: a volume cannot be used, two patients, one image twice, or a source without any overlap with the
            reference.
        Cancelled
    """
    def step(done: int, text: str) -> None:
        if cancel is not None and cancel():
            raise Cancelled()
        if on_progress is not None:
            on_progress(done / (len(volumes) + 1), text)

    from .read import check_usable
    from .scan import unknown_person

    if not volumes:
        raise UsageError("No source sequence was given. Choose at least one acquired sequence.")
    volumes = {get_sequence(name).id: volume for name, volume in volumes.items()}
    warnings = list(warnings)
    dates = {str(volume.metadata.get("StudyDate") or "") for volume in volumes.values()} - {""}
    if len(dates) > 1:
        warnings.append(
            "The sources were acquired on different days, so the anatomy may have changed between them (treatment, "
            "weight loss, growth). Use images of one examination where you can.")
    for volume in volumes.values():
        warnings.extend(w for w in check_usable(volume) if w not in warnings)
    _refuse_two_patients(volumes)
    unknown = unknown_person({sequence: volume.metadata for sequence, volume in volumes.items()})
    warnings += [unknown] if unknown else []
    _refuse_same_image(volumes)
    if reference is None:
        reference = choose_reference(volumes)
        if len(volumes) > 1:
            warnings.append(_reference_sentence(reference, volumes))
    else:
        reference = get_sequence(reference).id
        if reference not in volumes:
            raise UsageError(f"{reference} cannot be the reference: it is not among the sources {', '.join(volumes)}.")
    fixed = volumes[reference]
    grid = fixed.grid
    for volume in volumes.values():
        if apart(grid, volume.grid):
            raise InputError(no_overlap_message(volume, fixed))

    step(0, f"Finding the body in {reference}")
    prepared = {reference: _prepare(fixed, bias_correction)}
    sources = []
    votes, seen = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    for number, (sequence, volume) in enumerate(volumes.items()):
        step(number + 1, f"Registering and normalizing {sequence}")
        image, mask = prepared.get(sequence) or _prepare(volume, bias_correction)
        low, high = percentiles(image.array, mask)
        transform, report = None, {"applied": False, "reason": "Reference grid: not moved."}
        if sequence != reference:
            if register:
                fixed_image, fixed_mask = prepared[reference]
                transform, report = align(image, fixed_image, mask, fixed_mask)
                if report["warning"]:
                    warnings.append(report["warning"])
            else:
                report["reason"] = "Registration was switched off: used where its header places it."
            if _other_frame(volume, fixed):
                warnings.append(
                    f'"{volume.name}" and "{fixed.name}" have different frames of reference (the patient may have '
                    f"been repositioned, or scanned on another day). {report['reason']} Check the alignment of "
                    f"{sequence}.")
        array, inside = resample(Volume(image.array, volume.grid, volume.name), grid, transform)
        body, _ = resample(Volume(mask, volume.grid), grid, transform, order="nearest")
        array = normalize(array, low, high)
        array[~inside] = 0
        seen += inside
        votes += body > 0
        sources.append(Source(sequence, volume, array, inside, report, (low, high)))

    body = (votes > 0) & (2 * votes >= seen)
    for source in sources:
        covered = float(source.inside[body].mean())
        if covered == 0:
            raise InputError(no_overlap_message(source.original, fixed))
        if covered < FULL_COVERAGE:
            warnings.append(
                f"{source.sequence} shows {covered:.0%} of the body on the reference grid; elsewhere the other "
                "sources have to do, and results are less certain there.")
    step(len(volumes), "Study is ready")
    return Study(grid, reference, tuple(sources), body, tuple(warnings), tuple(refused))


def choose_reference(volumes: Mapping[str, Volume]) -> str:
    """Sequence id of the volume whose grid is best to work on, by the rule in this module's docstring."""
    known = load_sequences()
    order = list(known)
    shown = _coverage([volume.grid for volume in volumes.values()])
    wide = [s for s, part in zip(volumes, shown, strict=True) if part >= 0.8 * max(shown)]

    def rank(sequence: str):
        voxel = float(np.prod(volumes[sequence].grid.spacing))
        return round(voxel, 2), not known[sequence].contrast_agent, order.index(sequence)

    return min(wide, key=rank)


def assign(volumes) -> tuple[dict[str, Volume], tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Tell which sequence each volume is and keep one for each.

    Returns:
        ({sequence id: volume} in the vocabulary's order, warnings, refused (name, reason)). Duplicates follow the rule
        in this module's docstring, with a warning that names both.
    """
    from .identify import identify

    found, warnings, refused = {}, [], []
    for volume in volumes:
        identification = identify(volume.metadata, volume.name)
        if identification.sequence is None:
            refused.append((volume.name, identification.reason))
        else:
            found.setdefault(identification.sequence, []).append((identification, volume))
    chosen = {}
    for sequence in load_sequences():
        candidates = sorted(found.get(sequence, ()), key=_preference)
        if not candidates:
            continue
        best, chosen[sequence] = candidates[-1]
        if best.confidence < DOUBTFUL:
            warnings.append(
                f'"{chosen[sequence].name}" is used as {sequence}, {best.confidence:.0%} sure: {best.reason} Check it, '
                "or choose its sequence yourself.")
        for identification, volume in reversed(candidates[:-1]):
            why = _difference(best, chosen[sequence], identification, volume)
            hint = "" if not _enhanced_looks_alike(sequence) else (
                " If one was acquired after contrast agent, assign it to the contrast-enhanced sequence.")
            used, other = _label(chosen[sequence]), _label(volume)
            warnings.append(
                f"{used} and {other} both look like {sequence}; used {used} because it {why}. Assign the series "
                f"yourself to use the other.{hint}")
            refused.append((volume.name, f"{other} looks like {sequence} too; {used} was used because it {why}.{hint}"))
    return chosen, tuple(warnings), tuple(refused)


def study_from_folder(
    path: str | Path,
    reference: str | None = None,
    register: bool = True,
    bias_correction: bool = False,
    on_progress: Progress | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Study:
    """Read a folder, tell the sequences apart and build the study; arguments and errors as :func:`build_study`.

    Raises InputError also when the folder holds no usable MR series.
    """
    def part(low, high):
        return None if on_progress is None else lambda done, text: on_progress(low + (high - low) * done, text)

    volumes, warnings, refused = volumes_from_folder(path, part(0.0, 0.3), cancel)
    return build_study(volumes, reference, register, bias_correction, part(0.3, 1.0), cancel, warnings, refused)


def volumes_from_folder(
    path: str | Path, on_progress: Progress | None = None, cancel: Callable[[], bool] | None = None
) -> tuple[dict[str, Volume], tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Read a folder and tell the sequences apart.

    Returns:
        What ``assign`` returns, with the warnings and refusals of reading before its own; at least one volume.

    Raises InputError when the folder holds no usable MR series or several patients, Cancelled.
    """
    from .read import read_folder

    report = read_folder(path, on_progress=on_progress, cancel=cancel)
    volumes, warnings, refused = assign(report.volumes)
    refused = (*report.refused, *refused)
    if not volumes:
        reasons = " ".join(f'"{name}": {reason}' for name, reason in refused[:5])
        raise InputError(
            f'No series in "{Path(path).name}" can be used as a source. {reasons} Choose a folder with at least one '
            "anatomical MR series, or say which sequence a file is.")
    return volumes, (*report.warnings, *warnings), refused


def _prepare(volume: Volume, bias_correction: bool) -> tuple[Volume, np.ndarray]:
    try:
        mask = body_mask(volume.array, volume.grid.spacing)
    except InputError as error:
        raise InputError(f'"{volume.name}": {error}') from error
    if bias_correction:
        volume = Volume(n4(volume.array, mask, volume.grid.spacing), volume.grid, volume.name, volume.metadata)
    return volume, mask


def _refuse_two_patients(volumes: Mapping[str, Volume]) -> None:
    from .scan import several_people

    if several_people([volume.metadata for volume in volumes.values()]):
        names = ", ".join(f'"{volume.name}"' for volume in volumes.values())
        raise InputError(f"The series {names} belong to different patients, by ID, name or birth date. Choose series "
                         "of one patient.")  # fmt: skip


def _refuse_same_image(volumes: Mapping[str, Volume]) -> None:
    for number, (sequence, volume) in enumerate(volumes.items()):
        for other in list(volumes)[:number]:
            if np.array_equal(volumes[other].array, volume.array):
                raise InputError(f'{other} and {sequence} are the same image, "{volumes[other].name}" and '
                                 f'"{volume.name}". Take one of them out.')  # fmt: skip


def _other_frame(volume: Volume, fixed: Volume) -> bool:
    frames = {str(v.metadata.get("FrameOfReferenceUID") or "") for v in (volume, fixed)} - {""}
    return len(frames) > 1


def _reference_sentence(reference: str, volumes: Mapping[str, Volume]) -> str:
    i, j, k = volumes[reference].grid.spacing
    return (f"Results lie on the grid of {reference} ({i:.2g} x {j:.2g} x {k:.2g} mm): the smallest voxels among the "
            "sources that cover the region. To change it, choose another reference.")


def _coverage(grids: list[Grid]) -> list[float]:
    """How much of the joint field of view each grid covers, 0..1, from a lattice of points over all of them."""
    corners = []
    for grid in grids:
        ends = [(-0.5, n - 0.5) for n in reversed(grid.shape)]
        corners += [(grid.ijk_to_lps @ [i, j, k, 1])[:3] for i in ends[0] for j in ends[1] for k in ends[2]]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    axes = [a + (b - a) * (np.arange(48) + 0.5) / 48 for a, b in zip(low, high, strict=True)]
    points = np.stack([p.ravel() for p in np.meshgrid(*axes, indexing="ij")])
    inside = []
    for grid in grids:
        inverse = np.linalg.inv(grid.ijk_to_lps)
        index = inverse[:3, :3] @ points + inverse[:3, 3:]
        inside.append(np.all((index >= -0.5) & (index <= np.array(grid.shape[::-1])[:, None] - 0.5), axis=0))
    union = max(1, int(np.any(inside, axis=0).sum()))
    return [float(one.sum()) / union for one in inside]


def _enhanced_looks_alike(sequence: str) -> bool:
    """Whether an image of this sequence after contrast agent is another sequence, told apart by the agent alone."""
    known = load_sequences()
    return not known[sequence].contrast_agent and any(
        s.contrast_agent and s.weighting == known[sequence].weighting for s in known.values())


def _preference(candidate) -> tuple:
    """Sort key of (Identification, Volume): the best comes last."""
    identification, volume = candidate
    voxel = round(float(np.prod(volume.grid.spacing)), 2)
    day, time, number = _acquired(volume)
    sign = -1 if _enhanced_looks_alike(identification.sequence) else 1
    moment = (bool(time), sign * float(time or 0), sign * number)
    return round(identification.confidence, 1), -voxel, day, moment, volume.name


def _acquired(volume: Volume) -> tuple[str, str, float]:
    """(day YYYYMMDD, time HHMMSS, series number); "" and 0 where they are not recorded."""
    data = volume.metadata
    found = None
    for moment in (data.get("AcquisitionDateTime"), *(
            f"{data.get(kind + 'Date') or ''}{data.get(kind + 'Time') or ''}" for kind in ("Acquisition", "Series"))):
        found = found or re.match(r"(\d{8})(\d{4,6})", str(moment or "").replace(":", ""))
    day, time = (found[1], found[2].ljust(6, "0")) if found else ("", "")
    try:
        number = float(data.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        number = 0.0
    return day, time, number


def _label(volume: Volume) -> str:
    """Name, series number and time of a series, by which a person finds it among others of the same name."""
    _, time, number = _acquired(volume)
    known = [f"series {number:g}"] * bool(number) + [f"{time[:2]}:{time[2:4]}:{time[4:]}"] * bool(time)
    return f'"{volume.name}"' + (f" ({', '.join(known)})" if known else "")


def _difference(best, chosen: Volume, identification, volume: Volume) -> str:
    ours, theirs = _preference((best, chosen)), _preference((identification, volume))
    if ours[0] != theirs[0]:
        return "is identified with more confidence"
    if ours[1] != theirs[1]:
        return "has smaller voxels"
    if ours[2] != theirs[2]:
        return "was acquired on a later day"
    if ours[3] != theirs[3]:
        return "was acquired earlier" if _enhanced_looks_alike(best.sequence) else "was acquired later"
    return "comes last by name (they do not differ otherwise)"
