"""Before a run: what can be told in seconds about whether it will work, and whether to trust what it gives.

Each finding has one of three levels: GREEN goes on by itself, AMBER is for a person to decide, RED cannot work. What
needs torch is imported inside the functions: the panel knows ``Check`` too, and must stay light.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import NPCSynthError
from ..study.build import DOUBTFUL
from ..study.check import check_usable
from ..study.identify import identify
from ..study.scan import unknown_person
from ..study.study import Source, Study
from ..vocabulary import get_sequence
from .result import NOT_CHECKED

GREEN, AMBER, RED = "green", "amber", "red"

#: Largest voxel sides in mm that training has seen: across the slices and within them.
THICKEST_MM, COARSEST_MM = 6.0, 2.0
#: A field of view smaller than this in any direction shows a slab, not a head and neck, mm.
SMALLEST_FIELD_MM = 80.0
#: A source that shows less than this part of the body can hardly speak for the whole of it.
LEAST_COVERAGE = 0.8
#: A patient seldom moves farther than this between two sequences of one examination, mm and degrees.
FAR_MM, FAR_DEG = 10.0, 10.0
#: Share of the free memory beyond which other programs may tip the balance.
TIGHT = 0.8


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at (``name``), its ``level``, and a ``sentence`` for the user."""

    name: str
    level: str
    sentence: str


def worst(checks: Iterable[Check]) -> str:
    """The level of the worst finding; GREEN when there is none."""
    return max((check.level for check in checks), key=[GREEN, AMBER, RED].index, default=GREEN)


def words_of(target: str) -> str:
    """The name of findings about the words that a target is made from."""
    return f"{target}: words"


def check_images(study: Study) -> list[Check]:
    """Values, dates and frames of reference, field of view, resolution, overlap and alignment of the sources."""
    return [
        *_values(study), *_origin(study), _field_of_view(study), _resolution(study),
        *_overlap(study), *_alignment(study),
    ]  # fmt: skip


def check_sequences(study: Study, recognitions: Mapping) -> list[Check]:
    """Is each image the sequence that it is used as, by its header or name and by its looks?

    Args:
        recognitions: sequence id -> ``recognition.Recognition`` of that source.
    """
    return [_sequence(source, recognitions[source.sequence]) for source in study.sources]


def check_looks(unusual: Sequence[str], compared: bool) -> list[Check]:
    """What ``unusual.find_unusual`` said; ``compared`` tells whether it knew the training images."""
    if unusual:
        return [Check("Looks", AMBER, f"{sentence} Look at it in the views before you rely on what is made of it.")
                for sentence in unusual]
    if not compared:
        return [Check("Looks", GREEN, f"Nothing was noticed, but little was looked at. {NOT_CHECKED}")]
    return [Check("Looks", GREEN, "Nothing unusual was noticed. That does not prove that the network learned from "
                  "images like these.")]


def check_guesses(guesses: Sequence[str]) -> list[Check]:
    """What the run would invent, for want of anything acquired that tells it."""
    return [Check("Contrast agent", AMBER, sentence) for sentence in guesses]


def check_device(device, notes: Sequence[str]) -> Check:
    """A small network computed on the device beside the same in full precision on the CPU.

    Args:
        device: a ``device.Device``; notes: what ``choose_device`` said about it.
    """
    from .device import KERNEL_TOLERANCE, kernel_error

    error = kernel_error(device)
    if error > KERNEL_TOLERANCE:
        return Check("Device", RED, f"{device.label}: a test computation gives wrong results. Choose the CPU, or "
                     "update the graphics driver.")
    if notes:
        return Check("Device", AMBER, " ".join([*notes, f"Used: {device.label}."]))
    return Check("Device", GREEN, f"{device.label}; a test computation gave the right result.")


def check_weights(loaded) -> Check:
    """Are the files still those that the manifest describes, and those that were loaded?

    Args:
        loaded: a ``model.weights.LoadedModel``.
    """
    from ..model.manifest import verify

    try:
        manifest = verify(loaded.folder)
    except NPCSynthError as error:
        return Check("Weights", RED, str(error))
    name = f"{manifest['name']} {manifest['version']}"
    if manifest != loaded.manifest:
        return Check("Weights", RED, f"The weights in {loaded.folder} were exchanged for others ({name}) since they "
                     "were loaded. Press Run again to use the new ones.")
    short = loaded.identity["sha256"][:12]
    return Check("Weights", GREEN, f"{name} ({short}): every file is the one that its manifest describes.")


