import pytest
from pydantic import ValidationError

from app.recipe import Recipe


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0),
        ("learning_rate", 0.1),
        ("learning_rate", float("nan")),
        ("epochs", 0),
        ("batch_size", 1),
        ("temperature", 0),
        ("soften", 0),
        ("soften", 1.01),
        ("warmup", 1.5),
        ("mined_negatives", -1),
        ("loss", "hinge"),
        ("freeze", [""]),
        ("seed", -1),
        ("max_grad_norm", 0),
        ("accumulate", 0),
        ("false_negative_margin", 1.5),
        ("drift_penalty", -0.1),
        ("drift_penalty", float("inf")),
        ("layer_decay", 0),
        ("layer_decay", 1.1),
        ("average", -0.1),
        ("average", 1.1),
        ("eval_every", -1),
        ("patience", -1),
        ("drift_budget", 0),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        Recipe.model_validate({field: value})
    assert refused.value.errors()[0]["loc"][0] == field


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="lerning_rate"):
        Recipe.model_validate({"lerning_rate": 1e-4})


def test_every_field_has_a_default_and_says_why() -> None:
    Recipe()
    assert all(field.description for field in Recipe.model_fields.values())


def test_a_recipe_survives_json_and_cannot_be_changed() -> None:
    recipe = Recipe(learning_rate=2e-8, freeze=("*.output.dense.weight",), loss="triplet")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    with pytest.raises(ValidationError):
        recipe.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("ending", [{"patience": 2}, {"drift_budget": 0.1}])
def test_an_early_end_without_looks_is_refused(ending: dict[str, float]) -> None:
    Recipe.model_validate(ending)
    with pytest.raises(ValidationError, match="eval_every is 0, so patience and drift_budget would never"):
        Recipe.model_validate({"eval_every": 0, **ending})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("learning_rate", -1, "must be a number above 0 and at most 0.01 or 'auto', not -1"),
        ("learning_rate", "fast", "or 'auto', not 'fast'"),
        ("epochs", 1.5, "must be a whole number from 1 to 1000 or 'auto', not 1.5"),
        ("soften", 0, "must be a number above 0 and at most 1 or 'auto', not 0"),
    ],
)
def test_what_is_neither_a_number_nor_auto_is_one_finding_under_its_name(field: str, value: object, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Recipe.model_validate({field: value})
    (finding,) = refused.value.errors()
    assert finding["loc"] == (field,)
    assert said in finding["msg"]


def test_a_step_that_no_memory_holds_is_refused() -> None:
    with pytest.raises(ValidationError, match="Choose fewer corpus_negatives or a smaller batch_size"):
        Recipe(batch_size=4096, corpus_negatives=262_144)
