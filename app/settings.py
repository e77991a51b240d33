"""Every setting, its default and its environment variable (`ADIABAT_` and the field's name in capitals)."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.addresses import shown

ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?")
BUCKET = re.compile(r"s3://[A-Za-z0-9.-]+(/[A-Za-z0-9._/-]*)?")
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
WEBHOOK = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[^\s@]*)?")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
PREFIX = "ADIABAT_"
OF_THE_COMMANDS = frozenset({"URL"})
NOT_SENDABLE = "begins or ends with blank space, or holds what is no printable ASCII, so that no request could carry it"
# Never repeated in a message: keys, and addresses that may hold a password.
SECRET = ("api_key", "qdrant_api_key", "qdrant_url", "registry_url", "webhook_secret", "webhook_url")


class Settings(BaseSettings):
    """The whole configuration. Unset fields come from the environment, then from these defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    data_dir: Path = Field(Path("adiabat-data"), description="Everything the embedded default writes is below it.")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    api_key: str | None = Field(
        None,
        min_length=8,
        description="Bearer key with the scope admin; it, or one made by `adiabat keys create`, is "
        "required to bind beyond loopback.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins whose pages may call from a browser, separated by ','; default: only our own.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Proxies whose X-Forwarded-For and -Proto are believed: addresses or networks, by ','.",
    )

    passage_encoder: str | None = Field(
        None, description="Folder or hub name of the passage encoder; None: the packaged all-MiniLM-L6-v2."
    )
    query_prompt: str | None = Field(None, description="Overrides the model's own query prompt.")
    passage_prompt: str | None = Field(None, description="Overrides the model's own passage prompt.")
    hub: bool = Field(False, description="Whether encoders and datasets may be fetched from the hub.")
    source_dirs: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders that POST /encoders may read from, separated by ':' in the environment."
    )
    engine: Literal["auto", "onnx", "openvino", "torch"] = "auto"
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="What encoders compute in; bf16 on OpenVINO or a GPU, refused where it is far from fp32."
    )
    threads: int = Field(0, ge=0, description="Threads of the engine; 0: all cores.")
    map_weights: bool = Field(
        False,
        description="Leave weights in their file, so that the services of one host have them in memory once; short "
        "queries take longer.",
    )

    artifacts_url: str | None = Field(
        None, description="s3://BUCKET/PREFIX for encoders, datasets and jobs' files; None: below the data folder."
    )
    artifacts_cache_bytes: int = Field(
        20 * 2**30,
        ge=0,
        description="Copies of encoders on disk beside ADIABAT_ARTIFACTS_URL; active, previous and base stay.",
    )
    registry_url: str | None = Field(
        None, description="A PostgreSQL database for the registry; None: a file of SQLite in the data folder."
    )
    qdrant_url: str | None = Field(None, description="A Qdrant server; None: Qdrant Edge in this process.")
    qdrant_api_key: str | None = None
    qdrant_grpc_port: int | None = Field(
        None, ge=1, le=65_535, description="Speak gRPC to the Qdrant server, at this port (6334 as a rule); None: REST."
    )
    qdrant_timeout_s: int = Field(30, ge=1, description="How long a call to the Qdrant server may take.")
    qdrant_shards: int | None = Field(
        None, ge=1, description="Of the collection, where the service makes it; None: what the server does by itself."
    )
    qdrant_replicas: int | None = Field(None, ge=1, description="Copies of each shard, likewise.")
    qdrant_write_consistency: int | None = Field(None, ge=1, description="Copies that a write waits for, likewise.")
    collection: str = "passages"
    indexed_fields: Annotated[tuple[str, ...], NoDecode] = ("lang",)
    index_after: int = Field(5_000, ge=1, description="Unindexed vectors that start a rebuild of the Edge index.")

    examine_bytes: int = Field(
        0, ge=0, description="Memory for the child that examines an encoder; 0: three quarters of the machine's."
    )
    examine_timeout_s: float = Field(600, gt=0, description="Time for that child.")

    probe_min_cosine: float = Field(0.8, ge=-1, le=1)
    probe_min_overlap: float = Field(0.5, ge=0, le=1)

    max_body_bytes: int = 16 * 2**20
    max_archive_bytes: int = 512 * 2**20
    max_header_bytes: int = Field(32_768, ge=1_024, description="A request's line and headers together.")
    request_timeout_s: float = Field(
        30,
        gt=0,
        description="How long headers may take to come, 256 bytes of a body that is waited for, or to be taken of an "
        "answer.",
    )
    max_text_chars: int = 32_768
    max_query_chars: int = 8_192
    max_metadata_depth: int = 8
    max_metadata_bytes: int = 65_536
    openai_vocabulary: Path | None = Field(
        None, description="The file cl100k_base.tiktoken: with it /v1/embeddings takes token numbers too."
    )
    max_waiting: int = Field(
        2_048, ge=1, description="Queries that may be under way, and searches that may wait for their turn, before 429."
    )
    max_wait_s: float = Field(
        3,
        gt=0,
        description="A search that waited so long for its turn gets 429; once queries wait so long for their encoder, "
        "further ones do.",
    )
    max_resident_bytes: int = Field(
        2**30, ge=0, description="Weights of encoders in memory; active, previous and base stay whatever they take."
    )
    load_on_demand: bool = Field(True, description="Whether a request may bring the encoder it names into memory.")
    query_cache_bytes: int = Field(32 * 2**20, ge=0, description="Memory for vectors of repeated queries; 0: none.")

    query_log: float = Field(0, ge=0, le=1, description="Share of the searches that the query log keeps; 0: none.")
    query_log_days: float = Field(30, gt=0, description="After so many days a search leaves the query log.")
    query_log_rows: int = Field(100_000, ge=1, description="Searches in the query log; the oldest leave first.")
    click_eta: float = Field(1, ge=0, le=10, description="People look at a hit at rank k with probability 1/k^eta.")
    clicks_per_key: int = Field(1_000, ge=1, description="Clicks of one key in one day that count at most.")

    webhook_url: str | None = Field(
        None, description="Told what the service does by itself, such as ending a canary; None: nobody is."
    )
    webhook_secret: str | None = Field(
        None, min_length=16, description="Signs what the webhook is told; needed with ADIABAT_WEBHOOK_URL."
    )

    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="One JSON line a record, or text; auto: text where standard error is a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    open_metrics: bool = Field(False, description="Whether /metrics answers without the key.")

    trainer: bool = Field(True, description="Whether `adiabat serve` starts and supervises a trainer.")

    shutdown_s: int = Field(
        20, ge=0, description="How long a service that stops lets the answers under way go on; the rest is cut off."
    )
    trainer_lease_s: float = Field(
        60, ge=1, description="A trainer that gave no sign of life for so long loses its job to another one."
    )

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for origin in given:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"{shown(origin)!r} is no origin such as https://shop.example; '*' is not taken")
        return given

    @field_validator("cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_at_commas(cls, given: object) -> object:
        """Origins and addresses hold colons themselves."""
        return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given

    @field_validator("source_dirs", "indexed_fields", mode="before")
    @classmethod
    def _split(cls, given: object) -> object:
        """Lists come from the environment as PATH does: separated by colons."""
        return tuple(part for part in given.split(":") if part) if isinstance(given, str) else given

    @field_validator("artifacts_url")
    @classmethod
    def _bucket(cls, given: str | None) -> str | None:
        if given is not None and not BUCKET.fullmatch(given):
            raise ValueError(f"{shown(given)!r} is no address of S3-compatible storage such as s3://bucket/prefix")
        return given

    @field_validator("webhook_url")
    @classmethod
    def _webhook(cls, given: str | None) -> str | None:
        if given is not None and not WEBHOOK.fullmatch(given):
            raise ValueError("an address that begins with https:// or http:// is expected, without user or password")
        if given is not None:
            _ = (urlsplit(given).hostname or "").encode("idna")  # raises ValueError for what is none
            _require_port(given)
        return given

    @field_validator("api_key", "qdrant_api_key")
    @classmethod
    def _key(cls, given: str | None) -> str | None:
        if given is not None and not is_sendable(given):
            raise ValueError(NOT_SENDABLE)
        return given

    @field_validator("qdrant_url", "registry_url")
    @classmethod
    def _port(cls, given: str | None) -> str | None:
        if given is not None:
            _require_port(given)
        return given

    @field_validator("webhook_secret")
    @classmethod
    def _secret(cls, given: str | None) -> str | None:
        """Standard Webhooks' form, or any other text."""
        encoded = (given or "").removeprefix("whsec_")
        if encoded != (given or "") and (len(encoded) % 4 or not BASE64.fullmatch(encoded)):
            raise ValueError("what follows 'whsec_' is no base64")
        return given

    @model_validator(mode="after")
    def _mapped_by_onnx(self) -> Self:
        if self.map_weights and (self.engine in ("openvino", "torch") or self.precision != "fp32"):
            raise ValueError(
                "ADIABAT_MAP_WEIGHTS=1 is for ONNX Runtime in fp32: set ADIABAT_ENGINE=onnx and "
                "ADIABAT_PRECISION=fp32, or leave ADIABAT_MAP_WEIGHTS out"
            )
        return self

    @model_validator(mode="after")
    def _signed(self) -> Self:
        if self.webhook_url is not None and self.webhook_secret is None:
            raise ValueError("ADIABAT_WEBHOOK_URL asks for ADIABAT_WEBHOOK_SECRET, which signs what is sent there")
        return self

    @field_validator("registry_url")
    @classmethod
    def _address(cls, given: str | None) -> str | None:
        """Only its form: what is there is seen when it is opened."""
        if given is not None and not given.startswith(
            ("postgresql://", "postgres://", "postgresql+psycopg://", "sqlite:///")
        ):
            raise ValueError(
                "postgresql://USER:PASSWORD@HOST:5432/DATABASE is expected, or sqlite:////path/to/registry.db"
            )
        return given

    @property
    def artifacts_dir(self) -> Path:
        return self.data_dir / "artifacts"

    @property
    def registry_path(self) -> Path:
        return self.data_dir / "registry.db"

    @property
    def registry_at(self) -> Path | str:
        """A file of SQLite, or the address of a database."""
        return self.registry_path if self.registry_url is None else self.registry_url

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"

    def training_set_dir(self, job_id: str) -> Path:
        """Where the service leaves a job's training set for the trainer."""
        return self.jobs_dir / job_id / "training-set"

    def replay_file(self, job_id: str) -> Path:
        """Where the service leaves the logged queries that an evaluation asks again."""
        return self.training_set_dir(job_id) / "replay.json"

    def checkpoints_dir(self, job_id: str) -> Path:
        """Where the trainer keeps what a resumed job goes on from."""
        return self.jobs_dir / job_id / "checkpoints"

    @property
    def passages_dir(self) -> Path:
        return self.data_dir / "passages"


def _require_port(address: str) -> None:
    """Raises `ValueError`, which repeats nothing: where a password is not encoded, its end is read as the port."""
    try:
        _ = urlsplit(address).port
    except ValueError:
        raise ValueError(
            "its port is no number, or what is in brackets no host; in a password '/', '#', '?', '@' and '[' have to "
            "be percent-encoded"
        ) from None


def is_sendable(key: str) -> bool:
    """Whether the header Authorization can carry it as it is."""
    return key.isascii() and key.isprintable() and key == key.strip()


def unknown(names: Iterable[str]) -> Iterator[str]:
    """A sentence for each of these variables of the environment that looks like a setting and is none."""
    known = {name.upper() for name in Settings.model_fields} | OF_THE_COMMANDS
    for name in sorted(names):
        own = name.upper().removeprefix(PREFIX)  # the case of a variable does not matter, but for the commands' own
        is_one = name == PREFIX + own if own in OF_THE_COMMANDS else own in known
        if own != name.upper() and not is_one:
            near = get_close_matches(own, sorted(known), n=1, cutoff=0.65)
            yield f"{name} is no setting and does nothing{f'; did you mean {PREFIX}{near[0]}?' if near else '.'}"
