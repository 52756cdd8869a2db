"""Migration 0004 of catalog: what it puts into the outbox is what catalog itself would publish."""

import json
from decimal import Decimal
from importlib import import_module

from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog import use_cases
from contracts.catalog import CreateProduct, ProductUpdated
from tests.support import owned_database


def test_every_product_is_published_as_it_is(servers):
    made = []
    with Session(owned_database("catalog")) as session:  # never committed
        session.execute(text("DELETE FROM outbox; DELETE FROM products"))
        for sku, name in (("A-1", 'Çay "demli"\\\n\u2028'), ("B-2", "Lamp")):
            request = CreateProduct.model_construct(
                sku=sku, name=name, price=Decimal("7.50"), description="x\ny", is_active=True
            )
            made.append(use_cases.create_product(session, request, "TRY", lambda *_: None))
        session.execute(text(import_module("catalog.migrations.0004_publish_every_product").PUBLISH))
        rows = session.execute(text("SELECT event_type, body, correlation_id FROM outbox ORDER BY id")).all()
    assert [ProductUpdated.model_validate_json(body).model_dump() for _, body, _ in rows] == [
        view.model_dump() for view in made
    ]
    assert [json.loads(body) for _, body, _ in rows] == [view.to_dict() for view in made]
    assert [(kind, about) for kind, _, about in rows] == [("product.updated", str(view.id)) for view in made]
