"""One realistic example of every request body and response body of the REST API, all from one story.

Ayşe buys two packs of Turkish coffee. The OpenAPI document shows the examples. tests/unit/contracts/test_examples.py
compares them with the code: queues, events, errors, texts.
"""

from typing import Any

from pydantic import BaseModel

from contracts import (
    account_exports,
    catalog,
    imports,
    inventory,
    notifications,
    operations,
    orders,
    payments,
    users,
    webhooks,
)
from contracts.base import Event
from contracts.events import queue_name
from contracts.services import SERVICES

AYSE = "019aac5e-7c00-7f31-9d20-5b1f0a6d4c11"
COFFEE = "019aac5e-7c00-72b4-8c35-e1d7a90b2f64"
ORDER = "019aac60-1a58-7c09-a4e2-90f5be31d7c8"
PAYMENT = "019aac60-1b20-7d44-b1f3-2c68e07a5d90"
REFUND = "019aad12-5e40-7c1b-9d27-6a80f3b5e914"
ADMIN = "019aac5e-7bd1-7f60-8e3a-97c2d4105b6f"
EVENT = "019aac60-1a5c-7e10-8f27-64b0d91c3a52"
EARLIER, NOW = "2026-11-22T09:12:40.510000Z", "2026-11-22T09:14:29.144000Z"
# Shortened: a real token has three parts and hundreds of characters.
ACCESS_TOKEN = "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiIwMTlhYWM1ZSJ9.c2lnbmF0dXJl"
REFRESH_TOKEN = "rt_Zk3v9c1QnN4r8m2yB7wXeT0uL5pJ6hGd"
MAILED_TOKEN = "m1_Qv7Lx2cRk9TzE4bYw8NsA3dHf6JgU0oP"

_USER: dict[str, Any] = {
    "id": AYSE,
    "email": "ayse@example.com",
    "roles": ["customer"],
    "is_active": True,
    "email_verified": True,
    "language": "tr",
    "created_at": EARLIER,
    "updated_at": EARLIER,
}
_WEBHOOK: dict[str, Any] = {
    "id": "019aac60-39c2-7e4b-b5a1-0c9f3d7742e8",
    "url": "https://example.com/hooks/orders",
    "events": ["order.*", "payment.refunded"],
    "scope": "OWN",
    "is_enabled": True,
    "disabled_reason": None,
    "failing_since": None,
    "old_secret_expires_at": None,
    "created_at": "2026-11-22T09:14:25.020000Z",
    "updated_at": "2026-11-22T09:14:25.020000Z",
}
_PRODUCT: dict[str, Any] = {
    "id": COFFEE,
    "sku": "COFFEE-TURK-250",
    "name": "Turkish Coffee, 250 g",
    "description": "Ground as fine as flour, roasted this week.",
    "price": "149.90",
    "currency": "TRY",
    "is_active": True,
    "version": 1,
    "created_at": EARLIER,
    "updated_at": EARLIER,
}
_ADDRESS: dict[str, Any] = {
    "name": "Ayşe Demir",
    "line1": "Bağdat Caddesi 123, D: 4",
    "line2": None,
    "city": "İstanbul",
    "postal_code": "34710",
    "country": "TR",
}
_TIMELINE_ENTRY: dict[str, Any] = {
    "event": inventory.StockReserved.event_type,
    "event_id": EVENT,
    "service": inventory.StockReserved.producer,
    "at": NOW,
    "data": {"order_id": ORDER},
}

EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    # users
    users.Registration: {"email": "ayse@example.com", "password": "a long password of hers", "language": "tr"},
    users.Credentials: {"email": "ayse@example.com", "password": "a long password of hers"},
    users.ChangePassword: {
        "current_password": "a long password of hers",
        "new_password": "an even longer password of hers",
    },
    users.RequestPasswordReset: {"email": "ayse@example.com"},
    users.ConfirmPasswordReset: {"token": MAILED_TOKEN, "new_password": "an even longer password of hers"},
    users.VerifyEmail: {"token": MAILED_TOKEN},
    users.UpdateProfile: {"language": "tr"},
    users.DeleteAccount: {"password": "a long password of hers"},
    users.Accepted: {"detail": "A mail is on its way."},
    users.RefreshToken: {"refresh_token": REFRESH_TOKEN},
    users.VerifyToken: {"token": ACCESS_TOKEN},
    users.UpdateUser: {"roles": ["customer", "admin"]},
    users.UserView: _USER,
    users.SessionView: {
        "user": _USER,
        "access_token": ACCESS_TOKEN,
        "refresh_token": REFRESH_TOKEN,
        "token_type": "Bearer",
        "expires_in": 900,
    },
    users.BrowserSession: {"user": _USER, "access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 900},
    users.BrowserState: {
        "is_signed_in": False,
        "in_production": False,
        "demo_accounts": [{"email": "demo@example.com", "password": "Demo-pass-2026!", "role": "customer"}],
        "supervisor_url": None,
    },
    users.VerifiedToken: {"valid": True, "user_id": AYSE, "roles": ["customer"], "expires_at": NOW},
    users.KeySet: {
        "keys": [
            {
                "crv": "Ed25519",
                "kty": "OKP",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                "use": "sig",
                "alg": "EdDSA",
            }
        ]
    },
    # catalog
    catalog.CreateProduct: {
        "sku": "COFFEE-TURK-250",
        "name": "Turkish Coffee, 250 g",
        "price": "149.90",
        "description": "Ground as fine as flour, roasted this week.",
    },
    catalog.UpdateProduct: {"price": "159.90"},
    catalog.ProductView: _PRODUCT,
    imports.ImportView: {
        "id": EVENT,
        "status": "DONE",
        "mode": "skip_bad",
        "staged": 3,
        "merged": 3,
        "created": 1,
        "updated": 1,
        "unchanged": 1,
        "failed": 1,
        "errors": [{"line": 4, "field": "name", "message": "must have at least 1 character"}],
        "created_at": EARLIER,
        "updated_at": NOW,
    },
    # orders
    orders.CreateOrder: {
        "items": [{"product_id": COFFEE, "quantity": 2, "price_snapshot": "149.90"}],
        "total_amount": "299.80",
        "shipping_address": _ADDRESS,
    },
    orders.CancelOrder: {"reason": "I ordered the wrong size"},
    orders.ShipOrder: {"carrier": "PTT Kargo", "tracking_number": "KP0129384756"},
    orders.OrderView: {
        "id": ORDER,
        "user_id": AYSE,
        "status": "CREATED",
        "cancel_reason": None,
        "total_amount": "299.80",
        "currency": "TRY",
        "items": [
            {
                "product_id": COFFEE,
                "product_sku": "COFFEE-TURK-250",
                "quantity": 2,
                "price_snapshot": "149.90",
                "line_total": "299.80",
            }
        ],
        "stock_status": "PENDING",
        "payment_status": "PENDING",
        "shipping_address": _ADDRESS,
        "carrier": None,
        "tracking_number": None,
        "version": 1,
        "created_at": NOW,
        "updated_at": NOW,
    },
    orders.TimelineView: {"items": [_TIMELINE_ENTRY]},
    orders.SagaView: {
        "id": ORDER,
        "user_id": AYSE,
        "status": "CREATED",
        "stock_status": "RESERVED",
        "payment_status": "PENDING",
        "awaits": ["payments"],
        "since": NOW,
        "created_at": NOW,
        "deadline_at": "2026-11-22T09:14:59.144000Z",
    },
    # inventory
    inventory.SetStock: {"product_id": COFFEE, "product_sku": "COFFEE-TURK-250", "quantity": 4000},
    inventory.SetStockLevel: {"quantity": 3500},
    inventory.AdjustStock: {"delta": -3, "reason": "three packs were torn"},
    inventory.StockView: {
        "product_id": COFFEE,
        "product_sku": "COFFEE-TURK-250",
        "on_hand": 4000,
        "reserved": 2,
        "available": 3998,
        "low_stock": 100,
        "is_low": False,
        "updated_at": NOW,
    },
    inventory.SetThreshold: {"low_stock": 100},
    inventory.MovementView: {
        "id": "019aac60-1c01-7a3e-9b52-8d40f6172ce5",
        "product_id": COFFEE,
        "kind": "RESERVED",
        "on_hand_delta": 0,
        "reserved_delta": 2,
        "on_hand": 4000,
        "reserved": 2,
        "order_id": ORDER,
        "reason": None,
        "actor_id": None,
        "event_id": EVENT,
        "request_id": "a1b2c3",
        "created_at": NOW,
    },
    # payments
    payments.PaymentView: {
        "id": PAYMENT,
        "order_id": ORDER,
        "user_id": AYSE,
        "amount": "299.80",
        "currency": "TRY",
        "status": "CAPTURED",
        "transaction_reference": "auth_444969de38e3f894207537e50d89dbf0",
        "failure_reason": None,
        "refunded_amount": "0.00",
        "created_at": NOW,
        "updated_at": NOW,
    },
    payments.RefundPayment: {"amount": "149.90", "reason": "one pack arrived open"},
    payments.RefundView: {
        "id": REFUND,
        "payment_id": PAYMENT,
        "order_id": ORDER,
        "amount": "149.90",
        "currency": "TRY",
        "status": "PENDING",
        "reason": "one pack arrived open",
        "requested_by": ADMIN,
        "created_at": NOW,
        "completed_at": None,
    },
    payments.AttemptView: {
        "operation": "refund",
        "attempt": 2,
        "at": NOW,
        "duration_ms": 84,
        "outcome": "REFUNDED",
        "detail": None,
        "refund_id": REFUND,
    },
    # notifications
    notifications.NotificationView: {
        "id": "019aac60-2f10-7b86-a0c4-57e3d2198f6b",
        "order_id": ORDER,
        "kind": orders.OrderConfirmed.event_type,
        "subject": "Your order is confirmed",
        "body": f"Your order {ORDER} of 299.80 TRY is paid, and we are packing it.",
        "channel": "IN_APP",
        "status": "SENT",
        "created_at": NOW,
        "read_at": None,
    },
    notifications.SetPreferences: {"items": [{"kind": "order.created", "email": True}]},
    notifications.PreferencesView: {
        "items": [{"kind": "order.created", "in_app": True, "email": True, "webhook": True}],
    },
    # webhooks
    webhooks.CreateWebhook: {"url": "https://example.com/hooks/orders", "events": ["order.*", "payment.refunded"]},
    webhooks.UpdateWebhook: {"is_enabled": True},
    webhooks.ReplayEvents: {"since": "2026-11-21T00:00:00Z", "until": "2026-11-22T00:00:00Z"},
    webhooks.WebhookView: _WEBHOOK,
    webhooks.WebhookSecretView: _WEBHOOK | {"secret": "whsec_bm90IGEgc2VjcmV0LCBvbmx5IGFuIGV4YW1wbGUh"},
    webhooks.DeliveryView: {
        "id": "019aac60-3a54-7cc1-8d0f-2b7e6a915c40",
        "webhook_id": _WEBHOOK["id"],
        "event_id": EVENT,
        "event": orders.OrderConfirmed.event_type,
        "state": "DELIVERED",
        "attempts": 1,
        "next_attempt_at": None,
        "last_attempt_at": NOW,
        "response_status": 204,
        "response_body": "",
        "duration_ms": 87,
        "error": None,
        "created_at": NOW,
    },
    webhooks.ReplayView: {"scheduled": 12, "continue_since": None},
    # operations
    operations.DeadLetterView: {
        "id": "019aac61-0d3c-7f58-93a1-b64c8e2075fd",
        "service": "notifications",
        "queue": queue_name("notifications", orders.OrderConfirmed),
        "event": orders.OrderConfirmed.event_type,
        "message_id": EVENT,
        "correlation_id": ORDER,
        "body": f'{{"order_id": "1", "user_id": "{AYSE}", "total_amount": "299.80", "currency": "TRY"}}',
        "headers": {"x-request-id": "a1b2c3"},
        "error": "not a valid OrderConfirmed: order_id: must be a UUID",
        "attempts": 0,
        "died_at": NOW,
        "replayed_at": None,
        "replayed_by": None,
        "is_forged": False,
        "has_failed_again": False,
    },
    operations.DeadLetterSelection: {"ids": ["019aac61-0d3c-7f58-93a1-b64c8e2075fd"]},
    operations.DeadLetterResults: {
        "items": [
            {"id": "019aac61-0d3c-7f58-93a1-b64c8e2075fd", "outcome": "discarded", "code": None, "detail": None},
        ],
        "remaining": 0,
    },
    operations.DeadLetterGroups: {
        "items": [
            {
                "group": "notifications-5d41402abc4b2a76b9719d911017c592",
                "service": "notifications",
                "queue": queue_name("notifications", orders.OrderConfirmed),
                "event": orders.OrderConfirmed.event_type,
                "error": "not a valid OrderConfirmed: order_id: must be a UUID",
                "count": 3,
                "failed_again": 1,
                "oldest_at": NOW,
                "newest_at": NOW,
            }
        ],
        "next_cursor": None,
    },
    operations.RefusedEvent: {
        "id": EVENT,
        "service": "orders",
        "event": orders.OrderConfirmed.event_type,
        "correlation_id": ORDER,
        "error": "no queue took it",
        "attempts": 2,
        "next_try_at": NOW,
        "created_at": NOW,
    },
    operations.OperationalView: {
        "services": {
            service: {
                "outbox": 0,
                "outbox_oldest_seconds": 0.0,
                "refused_events": 0,
                "dead_letters": 3 if service == "notifications" else 0,
                "circuits": [],
            }
            for service in SERVICES
        },
        "circuits": [{"name": service, "state": "closed"} for service in SERVICES],
    },
    operations.ConsistencyView: {
        "at_rest": True,
        "in_flight": 0,
        "checks": [{"name": "orders_decided", "count": 0, "ids": []}],
    },
    operations.LivenessView: {"status": "ok"},
    operations.ReadinessView: {
        "status": "ok",
        "services": {service: {"broker": "ok", "database": "ok", "redis": "ok"} for service in SERVICES},
    },
}
EXAMPLES[account_exports.AccountExport] = {
    "user": _USER,
    "sessions": [
        {
            "id": "019aac5e-7c10-7a44-8d21-3f6b9c0e1a72",
            "created_at": EARLIER,
            "expires_at": "2026-12-22T09:12:40.510000Z",
            "revoked_at": None,
        }
    ],
    "orders": [{**EXAMPLES[orders.OrderView], "payment_method": "pm_ok", "timeline": [_TIMELINE_ENTRY]}],
    "payments": [{**EXAMPLES[payments.PaymentView], "payment_method": "pm_ok"}],
    "notifications": [EXAMPLES[notifications.NotificationView]],
    "notification_preferences": EXAMPLES[notifications.PreferencesView]["items"],
    "webhooks": [EXAMPLES[webhooks.WebhookView]],
    "next_cursor": None,
}

