"""The asynchronous client: one method per call of the HTTP interface. `synchronous.py` is made from this file.

    async with AsyncAdiabatClient("http://127.0.0.1:8000") as client:
        await client.upsert_passages([{"id": "1", "text": "A smoker calms a colony."}])
        for hit in (await client.search("how to keep bees quiet")).hits:
            print(hit.score, hit.id)

Every method answers with a typed model (`app.wire`), raises `ApiError` where the service refuses and `Unreachable`
where nobody answers. What the service refused for now (429, 503) is tried again after its Retry-After; a broken
connection only where the call has the same effect twice.
"""

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from app.client.common import (
    CONNECT_S,
    DEFAULT_URL,
    FINISHED,
    RETRIES,
    ApiError,
    Json,
    Model,
    OnProgress,
    async_chunks,
    async_sleep,
    file_chunks,
    if_match,
    parsed,
    quoted,
    refusal,
    split_key,
    unreachable,
    wait_s,
    without_none,
)
from app.client.watching import job_bar
from app.wire.active_encoder import ActivationPublic, ActiveEncoder, History, SwitchedPublic
from app.wire.datasets import DatasetList, DatasetPublic
from app.wire.encoders import EncoderList, EncoderPublic
from app.wire.health import Ready, Version
from app.wire.passages import Count, Deleted, PassagePage, PassagePublic, PassagesUpserted
from app.wire.search import SearchBatchResponse, SearchResponse
from app.wire.tuning_jobs import TuningJobList, TuningJobPublic


