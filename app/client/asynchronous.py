"""The asynchronous client: one method per call of the HTTP interface. `synchronous.py` is made from this file.

    async with AsyncAdiabatClient("http://127.0.0.1:8000") as client:
        await client.upsert_passages([{"id": "1", "text": "A smoker calms a colony."}])
        for hit in (await client.search("how to keep bees quiet")).hits:
            print(hit.score, hit.id)

Every method answers with a typed model (`app.wire`), raises `ApiError` where the service refuses and `Unreachable`
where nobody answers. What the service refused for now (429, 503) is tried again after its Retry-After; a broken
connection only where the call has the same effect twice.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from app import wire
from app.client.common import (
    DEFAULT_URL,
    FINISHED,
    LAST_EVENT,
    NOTHING_MORE,
    RETRIES,
    ApiError,
    Job,
    Json,
    Model,
    OnBytes,
    OnEvaluation,
    OnProgress,
    as_parameter,
    async_chunks,
    async_sleep,
    connecting,
    dataset_kind,
    event_in,
    file_chunks,
    follow_wait_s,
    form_fields,
    if_match,
    ndjson_chunks,
    open_binary,
    parsed,
    quoted,
    refusal,
    split_key,
    unreachable,
    wait_s,
    without_none,
)
from app.client.watching import job_bar

if TYPE_CHECKING:
    import httpx


class AsyncAdiabatClient:
    """A connection to one service. `timeout_s` is how long one call may take, `retries` how often it is repeated."""

    def __init__(
        self, url: str = DEFAULT_URL, api_key: str | None = None, *, timeout_s: float = 120, retries: int = RETRIES
    ) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url.rstrip("/")
        self._retries = retries
        self._http = httpx.AsyncClient(base_url=self.url, headers=headers, **connecting(timeout_s))

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
        mode: wire.search.Mode = "dense",
        limit: int = 10,
        offset: int | None = None,
        cursor: str | None = None,
        filter: Json | None = None,
        score_threshold: float | None = None,
        encoder: str | None = None,
        route: str | None = None,
        compare_to: str | None = None,
        exact: bool = False,
        with_query_vector: bool = False,
        explain: bool = False,
        highlight: bool = False,
        lang: str | None = None,
        group_by: str | None = None,
        group_size: int | None = None,
    ) -> wire.search.SearchResponse:
        """The passages nearest to `query`, with `encoder` (`name` or `name@version`), a route's, or the active one.

        `route` names the route; without, the first that matches takes the search, by its filter, `lang` or the key.

        `mode` is `dense` (by vectors), `lexical` (by words: no encoder has a part) or `hybrid` (both, fused).
        `filter` is Qdrant's filter JSON over the passages' metadata. `cursor`, the last answer's `next_cursor`, goes
        on with the encoder that the first page had. `compare_to` also ranks with that encoder: `compared_rank` and
        `new` per hit, `compared_to.lost`. `explain` tells each hit's rank and score by vector, by words and by the
        vectors of `base`, `highlight` where in its text the query's words are. `lang` is the query's language, for
        routes and the query log. With `group_by`, a field of the metadata, the answer has `groups` instead of hits:
        `limit` of them, each with `group_size` (3) hits.
        """
        body: Json = {"query": query, "mode": mode, "limit": limit, "exact": exact, "explain": explain}
        body |= {"with_query_vector": with_query_vector, "highlight": highlight}
        body |= without_none(offset=offset, cursor=cursor, filter=filter, score_threshold=score_threshold)
        body |= without_none(encoder=encoder, route=route, compare_to=compare_to, lang=lang)
        body |= without_none(group_by=group_by, group_size=group_size)
        return await self._call(wire.search.SearchResponse, "POST", "/search", json=body)

    async def search_batch(
        self,
        queries: list[str],
        *,
        mode: wire.search.Mode = "dense",
        limit: int = 10,
        filter: Json | None = None,
        score_threshold: float | None = None,
        encoder: str | None = None,
        route: str | None = None,
        lang: str | None = None,
        exact: bool = False,
        with_query_vector: bool = False,
    ) -> wire.search.SearchBatchResponse:
        """Up to 256 queries with one encoder and one set of options; one of `results` for each, in their order."""
        body: Json = {"queries": queries, "mode": mode, "limit": limit, "exact": exact}
        body |= {"with_query_vector": with_query_vector}
        body |= without_none(filter=filter, score_threshold=score_threshold, encoder=encoder, route=route, lang=lang)
        return await self._call(wire.search.SearchBatchResponse, "POST", "/search/batch", json=body)

    async def upsert_passages(
        self, passages: Iterable[Json], *, durable: bool = False
    ) -> wire.passages.PassagesUpserted:
        """Add or replace `{id, text, title?, metadata?}`; with `durable`, answered when it has reached the disk."""
        body = {"passages": list(passages), "durable": durable}
        return await self._call(wire.passages.PassagesUpserted, "POST", "/passages", json=body)

    async def stream_passages(self, passages: Iterable[Json]) -> wire.passages.PassagesStreamed:
        """Add or replace any number, sent while `passages` is read and stored while it arrives.

        Bad ones are told in `bad_lines`, counted from 1, and stop nothing. Of a repeated id the last wins. Never
        tried again, since `passages` may be read only once: an `ApiError` says in `problem["stored_through_line"]`
        how many are stored, and sending all again does no harm.
        """
        return await self._call(
            wire.passages.PassagesStreamed,
            "POST",
            "/passages",
            stream=lambda: ndjson_chunks(passages),
            headers={"Content-Type": "application/x-ndjson"},
            retries=0,
        )

    async def passage(self, passage_id: str) -> wire.passages.PassagePublic:
        """One passage as it is stored; `passage-not-found` where there is none."""
        return await self._call(wire.passages.PassagePublic, "GET", f"/passages/{quoted(passage_id)}")

    async def passages(
        self, cursor: str | None = None, limit: int = 100, filter: Json | None = None, *, with_vectors: bool = False
    ) -> wire.passages.PassagePage:
        """A page of all passages, or of those that `filter` lets through; its `next_cursor` is None on the last."""
        params = without_none(limit=limit, cursor=cursor, filter=as_parameter(filter))
        params |= {"with_vectors": True} if with_vectors else {}
        return await self._call(wire.passages.PassagePage, "GET", "/passages", params=params)

    async def count_passages(self, filter: Json | None = None) -> int:
        """How many there are, or how many `filter` lets through."""
        return (
            await self._call(
                wire.passages.Count, "GET", "/passages/count", params=without_none(filter=as_parameter(filter))
            )
        ).count

    async def delete_passages(self, ids: list[str] | None = None, filter: Json | None = None) -> int:
        """Delete by ids or by filter; how many were deleted."""
        body = {"ids": ids} if ids is not None else {"filter": filter}
        return (await self._call(wire.passages.Deleted, "POST", "/passages/delete", json=body)).deleted

    async def encoders(self) -> list[wire.encoders.EncoderPublic]:
        """Every version of every encoder, deleted ones too; `state` tells."""
        return (await self._call(wire.encoders.EncoderList, "GET", "/encoders")).encoders

    async def encoder(self, key: str) -> wire.encoders.EncoderPublic:
        """By `name@version`, or by `name`: the newest, with all `versions`."""
        return await self._call(wire.encoders.EncoderPublic, "GET", f"/encoders/{quoted(key)}")

    async def register_encoder(
        self,
        name: str,
        *,
        path: str | None = None,
        job: str | None = None,
        hub: str | None = None,
        revision: str | None = None,
        archive: Path | BinaryIO | None = None,
        description: str = "",
        labels: dict[str, str] | None = None,
        force: bool = False,
    ) -> wire.encoders.EncoderPublic:
        """Register an encoder from one of these sources; the checks that ran are in its `checks`.

        `path`: a sentence-transformers folder on the server, in one of its ADIABAT_SOURCE_DIRS. `job`: what a tuning
        job made. `hub`: a name on the model hub, with `revision` if not the newest. `archive`: a zip, tar or tar.gz of
        such a folder here, which is uploaded.
        """
        body = {"name": name, "description": description, "labels": labels or {}, "force": force}
        if archive is not None:
            return await self._upload_encoder(archive, body)
        body["source"] = without_none(path=path, job=job, hub=hub, revision=revision)
        return await self._call(wire.encoders.EncoderPublic, "POST", "/encoders", json=body, headers=_once())

    async def _upload_encoder(self, archive: Path | BinaryIO, fields: Json) -> wire.encoders.EncoderPublic:
        with open_binary(archive) as file:
            return await self._call(
                wire.encoders.EncoderPublic,
                "POST",
                "/encoders",
                data=form_fields(fields),
                files={"archive": ("encoder", file)},
                headers=_once(),
            )

    async def download_encoder(self, key: str, target: Path, on_received: OnBytes | None = None) -> None:
        """Write the encoder's whole sentence-transformers folder to `target`, as tar.

        `on_received` sees how many bytes are there and how many there will be.
        """
        await self._download("GET", f"/encoders/{quoted(key)}/archive", target, on_received)

    async def delete_encoder(self, key: str) -> None:
        """Delete one `name@version`; `encoder-in-use` while it is active, previous, the base, or a job's parent."""
        await self._send("DELETE", f"/encoders/{quoted(key)}")

    async def active_encoder(self) -> wire.active_encoder.ActiveEncoder:
        """What `/search` uses, what was active before, and why it fell back to the base if it did."""
        return await self._call(wire.active_encoder.ActiveEncoder, "GET", "/active-encoder")

    async def activate(
        self, key: str, *, force: bool = False, if_generation: int | None = None, timeout_s: float = 30
    ) -> wire.active_encoder.SwitchedPublic:
        """Switch to `name` or `name@version`; with `if_generation`, only if that is still active."""
        body = split_key(key) | {"force": force, "timeout_s": timeout_s}
        return await self._call(
            wire.active_encoder.SwitchedPublic, "PUT", "/active-encoder", json=body, headers=if_match(if_generation)
        )

    async def start_canary(
        self,
        key: str,
        percent: float,
        *,
        sticky_by: str = "key",
        interleave: bool = False,
        rules: Json | bool = True,
        force: bool = False,
        if_generation: int | None = None,
        timeout_s: float = 30,
    ) -> wire.active_encoder.SwitchedPublic:
        """Let `name` or `name@version` answer `percent` of the searches beside the active encoder, the same ones by
        their key or by the header `sticky_by`; `interleave`: both answer those together. `activate` and `rollback` end
        it, and its rules by themselves: as PUT /active-encoder takes them, True: the defaults, False: none do."""
        canary = split_key(key) | {"percent": percent, "sticky_by": sticky_by, "interleave": interleave}
        if rules is not True:
            canary["rules"] = rules or None
        body = {"canary": canary, "force": force, "timeout_s": timeout_s}
        return await self._call(
            wire.active_encoder.SwitchedPublic, "PUT", "/active-encoder", json=body, headers=if_match(if_generation)
        )

    async def rollback(self, *, if_generation: int | None = None) -> wire.active_encoder.SwitchedPublic:
        """Activate the encoder before this one, as a new generation."""
        return await self._call(
            wire.active_encoder.SwitchedPublic,
            "POST",
            "/active-encoder/rollback",
            headers=if_match(if_generation),
            repeatable=False,
        )

    async def history(self, limit: int = 100) -> list[wire.active_encoder.ActivationPublic]:
        """Newest first."""
        return (
            await self._call(wire.active_encoder.History, "GET", "/active-encoder/history", params={"limit": limit})
        ).activations

    async def routes(self) -> list[wire.routes.RoutePublic]:
        """By name: in this order they are asked for a search that names none."""
        return (await self._call(wire.routes.RouteList, "GET", "/routes")).routes

    async def route(self, name: str) -> wire.routes.RouteDetail:
        """With its history, newest first."""
        return await self._call(wire.routes.RouteDetail, "GET", f"/routes/{quoted(name)}")

    async def set_route(
        self,
        name: str,
        encoder: str,
        *,
        match: Json | None = None,
        base_languages: Iterable[str] = (),
        base_languages_from_card: bool = False,
        force: bool = False,
        if_generation: int | None = None,
        timeout_s: float = 30,
    ) -> wire.routes.RouteSwitched:
        """Let `encoder` (`name` or `name@version`) answer searches that name the route, and those for which `match`
        holds: `{"filter": {"key", "value"}, "lang": […], "key": […]}`, all that it says. Those in `base_languages` stay
        on the base; with `base_languages_from_card` those too in which it is worse by its card, which the answer names
        (`from_card`). Replaces what the route was; with `if_generation`, only if that made it so."""
        body: Json = {"encoder": encoder, "match": match, "base_languages": list(base_languages)}
        body |= {"base_languages_from_card": base_languages_from_card, "force": force, "timeout_s": timeout_s}
        path = f"/routes/{quoted(name)}"
        return await self._call(wire.routes.RouteSwitched, "PUT", path, json=body, headers=if_match(if_generation))

    async def remove_route(self, name: str, *, if_generation: int | None = None) -> wire.routes.RouteSwitched:
        """The active encoder answers what it took by itself; searches that name it are refused from then on.

        `roll_route_back` brings it back.
        """
        return await self._call(
            wire.routes.RouteSwitched, "DELETE", f"/routes/{quoted(name)}", headers=if_match(if_generation)
        )

    async def roll_route_back(self, name: str, *, if_generation: int | None = None) -> wire.routes.RouteSwitched:
        """The route as it last stood otherwise, as a new generation."""
        path = f"/routes/{quoted(name)}/rollback"
        return await self._call(
            wire.routes.RouteSwitched, "POST", path, headers=if_match(if_generation), repeatable=False
        )

    async def create_tuning_job(self, name: str, dataset: str, **fields: Any) -> wire.tuning_jobs.TuningJobPublic:
        """`fields`: parent, recipe, guards, gate, activate, as POST /tuning-jobs takes them."""
        body = {"name": name, "dataset": dataset, **fields}
        return await self._call(wire.tuning_jobs.TuningJobPublic, "POST", "/tuning-jobs", json=body, headers=_once())

    async def tuning_jobs(self) -> list[wire.tuning_jobs.TuningJobPublic]:
        """Newest first."""
        return (await self._call(wire.tuning_jobs.TuningJobList, "GET", "/tuning-jobs")).tuning_jobs

    async def tuning_job(self, job_id: str) -> wire.tuning_jobs.TuningJobPublic:
        """Status, progress, and the result once it has ended."""
        return await self._call(wire.tuning_jobs.TuningJobPublic, "GET", f"/tuning-jobs/{quoted(job_id)}")

    async def cancel_tuning_job(self, job_id: str) -> wire.tuning_jobs.TuningJobPublic:
        """Ask it to stop; an interrupted job is given up for good."""
        return await self._call(wire.tuning_jobs.TuningJobPublic, "POST", f"/tuning-jobs/{quoted(job_id)}/cancel")

    async def resume_tuning_job(self, job_id: str) -> wire.tuning_jobs.TuningJobPublic:
        """Let an interrupted job go on from its last checkpoint."""
        path = f"/tuning-jobs/{quoted(job_id)}/resume"
        return await self._call(wire.tuning_jobs.TuningJobPublic, "POST", path, repeatable=False)

    async def job_events(self, job_id: str, *, after: int = 0) -> AsyncIterator[wire.tuning_jobs.JobEventPublic]:
        """What happened to the job after event number `after`, then what happens, until it has ended.

        A connection that breaks, or a service that restarts, is taken up again after the last event that was heard.
        """
        import httpx

        path, ended, heard, attempt = f"/tuning-jobs/{quoted(job_id)}/events", False, False, 0
        while not ended:
            try:
                async with self._http.stream("GET", path, params={"after": after}) as response:
                    if not response.is_success:
                        raise refusal(response.status_code, await response.aread(), response.headers)
                    ended = response.status_code == NOTHING_MORE
                    async for line in response.aiter_lines():
                        if event := event_in(line):
                            after, ended, heard, attempt = event.sequence, event.kind == LAST_EVENT, True, 0
                            yield event
                if not ended:  # a service that stops ends its streams
                    raise httpx.RemoteProtocolError("the stream ended before the job did")
            except (ApiError, httpx.TransportError) as broken:
                pause_s = follow_wait_s(attempt, broken, heard=heard) if self._retries else None
                if pause_s is None and isinstance(broken, httpx.TransportError):
                    raise unreachable(broken, self.url, "GET", path, self._http.timeout.read) from broken
                if pause_s is None:
                    raise
                attempt, ended = attempt + 1, False  # that end may have been a resumed job's first
                await async_sleep(pause_s)

    async def wait_for_job(
        self, job_id: str, on_progress: OnProgress | None = None, *, poll_s: float = 0.5, progress: bool = False
    ) -> wire.tuning_jobs.TuningJobPublic:
        """The finished job. `on_progress` sees it at every look; `progress` draws a bar on standard error."""
        return await self._wait(
            wire.tuning_jobs.TuningJobPublic, f"/tuning-jobs/{quoted(job_id)}", on_progress, poll_s, progress
        )

    async def _wait(
        self, model: type[Job], path: str, on_progress: Callable[[Job], None] | None, poll_s: float, progress: bool
    ) -> Job:
        with job_bar(progress) as draw:
            while True:
                job = await self._call(model, "GET", path)
                draw(job)
                if on_progress:
                    on_progress(job)
                if job.status in FINISHED:
                    return job
                await async_sleep(poll_s)

    async def create_evaluation(
        self, datasets: list[str] | None = None, encoders: list[str] | None = None, *, replay: Json | None = None
    ) -> wire.evaluations.EvaluationPublic:
        """Measure `encoders` (`name@version`, `name` or `active`; without: base and active) on `datasets`.

        A dataset is `name`, meaning its split `test`, or `name:split`. The base is measured always. `replay`, as
        `{"since": …, "limit": 1000, "sample": 20}`, asks searches of the query log again.
        """
        body = without_none(datasets=datasets, encoders=encoders, replay=replay)
        return await self._call(wire.evaluations.EvaluationPublic, "POST", "/evaluations", json=body, headers=_once())

    async def evaluations(self) -> list[wire.evaluations.EvaluationPublic]:
        """Newest first, without their results."""
        return (await self._call(wire.evaluations.EvaluationList, "GET", "/evaluations")).evaluations

    async def evaluation(self, evaluation_id: str) -> wire.evaluations.EvaluationPublic:
        """Status, progress, and the matrix once it has succeeded."""
        return await self._call(wire.evaluations.EvaluationPublic, "GET", f"/evaluations/{quoted(evaluation_id)}")

    async def cancel_evaluation(self, evaluation_id: str) -> wire.evaluations.EvaluationPublic:
        """Ask it to stop; an interrupted one is given up."""
        return await self._call(
            wire.evaluations.EvaluationPublic, "POST", f"/evaluations/{quoted(evaluation_id)}/cancel"
        )

    async def resume_evaluation(self, evaluation_id: str) -> wire.evaluations.EvaluationPublic:
        """Let an interrupted one be measured from the start."""
        path = f"/evaluations/{quoted(evaluation_id)}/resume"
        return await self._call(wire.evaluations.EvaluationPublic, "POST", path, repeatable=False)

    async def wait_for_evaluation(
        self,
        evaluation_id: str,
        on_progress: OnEvaluation | None = None,
        *,
        poll_s: float = 0.5,
        progress: bool = False,
    ) -> wire.evaluations.EvaluationPublic:
        """The finished evaluation. `on_progress` sees it at every look; `progress` draws a bar on standard error."""
        path = f"/evaluations/{quoted(evaluation_id)}"
        return await self._wait(wire.evaluations.EvaluationPublic, path, on_progress, poll_s, progress)

    async def put_dataset(
        self,
        name: str,
        file: Path | None = None,
        *,
        hub: str | None = None,
        revision: str | None = None,
        qrels: str | None = None,
        qrels_revision: str | None = None,
        corpus: bool = True,
    ) -> wire.datasets.DatasetPublic:
        """Upload judged queries, or let the service fetch them; the same name again replaces them.

        `file`: an archive (zip, tar, tar.gz) in BEIR shape, or NDJSON, known by its ending .jsonl or .ndjson. `hub`: a
        name on the hub, with `revision` if not the newest; `qrels` is the repository with the judgments, where that is
        a second one, and without `corpus` the stored passages are what is judged.
        """
        path = f"/datasets/{quoted(name)}"
        if file is None:
            body = without_none(hub=hub, revision=revision, qrels=qrels, qrels_revision=qrels_revision, corpus=corpus)
            return await self._call(wire.datasets.DatasetPublic, "PUT", path, json=body)
        return await self._call(
            wire.datasets.DatasetPublic,
            "PUT",
            path,
            stream=lambda: file_chunks(file),
            headers={"Content-Type": dataset_kind(file)},
        )

    async def datasets(self) -> list[wire.datasets.DatasetPublic]:
        """Name, digest and counts of each."""
        return (await self._call(wire.datasets.DatasetList, "GET", "/datasets")).datasets

    async def dataset(self, name: str) -> wire.datasets.DatasetPublic:
        """Its counts, and the judged passages that are not stored now."""
        return await self._call(wire.datasets.DatasetPublic, "GET", f"/datasets/{quoted(name)}")

    async def delete_dataset(self, name: str) -> None:
        """`dataset-in-use` while an unfinished job reads it."""
        await self._send("DELETE", f"/datasets/{quoted(name)}")

    async def judge(
        self, query: str, passage_id: str, relevance: int, *, lang: str | None = None
    ) -> wire.judgments.JudgmentPublic:
        """How relevant a stored passage is to `query`: 0 not, 1 to 3 more and more; in place of what was said before.

        The built-in dataset `judgments` holds all of them.
        """
        body = {"query": query, "passage_id": passage_id, "relevance": relevance} | without_none(lang=lang)
        return await self._call(wire.judgments.JudgmentPublic, "POST", "/judgments", json=body)

    async def judgments(
        self, cursor: str | None = None, limit: int = 100, query: str | None = None, lang: str | None = None
    ) -> wire.judgments.JudgmentPage:
        """A page of all, or of one `query`'s or language's, newest first; its `next_cursor` is None on the last."""
        params = without_none(limit=limit, cursor=cursor, query=query, lang=lang)
        return await self._call(wire.judgments.JudgmentPage, "GET", "/judgments", params=params)

    async def delete_judgment(self, judgment_id: str) -> None:
        """Take it back; `judgment-not-found` where there is none."""
        await self._send("DELETE", f"/judgments/{quoted(judgment_id)}")

    async def feedback(self, search_id: str, clicks: Iterable[tuple[str, int]]) -> wire.queries.FeedbackPublic:
        """What of a search's answer was clicked: (passage id, position from 1, counted over pages).

        `search-not-logged` where the service does not keep that search: there is nothing to do then.
        """
        said = [{"passage_id": passage_id, "position": position} for passage_id, position in clicks]
        return await self._call(
            wire.queries.FeedbackPublic, "POST", "/feedback", json={"search_id": search_id, "clicks": said}
        )

    async def queries(
        self, cursor: str | None = None, limit: int = 100, *, since: float | None = None, key: str | None = None
    ) -> wire.queries.SearchLogPage:
        """A page of the query log, newest first, from the time `since` on, of one key or all; its `next_cursor` is None
        on the last."""
        params = without_none(limit=limit, cursor=cursor, since=since, key=key)
        return await self._call(wire.queries.SearchLogPage, "GET", "/queries", params=params)

    async def delete_query(self, search_id: str) -> None:
        """Forget a search and its clicks; `search-not-found` where there is none."""
        await self._send("DELETE", f"/queries/{quoted(search_id)}")

    async def experiments(self, cursor: str | None = None, limit: int = 20) -> wire.experiments.ExperimentPage:
        """Every generation with a canary, newest first; `next_cursor` is None on the last page."""
        return await self._call(
            wire.experiments.ExperimentPage, "GET", "/experiments", params=without_none(limit=limit, cursor=cursor)
        )

    async def experiment(self, generation: int) -> wire.experiments.ExperimentPublic:
        """What was asked and clicked of both encoders, and what that says; `experiment-not-found` where it had no
        canary."""
        return await self._call(wire.experiments.ExperimentPublic, "GET", f"/experiments/{generation}")

    async def continuous_tuning(self) -> wire.continuous.ContinuousPublic:
        """The standing order to tune, what its round is at, and what is done next, or why not; `order` is None where
        there is none."""
        return await self._call(wire.continuous.ContinuousPublic, "GET", "/continuous-tuning")

    async def set_continuous_tuning(self, name: str, **fields: Any) -> wire.continuous.ContinuousPublic:
        """`fields`: every_hours, min_new_judgments, recipe, guards, gate, canary, on_success, dry_run, as
        PUT /continuous-tuning takes them. In place of the order before."""
        return await self._call(
            wire.continuous.ContinuousPublic, "PUT", "/continuous-tuning", json={"name": name, **fields}
        )

    async def remove_continuous_tuning(self) -> None:
        """Take the order back; a round that is under way is discarded."""
        await self._send("DELETE", "/continuous-tuning")

    async def continuous_history(
        self, cursor: str | None = None, limit: int = 100
    ) -> wire.continuous.ContinuousHistory:
        """Every step that was taken, newest first; `next_cursor` is None on the last page."""
        params = without_none(limit=limit, cursor=cursor)
        return await self._call(wire.continuous.ContinuousHistory, "GET", "/continuous-tuning/history", params=params)

    async def create_key(
        self,
        name: str,
        *,
        scope: wire.keys.Scope = "search",
        rate_per_s: float | None = None,
        burst: int | None = None,
        daily: int | None = None,
        expires_at: float | None = None,
    ) -> wire.keys.KeyMade:
        """Make a key; the secret, its `key`, is in this answer alone. Not tried again where a connection breaks: what
        may have been made is then to be revoked.
        """
        body = {"name": name, "scope": scope}
        body |= without_none(rate_per_s=rate_per_s, burst=burst, daily=daily, expires_at=expires_at)
        return await self._call(wire.keys.KeyMade, "POST", "/keys", json=body, repeatable=False)

    async def keys(self) -> list[wire.keys.KeyPublic]:
        """All but ADIABAT_API_KEY, by name, with their use; expired ones too."""
        return (await self._call(wire.keys.KeyList, "GET", "/keys")).keys

    async def revoke_key(self, name: str) -> None:
        """It opens nothing any more; `key-not-found` where there is none."""
        await self._send("DELETE", f"/keys/{quoted(name)}")

    async def audit(
        self, cursor: str | None = None, limit: int = 100, *, action: str | None = None, key: str | None = None
    ) -> wire.audit.AuditPage:
        """Who changed what: a page of all, of one action or of one key, newest first; its `next_cursor` is None on the
        last."""
        params = without_none(limit=limit, cursor=cursor, action=action, key=key)
        return await self._call(wire.audit.AuditPage, "GET", "/audit", params=params)

    async def backup(self, target: Path, on_received: OnBytes | None = None) -> None:
        """Write everything the service keeps, of one moment, to `target`, for `adiabat restore`.

        The service copies its store before the first byte comes: a large one asks for a large `timeout_s`.
        """
        await self._download("POST", "/backups", target, on_received)

    async def ready(self) -> wire.health.Ready:
        """The readiness report; raises `ApiError` with status 503 while the service is not ready."""
        return await self._call(wire.health.Ready, "GET", "/health/ready", retries=0)

    async def version(self) -> str:
        """Of the service."""
        return (await self._call(wire.health.Version, "GET", "/version")).version

    async def metrics(self) -> str:
        """The service's figures, in the text format of Prometheus."""
        return (await self._send("GET", "/metrics")).decode()

    async def _download(self, method: str, path: str, target: Path, on_received: OnBytes | None) -> None:
        import httpx

        try:
            async with self._http.stream(method, path) as response:
                if not response.is_success:
                    raise refusal(response.status_code, await response.aread(), response.headers)
                with target.open("wb") as file:
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)
                        if on_received:
                            on_received(file.tell(), int(response.headers["Content-Length"]))
        except httpx.TransportError as broken:
            raise unreachable(broken, self.url, method, path, self._http.timeout.read) from broken

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
        import httpx

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
