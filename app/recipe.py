"""The recipe of one tuning: everything about it that a user may choose, with the reasons for the defaults.

Knows neither torch nor files: the API validates a recipe with this model, the trainer obeys it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.plainly import StrictModel, plainly

Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Auto = Literal["auto"]
Rate = Annotated[float, Field(gt=0, le=1e-2, allow_inf_nan=False)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
Soften = Annotated[float, Field(gt=0, le=1)]
Reach = Annotated[int, Field(ge=0, le=262_144)]
Temperature = Annotated[float, Field(ge=1e-3, le=1)]
# What a user asks for who wants nothing chosen by hand, and has the time: `adiabat tune --auto`.
AUTO: Mapping[str, Any] = dict.fromkeys(("learning_rate", "epochs", "reach", "temperature", "soften"), "auto") | {
    "runs": 3
}
MIN_PAIRS = 32  # of a query and a relevant passage: fewer are no training set
MAX_LOGITS = 2**26  # 256 MiB of fp32, of which a step has a few


class Recipe(StrictModel):
    """How a query encoder is tuned. The defaults are measured (docs/LOG.md): a large step, partly taken back.

    What says "auto" is found by a search on the choose halves of dev and guards (docs/adiabatic.md).
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    loss: Literal["infonce", "triplet"] = Field(
        "infonce",
        description="infonce: each query against the index, the passages of its batch, and mined negatives; "
        "triplet: one mined negative and a cosine margin, as in the paper, for very gentle rates.",
    )
    learning_rate: Annotated[Rate | Auto, plainly("must be a number above 0 and at most 0.01 or 'auto'")] = Field(
        2e-4,
        description="AdamW's peak rate. Large on purpose: 'soften' takes a part of the step back, and that "
        "buys more in the domain for the same loss elsewhere than a small rate does. auto: found on a grid from 1e-7 "
        "to 1e-3.",
    )
    epochs: Annotated[Epochs | Auto, plainly("must be a whole number from 1 to 1000 or 'auto'")] = Field(
        3, description="Passes over the training pairs; with 10,000 of them 1 does nearly as much. auto: 1 or 3."
    )
    batch_size: int = Field(
        64,
        ge=2,
        le=4096,
        description="Pairs per step. Each one's passage is a negative for the others: larger is harder.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=4096,
        description="Parts in which a step's queries go through the encoder. It saves memory and changes "
        "nothing else: passages are constants, so each part is compared with those of the whole batch.",
    )
    temperature: Annotated[Temperature | Auto, plainly("must be a number from 0.001 to 1 or 'auto'")] = Field(
        0.045,
        description="InfoNCE's softmax temperature; smaller looks only at the hardest negatives, which buys the domain "
        "at the cost of other languages. With thousands of pairs and a reach of 3 even 0.03 costs them little. auto: "
        "0.045, or 0.03 with the small reach.",
    )
    corpus_negatives: int = Field(
        16_384,
        ge=0,
        le=262_144,
        description="InfoNCE: so many passages of the index, drawn anew for each step (all, where it holds no more), "
        "are negatives for every query. Their vectors are there already, so they cost little, and what is learnt is "
        "the ranking of the index itself: it keeps other languages better than mined negatives do.",
    )
    reach: Annotated[Reach | Auto, plainly("must be a whole number from 0 to 262144 or 'auto'")] = Field(
        10,
        description="InfoNCE: a pair teaches in a step only if its passage is among this many best of the step's "
        "candidates, for the encoder as it then is. What is out of reach pulls hardest, and other languages pay for "
        "it; what comes into reach on the way is learnt then. Fewer is gentler, and asks for more pairs. 0: all pairs "
        "teach. auto: 10 or 3.",
    )
    mined_negatives: int = Field(
        0,
        ge=0,
        le=64,
        description="Hard negatives per query, found with the parent encoder. They buy the domain at the cost of "
        "other languages. Triplet needs at least 1, and takes 1 when this says 0.",
    )
    mine_depth: int = Field(
        30,
        ge=1,
        le=1000,
        description="Negatives are drawn from this many best-ranked passages; deeper is easier and has fewer "
        "unjudged positives among the negatives.",
    )
    false_negative_margin: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="A passage is no negative of a query, mined or of the batch, if the parent's cosine to it is "
        "above that to the query's best positive less this margin (NV-Retriever's TopK-MarginPos; there 0.05). "
        "Off: it also takes out what the parent ranks too high, which is what a tuning has to learn.",
    )
    margin: float = Field(0.1, gt=0, le=2, description="The triplet loss's margin in cosine distance.")
    freeze: tuple[Pattern, ...] = Field(
        (),
        max_length=100,
        description="Further parameters to keep still, as shell patterns over their names, for example "
        "'*.output.dense.weight'. The embedding block is frozen always: it holds the other languages' words.",
    )
    warmup: float = Field(0.1, ge=0, le=1, description="Share of the steps over which the rate rises from zero.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the rate falls after the warm-up; constant does not."
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        le=1,
        description="AdamW's decay pulls towards zero and not towards the parent, so it forgets: off.",
    )
    drift_penalty: float = Field(
        0.0,
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="Weight of the mean drift, 1 - cos(parent(q), tuned(q)), over the batch's queries, added to the "
        "loss. Off: it sees only the training's own language, and 'soften' holds all of them.",
    )
    layer_decay: float = Field(
        0.8,
        gt=0,
        le=1,
        description="The topmost layer has the whole rate, each one below it this share of the rate of the one "
        "above, which spares what the lower layers learnt from all languages: more of the step can be kept for the "
        "same loss there. 1: the same rate everywhere.",
    )
    max_grad_norm: float = Field(
        1.0,
        gt=0,
        description="Gradients longer than this are cut, so that one odd batch cannot throw the encoder.",
    )
    average: float = Field(
        0.0,
        ge=0,
        le=1,
        description="The result is the mean of the weights after each step of this last share of the steps. Off: "
        "with a rate that falls to zero it made no difference that counts.",
    )
    runs: int = Field(
        1,
        ge=1,
        le=16,
        description="So many tunings, from seed, seed + 1 and so on, whose weights are averaged before softening. It "
        "costs so many times the time. Where more than softening is auto, what is best in one run is tuned so often.",
    )
    soften: Annotated[Soften | Auto, plainly("must be a number above 0 and at most 1 or 'auto'")] = Field(
        "auto",
        description="The share of the step that is kept: theta = parent + soften (tuned - parent). 1 keeps all. auto: "
        "the best of ten on the choose halves.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Order of the batches and choice of the negatives.")
    eval_every: int = Field(
        100,
        ge=0,
        description="Steps from one look at dev, guards and drift to the next; 0: none during the tuning. A look "
        "changes nothing of the weights' course.",
    )
    patience: int = Field(
        0,
        ge=0,
        description="The tuning ends when this many looks found dev no better, and the best weights that were looked "
        "at are the result. 0: it goes to its end, where the rate is smallest, and the last weights are.",
    )
    drift_budget: float | None = Field(
        None,
        gt=0,
        le=2,
        description="The tuning ends when a look finds a guard's drift above this, and the best weights looked at "
        "before are the result.",
    )

    @model_validator(mode="after")
    def _ending_needs_looks(self) -> Self:
        if self.eval_every == 0 and self.ends_early:
            raise ValueError("eval_every is 0, so patience and drift_budget would never be looked at: set it above 0.")
        return self

    @model_validator(mode="after")
    def _fits_into_memory(self) -> Self:
        columns = self.corpus_negatives + self.batch_size * (1 + self.mined_negatives)
        if self.loss == "infonce" and self.batch_size * columns > MAX_LOGITS:
            raise ValueError(
                f"batch_size x candidates is {self.batch_size} x {columns}, above {MAX_LOGITS}: too much for a step's "
                "memory. Choose fewer corpus_negatives or a smaller batch_size."
            )
        return self

    @property
    def ends_early(self) -> bool:
        """Whether the result is the best that was looked at, instead of the last."""
        return self.patience > 0 or self.drift_budget is not None

    def fixed(self, **values: float) -> "FixedRecipe":
        """One run with these values, and none of them "auto"; softening comes after the tuning."""
        return FixedRecipe(**self.model_dump() | values)


