"""Every way into catalog. Start it with `nameko run --config config.yml catalog.service`."""

from nameko import config

from catalog import queries, use_cases
from catalog.models import Base
from contracts.base import Actor
from contracts.catalog import CreateProduct, ProductFilter, ProductLookup, UpdateProduct
from contracts.ids import parse_id
from extensions.cache.versioned_cache import Cache
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work


class CatalogService(operations.Operations):
    """Products and their prices."""

    name = "catalog"
    work = Work(Base)
    cache = Cache()

    @rpc
    def list_products(
        self,
        search=None,
        sku=None,
        min_price=None,
        max_price=None,
        only_active=True,
        sort="-created_at",
        limit=20,
        cursor=None,
        actor=None,
    ):
        """List products: {"items": [...], "next_cursor": ...}. Prices are strings: min_price="10.00"."""
        wanted = ProductFilter.parse(
            {
                "search": search,
                "sku": sku,
                "min_price": min_price,
                "max_price": max_price,
                "only_active": only_active,
                "sort": sort,
                "limit": limit,
                "cursor": cursor,
            }
        )
        generation = self.cache.generation("products") if wanted.only_active else None
        if generation is None:
            return queries.list_products(self.work.session, wanted, Actor.of(actor))
        # What everybody may see, and most look at.
        key = f"{generation}:{wanted.model_dump_json(exclude_defaults=True)}"
        page = self.cache.get("products", key)
        if page is None:
            page = queries.list_products(self.work.session, wanted, Actor.of(actor))
            self.cache.store("products", key, page, version=0)
        return page

    @rpc
    def get_product(self, product_id, actor=None):
        """Show one product; an inactive one only to an admin."""
        product_id = parse_id("product_id", product_id)
        product = self.cache.get("product", product_id)
        if product is None:
            product = queries.get_product(self.work.session, product_id).to_dict()
            self.cache.store("product", product_id, product, product["version"])
        return queries.require_visible(product, Actor.of(actor))

    @rpc
    def get_products(self, product_ids):
        """Show those of up to 100 products that exist, active or not: {"items": [...]}."""
        return queries.get_products(self.work.session, ProductLookup.parse({"product_ids": product_ids}))

    @rpc(idempotent=True)
    def create_product(self, sku, name, price, description="", is_active=True, actor=None, idempotency_key=None):
        """Add a product (admin). The price is a string, such as "149.90"."""
        Actor.of(actor).require_admin()
        request = CreateProduct.parse(
            {"sku": sku, "name": name, "price": price, "description": description, "is_active": is_active}
        )
        product = use_cases.create_product(self.work.session, request, config["CURRENCY"], self.work.publish)
        self.work.around_commit(self.cache.next_generation, "products")
        return product

    @rpc
    def update_product(self, product_id, actor=None, if_match=None, **changes):
        """Change the stated fields of a product (admin): sku, name, price, description, is_active.

        With `if_match`, a list of entity tags, only if the product has one of them.
        """
        Actor.of(actor).require_admin()
        product_id = parse_id("product_id", product_id)
        request = UpdateProduct.parse(changes)
        product = use_cases.update_product(self.work.session, product_id, request, self.work.publish, if_match)
        self.work.around_commit(self.cache.invalidate, "product", {product_id: product.version})
        self.work.around_commit(self.cache.next_generation, "products")
        return product
