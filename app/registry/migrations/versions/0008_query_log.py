"""The query log, and clicks"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "query_log",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("search_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=True),
        sa.Column("query_id", sa.String(length=32), nullable=False),
        sa.Column("query", sa.String(), nullable=False),
        sa.Column("lang", sa.String(length=64), nullable=True),
        sa.Column("filter", sa.JSON(), nullable=True),
        sa.Column("encoder", sa.String(length=140), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.Column("offset", sa.Integer(), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_query_log")),
        sa.UniqueConstraint("search_id", name=op.f("uq_query_log_search_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_query_log_at"), "query_log", ["at"])
    op.create_index(op.f("ix_query_log_query_id"), "query_log", ["query_id"])
    op.create_table(
        "clicks",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("search_id", sa.String(length=32), nullable=False),
        sa.Column("passage_id", sa.String(length=512), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_clicks")),
        sa.ForeignKeyConstraint(
            ["search_id"], ["query_log.search_id"], name=op.f("fk_clicks_search_id"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("search_id", "passage_id", name=op.f("uq_clicks_search_id")),
        sqlite_autoincrement=True,
    )
