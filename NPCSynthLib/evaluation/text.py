"""Section 3 of the proof: is the text real, or would a label have done?

Every image is made from the same sources and compared with the acquired (or simulated) one inside the body, on that
one's own scale; only the words change.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats

from ..errors import UsageError
from ..inference.synthesizer import Synthesizer
from ..inference.wording import check_wording, similarities
from ..model.network import TextFeatures
from ..phantom.anatomy import Anatomy
from ..phantom.signal import ANY_ECHO, typical_protocol
from ..qa.image_metrics import compare, errors_within
from ..study.build import build_study
from ..vocabulary import canonical_prompt, get_sequence
from .methods import trained_by
from .phantom_cases import phantom, scan, scanned
from .protocol import Case, PatientCases, middle_slices, validation_folders
from .section import Context, Plot, Section, Table

#: Wordings of a clinician that no template of the vocabulary makes (a test holds them apart). Never train on them.
PARAPHRASES = {
    "T1": (
        "T1w MRI of the nasopharynx, native", "native T1 turbo spin echo, skull base and neck",
        "pre contrast T1 image, fat not suppressed, axial", "MR scan of the head, T1 weighted and unenhanced",
        "T1 TSE sequence, coronal, with no contrast",
    ),
    "T1C": (
        "post contrast T1w MRI of the nasopharynx", "T1 turbo spin echo post gadolinium, skull base and neck",
        "T1 image, contrast enhanced, fat not suppressed, axial", "MR scan of the head, T1 weighted, enhanced with Gd",
        "T1 + Gd sequence, coronal",
    ),
    "T1FS": (
        "native T1w MRI of the nasopharynx with fat saturation",
        "T1 turbo spin echo with SPIR fat suppression, skull base and neck, no contrast",
        "pre contrast T1 fs image, axial", "MR scan of the head, T1 weighted, fat suppressed and unenhanced",
        "T1 Dixon water image, coronal",
    ),
    "T1CFS": (
        "post contrast T1w MRI of the nasopharynx with fat saturation",
        "T1 turbo spin echo post gadolinium with SPIR fat suppression, skull base and neck",
        "T1 fs image, contrast enhanced, axial", "MR scan of the head, T1 weighted, fat suppressed, enhanced with Gd",
        "T1 fs + Gd sequence, coronal",
    ),
    "T2": (
        "T2w MRI of the nasopharynx", "T2 turbo spin echo, skull base and neck",
        "heavily T2 weighted image, fat not suppressed, axial", "MR scan of the head, T2 weighted, long TE",
        "T2 TSE sequence, coronal",
    ),
    "T2FS": (
        "T2w MRI of the nasopharynx with fat saturation",
        "T2 turbo spin echo with SPIR fat suppression, skull base and neck", "T2 fs image, axial",
        "MR scan of the head, T2 weighted and fat suppressed", "T2 STIR sequence, coronal",
    ),
    "FLAIR": (
        "FLAIR MRI of the nasopharynx", "fluid attenuated inversion recovery, skull base and neck",
        "T2 dark fluid image, axial", "MR scan of the head with fluid attenuated inversion recovery",
        "T2 FLAIR sequence, coronal",
    ),
    "PD": (
        "PDw MRI of the nasopharynx", "proton density turbo spin echo, skull base and neck",
        "proton density image, fat not suppressed, axial", "MR scan of the head weighted for proton density",
        "PD TSE sequence, coronal",
    ),
}  # fmt: skip

#: The same, written without knowing how training words its prompts, nor those above. The pieces that training puts
#: together were added to after this list had been read, some of its words among them. Never train on its sentences.
BLIND_PARAPHRASES = {
    "T1": (
        "plain T1w, non-contrast, no fatsat",
        "T1 TSE pre-gad without fat suppression please",
        "I need a native T1-weighted image of the neck, no contrast agent and fat signal left bright.",
    ),
    "T1C": (
        "T1w post gad, non fat-sat",
        "T1 +C, no FS",
        "Please generate a contrast-enhanced T1-weighted scan without fat suppression.",
    ),
    "T1FS": (
        "T1 fatsat pre-contrast",
        "T1w FS, no gadolinium",
        "Could I get an unenhanced T1-weighted series with the fat suppressed?",
    ),
    "T1CFS": (
        "T1 FS post-gad",
        "fat-sat T1w + contrast",
        "Give me the gadolinium-enhanced T1-weighted sequence with fat suppression for contouring.",
    ),
    "T2": (
        "T2 TSE no fatsat",
        "T2w, non fat suppressed, neck",
        "I would like a standard T2-weighted image without fat suppression.",
    ),
    "T2FS": (
        "T2 fatsat",
        "T2w TSE with fat suppression, for nodes",
        "Please synthesise a fat-suppressed T2-weighted image so I can see the oedema.",
    ),
    "FLAIR": (
        "FLAIR please, CSF nulled",
        "I need a fluid-attenuated inversion recovery image covering the skull base.",
    ),
    "PD": (
        "PDw, no fatsat",
        "proton density TSE, non fat suppressed",
        "Can you make a proton-density-weighted image without fat suppression?",
    ),
}

#: What nobody should get an image for without being told.
NONSENSE = (
    "a photo of a cat", "xqzv wrtp blorg", "the quick brown fox jumps over the lazy dog", "banana", "1 2 3 4 5",
    "of the the of and", "lorem ipsum dolor sit amet", "asdf jkl;", "a tumor in the left nasopharynx",
    "sagittal CT of the abdomen",
)

ECHO_TIMES_MS = (20, 30, 40, 60, 80, 100, 120)
#: What the sweep measures -> tissues of the phantom.
SWEPT = {
    "fat": ("subcutaneous_fat", "deep_fat"), "muscle": ("muscle",), "CSF": ("csf",),
    "tumor": ("npc_tumor", "nodal_tumor"),
}  # fmt: skip
#: Target of the sweep -> what it is made from.
_SWEPT_FROM = {"T2": ("T1", "T2FS"), "T2FS": ("T1", "T2")}
#: Echo times of ordinary T2-weighted scans.
_USUAL_MS = (80, 100, 120)
#: The design's marks.
_COST_DB, _AGREE_DB, _SPEARMAN = 3.0, 35.0, 0.9
#: Our own beside them: a change in the right direction that is this much smaller than it should be is none.
_SLOPE = 0.25
#: Configuration of weights that were kept from a sequence, and that sequence.
HELD_OUT = ("no-t1fs", "T1FS")


def paraphrases(target: str) -> tuple[str, ...]:
    """Wordings of a target (sequence id) that training never met."""
    return PARAPHRASES.get(target, ()) + BLIND_PARAPHRASES.get(target, ())


def features_of(synthesizer: Synthesizer, prompt: str) -> TextFeatures:
    """Features of any prompt, as a user gets them; unlike a user's, it may be empty or hold no known word."""
    loaded = synthesizer.loaded
    if prompt in loaded.manifest["prompts"].values():
        return loaded.text_features(prompt)[0]
    return loaded.text_tower().encode([prompt])[0]


