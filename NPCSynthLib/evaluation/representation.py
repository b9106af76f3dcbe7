"""Section 5 of the proof: is the shared representation worth having?

Retrieval: a place in one sequence is looked for in another by its invariant features alone. Segmentation: a head on the
frozen encoder against the same network trained from scratch, on few labelled slices. And tumor and organs as the
weights contour them.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..inference.slicing import Slicing
from ..inference.synthesizer import Synthesizer
from ..model.network import AnyToAll, ModelConfig
from ..qa.contours import compare_masks, dice
from ..study.build import build_study
from ..study.study import Study
from ..study.volume import Grid, Volume, one_grid
from ..training.cohorts import TumorSlice, load_tumor_slices
from .methods import trained_by
from .phantom_cases import phantom, scanned
from .protocol import load_patient, validation_folders
from .section import Context, Section, Table

NEAR_MM = 4.0
#: Configuration of the weights that learned without contrast.
NO_CONTRAST = "no-contrast"
_ANCHORS = 100
_PHANTOM_SEQUENCES = ("T1", "T1C", "T2", "FLAIR")
_CONTOURED_FROM = (("T2",), ("T1", "T2"), ("T1C", "T2FS"), ("T1", "T1C", "T2"))
#: Slices of ``npc_t2`` that the weights never met, the last ones; pixels of about this size at half resolution.
_HELD_OUT, _NPC_PIXEL_MM = 4, 0.9
_LABELLED = (4, 8, 12)
_NPC_CLASSES = ("background", "GTVp")


# --- retrieval -------------------------------------------------------------------------------------------------------

@torch.inference_mode()
def level_features(synthesizer: Synthesizer, study: Study, rows: Sequence[int]) -> dict[str, list[Tensor]]:
    """Sequence id -> invariant features of these slices, a (N, C, h, w) float32 tensor for each level, finest first;
    under "body" likewise (N, 1, h, w), 1 inside the patient."""
    model, device = synthesizer.loaded.model, synthesizer.device
    slicing = Slicing.plan(study.grid, model.config.stride)
    around = slicing.around(rows)
    found = {}
    for source in study.sources:
        images = torch.from_numpy(slicing.take(source.array)[around]).to(device.torch).clamp_(0, 2)
        with device.autocast():
            levels = model.encode(slicing.to_work(images)).invariant
        found[source.sequence] = [level.float().cpu() for level in levels]
    inside = np.all([slicing.take(s.inside)[rows] for s in study.sources], axis=0) & slicing.take(study.body)[rows]
    inside = slicing.to_work(torch.from_numpy(inside[:, None].astype(np.float32)), "nearest")
    found["body"] = [F.adaptive_avg_pool2d(inside, level.shape[-2:]) for level in levels]
    return found


def recall(first: Tensor, second: Tensor, body: Tensor, pixel_mm: tuple[float, float]) -> float:
    """Share of places in ``first`` (N, C, h, w) whose most similar place of the same slice in ``second`` lies within
    ``NEAR_MM``; places inside ``body`` (N, 1, h, w) alone, ``pixel_mm`` (rows, columns) apart.

    Channels are standardized over the body of each image, then compared by cosine.
    """
    inside = body[:, 0] > 0.5
    vectors = []
    for features in (first, second):
        values = features.movedim(1, -1)[inside]
        vectors.append(F.normalize((values - values.mean(dim=0)) / values.std(dim=0).clamp_min(1e-6), dim=1))
    index = inside.nonzero()
    place = index[:, 1:] * torch.tensor(pixel_mm)
    generator = torch.Generator().manual_seed(0)
    hits = []
    for n in range(len(first)):
        own = (index[:, 0] == n).nonzero()[:, 0]
        if len(own):
            anchors = own[torch.randperm(len(own), generator=generator)[:_ANCHORS]]
            best = own[(vectors[0][anchors] @ vectors[1][own].T).argmax(dim=1)]
            hits.append((place[anchors] - place[best]).norm(dim=1) <= NEAR_MM)
    return float(torch.cat(hits).float().mean()) if hits else float("nan")


def chance(body: Tensor, pixel_mm: tuple[float, float]) -> float:
    """What :func:`recall` would be for places picked at random: pixels within ``NEAR_MM`` by those of the body."""
    steps = [np.arange(-int(NEAR_MM // mm), int(NEAR_MM // mm) + 1) * mm for mm in pixel_mm]
    near = (np.add.outer(steps[0] ** 2, steps[1] ** 2) <= NEAR_MM**2).sum()
    counts = (body > 0.5).sum(dim=(1, 2, 3)).float()
    return float((near / counts[counts > 0]).clamp(max=1).mean())


def _studies(context: Context) -> Iterator[tuple[str, Study]]:
    """Patients and phantoms whose sequences lie on one grid, so that no registration blurs what "same place" means."""
    for folder in validation_folders(context.data / "cohorts"):
        volumes, _ = load_patient(folder)
        if one_grid(v.grid for v in volumes.values()):
            yield f"{folder.parent.name}/{folder.name}", build_study(volumes, register=False)
    for seed in (1,) if context.quick else (1, 2, 3):
        yield f"phantom {seed}", scanned(phantom(seed), _PHANTOM_SEQUENCES)


def retrieve(synthesizer: Synthesizer, study: Study, slices: int) -> list[dict]:
    """Recall for each level and ordered pair of sequences, on slices spread over the middle half of the body."""
    slicing = Slicing.plan(study.grid, synthesizer.loaded.model.config.stride)
    hit = np.flatnonzero(slicing.take(study.body).any(axis=(1, 2)))
    rows = np.unique(np.linspace(np.quantile(hit, 0.25), np.quantile(hit, 0.75), slices).round().astype(int))
    found = level_features(synthesizer, study, rows)
    spacing = study.grid.spacing[::-1][list(slicing.order[1:])]
    finest = [float(mm) * n / w for mm, n, w in zip(spacing, slicing.shape[1:], slicing.work, strict=True)]
    answers = []
    for level, body in enumerate(found["body"]):
        pixel = tuple(mm * 2 ** (level + 1) for mm in finest)
        for a in (s.sequence for s in study.sources):
            for b in (s.sequence for s in study.sources):
                if a != b:
                    answers.append({"level": level, "from": a, "to": b, "chance": chance(body, pixel),
                                    "recall": recall(found[a][level], found[b][level], body, pixel)})
    return answers


def retrieval_table(rows: list[dict]) -> Table:
    """Mean recall of each set of weights, level by level."""
    cells = []
    for name, place, level in dict.fromkeys((r["weights"], r["place"], r["level"]) for r in rows):
        own = [r for r in rows if (r["weights"], r["place"], r["level"]) == (name, place, level)]
        worst = min(own, key=lambda r: r["recall"])
        cells.append((name, place, f"1/{2 ** (level + 1)}", float(np.mean([r["recall"] for r in own])), worst["recall"],
                      f"{worst['from']} to {worst['to']}", own[0]["chance"]))
    return Table("Finding the same place in another sequence", ("weights", "patient", "resolution",
                 f"recall@1 within {NEAR_MM:g} mm", "lowest", "between", "chance"), tuple(cells),
                 "Mean over ordered pairs of sequences; candidates are all pixels of the body in the same slice.")


# --- few labels ------------------------------------------------------------------------------------------------------

def learn_tumor(train: Sequence[TumorSlice], test: Sequence[TumorSlice], config: ModelConfig, encoder: AnyToAll | None,
                steps: int, seed: int) -> list[float]:
    """Dice of the tumor on each test slice after a segmentation head was trained on the others.

    Args:
        encoder: weights whose encoder is used frozen; None trains an encoder of the same size from scratch with it.
    """
    torch.manual_seed(seed)
    model = AnyToAll(ModelConfig.from_dict({**config.to_dict(), "classes": list(_NPC_CLASSES)}))
    parameters = list(model.segmentation.parameters())
    if encoder is None:
        parameters += list(model.encoder.parameters())
    else:
        model.encoder.load_state_dict(encoder.encoder.state_dict())
        model.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 10) * (1 - 0.9 * step / steps)
        batch = [train[int(n)] for n in rng.integers(len(train), size=2)]
        images, tumor = _stack(batch, flip=rng.random() < 0.5, gain=float(np.exp(rng.normal(0, 0.1))))
        loss = _tumor_loss(_logits(model, images), tumor)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with torch.inference_mode():
        images, tumor = _stack(test)
        found = torch.cat([_logits(model, image[None]).argmax(dim=1) for image in images])
    return [dice(t.numpy() > 0, f.numpy() > 0) for t, f in zip(tumor, found, strict=True)]


def _stack(slices: Sequence[TumorSlice], flip: bool = False, gain: float = 1.0) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) and tumors (N, H, W) int64."""
    images = torch.from_numpy(np.stack([s.image for s in slices])).float() * gain
    tumor = torch.from_numpy(np.stack([s.tumor for s in slices])).long()
    if flip:
        images, tumor = images.flip(-1), tumor.flip(-1)
    return images.clamp(0, 2)[:, None].repeat(1, 3, 1, 1), tumor