_OF_ORDER = {"order_id": ORDER, "user_id": AYSE}
SENT: dict[type[Event], dict[str, Any]] = {
    orders.OrderCreated: {
        **_OF_ORDER,
        "total_amount": "299.80",
        "currency": "TRY",
        "items": [
            {"product_id": COFFEE, "product_sku": "COFFEE-TURK-250", "quantity": 2, "price_snapshot": "149.90"},
        ],
        "payment_method": "pm_ok",
    },
    orders.OrderConfirmed: {**_OF_ORDER, "total_amount": "299.80", "currency": "TRY"},
    orders.OrderCancelled: {**_OF_ORDER, "reason": "OUT_OF_STOCK"},
    orders.OrderShipped: {**_OF_ORDER, "carrier": "PTT Kargo", "tracking_number": "KP0129384756"},
    orders.OrderDelivered: _OF_ORDER,
    payments.PaymentRefunded: {**_OF_ORDER, "payment_id": PAYMENT, "amount": "299.80", "currency": "TRY"},
    payments.PaymentPartiallyRefunded: {
        **_OF_ORDER,
        "payment_id": PAYMENT,
        "amount": "149.90",
        "remaining": "149.90",
        "currency": "TRY",
    },
    inventory.StockLow: {"product_id": COFFEE, "product_sku": "COFFEE-TURK-250", "available": 4, "threshold": 10},
}
"""The `data` of each event that is sent to webhooks."""

_PRODUCTS_FILE = {
    imports.CSV: "sku,name,price,description,is_active\r\nCOFFEE-TURK-250,Turkish Coffee,149.90,Fresh.,true\r\n",
    imports.JSON_LINES: '{"sku": "COFFEE-TURK-250", "name": "Turkish Coffee", "price": "149.90"}\n',
}
FILES: dict[str, dict[str, str]] = {
    "import_products": _PRODUCTS_FILE,
    "export_products": _PRODUCTS_FILE,
    "import_stock": {
        imports.CSV: "product_sku,quantity\r\nCOFFEE-TURK-250,1000\r\n",
        imports.JSON_LINES: '{"product_sku": "COFFEE-TURK-250", "quantity": 1000}\n',
    },
}
"""The files of operations that take or send one, by the name of the operation and the media type."""