def check_memory(synthesizer, study: Study, targets: int, segment: bool) -> list[Check]:
    """What the run will take, beside what is free."""
    import psutil

    from .device import free_memory, plan_batch, slice_bytes
    from .slicing import Slicing

    device, config = synthesizer.device, synthesizer.loaded.model.config
    slicing = Slicing.plan(study.grid, config.stride)
    one = slice_bytes(config, len(study.sources), *slicing.padded, device.dtype)
    need, checks = result_bytes(study, targets, segment), []
    if device.torch.type == "cuda" and one > free_memory(device):
        checks.append(Check("GPU memory", AMBER, f"One slice takes about {_gb(one)} and {_gb(free_memory(device))} are "
                            "free on the GPU, so that the CPU will be used, which is slower."))
        need += one
    elif device.torch.type == "cuda":
        checks.append(Check("GPU memory", GREEN, f"{_gb(free_memory(device))} are free; a slice takes {_gb(one)}."))
    else:
        need += one * plan_batch(device, config, len(study.sources), *slicing.padded, slicing.shape[0])
    free = psutil.virtual_memory().available
    said = f"The run takes about {_gb(need)}, and {_gb(free)} are free."
    if need > free + psutil.swap_memory().free:
        remedy = " Close other programs, or make fewer sequences in one run."
        return [*checks, Check("Memory", RED, said + remedy)]
    if need > TIGHT * free:
        return [*checks, Check("Memory", AMBER, f"{said} That is tight: close other programs first.")]
    return [*checks, Check("Memory", GREEN, said)]


def result_bytes(study: Study, targets: int, segment: bool) -> int:
    """Estimate of the memory that a run takes beside the network's own, in the worker and in the program that asked.

    Each target is held as two int16 images while it is made, twice over while it is put into the order of the grid,
    and again by the program that gets it; there the sources (float32 and a mask) arrive too. Two float32 images pass
    through the last step, and the segmentation, with where it is sure, is cleaned in masks and 32-bit label images.
    """
    voxels = int(np.prod(study.grid.shape))
    return voxels * (12 * targets + 5 * len(study.sources) + 8 + 15 * segment)


def check_disk(study: Study, targets: int, segment: bool, folder: Path) -> Check:
    """Is there room in the folder through which the images cross to the worker and back?"""
    voxels = int(np.prod(study.grid.shape))
    originals = sum(source.original.array.nbytes for source in study.sources)
    need = originals + voxels * (4 * targets + 5 * len(study.sources) + 1 + 2 * segment)
    free = shutil.disk_usage(folder).free
    said = f"{_gb(need)} are needed for temporary files in {folder}, and {_gb(free)} are free."
    if need > free:
        return Check("Disk", RED, f"{said} Free some disk space there.")
    return Check("Disk", GREEN, said)


def check_prompts(loaded, targets: Sequence[str], prompts: Mapping[str, str]) -> list[Check]:
    """Does the model know every target, and the words of the user's own prompts, and what does it take them for?

    Args:
        loaded: a ``model.weights.LoadedModel``.
        prompts: target id -> the user's own words.
    """
    from ..vocabulary import canonical_prompt
    from .wording import check_wording

    checks = []
    for target in targets:
        own = prompts.get(target)
        try:
            # The first warning says whose words they are, which the user who is asked here knows.
            doubts = check_wording(loaded, target, own)[1:] if own else []
            _, unknown = loaded.text_features(own or canonical_prompt(get_sequence(target)))
        except NPCSynthError as error:
            checks.append(Check(words_of(target), RED, str(error)))
            continue
        if unknown:
            doubts.append(f"The model does not know these words, and leaves them out: {', '.join(unknown)}.")
        checks += [Check(words_of(target), AMBER, doubt) for doubt in doubts]
        if own and not doubts:
            checks.append(Check(words_of(target), GREEN, "The model knows all of your words."))
        if target not in loaded.manifest["prompts"]:
            checks.append(Check(f"{target}: training", AMBER, f"The model was never trained on {target}: what it makes "
                                "is a guess from its words."))
    return checks


def _values(study: Study) -> list[Check]:
    said = [text for source in study.sources for text in check_usable(source.original)]
    return [Check("Images", AMBER, text) for text in dict.fromkeys(said)]