def _logits(model: AnyToAll, images: Tensor) -> Tensor:
    invariant = model.group(model.encode(images).invariant, len(images))
    return model.segment(invariant, torch.ones(len(images), 1, dtype=torch.bool))


def _tumor_loss(logits: Tensor, tumor: Tensor) -> Tensor:
    """Cross-entropy that counts the tumor three times, plus soft Dice of the tumor."""
    probability = logits.softmax(dim=1)[:, 1]
    overlap = 2 * (probability * tumor).sum() + 1
    share = 1 - overlap / (probability.sum() + tumor.sum() + 1)
    return F.cross_entropy(logits, tumor, weight=torch.tensor([1.0, 3.0])) + share


def splits(count: int, labelled: Sequence[int], quick: bool) -> Iterator[tuple[str, int, list[int], list[int]]]:
    """(name, labelled slices, training slices, test slices); none when too few slices are left to learn from.

    "unseen": the last slices are tested, which the weights never met. Otherwise folds over all slices, of which the
    frozen encoder has met most, images and contours; so the first kind is the fair one.
    """
    held = list(range(count - _HELD_OUT, count))
    folds = [("unseen", held)]
    if not quick:
        folds += [("cross-validated", list(range(f, count, 4))) for f in range(4)]
    for name, test in folds:
        rest = [n for n in range(count) if n not in test]
        order = np.random.default_rng(len(test) + test[0]).permutation(rest)
        for n in labelled:
            if n <= len(rest):
                yield name, n, [int(k) for k in order[:n]], test


