"""`/v1` with the official Python client of the API whose shape it has."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from sentence_transformers import SentenceTransformer

from app.errors import BadInput
from app.openai_tokens import SIZE, Vocabulary
from app.settings import Settings
from tests.conftest import Service, running
from tests.service import encoders

KEY = "correct horse battery"
TEXTS = ["water pump", "wie funktioniert der ölfilter", "pain in the heart " * 10]

# What langchain-openai 1.7 sends for the two texts where nothing is said of tokens, by way of the `openai` client; in
# German a character spans two tokens, in the last word three.
BEES = {12840: b"what", 374: b" is", 264: b" a", 2967: b" bro", 347: b"od", 3830: b" box"}
BIENEN = {46802: b"wie", 282: b" f", 29758: b"\xc3\xbct", 55704: b"tere", 10864: b" ich", 426: b" B", 32361: b"ienen"}
BIENEN |= {737: b" im", 20704: b" Winter", 11410: b" \xf0\x9f", 238: b"\x90", 251: b"\x9d"}
AS_TEXT = ["what is a brood box", "wie füttere ich Bienen im Winter 🐝"]


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the form of cl100k_base.tiktoken, with the true tokens of the two texts among made-up ones."""
    known = BEES | BIENEN
    tokens = (known.get(number, b"<%d>" % number) for number in range(SIZE))
    path = tmp_path_factory.mktemp("vocabulary") / "cl100k_base.tiktoken"
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), number) for number, token in enumerate(tokens)))
    return path


@pytest.fixture
def served(settings: Settings) -> Iterator[Service]:
    with running(settings.model_copy(update={"api_key": KEY})) as service:
        yield service


@pytest.fixture
def ours(served: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_vectors_are_the_active_encoders_with_the_query_prompt(ours: openai.OpenAI, tiny: Path) -> None:
    model = SentenceTransformer(str(tiny))
    expected = model.encode(TEXTS, prompt_name="query")
    as_base64 = ours.embeddings.create(model="active", input=TEXTS)  # what the client asks for by default
    as_floats = ours.embeddings.create(model="active", input=TEXTS, encoding_format="float")
    for answer in (as_base64, as_floats):
        found = np.array([each.embedding for each in answer.data])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert [each.index for each in answer.data] == [0, 1, 2]
        assert answer.model == "base@1"
        assert answer.model_extra["encoder"]["generation"] == 1
    tokens = sum(
        len(ids) for ids in model.tokenizer([f"query: {text}" for text in TEXTS], truncation=True)["input_ids"]
    )
    assert (as_base64.usage.prompt_tokens, as_base64.usage.total_tokens) == (tokens, tokens)


def test_two_thousand_and_forty_eight_inputs_are_one_call(ours: openai.OpenAI) -> None:
    texts = [f"water {n}" for n in range(2_048)]
    answer = ours.embeddings.create(model="active", input=texts)
    assert len(answer.data) == 2_048
    one = ours.embeddings.create(model="active", input=texts[1_777]).data[0].embedding
    np.testing.assert_allclose(answer.data[1_777].embedding, one, atol=1e-5)
    with pytest.raises(openai.UnprocessableEntityError, match="2048 may be sent at once"):
        ours.embeddings.create(model="active", input=[*texts, "one more"])


def test_token_numbers_are_read_back_where_the_service_has_the_vocabulary(settings: Settings, vocabulary: Path) -> None:
    with (
        running(settings.model_copy(update={"openai_vocabulary": vocabulary})) as service,
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as ours,
    ):

        def vectors(**given: Any) -> list[list[float]]:
            return [each.embedding for each in ours.embeddings.create(model="active", **given).data]

        expected = vectors(input=AS_TEXT)
        np.testing.assert_allclose(vectors(input=[list(BEES), list(BIENEN)]), expected, atol=1e-6)
        np.testing.assert_allclose(vectors(input=list(BEES)), expected[:1], atol=1e-6)
        for tokens, said in (
            ([SIZE], f"{SIZE} is no token"),
            ([-1], "-1 is no token"),
            ([11410], "within a character"),
            ([], r"input\[1\]: is empty"),
        ):
            with pytest.raises(openai.UnprocessableEntityError, match=said):
                vectors(input=[list(BEES), tokens])


def test_a_vocabulary_that_is_missing_or_another_is_refused(vocabulary: Path, tmp_path: Path) -> None:
    lines = vocabulary.read_bytes().splitlines(keepends=True)
    for name, content in {
        "cut": lines[:-1],
        "longer": [*lines, b"IQ== %d\n" % SIZE],
        "moved": [*lines[1:], lines[0]],
        "other": [b"no vocabulary\n"],
        "text": [line.replace(b" ", b"*  ") for line in lines],
    }.items():
        (tmp_path / name).write_bytes(b"".join(content))
        with pytest.raises(BadInput, match=f"ADIABAT_OPENAI_VOCABULARY: .*{name} is not cl100k_base"):
            Vocabulary(tmp_path / name)
    with pytest.raises(BadInput, match="No such file"):
        Vocabulary(tmp_path / "missing")


def test_models_are_the_encoders_and_active_follows_a_switch(
    served: Service, ours: openai.OpenAI, tiny: Path, sources: Path
) -> None:
    folder = encoders.near(tiny, sources / "tuned", scale=0.1)
    served.client.register_encoder("tuned", path=str(folder), force=True)
    assert [model.id for model in ours.models.list()] == ["active", "base@1", "tuned@1"]
    assert ours.models.retrieve("tuned").id == "tuned"
    before = ours.embeddings.create(model="active", input="water").data[0].embedding
    served.client.activate("tuned")
    after = ours.embeddings.create(model="active", input="water")
    assert after.model == "tuned@1"
    assert np.abs(np.array(before) - np.array(after.data[0].embedding)).max() > 1e-3
    named = ours.embeddings.create(model="base", input="water")
    np.testing.assert_allclose(named.data[0].embedding, before, atol=1e-6)


def test_refusals_have_the_shape_that_the_client_reads(ours: openai.OpenAI, served: Service) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody") as missing:
        ours.embeddings.create(model="nobody", input="x")
    assert missing.value.code == "encoder-not-found"
    with pytest.raises(openai.UnprocessableEntityError, match="token numbers"):
        ours.embeddings.create(model="active", input=[1, 2, 3])
    with pytest.raises(openai.UnprocessableEntityError, match="dimensions"):
        ours.embeddings.create(model="active", input="x", dimensions=7)
    with pytest.raises(openai.UnprocessableEntityError, match=r"input\[1\]: is empty"):
        ours.embeddings.create(model="active", input=["x", " "])
    for strange in (5, ["x", 5], [[1], ["x"]]):
        with pytest.raises(openai.UnprocessableEntityError, match=r"- input: must be a text, a list of texts, or"):
            ours.embeddings.create(model="active", input=strange)  # type: ignore[arg-type]
    stranger = ours.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError, match="needs a key that is valid here"):
        stranger.models.list()
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False) as http:
        for status, answer in (
            (401, http.get("/v1/models", headers={"Authorization": "Bearer wrong"})),
            (404, http.get("/v1/nothing")),
            (405, http.get("/v1/embeddings")),
            (413, http.post("/v1/embeddings", content=bytes(served.settings.max_body_bytes + 1))),
            (422, http.post("/v1/embeddings", json={})),
        ):
            body = answer.json()
            assert (answer.status_code, body["error"]["message"]) == (status, body["detail"])