def real_questions(folder: Path) -> Iterator[Case]:
    """Each sequence of a patient from all the others, on the middle slices."""
    patient = PatientCases.of_folder(folder)
    for target in patient.sequences:
        yield patient.case(tuple(s for s in patient.sequences if s != target), target, middle=True)


def phantom_questions(anatomy: Anatomy, targets) -> Iterator[Case]:
    """The same on a phantom: each target from two sequences that any patient may have."""
    for target in targets:
        sources = [s for s in ("T1", "T2", "FLAIR") if s != target][:2]
        study, alone = scanned(anatomy, sources), scanned(anatomy, [target])
        yield Case(study, target, alone.sources[0].array, alone.body, None)


def _of_phantom(seed: int, targets) -> Iterator[Case]:
    return phantom_questions(phantom(seed), targets)


def ask(synthesizer: Synthesizer, case: Case, sequences) -> list[dict]:
    """One case under every wording: [{"kind", "words", "ssim", "psnr", "agreement"}].

    Kinds are "prompt" (``words`` is the sequence id whose canonical prompt was given), "shuffled" (the right prompt's
    words in random order), "empty", "paraphrase" and, for T2-weighted targets, "echo time" (a usual one; ``words`` is
    the time in ms); "agreement" is the PSNR (dB) to the image of the right prompt.
    """
    right = canonical_prompt(get_sequence(case.target))
    words = right.split()
    wordings = [("prompt", s, canonical_prompt(get_sequence(s))) for s in sequences]
    wordings += [("shuffled", text, text) for text in
                 (" ".join(np.random.default_rng(n).permutation(words)) for n in range(3))]
    wordings += [("empty", "", "")]
    if case.target in ANY_ECHO:
        wordings += [("echo time", str(te), _with_echo_time(case.target, te)) for te in _USUAL_MS]
    wordings += [("paraphrase", text, text) for text in paraphrases(case.target)]
    images = synthesizer.decode(case.study, [features_of(synthesizer, text) for _, _, text in wordings])
    own = images[[w for _, w, _ in wordings].index(case.target)]
    rows = []
    for (kind, said, _), image in zip(wordings, images, strict=True):
        figures = compare(image, case.truth, case.mask, case.study.grid.spacing)
        rows.append({"kind": kind, "words": said, "ssim": figures.ssim, "psnr": figures.psnr,
                     "agreement": min(99.0, errors_within(image, own, case.mask)["psnr"])})
    return rows