def few_labels_table(rows: list[dict]) -> Table:
    """Dice by number of labelled slices."""
    cells = []
    for name, n in dict.fromkeys((r["split"], r["labelled"]) for r in rows):
        own = [r for r in rows if (r["split"], r["labelled"]) == (name, n)]
        values = {kind: [d for r in own for d in r[kind]] for kind in ("frozen", "scratch")}
        cells.append((name, n, len(values["frozen"]), float(np.mean(values["frozen"])),
                      float(np.mean(values["scratch"]))))
    return Table("Tumor on NPC T2 from few labelled slices: Dice", ("test slices", "labelled", "slices tested",
                 "head on the frozen encoder", "same network from scratch"), tuple(cells),
                 "Same head, steps and augmentation. There are 16 slices, so that 16 cannot be learned from and tested "
                 "on others: 12 is the most. Unseen: the four that the weights never met.")


# --- tumor and organs as the weights contour them --------------------------------------------------------------------

def contours_of_phantom(synthesizer: Synthesizer, seed: int, sources: Sequence[str]) -> list[dict]:
    """Tumor and organs of a phantom: [{"structure", "dice", "hd95"}]."""
    anatomy = phantom(seed)
    study = scanned(anatomy, sources)
    target = next(s for s in synthesizer.sequences if s not in sources)
    segmentation = synthesizer.run(study, [target], segment=True).segmentation
    rows = []
    for segment in segmentation.segments:
        truth = anatomy.structures.get(segment.name)
        if segment.label and truth is not None:
            one = compare_masks(segment.name, truth, segmentation.mask(segment), study.grid)
            rows.append({"structure": segment.name, "dice": one.dice, "hd95": one.hd95_mm})
    return rows


def tumor_of_slices(synthesizer: Synthesizer, slices: Sequence[TumorSlice]) -> list[dict]:
    """GTVp of T2 slices as a user gets it: [{"structure", "dice", "hd95"}]. Each lies between copies of itself."""
    rows = []
    for one in slices:
        grid = Grid.from_parts((3, *one.image.shape), (_NPC_PIXEL_MM, _NPC_PIXEL_MM, 5.0), (0, 0, 0), np.eye(3))
        study = build_study({"T2": Volume(one.image[None].repeat(3, axis=0), grid)}, register=False)
        segmentation = synthesizer.run(study, ["T1"], segment=True).segmentation
        found = next(segmentation.mask(s) for s in segmentation.segments if s.name == "GTVp")
        compared = compare_masks("GTVp", one.tumor[None].repeat(3, axis=0), found, grid)
        rows.append({"structure": "GTVp", "dice": compared.dice, "hd95": compared.hd95_mm})
    return rows


def contours_table(rows: list[dict]) -> Table:
    """Dice and HD95 by where."""
    cells = []
    for where, structure in dict.fromkeys((r["where"], r["structure"]) for r in rows):
        own = [r for r in rows if (r["where"], r["structure"]) == (where, structure)]
        distances = [r["hd95"] for r in own if np.isfinite(r["hd95"])]
        cells.append((where, structure, len(own), float(np.mean([r["dice"] for r in own])),
                      float(np.mean(distances)) if distances else None, sum(r["dice"] == 0 for r in own)))
    return Table("Contours as the weights draw them",
                 ("images", "structure", "compared", "Dice", "HD95 (mm)", "missed"), tuple(cells),
                 "HD95 over those that were found at all. Pixels of the NPC slices are taken as 0.9 mm; "
                 "their true size is not known.")


