"""Section 4 of the proof: what is this image, told from its looks alone?

No header is asked. An image is named by the prompt nearest to it in the space that images and text share; one that is
near to none is "unknown".
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..inference.recognition import LEAST_CONFIDENCE, Recognition, nearest_prompts, slice_embeddings, weighting
from ..inference.synthesizer import Synthesizer
from ..inference.unusual import find_unusual, usual_sha256
from ..phantom.signal import random_protocol
from ..study.build import build_study
from ..study.identify import identify
from ..study.image_files import read_image_file, sequence_files
from ..study.normalize import body_mask
from ..study.volume import Volume, from_sitk
from ..vocabulary import load_sequences
from .phantom_cases import phantom, scan
from .protocol import validation_folders
from .section import Context, Section, Table
from .statistics import auroc
from .strange import ct_like

#: A file of ``heads`` that its source published under a wrong name: (folder, sequence that it is, name that it had).
MISNAMED = ("fernando", "FLAIR", "fernando_t2.nii.gz")
_DISTRACTORS = ("siemens_XA30_enhanced_ADC", "siemens_XA30_enhanced_TRACEW")


def named_images(context: Context) -> Iterator[tuple[str, str, str, partial]]:
    """(group, name, sequence, how to read it) of every image whose sequence is sure."""
    for folder in validation_folders(context.data / "cohorts"):
        for sequence, file in sequence_files(folder).items():
            yield "validation", f"{folder.parent.name}/{folder.name}", sequence, partial(read_image_file, file)
    for folder in sorted((context.data / "heads").glob("*")):
        for sequence, file in sequence_files(folder).items():
            yield "heads", folder.name, sequence, partial(read_image_file, file)
    for seed in (1,) if context.quick else (1, 2, 3):
        for sequence in load_sequences():
            yield "phantom", f"phantom {seed}", sequence, partial(_phantom_image, seed, sequence)


def _phantom_image(seed: int, sequence: str) -> Volume:
    """By a random protocol, as some hospital may run it."""
    return scan(phantom(seed), random_protocol(sequence, np.random.default_rng([seed, 301, *sequence.encode()])))


def foreign_images(context: Context) -> Iterator[tuple[str, partial]]:
    """(what it is, how to make it) of images that are of no known sequence."""
    for folder in _DISTRACTORS:
        files = sorted((context.data / "dicom" / folder).glob("*.dcm"))
        if files:
            yield folder.rsplit("_", 1)[1], partial(_read_any, files[0])
    for folder in validation_folders(context.data / "cohorts")[-1 if context.quick else None:]:
        for sequence, file in sequence_files(folder).items():
            for kind in ("negative", "noise", "edges", "folded gray"):
                yield f"{kind} of {folder.name} {sequence}", partial(_spoilt, file, kind)
    yield "CT of a phantom", lambda: ct_like(phantom(1), 0)


def _read_any(file: Path) -> Volume:
    import SimpleITK as sitk

    volume = from_sitk(sitk.ReadImage(str(file)), file.parent.name)
    return Volume(volume.array.astype(np.float32), volume.grid, volume.name)


def _spoilt(file: Path, kind: str) -> Volume:
    """What no scanner makes out of a head: gray values turned round, noise, edges alone, gray values folded."""
    volume = read_image_file(file)
    body = body_mask(volume.array, volume.grid.spacing)
    top = float(np.quantile(volume.array[body], 0.99))
    image = volume.array / top
    if kind == "negative":
        image = np.where(body, np.clip(1.1 - image, 0, None), 0)
    elif kind == "noise":
        rng = np.random.default_rng(0)
        image = rng.rayleigh(1.0, image.shape) * np.where(body, 1.0, 0.05)
    elif kind == "edges":
        image = np.hypot(*np.gradient(image, axis=(1, 2)))
    else:
        image = np.where(body, np.sin(9 * image) + 1, 0)
    return Volume(image.astype(np.float32), volume.grid, kind)


def look(synthesizer: Synthesizer, volume: Volume) -> dict:
    """{"volume", "slices", "unusual"}: probabilities by sequence id of the whole image and of each slice looked at, and
    whether a run would call it unusual."""
    study = build_study({synthesizer.sequences[0]: volume})
    vectors = slice_embeddings(synthesizer.loaded, synthesizer.device, study, study.sources[0])
    one = nearest_prompts(synthesizer.loaded, vectors.mean(dim=0))
    return {"volume": one.probabilities,
            "slices": [nearest_prompts(synthesizer.loaded, v).probabilities for v in vectors],
            "unusual": bool(find_unusual(synthesizer.loaded, synthesizer.device, study))}


def run(context: Context) -> Section:
    """Accuracy, confusion, what is told of foreign images, and files under a wrong name."""
    synthesizer = context.synthesizer
    kept = context.kept("recognition")
    weights, usual = synthesizer.loaded.identity["sha256"], usual_sha256(synthesizer.loaded)

    def seen(name: str, read) -> dict:
        def answer() -> dict:
            try:
                return look(synthesizer, read())
            except InputError as error:
                return {"error": str(error)}

        return kept.get({"weights": weights, "usual": usual, "image": name}, answer)

    def recognition(probabilities: dict) -> Recognition:
        return Recognition(probabilities, synthesizer.loaded.manifest.get(LEAST_CONFIDENCE, 0.0))

    named = []
    listed = list(named_images(context))
    for number, (group, name, sequence, read) in enumerate(listed):
        context.on_progress(0.7 * number / len(listed), f"{name} {sequence}")
        found = seen(f"{name} {sequence}", read)
        if "error" not in found:
            slices = [recognition(p) for p in found["slices"]]
            named.append((group, name, sequence, recognition(found["volume"]), slices))
    foreign, warned = [], 0
    for name, read in foreign_images(context):
        context.on_progress(0.8, name)
        found = seen(name, read)
        if "error" not in found:
            foreign.append((name, recognition(found["volume"])))
            warned += found["unusual"] or not foreign[-1][1].known
    tables = [accuracy_table(named), confusion_table(named, foreign, synthesizer.sequences), volumes_table(named)]
    score = auroc([r.confidence for _, r in foreign], [r.confidence for *_, r, _ in named]) if foreign else None
    text = _findings(named, foreign, warned, score)
    misnamed = [(name, r) for group, name, sequence, r, _ in named
                if group == "heads" and (name, sequence) == MISNAMED[:2]]
    for _, one in misnamed:
        said = identify({}, MISNAMED[2]).sequence
        doubt = one.contradiction(said)
        text += (
            f"\n\nThe head that was published as {MISNAMED[2]} is {MISNAMED[1]} (and was trained on as such); by its "
            f"name it is taken for {said}. "
            + (f"The cross-check says: {doubt}" if doubt else "The cross-check does not notice.")
        )
    return Section("Recognition", text, tuple(tables))


def accuracy_table(named) -> Table:
    """Share of images and slices named rightly, by group."""
    rows = []
    for group in dict.fromkeys(one[0] for one in named):
        own = [one for one in named if one[0] == group]
        slices = [(sequence, r) for _, _, sequence, _, found in own for r in found]
        rows.append((
            group, len(own), np.mean([r.sequence == s for _, _, s, r, _ in own]),
            np.mean([weighting(r.sequence) == weighting(s) for _, _, s, r, _ in own]),
            np.mean([not r.known for *_, r, _ in own]),
            len(slices), np.mean([r.sequence == s for s, r in slices]),
            np.mean([weighting(r.sequence) == weighting(s) for s, r in slices]),
        ))
    return Table("Accuracy", ("images", "volumes", "right sequence", "right weighting", "called unknown", "slices",
                 "right sequence (slices)", "right weighting (slices)"), tuple(rows),
                 "The heads were trained on; validation patients and phantoms were not. Weighting: T1, T2, PD, FLAIR.")


def confusion_table(named, foreign, known) -> Table:
    """True sequence (row) against recognized sequence (column), volumes."""
    rows = []
    entries = [(sequence, r) for _, _, sequence, r, _ in named] + [("none of them", r) for _, r in foreign]
    for truth in dict.fromkeys(t for t, _ in entries):
        own = [r for t, r in entries if t == truth]
        counts = [sum(r.known and r.sequence == s for r in own) for s in known]
        rows.append((truth, *counts, sum(not r.known for r in own)))
    return Table("Confusion matrix: volumes", ("true sequence", *known, "unknown"), tuple(rows),
                 "None of them: diffusion maps, CT, negatives, noise, edges and folded gray values.")


def volumes_table(named) -> Table:
    """Every volume with its verdict."""
    return Table("Each volume", ("image", "sequence", "looks like", "confidence in the weighting", "slices right"),
                 tuple((name, sequence, r.sequence if r.known else "unknown", r.confidence,
                        float(np.mean([s.sequence == sequence for s in slices])))
                       for _, name, sequence, r, slices in named))


def _findings(named, foreign, warned: int, score: float) -> str:
    right_names = [r.contradiction(sequence) is not None for _, _, sequence, r, _ in named]
    wrong_names = [r.contradiction(other) is not None for _, _, sequence, r, _ in named
                   for other in load_sequences() if weighting(other) != weighting(sequence)]
    unknown = [not r.known for _, r in foreign]
    text = (
        f"Of {len(named)} volumes {np.mean([r.sequence == s for _, _, s, r, _ in named]):.0%} are named rightly among "
        f"{len(load_sequences())} sequences, and the weighting of "
        f"{np.mean([weighting(r.sequence) == weighting(s) for _, _, s, r, _ in named]):.0%}.\n\n"
        f"Under its right name {sum(right_names)} of {len(right_names)} raise an alarm; under the name of another "
        f"weighting {np.mean(wrong_names):.0%} of {len(wrong_names)} do."
    )
    if unknown:
        text += (
            f"\n\nOf {len(unknown)} images of no known sequence {np.mean(unknown):.0%} are called unknown, and "
            f"{np.mean([not r.known for *_, r, _ in named]):.0%} of the known ones (AUROC of the confidence "
            f"{score:.2f}); with the check for unusual images a run warns of {warned / len(unknown):.0%}. What looks "
            "like one of the sequences, such as a diffusion map as bright in fluid as T2, passes for it."
        )
    return text