class FixedRecipe(Recipe):
    """A recipe with nothing left to be found before the tuning."""

    learning_rate: Rate = 2e-4
    epochs: Epochs = 3
    reach: Reach = 10
    temperature: Temperature = 0.045


class Gate(StrictModel):
    """What a tuned encoder must show, on questions that nothing was chosen by, before it may become active.

    A rule looks at what a difference is at least, with confidence 1 - alpha, and not at the difference itself: a
    set of too few questions cannot show that nothing was lost, and does not pass by being small.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    min_gain: float = Field(
        0.0,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="What dev MRR@10 must gain at least, with confidence: 0 asks for a gain that is no accident. "
        "-1 asks nothing.",
    )
    max_guard_loss: float = Field(
        0.02,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Most that any guard's MRR@10 may fall, with confidence: one question in 25 that falls from the "
        "first place to the second. A guard must be large enough to show that it lost less: 600 questions on 120 "
        "passages show 0.02 where nothing was lost, 50 questions 0.1. 1 allows everything.",
    )
    max_drift: float | None = Field(
        None,
        gt=0,
        le=2,
        allow_inf_nan=False,
        description="Most that the queries of any guard may drift from the base, as the mean of 1 - cos. Not asked by "
        "default: drift is not loss, and encoders differ in how much of it they bear. For guards whose judgments "
        "are few.",
    )
    alpha: float = Field(
        0.05,
        gt=0,
        le=0.5,
        allow_inf_nan=False,
        description="The risk, of each rule, to let an encoder pass that should not. Smaller asks for more questions.",
    )
