"""LlamaIndex's retriever over a running service; `pip install 'adiabat[llama-index]'`.

nodes = AdiabatRetriever("http://127.0.0.1:8000", similarity_top_k=5).retrieve("how to keep bees quiet")
"""

import asyncio
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from app.adapters import connected, metadata_of
from app.client import DEFAULT_URL
from app.wire.search import Mode


class AdiabatRetriever(BaseRetriever):
    """`filter` is Qdrant's filter JSON over the metadata; `encoder` embeds the queries instead of the active one.

    `mode` is `dense` (a node's score is the cosine of query and passage), `lexical` (by words: BM25) or `hybrid` (both,
    fused). Raises `app.client.ApiError` and `Unreachable`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        similarity_top_k: int = 10,
        filter: dict[str, Any] | None = None,
        encoder: str | None = None,
        mode: Mode = "dense",
    ) -> None:
        super().__init__()
        self._client = connected(self, url, api_key)
        self._asked: dict[str, Any] = {
            "mode": mode,
            "limit": similarity_top_k,
            "filter": filter,
            "encoder": encoder,
        }

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._client.search(query_bundle.query_str, **self._asked).hits
        return [
            NodeWithScore(node=TextNode(id_=hit.id, text=hit.text, metadata=metadata_of(hit)), score=hit.score)
            for hit in hits
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)
