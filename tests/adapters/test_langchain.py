"""The real langchain-core over a live service."""

import asyncio

import pytest

from app.client import ApiError
from tests.adapters.conftest import GERMAN
from tests.conftest import Service

pytest.importorskip("langchain_core", reason="the extra 'langchain' is not installed")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda

from app.adapters.langchain import AdiabatVectorStore


def test_a_retriever_in_a_chain_finds_what_the_service_finds(filled: Service) -> None:
    store = AdiabatVectorStore(filled.url)
    chain = store.as_retriever(search_kwargs={"k": 2}) | RunnableLambda(lambda found: [one.id for one in found])
    hits = filled.client.search("water pump", limit=2).hits
    assert chain.invoke("water pump") == [hit.id for hit in hits]
    assert asyncio.run(chain.ainvoke("water pump")) == [hit.id for hit in hits]
    assert chain.batch(["water pump", "heart"])[0] == [hit.id for hit in hits]
    [(german, score)] = store.similarity_search_with_score("water pump", k=3, filter=GERMAN)
    assert (german.id, german.page_content, german.metadata) == ("b", "die wasser pumpe", {"lang": "de"})
    assert score == pytest.approx(filled.client.search("water pump", filter=GERMAN).hits[0].score)
    assert [relevance for _, relevance in store.similarity_search_with_relevance_scores("water pump", k=1)] == [
        pytest.approx((1 + hits[0].score) / 2)
    ]
    assert store.get_by_ids(["c", "gone", "a"])[1].metadata == {"title": "pump", "lang": "en"}


def test_a_search_may_be_by_words_or_by_both(filled: Service) -> None:
    for mode in ("lexical", "hybrid"):
        expected = [(hit.id, hit.score) for hit in filled.client.search("water pump", mode=mode, limit=4).hits]
        made, asked = AdiabatVectorStore(filled.url, mode=mode), AdiabatVectorStore(filled.url)
        for found in (
            made.similarity_search_with_score("water pump"),
            asked.similarity_search_with_score("water pump", mode=mode),
        ):
            assert [(one.id, score) for one, score in found] == expected
        retriever = asked.as_retriever(search_kwargs={"k": 4, "mode": mode})
        assert [one.id for one in retriever.invoke("water pump")] == [id for id, _ in expected]
        with pytest.raises(ValueError, match=f"mode '{mode}'"):
            made.similarity_search_with_relevance_scores("water pump")
        with pytest.raises(ValueError, match=f"mode '{mode}'"):
            asked.similarity_search_with_relevance_scores("water pump", mode=mode)
        assert mode == "hybrid" or "c" not in dict(expected)


def test_documents_are_added_replaced_and_deleted(service: Service) -> None:
    store = AdiabatVectorStore(service.url)
    documents = [Document(id="x", page_content="engine oil", metadata={"n": 1}), Document(page_content="night light")]
    first, second = store.add_documents(documents)
    assert first == "x"
    assert store.get_by_ids([second])[0].page_content == "night light"
    store.add_documents([Document(id="x", page_content="engine oil filter")])
    assert [found.page_content for found in store.similarity_search("engine oil filter", k=1)] == ["engine oil filter"]
    assert asyncio.run(store.aget_by_ids(["x"]))[0].metadata == {}
    assert store.delete([second])
    assert not store.delete([second])
    assert service.client.count_passages() == 1
    with pytest.raises(ValueError, match=r"number 2: .*text"):
        store.add_texts(["fine", " "], ids=["f", "g"])
    with pytest.raises(ValueError, match="Name the ids"):
        store.delete()


def test_what_does_not_fit_is_refused(filled: Service) -> None:
    with pytest.raises(ValueError, match="embedding=None"):
        AdiabatVectorStore.from_texts(["a"], DeterministicFakeEmbedding(size=8), url=filled.url)
    store = AdiabatVectorStore.from_texts(["water engine"], None, ids=["w"], url=filled.url)
    assert store.get_by_ids(["w"])
    with pytest.raises(ApiError, match="nobody"):
        AdiabatVectorStore(filled.url, encoder="nobody").similarity_search("water")
