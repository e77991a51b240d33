"""A test that may be looked at after every request and stop as soon as it decides, and its interval.

The mixture sequential probability ratio test of Robbins ("Statistical Methods Related to the Law of the Iterated
Logarithm", Annals of Mathematical Statistics 41, 1970), as Johari, Koomen, Pekelis and Walsh bring it to A/B tests
("Always Valid Inference: Continuous Monitoring of A/B Tests", Operations Research 70, 2022; arXiv 1512.04922). For an
estimate t of an effect with variance V, and effects expected with a standard deviation `spread` = s around 0,

    evidence = sqrt(V / (V + s^2)) * exp(s^2 t^2 / (2 V (V + s^2)))

is, where there is no effect, a martingale that starts at 1. So by Ville's inequality it ever reaches 1 / alpha with a
probability of at most alpha, however often it is looked at. `spread` changes how soon an effect is seen, never the
error rate. The effects t that it would not refuse are the interval: it holds the true one at all looks together, with
probability 1 - alpha.

With an estimated V this is so for large samples. Where t is a mean of terms that are symmetric around 0 if there is no
effect, as the wins and losses of an interleaving are, and V is their sum of squares over n^2, it is so for every sample
(de la Pena, "A General Class of Exponential Inequalities for Martingales and Ratios", Annals of Probability 27, 1999).
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """An estimate with its variance, and the standard deviation of what effects are expected to be."""

    estimate: float
    variance: float
    spread: float

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence against no effect; 0 says nothing."""
        v, s2 = self.variance, self.spread**2
        return 0.5 * math.log(v / (v + s2)) + s2 * self.estimate**2 / (2 * v * (v + s2))

    @property
    def p_value(self) -> float:
        """Always valid: below alpha at any look with a probability of at most alpha where there is no effect."""
        return math.exp(min(0.0, -self.log_evidence))

    def interval(self, alpha: float) -> tuple[float, float]:
        v, s2 = self.variance, self.spread**2
        half = math.sqrt(v * (v + s2) / s2 * (math.log((v + s2) / v) - 2 * math.log(alpha)))
        return self.estimate - half, self.estimate + half

    def decided(self, alpha: float) -> bool:
        return self.log_evidence >= -math.log(alpha)
