"""The registry's tables. A change here needs a migration in `migrations`; a test holds the two together."""

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Integer, MetaData, String, Table, UniqueConstraint

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

BYTES = Integer().with_variant(BigInteger(), "postgresql")  # SQLite's integers have 64 bits anyway

encoders = Table(
    "encoders",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", String(80), nullable=False, index=True),
    Column("base_digest", String(80), nullable=True),
    Column("parent_digest", String(80), nullable=True),
    Column("admission", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("size_bytes", BYTES, nullable=False),
    Column("description", String, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("checks", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("name", "version"),
)

# Append-only: a row is never changed and never removed. The newest row says what is active.
activations = Table(
    "activations",
    metadata,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("encoder_id", Integer, ForeignKey("encoders.id"), nullable=False),
    Column("reason", String(16), nullable=False),
    Column("forced", Integer, nullable=False),
    Column("at", Float, nullable=False),
    # A second encoder that a part of the requests gets from this generation on.
    Column("canary_id", Integer, nullable=True),
    Column("canary_percent", Float, nullable=True),
    Column("canary_sticky_by", String(64), nullable=True),
    Column("canary_interleave", Integer, nullable=True),
    Column("canary_rules", JSON(none_as_null=True), nullable=True),
    Column("note", String, nullable=True),  # why the service did it by itself
)

# Append-only too, and numbered on together with activations: what holds at a generation is the newest activation and
# the newest row of every route.
routes = Table(
    "routes",
    metadata,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("name", String(64), nullable=False, index=True),
    Column("encoder_id", Integer, ForeignKey("encoders.id"), nullable=True),  # null: the route was removed
    Column("terms", JSON, nullable=False),  # {"match", "base_languages"}
    Column("reason", String(16), nullable=False),
    Column("forced", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("note", String, nullable=True),  # why the service did it by itself
)

datasets = Table(
    "datasets",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("digest", String(80), nullable=False),
    Column("counts", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
)

# Tunings, and evaluations by the same rules. `kind` says which; an evaluation's own is in `evaluation`, and what only
# a tuning has is empty there (its parent is the base, which everything is compared with).
tuning_jobs = Table(
    "tuning_jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False, server_default="tuning"),
    Column("name", String(128), nullable=False),
    Column("parent_id", Integer, ForeignKey("encoders.id"), nullable=False),
    Column("dataset", String(128), nullable=False),
    Column("guards", JSON, nullable=False),
    # name -> digest of every dataset the job reads, fixed when the job is made
    Column("dataset_digests", JSON, nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("gate", JSON, nullable=False),
    Column("activate", String(16), nullable=False),
    Column("activation", String, nullable=True),
    # {"encoder_ids", "datasets", "reads_store", "replay"}
    Column("evaluation", JSON(none_as_null=True), nullable=True),
    Column("status", String(16), nullable=False, index=True),
    Column("progress", JSON, nullable=False),
    Column("result", JSON, nullable=True),
    Column("reason", String, nullable=True),
    Column("encoder_id", Integer, ForeignKey("encoders.id"), nullable=True),
    Column("worker", String(128), nullable=True),
    # how often a trainer took it since it was queued by somebody
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float, nullable=True),
    Column("finished_at", Float, nullable=True),
    Column("heartbeat_at", Float, nullable=True),
)

# Append-only: what happened to each job, for whoever follows it.
job_events = Table(
    "job_events",
    metadata,
    Column("job_id", String(32), ForeignKey("tuning_jobs.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", JSON, nullable=False),
)

# What users say of answers. The newest word on a query and a passage replaces the one before under the same id, with a
# sequence of its own: no sequence ever comes twice, so the highest one and the number of rows tell whether anything
# changed.
judgments = Table(
    "judgments",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False),
    Column("query_id", String(32), nullable=False, index=True),
    Column("query", String, nullable=False),
    Column("passage_id", String(512), nullable=False),
    Column("relevance", Integer, nullable=False),
    Column("lang", String(64), nullable=True),
    Column("first_judged_at", Float, nullable=False),
    Column("judged_at", Float, nullable=False),
    UniqueConstraint("id"),
    sqlite_autoincrement=True,
)

# What was asked and shown: opt-in, a sample, bounded in rows and age. `offset` hits came before the first of `shown`.
query_log = Table(
    "query_log",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("search_id", String(32), nullable=False),
    Column("at", Float, nullable=False, index=True),
    Column("key", String(64), nullable=True),
    Column("query_id", String(32), nullable=False, index=True),
    Column("query", String, nullable=False),
    Column("lang", String(64), nullable=True),
    Column("filter", JSON(none_as_null=True), nullable=True),
    Column("encoder", String(140), nullable=False),
    Column("generation", Integer, nullable=True, index=True),
    Column("mode", String(16), nullable=True),  # null: kept before modes were
    # What chose the encoder, and who asked, as far as a canary told requests apart: a hash.
    Column("rule", String(16), nullable=True),
    Column("route", String(64), nullable=True),  # that took it
    Column("unit", String(16), nullable=True),
    Column("offset", Integer, nullable=False),
    Column("shown", JSON, nullable=False),
    # Of an interleaved search a letter for each of the first that were shown: whose pick it was (`app.interleaving`).
    Column("teams", String(100), nullable=True),
    UniqueConstraint("search_id"),
    sqlite_autoincrement=True,
)

# Which of the shown passages were clicked; a click goes with its search.
clicks = Table(
    "clicks",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("search_id", String(32), ForeignKey("query_log.search_id", ondelete="CASCADE"), nullable=False),
    Column("passage_id", String(512), nullable=False),
    Column("position", Integer, nullable=False),
    Column("team", String(1), nullable=True),
    Column("at", Float, nullable=False),
    UniqueConstraint("search_id", "passage_id"),
    sqlite_autoincrement=True,
)

# What an experiment had shown when it was last looked at: its searches leave the query log. Every generation with a
# canary is an experiment.
experiments = Table(
    "experiments",
    metadata,
    Column("generation", Integer, ForeignKey("activations.generation"), primary_key=True, autoincrement=False),
    Column("tally", JSON, nullable=False),
    # {"verdict", "requests", "at", "alpha"}: of the first look at which the test decided
    Column("decided", JSON(none_as_null=True), nullable=True),
    # It has ended, and what comes in later clicks is not counted any more.
    Column("settled", Integer, nullable=False),
    Column("at", Float, nullable=False),
)

# How the searches of both encoders of a canary went, by the minute since 1970: what rules look at.
signals = Table(
    "signals",
    metadata,
    Column("generation", Integer, ForeignKey("activations.generation"), primary_key=True, autoincrement=False),
    Column("role", String(8), primary_key=True),
    Column("minute", Integer, primary_key=True, autoincrement=False),
    Column("requests", Integer, nullable=False),
    Column("errors", Integer, nullable=False),
    Column("empty", Integer, nullable=False),
    Column("timed", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("seconds_squared", Float, nullable=False),
    Column("scored", Integer, nullable=False, server_default="0"),
    Column("score", Float, nullable=False, server_default="0"),
    Column("score_squared", Float, nullable=False, server_default="0"),
)

# The standing order to tune, and what was done by it. Append-only: the newest rows say how it stands, and of several
# services that would take the same step the one that writes its sequence does.
continuous_steps = Table(
    "continuous_steps",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("said", String, nullable=False),
    # Of a step that sets the order: what it says, and the key that said it.
    Column("terms", JSON(none_as_null=True), nullable=True),
    Column("set_by", String(64), nullable=True),
    Column("job_id", String(32), ForeignKey("tuning_jobs.id"), nullable=True),
    Column("encoder", String(140), nullable=True),  # name@version
    # That was active when the tuning began, then the one that the step made.
    Column("generation", Integer, nullable=True),
    # When the newest pair that the round tunes on was first judged: what comes later is new to the next one.
    Column("judged_until", Float, nullable=True),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("seen_at", Float, nullable=False),
    # Of its machine, against the database's; null where it could not be told.
    Column("clock_ahead_s", Float, nullable=True),
)

# The services on this registry.
instances = Table(
    "instances",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(320), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("store", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("failed_generation", Integer, nullable=True),
    Column("reason", String, nullable=True),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("clock_ahead_s", Float, nullable=True),  # as of a trainer
)

# What a client already asked for under a key of its own; `answer` is null while the call runs.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("call", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(80), nullable=False),
    Column("answer", JSON(none_as_null=True), nullable=True),
    Column("instance", String(32), nullable=True),  # that works on it, where there are several
    Column("created_at", Float, nullable=False),
)

# Who may call, and how much. Of the secret there is only what it is checked against. A revoked key's row is gone; no
# sequence ever comes twice, so the highest one and the number of rows tell whether anything was made or revoked.
api_keys = Table(
    "api_keys",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False),
    Column("id", String(32), nullable=False),
    Column("hash", String(255), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("rate_per_s", Float, nullable=True),
    Column("burst", Integer, nullable=True),
    Column("daily", Integer, nullable=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=True),
    Column("used_at", Float, nullable=True),
    # Days since 1970 in UTC, and the requests of that day.
    Column("used_on", Integer, nullable=False),
    Column("used", Integer, nullable=False),
    UniqueConstraint("name"),
    UniqueConstraint("id"),
    sqlite_autoincrement=True,
)

# Append-only, and the database itself sees to it: a trigger refuses every change of a row.
audit = Table(
    "audit",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("action", String(32), nullable=False, index=True),
    # null: nobody's key; the service or its trainer by itself, or a service that asks for none
    Column("key", String(64), nullable=True, index=True),
    Column("peer", String(64), nullable=True),
    Column("target", String(600), nullable=False),
    Column("outcome", String(64), nullable=False),
    Column("generation", Integer, nullable=True),
    Column("detail", JSON, nullable=False),
    Column("request_id", String(128), nullable=True),
    sqlite_autoincrement=True,
)