def run(context: Context) -> Section:
    """Retrieval, few labels, contours."""
    synthesizer = context.synthesizer
    kept = context.kept("representation")
    weights = {"these": synthesizer}
    without = trained_by(context, NO_CONTRAST)
    if without is not None:
        weights["without contrast"] = without
    slices = 3 if context.quick else 8
    found = []
    for place, study in _studies(context):
        for name, one in weights.items():
            context.on_progress(0.1, f"{place}: the same place in other sequences ({name})")
            key = {"weights": one.loaded.identity["sha256"], "place": place, "slices": slices}
            rows = kept.get(key, lambda study=study, one=one: {"rows": retrieve(one, study, slices)})["rows"]
            found += [{"weights": name, "place": place, **row} for row in rows]
    tables = [retrieval_table(found)]
    text = _retrieval_words(found)
    identity = {"weights": synthesizer.loaded.identity["sha256"]}
    folder = context.data / "npc_t2"
    contoured = []
    for seed in (1,) if context.quick else (1, 2, 3):
        for sources in _CONTOURED_FROM:
            context.on_progress(0.4, f"Contours of phantom {seed} from {', '.join(sources)}")
            key = {**identity, "contoured": seed, "sources": sources}
            rows = kept.get(key, lambda seed=seed, sources=sources: {
                "rows": contours_of_phantom(synthesizer, seed, sources)})["rows"]
            contoured += [{"where": f"phantom, {'+'.join(sources)}", **row} for row in rows]
    if folder.exists():
        every = load_tumor_slices(folder, 0)
        rows = kept.get({**identity, "npc": len(every)},
                        lambda: {"rows": tumor_of_slices(synthesizer, every[-_HELD_OUT:])})["rows"]
        contoured += [{"where": "NPC T2, slices never met", **row} for row in rows]
        few = _few_labels(context, kept, identity, every)
        tables += [few_labels_table(few)] if few else []
        text += "\n\n" + _few_words(few, len(every))
    tables.append(contours_table(contoured))
    return Section("Representation", text, tuple(tables))


def _few_labels(context: Context, kept, identity: dict, every: Sequence[TumorSlice]) -> list[dict]:
    model = context.synthesizer.loaded.model
    encoder = AnyToAll(model.config)  # a copy on the CPU: the synthesizer's own stays where it is
    encoder.load_state_dict({k: v.cpu() for k, v in model.state_dict().items()})
    steps = 60 if context.quick else 300
    labels = _LABELLED[::2] if context.quick else _LABELLED
    rows = []
    for name, labelled, train, test in splits(len(every), labels, context.quick):
        context.on_progress(0.6, f"{labelled} labelled slices ({name})")
        one = {}
        for kind, start in (("frozen", encoder), ("scratch", None)):
            key = {**identity, "few": kind, "train": train, "test": test, "steps": steps}
            one[kind] = kept.get(key, lambda start=start, train=train, test=test: {"dice": learn_tumor(
                [every[n] for n in train], [every[n] for n in test], model.config, start, steps, seed=0)})["dice"]
        rows.append({"split": name, "labelled": labelled, **one})
    return rows


def _retrieval_words(rows: list[dict]) -> str:
    levels = sorted({r["level"] for r in rows})
    parts = []
    for name in dict.fromkeys(r["weights"] for r in rows):
        means = [np.mean([r["recall"] for r in rows if r["weights"] == name and r["level"] == n]) for n in levels]
        figures = ", ".join(f"{m:.0%} at 1/{2 ** (n + 1)}" for n, m in zip(levels, means, strict=True))
        parts.append(f"{name} weights find it in {figures} of the resolution")
    text = f"The same place in another sequence, within {NEAR_MM:g} mm: " + "; ".join(parts) + "."
    if len(parts) == 1:
        text += f" Weights of comparison/{NO_CONTRAST} were not given for comparison."
    return text


def _few_words(rows: list[dict], count: int) -> str:
    if not rows:
        return (f"How far a few labelled slices go was not asked: npc_t2 holds {count}, and it takes "
                f"{_HELD_OUT + _LABELLED[0]}, {_HELD_OUT} to test on and {_LABELLED[0]} to learn from.")
    parts = [f"{np.mean(r['frozen']):.2f} against {np.mean(r['scratch']):.2f} from scratch with {r['labelled']} slices"
             for r in rows if r["split"] == "unseen"]
    return "Dice of the tumor on NPC slices never met, a head on the frozen encoder: " + ", ".join(parts) + "."
