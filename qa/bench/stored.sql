-- Old orders: stored.py substitutes the variables such as $$base, and runs each part statement by statement.
--
-- Every pair of products is ordered once in a block of orders, so the balance after each ledger entry can be computed.
-- Every tenth pair is sold out from the beginning: its orders are cancelled and have no movements. Rows are sorted if
-- their table numbers them.

-- [functions]
-- UUIDv7 as from contracts/ids.py, with a hash instead of the random part; `ms` is its time.
CREATE FUNCTION pg_temp.made(kind text, n bigint, ms bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT CAST(overlay(overlay(lpad(to_hex(ms), 12, '0') || substr(md5(kind || n), 1, 20) PLACING '7' FROM 13)
                        PLACING '8' FROM 17) AS uuid)
$$;
CREATE FUNCTION pg_temp.price(product bigint) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT 10.90 + product % 90
$$;
CREATE FUNCTION pg_temp.first_stock(product bigint, stock bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN product / 2 % 10 = 9 THEN 0 ELSE stock END
$$;
CREATE FUNCTION pg_temp.line(product bigint, base bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('product_id', pg_temp.made('product', product, base), 'quantity', 1, 'product_sku',
                              'STORED-' || product, 'price_snapshot', pg_temp.price(product)::text)
$$;
SET work_mem = '256MB';
SET jit = off;
-- Foreign keys hold by construction, so their checks are switched off.
SET session_replication_role = replica;

-- [orders in numbers]
SELECT n, ms, to_timestamp(ms / 1000.0) AS at, pg_temp.made('order', n, ms) AS id,
       pg_temp.made('user', n * 7919 % $customers, $base) AS user_id,
       n % $pairs % 10 <> 9 AS delivered,
       n / $pairs AS sold, -- so often its two products had been before
       n % $pairs * 2 AS one, n % $pairs * 2 + 1 AS two,
       pg_temp.price(n % $pairs * 2) + pg_temp.price(n % $pairs * 2 + 1) AS total
FROM (SELECT n, $base + n * $apart AS ms FROM generate_series($first, CAST($last AS bigint) - 1) AS n) AS numbers

-- [users, once]
INSERT INTO users (id, email, password_hash, roles, is_active, created_at, updated_at)
SELECT pg_temp.made('user', n, $base), 'stored-' || n || '@example.com', '!', ARRAY['customer'], true,
       to_timestamp($base / 1000.0), to_timestamp($base / 1000.0)
FROM generate_series(0, CAST($customers AS bigint) - 1) AS n;

-- [sessions]
WITH families AS (
    INSERT INTO refresh_families (id, user_id, expires_at)
    SELECT gen_random_uuid(), id, now() + interval '20 days' FROM users RETURNING id
)
INSERT INTO refresh_tokens (fingerprint, family_id, access_token_id, access_roles, issued_at)
SELECT decode(md5(id::text), 'hex'), id, gen_random_uuid(), ARRAY['customer'], now() FROM families;

-- [messages]
INSERT INTO inbox (message_id, handler, created_at)
SELECT gen_random_uuid(), 'stored', now() - n % 47 * interval '1 hour' FROM generate_series($first + 1, $last) AS n;
INSERT INTO inbox (message_id, handler, created_at)
SELECT gen_random_uuid(), 'stored', now() - interval '3 days' FROM generate_series(1, 100);
INSERT INTO idempotency_keys (actor, method, key, fingerprint, answer, created_at)
SELECT n::text, 'stored', n::text, '', '{}', now() - n % 47 * interval '1 hour'
FROM generate_series($first + 1, $last) AS n;

-- [catalog, once]
INSERT INTO products (id, sku, name, description, price, currency, is_active, version, created_at, updated_at)
SELECT pg_temp.made('product', n, $base), 'STORED-' || n, 'Stored ' || n, 'Product ' || md5(n::text), pg_temp.price(n),
       'TRY', true, 1, to_timestamp($base / 1000.0), to_timestamp($base / 1000.0)
FROM generate_series(0, CAST($products AS bigint) - 1) AS n;

-- [inventory, once]
INSERT INTO stock (product_id, product_sku, on_hand, reserved)
SELECT pg_temp.made('product', n, $base), 'STORED-' || n, pg_temp.first_stock(n, $stock), 0
FROM generate_series(0, CAST($products AS bigint) - 1) AS n;
INSERT INTO movements (id, product_id, kind, on_hand_delta, reserved_delta, on_hand, reserved, created_at)
SELECT pg_temp.made('first', n, $base), pg_temp.made('product', n, $base), 'FIRST', pg_temp.first_stock(n, $stock), 0,
       pg_temp.first_stock(n, $stock), 0, to_timestamp($base / 1000.0)
FROM generate_series(0, CAST($products AS bigint) - 1) AS n;

-- [orders]
INSERT INTO orders (id, user_id, status, cancel_reason, total_amount, currency, stock_status, payment_status, version,
                    deadline_at, created_at, updated_at)
SELECT id, user_id, CASE WHEN delivered THEN 'DELIVERED' ELSE 'CANCELLED' END,
       CASE WHEN NOT delivered THEN 'OUT_OF_STOCK' END, total, 'TRY',
       CASE WHEN delivered THEN 'COMMITTED' ELSE 'FAILED' END, CASE WHEN delivered THEN 'CAPTURED' ELSE 'VOIDED' END,
       CASE WHEN delivered THEN 7 ELSE 4 END, at + interval '30 s', at, at + interval '1 s'
FROM $orders;
INSERT INTO order_items (order_id, line, product_id, product_sku, quantity, price_snapshot)
SELECT id, line, pg_temp.made('product', product, $base), 'STORED-' || product, 1, pg_temp.price(product)
FROM $orders, LATERAL (VALUES (1, one), (2, two)) AS lines (line, product);

-- [orders: timeline]
INSERT INTO timeline (order_id, event, event_id, service, at, data)
SELECT id, event, pg_temp.made(event, n, ms + step), service, at + step * interval '1 ms',
       jsonb_build_object('order_id', id) || CASE
           WHEN event = 'order.created' THEN jsonb_build_object(
               'user_id', user_id, 'total_amount', total::text, 'currency', 'TRY',
               'items', jsonb_build_array(pg_temp.line(one, $base), pg_temp.line(two, $base)))
           WHEN event = 'order.confirmed' THEN jsonb_build_object(
               'user_id', user_id, 'total_amount', total::text, 'currency', 'TRY')
           WHEN event = 'order.cancelled' THEN jsonb_build_object('user_id', user_id, 'reason', 'OUT_OF_STOCK')
           WHEN service = 'orders' THEN jsonb_build_object('user_id', user_id)
           WHEN service = 'payments' THEN jsonb_build_object(
               'payment_id', pg_temp.made('payment', n, ms), 'transaction_reference', 'auth_' || md5('auth' || n),
               'amount', total::text, 'currency', 'TRY')
           WHEN event = 'inventory.stock_failed' THEN jsonb_build_object('reason', 'none left', 'shortages', '[]')
           ELSE '{}'
       END
FROM $orders JOIN (VALUES
    (0, true, 'order.created', 'orders'), (1, true, 'inventory.stock_reserved', 'inventory'),
    (2, true, 'payment.authorized', 'payments'), (3, true, 'order.confirmed', 'orders'),
    (4, true, 'inventory.stock_committed', 'inventory'), (5, true, 'payment.captured', 'payments'),
    (6, true, 'order.shipped', 'orders'), (7, true, 'order.delivered', 'orders'),
    (0, false, 'order.created', 'orders'), (1, false, 'inventory.stock_failed', 'inventory'),
    (2, false, 'order.cancelled', 'orders'), (3, false, 'payment.authorized', 'payments'),
    (4, false, 'payment.voided', 'payments')
) AS steps (step, wanted, event, service) ON wanted = delivered
ORDER BY n, step;

-- [inventory]
INSERT INTO reservations (order_id, status, created_at, updated_at)
SELECT id, CASE WHEN delivered THEN 'COMMITTED' ELSE 'FAILED' END, at, at FROM $orders;
INSERT INTO reservation_lines (order_id, product_id, quantity)
SELECT id, pg_temp.made('product', product, $base), 1
FROM $orders, LATERAL (VALUES (one), (two)) AS lines (product) WHERE delivered;
INSERT INTO movements (id, product_id, kind, on_hand_delta, reserved_delta, on_hand, reserved, order_id, created_at)
SELECT pg_temp.made(kind || product, n, ms + step), pg_temp.made('product', product, $base), kind, -taken, reserved,
       $stock - sold - taken, 1 - taken, id, at
FROM $orders, LATERAL (VALUES
    (1, 'RESERVED', one, 0, 1), (1, 'RESERVED', two, 0, 1),
    (4, 'COMMITTED', one, 1, -1), (4, 'COMMITTED', two, 1, -1)
) AS entries (step, kind, product, taken, reserved)
WHERE delivered ORDER BY n, step;

-- [inventory, at last]
UPDATE stock SET on_hand = newest.on_hand
FROM stock AS each, LATERAL (
    SELECT on_hand FROM movements WHERE product_id = each.product_id ORDER BY entry DESC LIMIT 1
) AS newest
WHERE each.product_id = stock.product_id AND stock.product_sku LIKE 'STORED-%';

-- [payments]
INSERT INTO payments (id, order_id, user_id, amount, currency, status, transaction_reference, cause_message_id,
                      cause_request_id, cause_traceparent, created_at, updated_at)
SELECT pg_temp.made('payment', n, ms), id, user_id, total, 'TRY', CASE WHEN delivered THEN 'CAPTURED' ELSE 'VOIDED' END,
       'auth_' || md5('auth' || n), pg_temp.made('order.created', n, ms), id::text,
       '00-' || md5('trace' || n) || '-' || substr(md5('span' || n), 1, 16) || '-01', at, at
FROM $orders;

-- [notifications]
INSERT INTO notifications (id, user_id, about_id, order_id, kind, subject, body, created_at)
SELECT pg_temp.made(kind, n, ms + step), user_id, id, id, kind, subject,
       'Your order ' || id || ' of ' || total || ' TRY: ' || subject || '.', at + step * interval '1 ms'
FROM $orders JOIN (VALUES
    (0, true, 'order.created', 'We have received your order'), (3, true, 'order.confirmed', 'Your order is confirmed'),
    (6, true, 'order.shipped', 'Your order is on its way'), (7, true, 'order.delivered', 'Your order has arrived'),
    (0, false, 'order.created', 'We have received your order'), (2, false, 'order.cancelled', 'Your order is cancelled')
) AS steps (step, wanted, kind, subject) ON wanted = delivered
ORDER BY n, step;
