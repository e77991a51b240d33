"""Evaluations are jobs of another kind"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Columns are only added: SQLite would have to make a table anew to loosen one, and events refer to its rows.
    op.add_column("tuning_jobs", sa.Column("kind", sa.String(length=16), nullable=False, server_default="tuning"))
    op.add_column("tuning_jobs", sa.Column("evaluation", sa.JSON(none_as_null=True), nullable=True))
