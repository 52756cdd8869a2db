"""The use cases of the catalog service. They never commit: the entrypoint does."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from catalog.models import Product
from contracts.base import Publish
from contracts.catalog import (
    CreateProduct,
    ProductCreated,
    ProductNotFound,
    ProductUpdated,
    ProductView,
    SkuAlreadyExists,
    UpdateProduct,
)
from contracts.errors import ValidationFailed
from contracts.etags import require_match
from contracts.ids import new_id


def create_product(session: Session, request: CreateProduct, currency: str, publish: Publish) -> ProductView:
    """Add a product; raises SkuAlreadyExists."""
    values = {"id": new_id(), "currency": currency, "version": 1, **request.model_dump()}
    statement = insert(Product).values(values).on_conflict_do_nothing(index_elements=[text("lower(sku)")])
    product = session.scalars(statement.returning(Product)).one_or_none()
    if product is None:
        raise SkuAlreadyExists
    view = ProductView.model_validate(product)
    publish(ProductCreated.model_validate(product, from_attributes=True))
    return view


def update_product(
    session: Session,
    product_id: UUID,
    request: UpdateProduct,
    publish: Publish,
    if_match: Sequence[str] | None = None,
) -> ProductView:
    """Change the stated fields. If each already has its stated value, the version stays and no event is published.

    Raises ValidationFailed if no field is stated, ProductNotFound, PreconditionFailed if `if_match` lacks the
    product's entity tag, SkuAlreadyExists.
    """
    if not request.changes:
        raise ValidationFailed.field("", "state at least one of sku, name, price, description, is_active")
    product = session.get(Product, product_id, with_for_update=True, populate_existing=True)
    if product is None:
        raise ProductNotFound
    require_match(ProductView.model_validate(product), if_match)
    changes = {field: value for field, value in request.changes.items() if getattr(product, field) != value}
    if changes:
        _apply(session, product, changes)
        publish(ProductUpdated.model_validate(product, from_attributes=True))
    return ProductView.model_validate(product)


def _apply(session: Session, product: Product, changes: dict[str, object]) -> None:
    try:
        # A savepoint keeps the transaction usable when the sku is taken.
        with session.begin_nested():
            for field, value in changes.items():
                setattr(product, field, value)
            product.version += 1
            product.updated_at = session.scalars(select(func.clock_timestamp())).one()
    except IntegrityError as error:
        if "uq_products_sku" in str(error.orig):
            raise SkuAlreadyExists from None
        raise
