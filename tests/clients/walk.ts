// Walks from registration to a delivered order with the types that openapi-typescript makes, through openapi-fetch.
// The test checks it with tsc, then runs it with Node.js, which removes the types.
import createClient from "openapi-fetch";
import type { components, paths } from "./shop.d.ts";

declare const process: { env: Record<string, string | undefined> };

type Problem = components["schemas"]["Problem"];
type Order = components["schemas"]["OrderView"];
type Result<T> = { data?: T; error?: Problem; response: Response };

const { GATEWAY_URL: baseUrl = "", PASSWORD: password = "", ADMIN: admin = "", SECONDS } = process.env;
const deadline = Date.now() + Number(SECONDS) * 1000;

function check(isTrue: boolean, what: string): asserts isTrue {
  if (!isTrue) throw new Error(what);
}

/** Return the body of a success; `error` is a Problem wherever the client has types for the errors. */
function ok<T>({ data, error, response }: Result<T>): T {
  check(error === undefined && data !== undefined, `${response.url}: ${response.status} ${error?.code} ${error?.detail}`);
  return data;
}

function refused({ error, response }: Result<unknown>, code: Problem["code"]): Problem {
  check(error?.code === code && error.status === response.status, `${code} expected: ${JSON.stringify(error)}`);
  return error;
}

const client = (token?: string) =>
  createClient<paths>({ baseUrl, headers: token === undefined ? {} : { Authorization: `Bearer ${token}` } });

const key = () => ({ header: { "Idempotency-Key": crypto.randomUUID() } });

async function reach(user: ReturnType<typeof client>, orderId: string, status: Order["status"]): Promise<Order> {
  while (Date.now() < deadline) {
    const order = ok(await user.GET("/orders/{order_id}", { params: { path: { order_id: orderId } } }));
    if (order.status === status) return order;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`the order did not become ${status}`);
}

const anyone = client();
const account = { email: `${crypto.randomUUID()}@example.com`, password };
const session = ok(await anyone.POST("/users/register", { body: account, params: key() }));
const user = client(session.access_token);
check(ok(await user.GET("/users/me")).email === account.email, "the profile");
const boss = client(ok(await anyone.POST("/users/login", { body: { email: admin, password } })).access_token);

const wanted = { sku: crypto.randomUUID(), name: "Çay", price: "12.50" };
const product = ok(await boss.POST("/products", { body: wanted, params: key() }));
const stock = { product_id: product.id, product_sku: product.sku, quantity: 10 };
check(ok(await boss.POST("/inventory", { body: stock })).available === 10, "the stock");

const items = [{ product_id: product.id, quantity: 2 }];
const once = key();
const placed = await user.POST("/orders", { body: { items }, params: once });
const order = ok(placed);
const again = await user.POST("/orders", { body: { items }, params: once });
check(ok(again).id === order.id && again.response.headers.get("idempotent-replayed") === "true", "the repeated order");
check(order.total_amount === "25.00" && order.items[0]?.line_total === "25.00", "the price");
await reach(user, order.id, "CONFIRMED");

const path = { params: { path: { order_id: order.id } } };
refused(await user.POST("/orders/{order_id}/ship", path), "PERMISSION_DENIED");
const unknown = { params: { path: { order_id: crypto.randomUUID() } } };
refused(await user.GET("/orders/{order_id}", unknown), "ORDER_NOT_FOUND");
const empty = refused(await user.POST("/orders", { body: { items: [] } }), "VALIDATION_ERROR");
check(empty.errors?.[0]?.field === "items", "the field of the error");

check(ok(await boss.POST("/orders/{order_id}/ship", path)).status === "SHIPPED", "shipped");
check(ok(await boss.POST("/orders/{order_id}/deliver", path)).status === "DELIVERED", "delivered");
const delivered = ok(await user.GET("/orders", { params: { query: { status: "DELIVERED", limit: 5 } } }));
check(delivered.items.map((one) => one.id).join() === order.id, "the list");
console.log("delivered", order.id);
