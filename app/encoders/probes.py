"""Probe texts: short sentences in many languages that every encoder embeds once, when it is published.

The vectors are kept in the artifact. At each activation the loaded engine embeds the texts again and must
agree, so a wrong graph, a wrong weight or a wrong tokenizer is seen before a request meets it. The same
vectors tell how near an encoder of unknown lineage is to the base.
"""

import numpy as np
from numpy.typing import NDArray

from app.encoders.engine import Precision
from app.errors import EncoderBroken

PROBE_TEXTS = (
    "How often should the water filter be replaced?",
    "side effects of the new medicine",
    "The train to the coast leaves every morning at seven.",
    "error: connection refused",
    "Wie lange dauert die Heilung nach der Operation?",
    "¿Dónde puedo renovar mi permiso de conducir?",
    "Les enfants jouent dans le jardin derrière la maison.",
    "Làm thế nào để trồng lúa trên đất phèn?",
    "如何重置密码",
    "Где находится ближайшая аптека?",
    "كيف أحضّر القهوة العربية؟",
    "x",
)
# The least cosine of an engine's vectors to those recorded in fp32. bf16 has 8 bits of mantissa: MiniLM is at 0.99997.
LEAST_COSINE: dict[Precision, float] = {"fp32": 1 - 1e-5, "bf16": 0.999}


def check_unit(vectors: NDArray[np.float32], dimension: int) -> None:
    """Raise `EncoderBroken` unless `vectors` (n, dim) are finite and non-zero, with the dimension expected."""
    if vectors.shape[1] != dimension:
        raise EncoderBroken(f"The encoder gives {vectors.shape[1]} dimensions, its artifact says {dimension}.")
    if not np.isfinite(vectors).all():
        raise EncoderBroken("The encoder gives vectors that are not finite (NaN or infinity).")
    if not (np.linalg.norm(vectors, axis=1) > 0).all():
        raise EncoderBroken("The encoder gives zero vectors.")


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row-wise cosine of two (n, dim) arrays, shape (n,)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    products = (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return np.asarray(products)


def check_recorded(vectors: NDArray[np.float32], recorded: NDArray[np.float32], precision: Precision = "fp32") -> float:
    """The lowest cosine to what the artifact recorded at publish, in fp32.

    Raises `EncoderBroken` where the engine does not reproduce it.
    """
    check_unit(vectors, recorded.shape[1])
    lowest = float(cosines(vectors, recorded).min())
    if lowest >= LEAST_COSINE[precision]:
        return lowest
    figures = f"lowest cosine {lowest:.7f}, at least {LEAST_COSINE[precision]} expected"
    if precision == "fp32":
        raise EncoderBroken(
            f"The loaded encoder does not reproduce the vectors recorded when it was published ({figures}): its files "
            "were changed or damaged."
        )
    raise EncoderBroken(
        f"In {precision} the encoder is too far from its vectors in fp32 ({figures}); set ADIABAT_PRECISION=fp32."
    )
