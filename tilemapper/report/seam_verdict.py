"""What the seam figures of a map come to, in words.

Judged by all lines together and by each kind of line on its own: the median over all of them is
small where three kinds of four are clean, however hard the steps at the fourth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilemapper.report.lattice_lines import NONE

if TYPE_CHECKING:
    from tilemapper.report.comparison import Comparison
    from tilemapper.report.seam_figures import SeamJump

INVISIBLE, SMALL = 0.01, 0.1  # seam jump index up to which lines are called invisible, and faint
# A few lines have a high median by chance: the bound of a kind with one line is higher by this.
ONE_LINE = 4
AGREED = 2.0  # grey levels of overlap disagreement that the project's own goal allows


def standing_out(seams: SeamJump) -> str | None:
    """The kind of line that shows most and its excess, in words; None if no kind shows."""
    own = {group.axis: group.index for group in seams.groups if group.kind == NONE}
    shown = [
        (excess, group)
        for group in seams.groups
        if group.kind != NONE
        and (excess := group.index - own.get(group.axis, 0.0))
        > SMALL * (1 + ONE_LINE / group.lines)
    ]
    if not shown:
        return None
    excess, group = max(shown, key=lambda pair: pair[0])
    return f"{group.axis} {group.kind} ({excess:+.2f})"


def seam_verdict(found: Comparison) -> str:
    """The seam figures in words."""
    excess, where = found.seams.excess, standing_out(found.seams)
    if excess is None:
        return "No line of the lattice could be measured."
    if where is not None:
        words = f"The lattice shows, most of all at {where}"
    elif excess <= INVISIBLE:
        words = "The lattice does not show"
    elif excess <= SMALL:
        words = "The lattice shows faintly, if at all"
    else:
        words = "The lattice shows"
    if found.disagreement is None:
        return f"{words}."
    if found.disagreement <= AGREED:
        return f"{words}, {'but' if where else 'and'} overlapping tiles agree."
    return (
        f"{words}; overlapping tiles disagree by {found.disagreement:.1f} grey levels"
        f"{'' if where else ', which blending hides'}."
    )


def seam_tone(found: Comparison) -> str:
    """``good``, ``poor``, or "" where nothing was measured."""
    excess, apart = found.seams.excess, found.disagreement
    if excess is None:
        return ""
    hidden = excess <= SMALL and standing_out(found.seams) is None
    return "good" if hidden and (apart is None or apart <= AGREED) else "poor"
