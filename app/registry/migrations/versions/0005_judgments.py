"""Judgments from production"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "judgments",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("query_id", sa.String(length=32), nullable=False),
        sa.Column("query", sa.String(), nullable=False),
        sa.Column("passage_id", sa.String(length=512), nullable=False),
        sa.Column("relevance", sa.Integer(), nullable=False),
        sa.Column("lang", sa.String(length=64), nullable=True),
        sa.Column("first_judged_at", sa.Float(), nullable=False),
        sa.Column("judged_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_judgments")),
        sa.UniqueConstraint("id", name=op.f("uq_judgments_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_judgments_query_id"), "judgments", ["query_id"])
    # The name means the built-in dataset from here on; what somebody uploaded under it is kept.
    op.execute("UPDATE datasets SET name = 'judgments-uploaded' WHERE name = 'judgments'")