def _with_echo_time(target: str, te: int) -> str:
    protocol = typical_protocol(target)
    return f"{get_sequence(target).name} scan, TR {protocol.TR_ms:.0f} ms, TE {te} ms"


def sweep(synthesizer: Synthesizer, anatomy: Anatomy, target: str, times=ECHO_TIMES_MS) -> list[dict]:
    """T2 or T2FS at each echo time by its prompt, and by the signal equations, tissue by tissue.

    Returns [{"te", "tissue", "made", "physics"}]: mean intensities, 0 and 1 the image's own body percentiles.
    """
    study = scanned(anatomy, _SWEPT_FROM[target])
    protocol = typical_protocol(target)
    texts = [features_of(synthesizer, _with_echo_time(target, te)) for te in times]
    rows = []
    for te, image in zip(times, synthesizer.decode(study, texts), strict=True):
        truth = build_study({target: scan(anatomy, dataclasses.replace(protocol, TE_ms=float(te)))}).sources[0].array
        for tissue, names in SWEPT.items():
            mask = np.isin(anatomy.labels, [anatomy.tissue_names.index(n) for n in names])
            if mask.any():
                rows.append({"te": te, "tissue": tissue, "made": float(image[mask].mean()),
                             "physics": float(truth[mask].mean())})
    return rows


def rank_agreement(rows: list[dict]) -> float | None:
    """Spearman's rank correlation of "made" with "physics"; None where one of them does not change."""
    made, physics = ([row[key] for row in rows] for key in ("made", "physics"))
    if len(rows) < 3 or np.ptp(made) == 0 or np.ptp(physics) == 0:
        return None
    return float(stats.spearmanr(made, physics)[0])


def slope(rows: list[dict]) -> float | None:
    """How much of the change in "physics" there is in "made", by least squares; None where nothing should change.

    Rank correlation alone would be content with changes that nobody can see.
    """
    made, physics = (np.array([row[key] for row in rows]) for key in ("made", "physics"))
    return float(np.polyfit(physics, made, 1)[0]) if len(rows) > 1 and np.ptp(physics) > 0 else None


def verdict(synthesizer: Synthesizer, target: str, prompt: str) -> str:
    """What a user is told who asks for a target in these words: "refused", "flagged" or "accepted"."""
    try:
        warnings = check_wording(synthesizer.loaded, target, prompt)
    except UsageError:
        return "refused"
    unknown = synthesizer.loaded.text_features(prompt)[1]
    return "flagged" if unknown or len(warnings) > 1 else "accepted"


