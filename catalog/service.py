"""The entrypoints of the catalog service. Start it with `nameko run --config config.yml catalog.service`."""

from collections.abc import Sequence
from typing import Any, cast, final
from uuid import UUID

from nameko import config
from sqlalchemy.orm import Session

from catalog import queries, use_cases
from catalog.imports import merge_products
from catalog.models import Base
from contracts.base import OPERATOR, Actor, Json, Page
from contracts.catalog import (
    CatalogRpc,
    CreateProduct,
    ProductFilter,
    ProductLookup,
    ProductsView,
    ProductView,
    UpdateProduct,
)
from extensions.cache.versioned_cache import Cache, VersionedCache
from extensions.operations import importing, operations
from extensions.rpc.server import rpc
from extensions.storage.imports import Claimed, Merged
from extensions.storage.unit_of_work import UnitOfWork, Work


@final
class CatalogService(operations.Operations, importing.Importing, CatalogRpc):
    """Products and their prices."""

    name = "catalog"
    row_model, row_keys = "contracts.catalog:CreateProduct", ("sku",)
    work: UnitOfWork = Work(Base)
    cache: VersionedCache = Cache()

    @rpc
    def list_products(self, wanted: ProductFilter, *, actor: Actor = OPERATOR) -> Json[Page[ProductView]]:
        generation = self.cache.generation("products") if wanted.only_active else None
        if generation is None:
            return queries.list_products(self.work.session, wanted, actor)
        # Only lists of active products are cached, because every user may see them.
        key = f"{generation}:{wanted.model_dump_json(exclude_defaults=True)}"
        page = cast("Json[Page[ProductView]] | None", self.cache.get("products", key))
        return self.cache.load("products", key, lambda: self._load_page(key, wanted, actor)) if page is None else page

    def _load_page(self, key: str, wanted: ProductFilter, actor: Actor) -> Json[Page[ProductView]]:
        page = queries.list_products(self.work.session, wanted, actor)
        self.cache.store("products", key, page, version=0)
        return page

    @rpc
    def get_product(self, product_id: UUID, *, actor: Actor = OPERATOR) -> Json[ProductView]:
        product = cast("Json[ProductView] | None", self.cache.get("product", product_id))
        if product is None:
            product = self.cache.load("product", product_id, lambda: self._load_product(product_id))
        return queries.require_visible(product, actor)

    def _load_product(self, product_id: UUID) -> Json[ProductView]:
        product = queries.get_product(self.work.session, product_id).to_dict()
        self.cache.store("product", product_id, product, product["version"])
        return product

    @rpc
    def get_products(self, wanted: ProductLookup) -> Json[ProductsView]:
        return queries.get_products(self.work.session, wanted).to_dict()

    @rpc
    def export_products(self, after: UUID | None = None, *, actor: Actor = OPERATOR) -> Json[ProductsView]:
        return queries.export_products(self.work.session, after, actor).to_dict()

    def merge_rows(self, session: Session, claimed: Claimed, rows: Sequence[Any]) -> Merged:
        merged = merge_products(
            session, [row.data for row in rows], config["CURRENCY"], self.work.publish, claimed.cause
        )
        if merged.versions:
            self.work.around_commit(self.cache.invalidate, "product", merged.versions)
        if merged.created or merged.versions:
            self.work.around_commit(self.cache.next_generation, "products")
        return Merged(merged.created, len(merged.versions), merged.unchanged)

    @rpc(idempotent=True, admin=True)
    def create_product(
        self, product: CreateProduct, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[ProductView]:
        created = use_cases.create_product(self.work.session, product, config["CURRENCY"], self.work.publish)
        self.work.around_commit(self.cache.next_generation, "products")
        return created.to_dict()

    @rpc(admin=True)
    def update_product(
        self,
        product_id: UUID,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
        changes: UpdateProduct,
    ) -> Json[ProductView]:
        product = use_cases.update_product(self.work.session, product_id, changes, self.work.publish, if_match)
        self.work.around_commit(self.cache.invalidate, "product", {product_id: product.version})
        self.work.around_commit(self.cache.next_generation, "products")
        return product.to_dict()
