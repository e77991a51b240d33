"""A second encoder beside the active one"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("activations", sa.Column("canary_id", sa.Integer(), nullable=True))
    op.add_column("activations", sa.Column("canary_percent", sa.Float(), nullable=True))
    op.add_column("activations", sa.Column("canary_sticky_by", sa.String(length=64), nullable=True))