def run(context: Context) -> Section:
    """Swap matrix, cost of wrong words, paraphrases, echo time, nonsense and, where it was trained, a combination of
    words that training never met."""
    synthesizer = context.synthesizer
    known = synthesizer.sequences
    kept = context.kept("text")
    identity = synthesizer.loaded.identity
    weights = [identity["sha256"], identity["text_sha256"]]  # the tower reads every wording but the canonical
    seeds, slices = ((1,), 8) if context.quick else ((1, 2, 3), 24)
    places = [(f"{f.parent.name}/{f.name}", partial(real_questions, f))
              for f in validation_folders(context.data / "cohorts")]
    places += [(f"phantom {seed}", partial(_of_phantom, seed, known)) for seed in seeds]
    answers = []
    for number, (place, questions) in enumerate(places):
        def every_wording(number=number, place=place, questions=questions) -> dict:
            found = []
            for case in questions():
                context.on_progress(0.8 * number / len(places), f"{place}: {case.target} in every wording")
                found.append([case.target, ask(synthesizer, middle_slices(case, slices), known)])
            return {"targets": found}

        found = kept.get({"weights": weights, "place": place, "slices": slices}, every_wording)["targets"]
        answers += [(place, target, rows) for target, rows in found]
    context.on_progress(0.8, "Echo times")
    swept = {}
    for target in (t for t in _SWEPT_FROM if t in known):
        for seed in seeds:
            swept[seed, target] = kept.get(
                {"weights": weights, "sweep": seed, "target": target},
                lambda seed=seed, target=target: {"rows": sweep(synthesizer, phantom(seed), target)},
            )["rows"]
    context.on_progress(0.95, "Nonsense")
    tables = [swap_table(answers, known), cost_table(answers), paraphrase_table(synthesizer, answers),
              sweep_table(swept), usual_echo_table(answers), nonsense_table(synthesizer)]
    text = _findings(answers, swept, tables[-1])
    without = trained_by(context, HELD_OUT[0])
    if without is not None:
        tables.append(held_out_table(without, synthesizer, seeds))
    else:
        text += (f"\n\nA combination of words that training never met was not asked for: weights of comparison/"
                 f"{HELD_OUT[0]} were not given.")
    return Section("Text is real", text, tuple(tables), (Plot("echo-time", "T2 by echo time", _picture(swept)),))


def swap_table(answers, known) -> Table:
    """SSIM of every target (row) under every sequence's prompt (column)."""
    rows = []
    for simulated in (False, True):
        for target in known:
            own = [rows for place, t, rows in answers if t == target and place.startswith("phantom") == simulated]
            if not own:
                continue
            means = {key: [np.mean([_prompt(rows, s)[key] for rows in own]) for s in known] for key in ("ssim", "psnr")}
            won = {key: "yes" if known[int(np.argmax(values))] == target else "no" for key, values in means.items()}
            rows.append(("phantom" if simulated else "patients", target, *means["ssim"], won["ssim"], won["psnr"]))
    return Table("Swap matrix: SSIM of each target under each sequence's prompt",
                 ("images", "target", *known, "right prompt wins in SSIM", "in PSNR"), tuple(rows),
                 "Sources: all other sequences of a validation patient; two of T1, T2 and FLAIR of a phantom.")


def cost_table(answers) -> Table:
    """What other words cost against the right prompt."""
    rows = []
    for target in dict.fromkeys(t for _, t, _ in answers):
        own = [rows for _, t, rows in answers if t == target]
        right = np.mean([_prompt(rows, target)["psnr"] for rows in own])
        wrong = np.mean([r["psnr"] for rows in own for r in rows if r["kind"] == "prompt" and r["words"] != target])
        rows.append((target, right, right - wrong, right - _mean(own, "empty"), right - _mean(own, "shuffled")))
    return Table("What other words cost", ("target", "PSNR of the right prompt (dB)", "another sequence's prompt (dB)",
                 "no words (dB)", "its own words in random order (dB)"), tuple(rows),
                 "Loss in dB, mean over patients, phantoms and prompts. Words in random order still name the sequence.")


