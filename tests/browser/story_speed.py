"""The page is fast. The limits leave room for a machine that is busy; the measured values are printed."""

from playwright.sync_api import expect
from windows import ADMIN, URL, picture

# Shows 50 orders a second with eight events each in the parts of the live page, for three seconds. Returns the frames
# of a second before and meanwhile, and how long the page was busy without a break.
FLOOD = """
async () => {
  const base = document.getElementById("app").dataset.base;
  const modules = ["lib/html.js", "lib/board.js", "ui/service_map.js", "views/live_orders.js"];
  const loaded = await Promise.all(modules.map((name) => import(`${base}/${name}`)));
  const { html, render, Board, ServiceMap, LiveOrders, Ticker } = Object.assign({}, ...loaded);
  const frames = (seconds) => new Promise((resolve) => {
    let count = 0;
    const end = performance.now() + seconds * 1000;
    const step = (now) => { count += 1; if (now < end) requestAnimationFrame(step); else resolve(count / seconds); };
    requestAnimationFrame(step);
  });
  const idle = await frames(1);
  const board = new Board();
  const root = document.createElement("div");
  document.querySelector("main").replaceChildren(root);
  render(html`<${ServiceMap} subscribe=${(listener) => board.subscribe(listener)} />
    <${LiveOrders} board=${board} selected="" onSelect=${() => {}} /><${Ticker} board=${board} />`, root);
  let longest = 0;
  const observer = new PerformanceObserver((list) => {
    for (const task of list.getEntries()) longest = Math.max(longest, task.duration);
  });
  observer.observe({ type: "longtask" });
  const steps = [["order.created", "orders"], ["inventory.stock_reserved", "inventory"],
    ["payment.authorized", "payments"], ["order.confirmed", "orders"], ["inventory.stock_committed", "inventory"],
    ["payment.captured", "payments"], ["order.shipped", "orders"], ["order.delivered", "orders"]];
  let orders = 0;
  const timer = setInterval(() => {
    const id = crypto.randomUUID();
    orders += 1;
    const add = ([event, service], index) => setTimeout(() => board.add({ event, service, order_id: id,
      event_id: `${id}${index}`, at: new Date().toISOString(), data: { total_amount: "10.00", currency: "TRY" } }),
      index * 60);
    steps.forEach(add);
  }, 20);
  const busy = await frames(3);
  clearInterval(timer);
  return { idle, busy, longest, orders };
}
"""


def test_the_first_paint_is_early_and_nothing_moves_later(console, shop):
    """The limits are those of the issue, for a machine that does nothing else."""
    product = shop.product()
    console.sign_in(ADMIN)
    console.page.goto("about:blank")
    console.page.goto(f"{URL}/#/live")
    console.sees("Live", exact=True)
    console.page.evaluate(
        """() => { window.moved = 0; new PerformanceObserver((list) => { for (const one of list.getEntries())
        if (!one.hadRecentInput) window.moved += one.value }).observe({type: 'layout-shift', buffered: true}) }"""
    )
    console.page.get_by_label("With this product").select_option(label=product["name"])
    console.button("Twenty orders at once").click()
    expect(console.page.locator(".order-list")).to_contain_text("Confirmed")
    paint = console.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"first paint after {paint:.0f} ms, layout shift {console.page.evaluate('window.moved'):.3f}")
    assert paint < 1000 * 4  # on a machine four times slower
    assert console.page.evaluate("window.moved") < 0.1


def test_fifty_orders_a_second_pass_smoothly(console):
    console.sign_in(ADMIN).open("/live")
    console.sees("Live", exact=True)
    found = console.page.evaluate(FLOOD)
    print(found)
    if found["orders"] > 100:  # else the timers came late: others use the processor, and the values say nothing
        assert found["busy"] > found["idle"] / 2
        assert found["longest"] < 500
    expect(console.page.locator(".order-list")).to_contain_text("Delivered")
    picture(console, "flood")
