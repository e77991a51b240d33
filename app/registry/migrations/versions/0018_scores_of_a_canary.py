"""What the best hits of both encoders of a canary score"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("signals", sa.Column("scored", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("signals", sa.Column("score", sa.Float(), nullable=False, server_default="0"))
    op.add_column("signals", sa.Column("score_squared", sa.Float(), nullable=False, server_default="0"))
