"""Tables of catalog: the products."""

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, Computed, DateTime, Index, Numeric, Text, func, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contracts.ids import new_id
from extensions.storage.collations import KEY_COLLATION
from extensions.storage.import_tables import add_import_tables
from extensions.storage.tables import APPEND_ONLY, service_metadata

PENDING = {"gin_pending_list_limit": 256}
"""KiB of entries that wait for their place in a GIN index. Every search reads all of them; the default is 4 MiB."""
TRIGRAMS: dict[str, Any] = {
    "postgresql_using": "gin",
    "postgresql_ops": {"word": "gin_trgm_ops"},
    "postgresql_with": PENDING,
}


class Base(DeclarativeBase):
    """All tables of catalog."""

    metadata = service_metadata()
    add_import_tables(metadata)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        Decimal: Numeric(12, 2),
    }


class Product(Base):
    """A product; `version` counts its changes."""

    __tablename__ = "products"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    sku: Mapped[str] = mapped_column(Text(collation=KEY_COLLATION))
    name: Mapped[str] = mapped_column(Text(collation="names"))  # migration 0005 creates this collation
    description: Mapped[str]
    price: Mapped[Decimal]
    currency: Mapped[str]
    is_active: Mapped[bool]
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())
    # Name, sku and description, folded by the functions of migration 0006. PostgreSQL writes it, only searches read it.
    search_text: Mapped[str] = mapped_column(
        Text(collation=KEY_COLLATION), Computed("fold_product(name, sku, description)", persisted=True), deferred=True
    )

    # Their words, by the functions of migration 0007.
    search_vector: Mapped[Any] = mapped_column(
        TSVECTOR, Computed("search_vector(name, sku, description)", persisted=True), deferred=True
    )

    __table_args__ = (
        CheckConstraint("price >= 0", name="price"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("version >= 1", name="version"),
        Index("uq_products_sku", text("lower(sku)"), unique=True),
        # One index for each sort key of the list.
        Index(None, "created_at", "id"),
        Index(None, "price", "id"),
        Index(None, "name", "id"),
        Index(None, "sku", "id"),
        # For the search: by words, and by the beginning of the name.
        Index(None, "search_vector", postgresql_using="gin", postgresql_with=PENDING),
        Index("ix_products_name_start", text("left(search_text, 64)"), "id"),
    )


class ProductWord(Base):
    """A folded word that a product has, or had. A trigger adds them; the search looks for words that are meant."""

    __tablename__ = "product_words"
    __table_args__ = (
        # For parts of words, and for similar words of letters. The migrations omit them if PostgreSQL lacks pg_trgm.
        Index(None, "word", **TRIGRAMS),
        Index("ix_product_words_letters", "word", **TRIGRAMS, postgresql_where=text("NOT word ~ '[0-9]'")),
        {"info": APPEND_ONLY},
    )

    word: Mapped[str] = mapped_column(Text(collation=KEY_COLLATION), primary_key=True)
