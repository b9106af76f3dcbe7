"""An endless stream of batches, each drawn by a seed of its own, so that a resumed run sees what it would have seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ..phantom.signal import ANY_ECHO
from ..vocabulary import load_sequences
from .cohorts import crop_patient, crop_tumor, load_training_patients, load_tumor_slices
from .labelmaps import find_labelmaps, load_labelmap, phantom_labelmap
from .layouts import PatientFiles
from .sample import Sample
from .simulation import simulate


@dataclass
class Batch:
    """B samples, sources padded to S and targets to T; ``present`` and ``wanted`` tell which are real.

    Tensors: sources (B, S, 3, H, W), present (B, S), targets (B, T, H, W), known
    (B, T, H, W) bool, wanted (B, T), body and lesion
    (B, H, W) bool, structures (B, H, W) int64, pixel_mm (B,), place (B,). Prompts and ids are lists for the true
    entries of ``present`` and ``wanted``, row by row.
    """

    sources: torch.Tensor
    present: torch.Tensor
    targets: torch.Tensor
    known: torch.Tensor
    wanted: torch.Tensor
    body: torch.Tensor
    lesion: torch.Tensor
    structures: torch.Tensor
    pixel_mm: torch.Tensor
    place: torch.Tensor
    source_prompts: list[str]
    target_prompts: list[str]
    source_ids: list[str]
    target_ids: list[str]


def collate(samples: list[Sample]) -> Batch:
    """Pad and stack."""
    most_sources = max(len(s.source_ids) for s in samples)
    most_targets = max(len(s.target_ids) for s in samples)
    size = samples[0].body.shape
    sources = torch.zeros(len(samples), most_sources, 3, *size)
    targets = torch.zeros(len(samples), most_targets, *size)
    known = torch.zeros(len(samples), most_targets, *size, dtype=torch.bool)
    present = torch.zeros(len(samples), most_sources, dtype=torch.bool)
    wanted = torch.zeros(len(samples), most_targets, dtype=torch.bool)
    for n, sample in enumerate(samples):
        sources[n, : len(sample.sources)] = torch.from_numpy(sample.sources)
        targets[n, : len(sample.targets)] = torch.from_numpy(sample.targets)
        known[n, : len(sample.targets)] = torch.from_numpy(sample.known)
        present[n, : len(sample.sources)] = True
        wanted[n, : len(sample.targets)] = True
    return Batch(
        sources.clamp_(0, 2), present, targets, known, wanted,
        torch.from_numpy(np.stack([s.body for s in samples])),
        torch.from_numpy(np.stack([s.lesion for s in samples])),
        torch.from_numpy(np.stack([s.structures for s in samples]).astype(np.int64)),
        torch.tensor([s.pixel_mm for s in samples]),
        torch.tensor([s.place for s in samples]),
        [p for s in samples for p in s.source_prompts], [p for s in samples for p in s.target_prompts],
        [i for s in samples for i in s.source_ids], [i for s in samples for i in s.target_ids],
    )  # fmt: skip


#: Begins the line of ``TrainingBatches.describe`` that counts them.
TUMOR_SLICES = "NPC T2 slices: "


@dataclass(frozen=True)
class Mixture:
    """How often each kind of sample is drawn; the rest is simulated from public label maps.

    Attributes:
        without: ids of sequences that the run never meets, neither as images nor in words.
        share: of each kind of data, so much is used: what would less, or more, have done?
        echo_times: so often a simulated T2-weighted target has any echo time, told in its prompt.
    """

    real: float = 0.56
    phantom: float = 0.16
    tumor: float = 0.04
    without: tuple[str, ...] = ()
    share: float = 1.0
    echo_times: float = 0.0


class TrainingBatches(Dataset):
    """Batch number n is the same whenever it is asked for.

    Args:
        data_dir: holds cohorts/, heads/, labelmaps/, npc_t2/; kinds that are absent are left out, all with None.
        warmup: for this many first batches the targets are sequences that are also among the sources
            (self-reconstruction); after it the number of sources falls from all but one towards one.
        part: (number, count) of this process among those that share every batch.
        cohort: patients of one's own beside those of ``data_dir``.
        held_out: patients that are never met, wherever they lie.
        note: takes a sentence for each file that is not used, or not as it came.
        echo_times: every batch is of T2-weighted targets alone, simulated at echo times that their prompts tell; real
            images are not read then.
    """

    def __init__(self, data_dir: Path | None, steps: int, batch_size: int, size: int, warmup: int, phantoms: int,
                 mixture: Mixture, seed: int, part: tuple[int, int] = (0, 1), cohort: Sequence[PatientFiles] = (),
                 note: Callable[[str], None] = lambda text: None, echo_times: bool = False,
                 held_out: Sequence[PatientFiles] = ()):  # fmt: skip
        self.part = part
        self.steps, self.batch_size, self.size, self.warmup, self.seed = steps, batch_size, size, warmup, seed
        self.mixture, self.echo_times = mixture, echo_times
        self.own = {files.name for files in cohort}
        patients = [] if echo_times else load_training_patients(data_dir, cohort, note, held_out)
        names = self._part(list(dict.fromkeys(p.name for p in patients)))
        self.patients = [p for p in patients if p.name in names and set(p.sequences) - set(mixture.without)]
        maps = self._part(find_labelmaps(data_dir) if data_dir else [])
        self.labelmaps = [load_labelmap(path, n) for n, path in enumerate(maps)]
        self.labelmap_weights = np.array(
            [0.5 if "HS" in m.name else 3.0 if ("MGH" in m.name or "Angel" in m.name) else 1.0 for m in self.labelmaps]
        )
        self.phantoms = [phantom_labelmap(1000 + n) for n in self._part(range(phantoms))]
        slices = data_dir / "npc_t2" if data_dir else None
        wanted = slices and slices.exists() and "T2" not in mixture.without and not echo_times
        tumors = load_tumor_slices(slices) if wanted else []
        self.tumors = self._part(tumors)
        # one patient may come on several grids; each grid counts less then
        names = [p.name for p in self.patients]
        weights = [(0.25 if len(p.sequences) == 1 else len(p.sequences)) / names.count(p.name) for p in self.patients]
        self.patient_weights = np.array(weights)

    def _part(self, things: Sequence) -> list:
        """The mixture's share of things, rounded up, the same for the same seed."""
        order = np.random.default_rng(self.seed).permutation(len(things)) if self.mixture.share < 1 else None
        count = int(np.ceil(self.mixture.share * len(things)))
        return list(things) if order is None else [things[n] for n in sorted(order[:count])]

    def describe(self) -> list[str]:
        """What there is to train on, a line for each kind. Patients of one's own are counted, not named."""
        patients = dict.fromkeys(p.name for p in self.patients if p.name not in self.own)
        lines = [f"real images: {', '.join(patients)}"] if patients else []
        own = {p.name: p.sequences for p in self.patients if p.name in self.own}
        known = [s for s in load_sequences() if any(s in sequences for sequences in own.values())]
        lines += [f"a cohort of the user's own: {len(own)} patients ({', '.join(known)})"] if own else []
        lines += [f"label maps: {', '.join(m.name for m in self.labelmaps)}"] if self.labelmaps else []
        lines += [f"digital phantom: {len(self.phantoms)} patients"] if self.phantoms else []
        lines += [f"{TUMOR_SLICES}{len(self.tumors)}"] if self.tumors else []
        return lines

    def __len__(self) -> int:
        return self.steps

    def _choose_sequences(self, available: list[str], step: int, rng) -> tuple[list[str], list[str]]:
        order = [str(s) for s in rng.permutation(available)]
        if len(order) == 1:
            return order, order
        most = min(3, len(order) - 1)
        progress = min(1.0, max(0.0, (step - self.warmup) / max(1, 0.25 * self.steps)))
        odds = np.array([0.33 + 0.1 * progress, 0.34, 0.33 - 0.1 * progress])[:most]
        count = int(rng.choice(np.arange(1, most + 1), p=odds / odds.sum()))
        if step < self.warmup:
            count = max(2, count)
            return order[:count], [str(s) for s in rng.choice(order[:count], 2)]
        sources, rest = order[:count], order[count:]
        targets = rest[:2]
        if rng.random() < 0.08:
            targets[-1] = sources[0]
        return sources, targets

    def _sample(self, step: int, rng: np.random.Generator) -> Sample:
        draw = rng.random()
        mixture = self.mixture
        everything = [s for s in load_sequences() if s not in mixture.without]
        simulated = bool(self.labelmaps or self.phantoms)
        if self.patients and (draw < mixture.real or not simulated):
            n = int(rng.choice(len(self.patients), p=self.patient_weights / self.patient_weights.sum()))
            patient = self.patients[n]
            sources, targets = self._choose_sequences([s for s in patient.sequences if s in everything], step, rng)
            return crop_patient(patient, sources, targets, rng, self.size, n)
        if draw < mixture.real + mixture.tumor and self.tumors:
            n = int(rng.integers(len(self.tumors)))
            return crop_tumor(self.tumors[n], rng, self.size, 10_000 + n)
        maps, first, odds = self.labelmaps, 20_000, self.labelmap_weights
        if (draw < mixture.real + mixture.tumor + mixture.phantom or not maps) and self.phantoms:
            maps, first, odds = self.phantoms, 30_000, np.ones(len(self.phantoms))
        n = int(rng.choice(len(maps), p=odds / odds.sum()))
        sources, targets = self._choose_sequences(everything, step, rng)
        return simulate(maps[n], sources, targets, rng, self.size, first + n, mixture.echo_times)

    def _echo_sample(self, rng: np.random.Generator) -> Sample:
        maps = self.phantoms if self.phantoms and (rng.random() < 0.5 or not self.labelmaps) else self.labelmaps
        known = [s for s in load_sequences() if s not in self.mixture.without]
        target = str(rng.choice([s for s in known if s in ANY_ECHO]))
        sources = [str(s) for s in rng.permutation([s for s in known if s != target])[: rng.integers(1, 3)]]
        return simulate(maps[rng.integers(len(maps))], sources, [target], rng, self.size, 0, echo_times=1.0)

    def __getitem__(self, step: int) -> Batch:
        numbers = range(self.part[0], self.batch_size, self.part[1])
        draws = [np.random.default_rng((self.seed, step, n)) for n in numbers]
        return collate([self._echo_sample(rng) if self.echo_times else self._sample(step, rng) for rng in draws])
