"""A diagnosis: figures, where they stand between good and bad, and what to do, in words.

The good ones are this project's goals: tiles that disagree by 2 grey levels at most, 99 % of
pixels within one level between precisions, a batch that does not matter at all. The first weights
of the shipped model gave, on two sample cities, 5.4 and 8.7 levels of tile mismatch and 1.8 and
1.5 of grid shift; the same with each tile's own statistics, which is the fault to be found, 12.8
and 9.6, and 9.3 and 4.5. Tiles disagree most at their rims, which hardly count in the blend: the
grid shift is the better judge, so its bad begins earlier.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tilemapper import notebook

Grade = Literal["good", "fair", "bad", "not measured"]
# name -> (good up to, fair up to, what to do); of the precision gap more is better
BOUNDS: dict[str, tuple[float, float, str]] = {
    "batch invariance": (
        0.0,
        0.0,
        "the same raster may give other bytes with another --batch-size: keep it fixed, and "
        "report it",
    ),
    "train/eval gap": (
        3.0,
        10.0,
        "its frozen statistics are not those of its training: train on for a few hundred steps, "
        "or raise trainer.precise_bn_batches; of a model that was imported, import it again with "
        "--norm-stats instance",
    ),
    "precision gap": (0.99, 0.95, "render with --precision fp32"),
    "tile mismatch": (
        2.0,
        12.0,
        "neighbouring tiles paint the same ground differently: --overlap 96 or 128 spreads the "
        "difference wider; models with instance norm have most of it, and training with "
        "losses.overlap_disagreement lessens it",
    ),
    "grid shift": (
        2.0,
        6.0,
        "the map depends on where tiles happen to lie: try --overlap 96 or 128, or --tta; "
        "--uncertainty shows where it is unsure",
    ),
}
MORE_IS_BETTER = frozenset({"precision gap"})


@dataclass(frozen=True)
class Finding:
    """One figure of a diagnosis; ``value`` is None where it could not be measured."""

    name: str
    value: float | None
    words: str
    grade: Grade
    advice: str = ""

    @classmethod
    def of(cls, name: str, value: float, words: str) -> Finding:
        """A finding, graded by `BOUNDS`."""
        good, fair, advice = BOUNDS[name]
        sign = -1 if name in MORE_IS_BETTER else 1
        grade: Grade = "fair" if sign * value <= sign * fair else "bad"
        if sign * value <= sign * good:
            return cls(name, value, words, "good")
        return cls(name, value, words, grade, advice)


def unmeasured(name: str, why: str) -> Finding:
    """The finding of what could not be measured, or not in time."""
    return Finding(name, None, "-", "not measured", why)


@dataclass(frozen=True)
class Diagnosis:
    """What was found; ``verdict`` says it in a sentence."""

    model: str
    raster: str
    device: str
    tiles_s: float
    seconds: float
    findings: tuple[Finding, ...]
    notices: tuple[str, ...] = ()

    @property
    def grade(self) -> Grade:
        """The worst of all that was measured."""
        found = {finding.grade for finding in self.findings}
        return next((grade for grade in ("bad", "fair", "good") if grade in found), "not measured")

    @property
    def verdict(self) -> str:
        """In words."""
        bad = [finding.name for finding in self.findings if finding.grade == "bad"]
        fair = [finding.name for finding in self.findings if finding.grade == "fair"]
        skipped = [f.name for f in self.findings if f.grade == "not measured"]
        sentences = {
            "bad": f"{self.model} should not be used like this: {', '.join(bad)}",
            "fair": f"{self.model} can be used; mind {', '.join(fair)}",
            "good": f"{self.model} is sound on this raster",
            "not measured": f"{self.model} is too slow here to be measured",
        }
        left_out = f" ({', '.join(skipped)} not measured)" if skipped else ""
        return sentences[self.grade] + left_out

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self) | {"grade": self.grade, "verdict": self.verdict}

    def lines(self) -> list[str]:
        """The same in words."""
        width = max(len(finding.name) for finding in self.findings)
        lines = [*self.notices, f"{self.model} on {self.raster}, {self.device}, "
                 f"{self.tiles_s:.1f} tiles/s, {self.seconds:.1f} s"]  # fmt: skip
        for finding in self.findings:
            value = "" if finding.value is None else f"{_number(finding)} {finding.words}"
            found = "; ".join(part for part in (value, finding.advice) if part)
            lines.append(f"{finding.name:{width}}  {finding.grade:4}  {found}")
        return [*lines, f"verdict: {self.verdict}"]

    def _repr_html_(self) -> str:
        rows = [("figure", "grade", "found", "what to do")]
        rows += [
            (f.name, f.grade, "-" if f.value is None else f"{_number(f)} {f.words}", f.advice)
            for f in self.findings
        ]
        return notebook.table(rows, caption=f"{self.verdict} ({self.raster})")


def _number(finding: Finding) -> str:
    value = finding.value or 0.0
    return f"{value:.1%}" if finding.words.startswith("of ") else f"{value:.2f}"