def _origin(study: Study) -> list[Check]:
    """Are they of one patient, acquired on one day, in one frame of reference?"""
    data = [source.original.metadata for source in study.sources]
    unknown = unknown_person({source.sequence: source.original.metadata for source in study.sources})
    checks = [Check("Patient", AMBER, unknown)] if unknown else []
    if len({str(one.get("StudyDate") or "") for one in data} - {""}) > 1:
        checks.append(Check("Dates", AMBER, "The images were acquired on different days: the anatomy may have changed "
                            "between them (treatment, weight loss). Leave "
                            "one of them out unless you know that nothing changed."))
    if len({str(one.get("FrameOfReferenceUID") or "") for one in data} - {""}) > 1:
        checks.append(Check("Frame of reference", AMBER, "The images have different frames of reference: the "
                            "patient may have been repositioned between them. Check the alignment in the views."))
    return checks


def _field_of_view(study: Study) -> Check:
    size = study.grid.spacing * study.grid.shape[::-1]
    said = f"{study.reference} shows {' x '.join(f'{mm:.0f}' for mm in size)} mm in {study.grid.shape[0]} slices"
    if size.min() < SMALLEST_FIELD_MM:
        return Check("Field of view", AMBER, f"{said}: a slab, less than {SMALLEST_FIELD_MM:.0f} mm in one direction. "
                     "The model learned from brains and heads: judge nothing near its edges, or choose a source that "
                     "shows more.")
    return Check("Field of view", GREEN, f"{said}.")


def _resolution(study: Study) -> Check:
    coarse, said = [], []
    for source in study.sources:
        fine, middle, thick = sorted(source.original.grid.spacing)
        said.append(f"{source.sequence} {fine:.2g} x {middle:.2g} x {thick:.2g} mm")
        if thick > THICKEST_MM or middle > COARSEST_MM:
            coarse.append(source.sequence)
    if coarse:
        return Check("Resolution", AMBER, f"{', '.join(said)}. Coarser than what the model learned from "
                     f"(pixels up to {COARSEST_MM:g} mm, slices up to {THICKEST_MM:g} mm): {', '.join(coarse)}. "
                     "Expect blur; use a finer series if there is one.")
    return Check("Resolution", GREEN, f"{', '.join(said)}.")


def _overlap(study: Study) -> list[Check]:
    """How much of the body each source but the reference shows."""
    checks = []
    for source in study.sources:
        if source.sequence == study.reference:
            continue
        covered = float(source.inside[study.body].mean())
        said = f"Shows {covered:.0%} of the body that {study.reference} shows"
        if covered < LEAST_COVERAGE:
            said += "; elsewhere the result rests on the other images alone"
        checks.append(Check(f"{source.sequence}: overlap", GREEN if covered >= LEAST_COVERAGE else AMBER, f"{said}."))
    return checks


def _alignment(study: Study) -> list[Check]:
    checks = []
    for source in study.sources:
        if source.sequence == study.reference:
            continue
        report, name = source.registration, f"{source.sequence}: alignment"
        far = report["translation_mm"] > FAR_MM or report["rotation_deg"] > FAR_DEG
        if report["warning"]:
            checks.append(Check(name, AMBER, report["warning"]))
        elif report["applied"] and far:
            checks.append(Check(name, AMBER, f"{report['reason']} That is far: look whether it lies right on "
                                f"{study.reference} afterwards, or align it before the run."))
        else:
            checks.append(Check(name, GREEN, report["reason"]))
    return checks


def _sequence(source: Source, recognition) -> Check:
    said, name = source.sequence, f"{source.sequence}: sequence"
    volume = source.original
    by_header = identify(volume.metadata, volume.name)
    doubt = recognition.contradiction(said)
    if doubt:
        return Check(name, AMBER, doubt)
    if by_header.sequence is None:
        if recognition.agrees(said) and get_sequence(said).contrast_agent:
            return Check(name, AMBER, f'That contrast agent was given for "{volume.name}" rests on your word: its '
                         "header and name do not say, and an image without it can look alike. Check it.")
        if recognition.agrees(said):
            return Check(name, GREEN, f'"{volume.name}" looks like {said}; its header and name do not say.')
        return Check(name, AMBER, f'Nothing confirms that "{volume.name}" is {said}: its header and name do not say, '
                     "and the image leaves it open. Check it.")
    if by_header.sequence != said:
        return Check(name, AMBER, f'"{volume.name}" is used as {said}, but by its header or name it is '
                     f"{by_header.sequence}. {by_header.reason} Check it.")
    if by_header.confidence < DOUBTFUL:
        return Check(name, AMBER, f'"{volume.name}" is {said} with only {by_header.confidence:.0%} certainty: '
                     f"{by_header.reason} Check it.")
    looks = "and the image looks like it" if recognition.agrees(said) else "and the image does not contradict"
    return Check(name, GREEN, f'"{volume.name}" is {said} by its header or name, {looks}.')


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
