"""LlamaIndex's retriever over a running service; `pip install 'adiabat[llama-index]'`.

nodes = AdiabatRetriever("http://127.0.0.1:8000", similarity_top_k=5).retrieve("how to keep bees quiet")
"""

from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from app.adapters import metadata_of
from app.client import DEFAULT_URL, AdiabatClient, AsyncAdiabatClient
from app.wire.search import SearchResponse


class AdiabatRetriever(BaseRetriever):
    """`filter` is Qdrant's filter JSON over the metadata; `encoder` embeds the queries instead of the active one.

    A node's score is the cosine of query and passage. Raises `app.client.ApiError` and `Unreachable`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        similarity_top_k: int = 10,
        filter: dict[str, Any] | None = None,
        encoder: str | None = None,
    ) -> None:
        super().__init__()
        self._at = url, api_key
        self._asked: dict[str, Any] = {"limit": similarity_top_k, "filter": filter, "encoder": encoder}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        with AdiabatClient(*self._at) as client:
            return _nodes(client.search(query_bundle.query_str, **self._asked))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        async with AsyncAdiabatClient(*self._at) as client:
            return _nodes(await client.search(query_bundle.query_str, **self._asked))


def _nodes(answer: SearchResponse) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=hit.id, text=hit.text, metadata=metadata_of(hit)), score=hit.score)
        for hit in answer.hits
    ]
