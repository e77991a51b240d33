"""The real haystack-ai over a live service."""

import pytest

from tests.adapters.conftest import GERMAN
from tests.conftest import Service

pytest.importorskip("haystack", reason="the extra 'haystack' is not installed")

from haystack import Pipeline
from haystack.components.builders import PromptBuilder

from app.adapters.haystack import AdiabatRetriever


def test_a_pipeline_finds_what_the_service_finds_also_after_yaml(
    filled: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADIABAT_API_KEY", "a secret key")
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    pipeline = Pipeline()
    pipeline.add_component("retriever", AdiabatRetriever(filled.url, top_k=2))
    template = "{% for document in documents %}{{ document.content }};{% endfor %}"
    pipeline.add_component("prompt", PromptBuilder(template, required_variables=["documents"]))
    pipeline.connect("retriever.documents", "prompt.documents")
    hits = filled.client.search("water pump", limit=2).hits
    written = pipeline.dumps()
    assert "a secret key" not in written
    for each in (pipeline, Pipeline.loads(written, allowed_modules=["app.adapters.haystack"])):
        answer = each.run({"retriever": {"query": "water pump"}}, include_outputs_from={"retriever"})
        found = answer["retriever"]["documents"]
        assert [(one.id, one.content, one.score) for one in found] == [(hit.id, hit.text, hit.score) for hit in hits]
        assert answer["prompt"]["prompt"] == "".join(f"{hit.text};" for hit in hits)
    for mode in ("lexical", "hybrid"):
        expected = [(hit.id, hit.score) for hit in filled.client.search("water pump", mode=mode).hits]
        made, asked = AdiabatRetriever(filled.url, mode=mode), AdiabatRetriever(filled.url)
        assert AdiabatRetriever.from_dict(made.to_dict()).mode == mode
        for found in (made.run("water pump"), asked.run("water pump", mode=mode)):
            assert [(one.id, one.score) for one in found["documents"]] == expected
    [german] = AdiabatRetriever(filled.url).run("water pump", filters=GERMAN)["documents"]
    assert (german.id, german.meta) == ("b", {"lang": "de"})
