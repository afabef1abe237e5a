"""Samples that cannot be used: named once, agreed upon by all ranks, and limited.

A rank reports what it finds with the batch in which it stood (`MicroBatch.fresh`). The trainer adds up over
the ranks whether there is any; where there is, the loader gathers the findings, and every rank calls
`DamagedSamples.agree` with all of them. All ranks then hold the same list and stop, or go on, together.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.data.shards.manifest import Manifest
from pipeline.errors import Range, WorkFailed, check_ranges, some

log = logging.getLogger(__name__)
Findings = dict[int, str]  # samples that cannot be used, and why


@dataclass(frozen=True)
class Limits:
    """Shares of a split and of a shard that may be damaged; a share above 0 always allows one sample."""

    total: float = 1e-4  # of a split
    shard: float = 1e-2  # of one shard

    def __post_init__(self) -> None:
        check_ranges(self, dict.fromkeys(("total", "shard"), Range(0, 1)), "data.damage")


NONE = Limits(0.0, 0.0)  # evaluation: one missing image makes another test set


class DamagedSamples:
    """What all ranks agreed cannot be used, and what this one has found since."""

    def __init__(self, manifest: Manifest, limits: Limits) -> None:
        self._manifest, self.limits = manifest, limits
        self.known: Findings = {}  # agreed: part of the state
        self.fresh: Findings = {}  # handed over, not yet agreed
        self._seen: set[int] = set()  # found here in batches that may still lie ahead

    def note(self, sample: int) -> None:
        """Found while preparing a batch: never tried again here, reported when that batch is handed over."""
        self._seen.add(sample)

    def bad(self, sample: int) -> bool:
        return sample in self.known or sample in self._seen

    def hopeless(self, findings: Findings) -> bool:
        """Whether a batch's findings, with what is agreed, exceed a limit: then it needs no substitutes."""
        return self._excess(self.known | findings) is not None

    def hand_over(self, findings: Findings) -> Findings:
        """The findings of a batch that nobody knew of; they wait to be agreed upon."""
        known = self.known | self.fresh
        new = {sample: reason for sample, reason in findings.items() if sample not in known}
        self.fresh = self.fresh | new
        return new

    def agree(self, reports: Iterable[Findings]) -> None:
        """Adopt the findings of all ranks; raise, the same on every rank, if a limit is exceeded."""
        self.fresh = {}
        union = {sample: reason for report in reports for sample, reason in report.items()}
        for sample in sorted(union.keys() - self.known.keys()):
            self.known[sample] = union[sample]
            log.warning("%s is not used: %s", self._manifest.name(sample), union[sample])
        if excess := self._excess(self.known):
            raise WorkFailed(excess)

    def state(self) -> list[list[Any]]:
        return [[sample, reason] for sample, reason in self.known.items()]

    def load(self, state: Iterable[Iterable[Any]]) -> None:
        self.known = {sample: reason for sample, reason in state}  # noqa: C416 (of lists, not pairs)
        self.fresh, self._seen = {}, set()

    def _excess(self, damaged: Findings) -> str | None:
        manifest = self._manifest
        held = {f"split {manifest.split!r}": (len(manifest), self.limits.total, sorted(damaged))}
        for sample in sorted(damaged):
            shard = manifest.shards[manifest.shard[sample]]
            held.setdefault(shard.name, (shard.samples, self.limits.shard, []))[2].append(sample)
        for name, (count, share, samples) in held.items():
            allowed = max(1, int(share * count)) if share else 0
            if len(samples) > allowed:
                named = [f"{manifest.name(sample)}: {damaged[sample]}" for sample in samples]
                return (
                    f"{len(samples)} of {count} samples of {name} cannot be used, the limit is {allowed} "
                    f"({share:.2%}): {some(named, '; ')}. "
                    f"`python pipeline/shards.py verify {manifest.root}` says what to replace"
                )
        return None