def paraphrase_table(synthesizer: Synthesizer, answers) -> Table:
    """How far unseen wordings give the image of the canonical prompt, and what the model takes them for."""
    rows = []
    for target in dict.fromkeys(t for _, t, _ in answers):
        for text in paraphrases(target):
            values = [r["agreement"] for _, t, rows in answers if t == target
                      for r in rows if r["kind"] == "paraphrase" and r["words"] == text]
            similar = similarities(synthesizer.loaded, features_of(synthesizer, text))
            rows.append((target, text, float(np.mean(values)), float(np.min(values)), max(similar, key=similar.get)))
    return Table("Wordings that training never met", ("sequence", "words", "PSNR to the canonical prompt's image (dB)",
                 "lowest (dB)", "taken for"), tuple(rows), "Mean over patients and phantoms, inside the body.")


def sweep_table(swept: dict[tuple[int, str], list[dict]]) -> Table:
    """Rank agreement with the signal equations, tissue by tissue over echo times."""
    rows = []
    for (seed, target), found in swept.items():
        for tissue in dict.fromkeys(r["tissue"] for r in found):
            own = [r for r in found if r["tissue"] == tissue]
            rows.append((seed, target, tissue, own[0]["physics"], own[-1]["physics"], own[0]["made"], own[-1]["made"],
                         rank_agreement(own), slope(own)))
    return Table("T2 and T2FS by echo time in the prompt", ("phantom", "target", "tissue", "physics, shortest TE",
                 "longest TE", "synthetic, shortest TE", "longest TE", "Spearman", "slope"), tuple(rows),
                 f"TE {', '.join(map(str, ECHO_TIMES_MS))} ms; sources T1 and the other of the two; mean intensity, "
                 "0 and 1 the body's percentiles; a slope of 1 is the change that physics has.")


def usual_echo_table(answers) -> Table:
    """Echo times as scans have them, against the acquired images, beside the canonical prompt."""
    rows = []
    for place, target, found in answers:
        timed = [] if place.startswith("phantom") else [r for r in found if r["kind"] == "echo time"]
        own = _prompt(found, target)
        rows += [(place, target, f"TE {r['words']} ms", r["ssim"], r["psnr"], own["ssim"], own["psnr"]) for r in timed]
    return Table("Usual echo times on patients", ("patient", "target", "in the prompt", "SSIM", "PSNR (dB)",
                 "SSIM of the canonical prompt", "its PSNR (dB)"), tuple(rows),
                 "Sources: all other sequences of the patient. The files do not tell with which echo time they "
                 "were acquired.")


def nonsense_table(synthesizer: Synthesizer) -> Table:
    """What happens to prompts that mean nothing, and to the paraphrases beside them."""
    rows = []
    for prompt in NONSENSE:
        features, unknown = synthesizer.loaded.text_tower().encode([prompt])
        similar = similarities(synthesizer.loaded, features)
        nearest = max(similar, key=similar.get)
        rows.append((prompt, verdict(synthesizer, "T2", prompt), ", ".join(unknown), nearest, similar[nearest]))
    return Table("Nonsense", ("words given for T2", "outcome", "unknown to the model", "nearest prompt", "cosine"),
                 tuple(rows))


def held_out_table(without: Synthesizer, whole: Synthesizer, seeds) -> Table:
    """The combination that ``without`` never met, on phantoms, beside weights that met it and the plain source."""
    target = HELD_OUT[1]
    rows = []
    for seed in seeds:
        anatomy = phantom(seed)
        [case] = phantom_questions(anatomy, [target])
        fat = np.isin(anatomy.labels, [anatomy.tissue_names.index(n) for n in SWEPT["fat"]]) & case.mask
        images = {"trained with it": whole.decode(case.study, [features_of(whole, canonical_prompt(
            get_sequence(target)))])[0]}
        for prompt in (target, "T1", "T2FS", "T1CFS"):
            made = without.decode(case.study, [features_of(without, canonical_prompt(get_sequence(prompt)))])[0]
            images[f"trained without it, prompt of {prompt}"] = made
        images["T1 as acquired"] = case.study.source("T1").array
        for name, image in images.items():
            figures = compare(image, case.truth, case.mask, case.study.grid.spacing)
            rows.append((seed, name, figures.ssim, figures.psnr, float(image[fat].mean()),
                         float(case.truth[fat].mean())))
    return Table(f"{target}, which training never met",
                 ("phantom", "image", "SSIM", "PSNR (dB)", "fat", "fat in truth"), tuple(rows),
                 "Fat: mean intensity, 0 and 1 the body's percentiles.")


