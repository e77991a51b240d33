"""How far the clock of each service and trainer is from the database's"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("instances", "workers"):
        op.add_column(table, sa.Column("clock_ahead_s", sa.Float(), nullable=True))
