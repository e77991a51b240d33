"""The real llama-index-core over a live service."""

import asyncio

import pytest

from tests.adapters.conftest import GERMAN
from tests.conftest import Service

pytest.importorskip("llama_index.core", reason="the extra 'llama-index' is not installed")

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine

from app.adapters.llama_index import AdiabatRetriever


def test_a_retriever_and_a_query_engine_on_it_find_what_the_service_finds(filled: Service) -> None:
    retriever = AdiabatRetriever(filled.url, similarity_top_k=2)
    hits = filled.client.search("water pump", limit=2).hits
    for nodes in (retriever.retrieve("water pump"), asyncio.run(retriever.aretrieve("water pump"))):
        assert [(node.node_id, node.text, node.score) for node in nodes] == [
            (hit.id, hit.text, hit.score) for hit in hits
        ]
    [german] = AdiabatRetriever(filled.url, filter=GERMAN).retrieve("water pump")
    assert (german.node_id, german.metadata) == ("b", {"lang": "de"})
    for mode in ("lexical", "hybrid"):
        nodes = AdiabatRetriever(filled.url, mode=mode).retrieve("water pump")
        expected = filled.client.search("water pump", mode=mode).hits
        assert [(node.node_id, node.score) for node in nodes] == [(hit.id, hit.score) for hit in expected]
    answer = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query("water pump")
    assert [node.node_id for node in answer.source_nodes] == [hit.id for hit in hits]
    assert hits[0].text in str(answer)