def _findings(answers, swept, nonsense: Table) -> str:
    """The answers in words."""
    rows = [(t, r) for _, t, r in answers]
    wins = sum(max((e for e in r if e["kind"] == "prompt"), key=lambda e: e["ssim"])["words"] == t for t, r in rows)
    right = np.array([_prompt(r, t)["psnr"] for t, r in rows])
    wrong = np.array([np.mean([e["psnr"] for e in r if e["kind"] == "prompt" and e["words"] != t]) for t, r in rows])
    empty, shuffled = (np.array([_mean([r], kind) for _, r in rows]) for kind in ("empty", "shuffled"))
    agreement = np.array([e["agreement"] for _, r in rows for e in r if e["kind"] == "paraphrase"])
    tissues = [[r for r in found if r["tissue"] == tissue]
               for found in swept.values() for tissue in dict.fromkeys(r["tissue"] for r in found)]
    follows = sum((rank_agreement(own) or 0) >= _SPEARMAN and (slope(own) or 0) >= _SLOPE for own in tissues)
    stopped = sum(row[1] != "accepted" for row in nonsense.rows)
    return (
        f"The right prompt wins {wins} of {len(rows)} rows of the swap matrix in SSIM. Against it, another sequence's "
        f"prompt costs {np.mean(right - wrong):.1f} dB, no words at all {np.mean(right - empty):.1f} dB (the mark is "
        f"{_COST_DB:g} dB); its own words in random order cost {np.mean(right - shuffled):.1f} dB, "
        "and are meant to cost little: people put them in any order.\n\n"
        f"Wordings that training never met give the canonical prompt's image within {_AGREE_DB:g} dB in "
        f"{np.mean(agreement > _AGREE_DB):.0%} of {len(agreement)} cases (median {np.median(agreement):.1f} dB). The "
        f"table says what the model takes each of them for; a user is warned where that is another sequence.\n\n"
        f"An echo time in the prompt moves tissues as the signal equations do (Spearman {_SPEARMAN:g} or more, and at "
        f"least {_SLOPE:.0%} of the change) in {follows} of {len(tissues)} cases.\n\n"
        f"Of {len(nonsense.rows)} prompts without meaning {stopped} are refused or flagged. That is done by looking "
        f"the words up in the vocabulary: their distance from the known prompts in the model's own space (last column) "
        f"does not tell sense from nonsense."
    )


def _picture(swept: dict[tuple[int, str], list[dict]]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rows = next(iter(swept.values()))
    for number, tissue in enumerate(dict.fromkeys(r["tissue"] for r in rows)):
        own = [r for r in rows if r["tissue"] == tissue]
        times = [r["te"] for r in own]
        axes.plot(times, [r["physics"] for r in own], "--", color=f"C{number}")
        axes.plot(times, [r["made"] for r in own], "o-", color=f"C{number}", label=tissue)
    axes.set(xlabel="TE in the prompt (ms)", ylabel="mean intensity",
             title=f"T2 of phantom {next(iter(swept))[0]}: synthetic (lines) and physics (dashes)")
    axes.legend()
    return figure


def _prompt(rows: list[dict], sequence: str) -> dict:
    return next(r for r in rows if r["kind"] == "prompt" and r["words"] == sequence)


def _mean(answers: list[list[dict]], kind: str) -> float:
    return float(np.mean([r["psnr"] for rows in answers for r in rows if r["kind"] == kind]))
