"""Haystack's retriever over a running service; `pip install 'adiabat[haystack]'`.

pipeline.add_component("retriever", AdiabatRetriever("http://127.0.0.1:8000", top_k=5))
"""

from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import Secret

from app.adapters import connected, metadata_of
from app.client import DEFAULT_URL, AdiabatClient
from app.wire.search import Mode

KEY = Secret.from_env_var("ADIABAT_API_KEY", strict=False)


@component
class AdiabatRetriever:
    """Takes the query's text: no embedder goes before it. `filters` is Qdrant's filter JSON over the metadata.

    `mode` is `dense` (a document's score is the cosine of query and passage), `lexical` (by words: BM25) or `hybrid`
    (both, fused). Raises `app.client.ApiError` and `Unreachable`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: Secret | None = KEY,
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
        encoder: str | None = None,
        mode: Mode = "dense",
    ) -> None:
        self.url = url
        self.api_key = api_key
        self.top_k = top_k
        self.filters = filters
        self.encoder = encoder
        self.mode: Mode = mode
        self._client: AdiabatClient | None = None

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
        mode: Mode | None = None,
    ) -> dict[str, list[Document]]:
        """What is given here counts instead of what was given when the component was made."""
        if self._client is None:  # not before: a pipeline may be made where the key is not
            self._client = connected(self, self.url, self.api_key.resolve_value() if self.api_key else None)
        answer = self._client.search(
            query,
            mode=mode or self.mode,
            limit=top_k or self.top_k,
            filter=filters or self.filters,
            encoder=self.encoder,
        )
        documents = [
            Document(id=hit.id, content=hit.text, meta=metadata_of(hit), score=hit.score) for hit in answer.hits
        ]
        return {"documents": documents}

    def to_dict(self) -> dict[str, Any]:
        """For a pipeline in YAML; of the key only the variable's name."""
        return default_to_dict(
            self,
            url=self.url,
            api_key=self.api_key,
            top_k=self.top_k,
            filters=self.filters,
            encoder=self.encoder,
            mode=self.mode,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AdiabatRetriever":
        return default_from_dict(cls, data)