class AsyncAdiabatClient:
    """A connection to one service. `timeout_s` is how long one call may take, `retries` how often it is repeated."""

    def __init__(
        self, url: str = DEFAULT_URL, api_key: str | None = None, *, timeout_s: float = 120, retries: int = RETRIES
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url.rstrip("/")
        self._retries = retries
        # Registering or activating a large encoder takes its time; connecting does not.
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
        self._http = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _1: type[BaseException] | None, _2: BaseException | None, _3: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def search(
        self,
        query: str,
        *,
        limit: int = 10,
        offset: int | None = None,
        cursor: str | None = None,
        filter: Json | None = None,
        score_threshold: float | None = None,
        encoder: str | None = None,
        compare_to: str | None = None,
        exact: bool = False,
        with_query_vector: bool = False,
    ) -> SearchResponse:
        """The passages nearest to `query`, with the active encoder or `encoder` (`name` or `name@version`).

        `filter` is Qdrant's filter JSON over the passages' metadata. `cursor`, the last answer's `next_cursor`, goes
        on with the encoder that the first page had. `compare_to` also ranks with that encoder: `compared_rank` and
        `new` per hit, `compared_to.lost`.
        """
        body = {"query": query, "limit": limit, "exact": exact, "with_query_vector": with_query_vector}
        body |= without_none(offset=offset, cursor=cursor, filter=filter, score_threshold=score_threshold)
        body |= without_none(encoder=encoder, compare_to=compare_to)
        return await self._call(SearchResponse, "POST", "/search", json=body)

    async def search_batch(
        self,
        queries: list[str],
        *,
        limit: int = 10,
        filter: Json | None = None,
        score_threshold: float | None = None,
        encoder: str | None = None,
        exact: bool = False,
        with_query_vector: bool = False,
    ) -> SearchBatchResponse:
        """Up to 256 queries with one encoder and one set of options; one of `results` for each, in their order."""
        body = {"queries": queries, "limit": limit, "exact": exact, "with_query_vector": with_query_vector}
        body |= without_none(filter=filter, score_threshold=score_threshold, encoder=encoder)
        return await self._call(SearchBatchResponse, "POST", "/search/batch", json=body)

    async def upsert_passages(self, passages: Iterable[Json], *, durable: bool = False) -> PassagesUpserted:
        """Add or replace `{id, text, title?, metadata?}`; with `durable`, answered when it has reached the disk."""
        body = {"passages": list(passages), "durable": durable}
        return await self._call(PassagesUpserted, "POST", "/passages", json=body)

    async def passage(self, passage_id: str) -> PassagePublic:
        return await self._call(PassagePublic, "GET", f"/passages/{quoted(passage_id)}")

    async def passages(self, cursor: str | None = None, limit: int = 100) -> PassagePage:
        """A page; its `next_cursor` is None on the last."""
        return await self._call(PassagePage, "GET", "/passages", params=without_none(limit=limit, cursor=cursor))

    async def count_passages(self) -> int:
        return (await self._call(Count, "GET", "/passages/count")).count

    async def delete_passages(self, ids: list[str] | None = None, filter: Json | None = None) -> int:
        """Delete by ids or by filter; how many were deleted."""
        body = {"ids": ids} if ids is not None else {"filter": filter}
        return (await self._call(Deleted, "POST", "/passages/delete", json=body)).deleted

    async def encoders(self) -> list[EncoderPublic]:
        return (await self._call(EncoderList, "GET", "/encoders")).encoders

    async def encoder(self, key: str) -> EncoderPublic:
        """By `name@version`, or by `name`: the newest, with all `versions`."""
        return await self._call(EncoderPublic, "GET", f"/encoders/{quoted(key)}")

    async def register_encoder(
        self,
        name: str,
        *,
        path: str | None = None,
        job: str | None = None,
        description: str = "",
        labels: dict[str, str] | None = None,
        force: bool = False,
    ) -> EncoderPublic:
        """Register a sentence-transformers folder that the service can read, or what a tuning job made."""
        source = without_none(path=path, job=job)
        body = {"name": name, "source": source, "description": description, "labels": labels or {}, "force": force}
        return await self._call(EncoderPublic, "POST", "/encoders", json=body, headers=_once())

    async def delete_encoder(self, key: str) -> None:
        await self._send("DELETE", f"/encoders/{quoted(key)}")

    async def active_encoder(self) -> ActiveEncoder:
        return await self._call(ActiveEncoder, "GET", "/active-encoder")

    async def activate(
        self, key: str, *, force: bool = False, if_generation: int | None = None, timeout_s: float = 30
    ) -> SwitchedPublic:
        """Switch to `name` or `name@version`; with `if_generation`, only if that is still active."""
        body = split_key(key) | {"force": force, "timeout_s": timeout_s}
        return await self._call(SwitchedPublic, "PUT", "/active-encoder", json=body, headers=if_match(if_generation))

    async def rollback(self, *, if_generation: int | None = None) -> SwitchedPublic:
        """Activate the encoder before this one, as a new generation."""
        return await self._call(
            SwitchedPublic, "POST", "/active-encoder/rollback", headers=if_match(if_generation), repeatable=False
        )

    async def history(self, limit: int = 100) -> list[ActivationPublic]:
        """Newest first."""
        return (await self._call(History, "GET", "/active-encoder/history", params={"limit": limit})).activations

    async def create_tuning_job(self, name: str, dataset: str, **fields: Any) -> TuningJobPublic:
        """`fields`: parent, recipe, guards, gate, activate, as POST /tuning-jobs takes them."""
        body = {"name": name, "dataset": dataset, **fields}
        return await self._call(TuningJobPublic, "POST", "/tuning-jobs", json=body, headers=_once())

    async def tuning_jobs(self) -> list[TuningJobPublic]:
        """Newest first."""
        return (await self._call(TuningJobList, "GET", "/tuning-jobs")).tuning_jobs

    async def tuning_job(self, job_id: str) -> TuningJobPublic:
        return await self._call(TuningJobPublic, "GET", f"/tuning-jobs/{quoted(job_id)}")

    async def cancel_tuning_job(self, job_id: str) -> TuningJobPublic:
        return await self._call(TuningJobPublic, "POST", f"/tuning-jobs/{quoted(job_id)}/cancel")

    async def wait_for_job(
        self, job_id: str, on_progress: OnProgress | None = None, *, poll_s: float = 0.5, progress: bool = False
    ) -> TuningJobPublic:
        """The finished job. `on_progress` sees it at every look; `progress` draws a bar on standard error."""
        with job_bar(progress) as draw:
            while True:
                job = await self.tuning_job(job_id)
                draw(job)
                if on_progress:
                    on_progress(job)
                if job.status in FINISHED:
                    return job
                await async_sleep(poll_s)

    async def put_dataset(self, name: str, archive: Path) -> DatasetPublic:
        """Upload a zip in BEIR shape; the same name again replaces it."""
        headers = {"Content-Type": "application/zip"}
        return await self._call(
            DatasetPublic,
            "PUT",
            f"/datasets/{quoted(name)}",
            stream=lambda: file_chunks(archive),
            headers=headers,
        )

    async def datasets(self) -> list[DatasetPublic]:
        return (await self._call(DatasetList, "GET", "/datasets")).datasets

    async def dataset(self, name: str) -> DatasetPublic:
        return await self._call(DatasetPublic, "GET", f"/datasets/{quoted(name)}")

    async def ready(self) -> Ready:
        """The readiness report; raises `ApiError` with status 503 while the service is not ready."""
        return await self._call(Ready, "GET", "/health/ready", retries=0)

    async def version(self) -> str:
        return (await self._call(Version, "GET", "/version")).version

    async def _call(self, model: type[Model], method: str, path: str, **arguments: Any) -> Model:
        return parsed(model, await self._send(method, path, **arguments))

    async def _send(
        self,
        method: str,
        path: str,
        *,
        stream: Callable[[], Iterable[bytes]] | None = None,
        repeatable: bool = True,
        retries: int | None = None,
        **arguments: Any,
    ) -> bytes:
        """The body of the answer. `repeatable`: twice has the effect of once; `stream` gives the body anew."""
        last = self._retries if retries is None else retries
        for attempt in range(last + 1):
            error: ApiError | httpx.TransportError
            if stream:
                arguments["content"] = async_chunks(stream())
            try:
                response = await self._http.request(method, path, **arguments)
                if response.is_success:
                    return response.content
                error = refusal(response.status_code, response.content, response.headers)
            except httpx.TransportError as broken:
                error = broken
            pause_s = wait_s(attempt, error, repeatable=repeatable)
            if pause_s is None or attempt == last:
                break
            await async_sleep(pause_s)
        if isinstance(error, ApiError):
            raise error
        raise unreachable(error, self.url, method, path, self._http.timeout.read) from error


def _once() -> dict[str, str]:
    """A key under which the service does a thing once, however often the request arrives."""
    return {"Idempotency-Key": uuid.uuid4().hex}
