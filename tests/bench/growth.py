"""How a cost grows with the size of its input, beside n log n: the points of a curve, the fitted exponent, the judgement.

Small inputs hide growth behind fixed costs, so the exponent is fitted to the largest points alone. A method that costs n² has 1.8 against
n log n between 10⁴ and 10⁵, one that costs n^1.5 has 1.4; measuring on a busy machine moves it by about a tenth.
"""

from __future__ import annotations

import itertools
import math

import msgspec

LAST_POINTS = 3
TOLERANCE = 0.2  # of the exponent; over a factor of ten in n that is a factor of 1.7 in cost


class Point(msgspec.Struct, frozen=True):
    """`cost` is that of the whole input of size `n`, in the curve's unit; `told` says for people what was seen there."""

    n: int
    cost: float
    told: str = ""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One curve, points in the order of `n`."""

    name: str
    n_is: str  # what is counted along it, such as "messages waiting"
    cost_is: str  # with unit, such as "seconds until all have arrived"
    points: list[Point]

    @property
    def exponent(self) -> float | None:
        """Of cost against n log n, over the last points, by least squares: 1 is n log n, under 1 is better. None for fewer than two."""
        logs = [(math.log(weight(point.n)), math.log(point.cost)) for point in self.points[-LAST_POINTS:] if point.cost > 0]
        if len(logs) < 2:
            return None
        mean_x, mean_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
        spread = sum((x - mean_x) ** 2 for x, _ in logs)
        return sum((x - mean_x) * (y - mean_y) for x, y in logs) / spread

    @property
    def steepest(self) -> float:
        """The most that cost grew between two points, divided by what n log n grew meanwhile."""
        steps = (
            (after.cost / before.cost) / (weight(after.n) / weight(before.n))
            for before, after in itertools.pairwise(self.points)
            if before.cost > 0
        )
        return max(steps, default=0.0)

    @property
    def worse_than_n_log_n(self) -> bool:
        return self.exponent is not None and self.exponent > 1 + TOLERANCE


def weight(n: int) -> float:
    """n log n, and over 0 for n = 1, too."""
    return n * math.log2(n + 1)
