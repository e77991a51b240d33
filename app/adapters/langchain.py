"""LangChain's vector store over a running service; `pip install 'adiabat[langchain]'`.

store = AdiabatVectorStore("http://127.0.0.1:8000")
retriever = store.as_retriever(search_kwargs={"k": 5, "filter": {"must": [{"key": "lang", "match": {"value": "en"}}]}})
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from app.adapters import connected, metadata_of
from app.client import DEFAULT_URL, ApiError
from app.wire.passages import PassagePublic
from app.wire.search import HitPublic, Mode

OWN_EMBEDDINGS = (
    "Adiabat embeds passages and queries by itself, so that its encoder can be switched; pass embedding=None."
)


class AdiabatVectorStore(VectorStore):
    """`encoder` (`name` or `name@version`) embeds the queries instead of the active one. `mode` is `dense`, `lexical`
    (by words: BM25) or `hybrid` (both, fused); a search may name another (`search_kwargs={"mode": "hybrid"}`).

    A document's `id`, `page_content` and `metadata` are a passage's id, text and metadata. Every method raises
    `app.client.ApiError` where the service refuses and `Unreachable` where it does not answer.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        encoder: str | None = None,
        mode: Mode = "dense",
    ) -> None:
        self._client = connected(self, url, api_key)
        self._encoder = encoder
        self._mode: Mode = mode

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **_: Any,
    ) -> list[str]:
        """Their ids: those that were given, or new ones. Raises `ValueError` for what is no passage; the rest is in."""
        given = list(texts)
        made = [id or str(uuid.uuid4()) for id in ids] if ids else [str(uuid.uuid4()) for _ in given]
        rows = zip(made, given, metadatas or [{} for _ in given], strict=True)
        stored = self._client.stream_passages({"id": id, "text": text, "metadata": data} for id, text, data in rows)
        if stored.bad_lines:
            first = stored.bad_lines[0]
            raise ValueError(f"{stored.bad_line_count} texts were refused; number {first.line}: {first.problem}")
        return made

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Whether all of them were there. Raises `ValueError` without ids: that would mean everything."""
        if ids is None:
            raise ValueError("Name the ids to delete; a service's whole content is not deleted from here.")
        return not ids or self._client.delete_passages(ids) == len(set(ids))

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """In this order; one that is not there is left out."""
        found = []
        for id in ids:
            try:
                found.append(_document(self._client.passage(id)))
            except ApiError as error:
                if error.slug != "passage-not-found":
                    raise
        return found

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """`filter` is Qdrant's filter JSON over the metadata."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **options)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: dict[str, Any] | None = None,
        mode: Mode | None = None,
        **_: Any,
    ) -> list[tuple[Document, float]]:
        """Best first; in mode `dense` with the cosine of query and passage."""
        answer = self._client.search(query, mode=mode or self._mode, limit=k, filter=filter, encoder=self._encoder)
        return [(_document(hit), hit.score) for hit in answer.hits]

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """Raises `ValueError` in another mode than `dense`."""
        if (mode := options.get("mode") or self._mode) != "dense":
            raise ValueError(f"The scores of mode {mode!r} have no end to make 1 of; ask for similarity_search.")
        return super()._similarity_search_with_relevance_scores(query, k, **options)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (1 + cosine) / 2  # LangChain wants 0 to 1

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        mode: Mode = "dense",
        **_: Any,
    ) -> Self:
        """A store over the service with these texts in it. Raises `ValueError` for an `embedding` that is not None."""
        if embedding is not None:
            raise ValueError(OWN_EMBEDDINGS)
        store = cls(url, api_key, mode=mode)
        store.add_texts(texts, metadatas, ids=ids)
        return store


def _document(found: HitPublic | PassagePublic) -> Document:
    return Document(id=found.id, page_content=found.text, metadata=metadata_of(found))
