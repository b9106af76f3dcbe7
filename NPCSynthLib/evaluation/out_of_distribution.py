"""Are images that no head MR is like noticed, and is it said why?

Usual are the validation volumes. Unusual ones are made: an abdomen, CT, noise, and the validation volumes turned upside
down or cut in half. An image's score is that of its most unusual measurement, 1 is the limit of the warning.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.figure import Figure

from ..inference.unusual import Look, Usual, load_usual, look_at, usual_sha256, why_unusual
from ..phantom.acquire import acquire
from ..phantom.anatomy import Anatomy, make_anatomy
from ..phantom.signal import random_protocol
from ..study.volume import Volume
from .protocol import load_patient, validation_folders
from .section import Context, Plot, Section, Table
from .statistics import auroc
from .strange import abdomen_like, cropped, ct_like, mirrored, noise_only

_USUAL, _PHANTOM = "validation volumes", "digital patients, MR"
_TURNS = (("feet up", "S"), ("back in front", "P"), ("feet up and back in front", "SP"))
_SIDES = ("right", "left", "front", "back")
#: Digital patients that neither training nor ``learn_usual`` meets.
_FIRST_SEED = 5000


def run(context: Context) -> Section:
    """Score every image and tell how well the scores separate each kind from the validation volumes."""
    title = "Out of distribution"
    usual = load_usual(context.synthesizer.loaded)
    if usual is None:
        return Section(title, "These weights were never told what their training images look like, so nothing is "
                              "noticed. Run npcsynth calibrate on them.")
    cases = list(_cases(context))
    kept, identity = context.kept("out-of-distribution"), context.synthesizer.loaded.identity["sha256"]
    rows = []
    for number, (kind, name, make) in enumerate(cases):
        context.on_progress(number / len(cases), f"{kind}: {name}")
        key = {"weights": identity, "usual": usual_sha256(context.synthesizer.loaded), "kind": kind, "name": name}
        rows.append({"kind": kind, "name": name, **kept.get(key, lambda: _scores(context, usual, make()))})
    normal = [row["score"] for row in rows if row["kind"] == _USUAL]
    table = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        scores = [row["score"] for row in own]
        area = None if kind in (_USUAL, _PHANTOM) or not normal else auroc(normal, scores)
        reasons = Counter(reason for row in own for reason in row["reasons"])
        told = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        table.append((kind, len(own), area, sum(s > 1 for s in scores) / len(own), float(np.median(scores)),
                      min(scores), max(scores), told))
    areas = [row[2] for row in table if row[2] is not None]
    answer = f"The lowest AUROC is {min(areas):.3f}. " if areas else ""
    alarms = sum(score > 1 for score in normal)
    return Section(
        title,
        "Images of kinds that the weights did not learn from, made up or spoiled, against the validation volumes.\n\n"
        f"{answer}Of {len(normal)} validation volumes {alarms} are called unusual.",
        (Table("Kinds of image", ("kind", "images", "AUROC", "warned of", "median score", "lowest", "highest", "why"),
               tuple(table), "AUROC against the validation volumes; a score above 1 is a warning. In brackets, how "
                             "often each reason was given; one image may have several."),),
        (Plot("scores", "Scores of every image; above the line there is a warning", _figure(rows)),),
    )


def _scores(context: Context, usual: Usual, volume: Volume) -> dict:
    look: Look = look_at(context.synthesizer.loaded, context.synthesizer.device, volume)
    findings = why_unusual(usual, look)
    return {"score": findings[0].score, "reasons": [f.check for f in findings if f.score > 1],
            "checks": {f.check: f.score for f in findings}}


def _cases(context: Context) -> Iterator[tuple[str, str, Callable[[], Volume]]]:
    """(kind, name, function that makes the image)."""
    for number, folder in enumerate(validation_folders(context.data / "cohorts")):
        for n, (sequence, volume) in enumerate(load_patient(folder)[0].items()):
            name = f"{folder.parent.name}/{folder.name} {sequence}"
            yield _USUAL, name, lambda v=volume: v
            for turn in [n % len(_TURNS)] if context.quick else range(len(_TURNS)):
                kind, axes = _TURNS[turn]
                yield kind, name, lambda v=volume, a=axes: mirrored(v, a)
            for side in [n % len(_SIDES)] if context.quick else range(len(_SIDES)):
                yield "cropped", f"{name}, {_SIDES[side]} half", lambda v=volume, s=side: cropped(v, s)
            yield "noise only", name, lambda v=volume, s=10 * number + n: noise_only(v, s)
    for seed in range(4 if context.quick else 12):
        yield "abdomen-like", str(seed), lambda s=seed: abdomen_like(s)
    for seed in range(_FIRST_SEED, _FIRST_SEED + (1 if context.quick else 4)):
        anatomy = make_anatomy(seed, (118, 128, 104), (2.0, 2.0, 2.0))
        yield "CT-like", str(seed), lambda a=anatomy, s=seed: ct_like(a, s)
        for sequence in context.synthesizer.sequences[:: 4 if context.quick else 2]:
            yield _PHANTOM, f"{seed} {sequence}", lambda a=anatomy, q=sequence: _acquired(a, q)


def _acquired(anatomy: Anatomy, sequence: str) -> Volume:
    rng = np.random.default_rng([anatomy.seed, 302, *sequence.encode()])
    return acquire(anatomy, random_protocol(sequence, rng, 1.5), rng)


def _figure(rows: list[dict]) -> Figure:
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    figure = Figure(figsize=(8, 0.45 * len(kinds) + 1), layout="compressed")
    axis = figure.subplots()
    for place, kind in enumerate(kinds):
        scores = [row["score"] for row in rows if row["kind"] == kind]
        spread = np.linspace(-0.25, 0.25, len(scores)) if len(scores) > 1 else [0]
        axis.plot(scores, place + np.array(spread), "o", markersize=4, alpha=0.7)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("score (1: limit)")
    return figure
