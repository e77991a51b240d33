"""The Python client: one method per call of the HTTP interface. The command line stands on it.

with AdiabatClient("http://127.0.0.1:8000") as client:
    client.upsert_passages([{"id": "1", "text": "A smoker calms a colony."}])
    client.search("how to keep bees quiet")["hits"]
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
FINISHED = frozenset({"succeeded", "rejected", "failed", "cancelled", "interrupted"})
Json = dict[str, Any]


class ApiError(Exception):
    """The service refused. `detail` says why and what mends it; `slug` never changes between releases."""

    def __init__(self, status: int, slug: str, detail: str, problem: Json) -> None:
        self.status = status
        self.slug = slug
        self.detail = detail
        self.problem = problem
        super().__init__(detail)


class Unreachable(Exception):
    """No service answers at the address."""


class AdiabatClient:
    """A connection to one service. Raises `ApiError` for refusals and `Unreachable` where nobody answers."""

    def __init__(self, url: str = DEFAULT_URL, api_key: str | None = None, timeout_s: float = 120) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url.rstrip("/")
        # Registering or activating a large encoder takes its time; connecting does not.
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=httpx.Timeout(timeout_s, connect=5), trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _1: type[BaseException] | None, _2: BaseException | None, _3: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def search(
        self,
        query: str,
        *,
        limit: int = 10,
        offset: int = 0,
        filter: Json | None = None,
        score_threshold: float | None = None,
        encoder: str | None = None,
        exact: bool = False,
        with_query_vector: bool = False,
    ) -> Json:
        """`{hits: [{id, score, title, text, metadata}], encoder, took_ms}`."""
        body = {"query": query, "limit": limit, "offset": offset, "exact": exact}
        optional = {"filter": filter, "score_threshold": score_threshold, "encoder": encoder}
        body |= {key: value for key, value in optional.items() if value is not None}
        if with_query_vector:
            body["with_query_vector"] = True
        return self._call("POST", "/search", json=body)

    def upsert_passages(self, passages: Iterable[Json], *, durable: bool = False) -> Json:
        """Add or replace; `{embedded, metadata_updated, unchanged}`."""
        return self._call("POST", "/passages", json={"passages": list(passages), "durable": durable})

    def passage(self, passage_id: str) -> Json:
        return self._call("GET", f"/passages/{_quoted(passage_id)}")

    def passages(self, cursor: str | None = None, limit: int = 100) -> Json:
        """`{passages, next_cursor}`, a page at a time."""
        return self._call("GET", "/passages", params={"limit": limit} | ({"cursor": cursor} if cursor else {}))

    def count_passages(self) -> int:
        return int(self._call("GET", "/passages/count")["count"])

    def delete_passages(self, ids: list[str] | None = None, filter: Json | None = None) -> int:
        body = {"ids": ids} if ids is not None else {"filter": filter}
        return int(self._call("POST", "/passages/delete", json=body)["deleted"])

    def encoders(self) -> list[Json]:
        return list(self._call("GET", "/encoders")["encoders"])

    def encoder(self, key: str) -> Json:
        return self._call("GET", f"/encoders/{_quoted(key)}")

    def register_encoder(
        self,
        name: str,
        *,
        path: str | None = None,
        job: str | None = None,
        description: str = "",
        labels: dict[str, str] | None = None,
        force: bool = False,
    ) -> Json:
        source = {"path": path} if path is not None else {"job": job}
        body = {
            "name": name,
            "source": source,
            "description": description,
            "labels": labels or {},
            "force": force,
        }
        return self._call("POST", "/encoders", json=body)

    def delete_encoder(self, key: str) -> None:
        self._call("DELETE", f"/encoders/{_quoted(key)}")

    def active_encoder(self) -> Json:
        return self._call("GET", "/active-encoder")

    def activate(
        self, key: str, *, force: bool = False, if_generation: int | None = None, timeout_s: float = 30
    ) -> Json:
        """Switch to `name` or `name@version`; with `if_generation`, only if that is still active."""
        name, _, version = key.partition("@")
        body: Json = {"name": name, "force": force, "timeout_s": timeout_s}
        if version:
            body["version"] = int(version) if version.isdecimal() else version
        return self._call("PUT", "/active-encoder", json=body, headers=_if_match(if_generation))

    def rollback(self, *, if_generation: int | None = None) -> Json:
        return self._call("POST", "/active-encoder/rollback", headers=_if_match(if_generation))

    def history(self, limit: int = 100) -> list[Json]:
        return list(self._call("GET", "/active-encoder/history", params={"limit": limit})["activations"])

    def create_tuning_job(self, name: str, dataset: str, **fields: Any) -> Json:
        """`fields`: parent, recipe, guards, gate, activate, as POST /tuning-jobs takes them."""
        return self._call("POST", "/tuning-jobs", json={"name": name, "dataset": dataset, **fields})

    def tuning_jobs(self) -> list[Json]:
        return list(self._call("GET", "/tuning-jobs")["tuning_jobs"])

    def tuning_job(self, job_id: str) -> Json:
        return self._call("GET", f"/tuning-jobs/{_quoted(job_id)}")

    def cancel_tuning_job(self, job_id: str) -> Json:
        return self._call("POST", f"/tuning-jobs/{_quoted(job_id)}/cancel")

    def wait_for_job(
        self, job_id: str, on_progress: Callable[[Json], None] = lambda _: None, poll_s: float = 0.5
    ) -> Json:
        """The finished job; `on_progress` sees it at every look."""
        while True:
            job = self.tuning_job(job_id)
            on_progress(job)
            if job["status"] in FINISHED:
                return job
            time.sleep(poll_s)

    def put_dataset(self, name: str, archive: Path) -> Json:
        """Upload a zip in BEIR shape."""
        with archive.open("rb") as content:
            headers = {"Content-Type": "application/zip"}
            return self._call("PUT", f"/datasets/{_quoted(name)}", content=content, headers=headers)

    def datasets(self) -> list[Json]:
        return list(self._call("GET", "/datasets")["datasets"])

    def dataset(self, name: str) -> Json:
        return self._call("GET", f"/datasets/{_quoted(name)}")

    def ready(self) -> Json:
        """The readiness report; raises `ApiError` with status 503 while the service is not ready."""
        return self._call("GET", "/health/ready")

    def version(self) -> str:
        return str(self._call("GET", "/version")["version"])

    def _call(self, method: str, path: str, **arguments: Any) -> Json:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TimeoutException as error:
            raise Unreachable(
                f"{self.url} did not answer {method} {path} within {self._http.timeout.read:g} s; what was asked may "
                "still be going on there. Give the client a larger timeout_s, or look with 'adiabat health'."
            ) from error
        except httpx.TransportError as error:
            raise Unreachable(
                f"{self.url} does not answer ({error}): is the service running there ('adiabat serve'), "
                "and is the address right (--url or ADIABAT_URL)?"
            ) from error
        if response.is_success:
            return dict(response.json()) if response.content else {}
        raise _refusal(response)


def _refusal(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
        slug, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        problem, slug, detail = {}, "http-error", response.text[:200]
    return ApiError(response.status_code, slug, detail, problem)


def _if_match(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"If-Match": f'"{generation}"'}


def _quoted(part: str) -> str:
    return quote(part, safe="@")
