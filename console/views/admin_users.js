/** The accounts: roles, and switching them off and on. */
import {
  api, Badge, Button, ButtonLink, confirm, dateTime, dictionary, html, link, List, Page, session, toast,
  usePages, word,
} from "../kit.js";

const text = dictionary(
  {
    title: "Users",
    email: "E-mail",
    roles: "Roles",
    customer: "Customer",
    admin: "Administrator",
    active: "Active",
    inactive: "Switched off",
    unverified: "Address not verified",
    orders: "Orders",
    promote: "Make administrator",
    demote: "Take the role away",
    deactivate: "Switch off",
    activate: "Switch on",
    promoteText: "{email} can then do everything here: refund payments, change stock, and switch off accounts.",
    demoteText: "{email} can no longer open the pages of administrators. Open sessions lose the role at once.",
    deactivateText: "{email} is signed out everywhere at once and can no longer sign in. Orders go on.",
    you: "you",
  },
  {
    title: "Kullanıcılar",
    email: "E-posta",
    roles: "Roller",
    customer: "Müşteri",
    admin: "Yönetici",
    active: "Etkin",
    inactive: "Kapalı",
    unverified: "Adres doğrulanmadı",
    orders: "Siparişler",
    promote: "Yönetici yap",
    demote: "Yöneticiliği al",
    deactivate: "Kapat",
    activate: "Aç",
    promoteText: "{email} artık burada her şeyi yapabilir: ödemeleri iade etmek, stok değiştirmek, hesap kapatmak.",
    demoteText: "{email} artık yönetici sayfalarını açamaz. Açık oturumlar rolü hemen yitirir.",
    deactivateText: "{email} her yerde hemen çıkış yapar ve artık giriş yapamaz. Siparişler sürer.",
    you: "siz",
  },
);

export default function AdminUsers() {
  const users = usePages("/users", { limit: 20 });
  const change = async (/** @type {any} */ user, /** @type {"promote" | "demote" | "deactivate" | "activate"} */ what) => {
    const isAllowed = what === "activate" || (await confirm({
      title: text(what),
      body: text(/** @type {"demoteText"} */ (`${what}Text`), { email: user.email }),
      action: text(what),
      isDestructive: what !== "promote",
    }));
    if (!isAllowed) return;
    const body = { promote: { roles: ["customer", "admin"] }, demote: { roles: ["customer"] }, deactivate: { is_active: false }, activate: { is_active: true } }[what];
    const changed = await api.patch(`/users/${user.id}`, body);
    users.change((items) => items.map((one) => (one.id === changed.id ? changed : one)));
    toast(word("saved"));
  };
  return html`<${Page} title=${text("title")}>
    <${List} pages=${users} caption=${text("title")} columns=${columns()} none="" actions=${(/** @type {any} */ row) => html`<${Actions} user=${row} onChange=${change} />`} />
  <//>`;
}

/** @param {any} user */
const isAdmin = (user) => user.roles.includes("admin");
/** @param {any} user */
const isSelf = (user) => user.id === session.peek()?.user.id;

/** @param {{user: any, onChange: (user: any, what: string) => Promise<void>}} props */
function Actions({ user, onChange }) {
  const role = isAdmin(user) ? "demote" : "promote";
  const state = user.is_active ? "deactivate" : "activate";
  const name = html`<span class="visually-hidden"> ${user.email}</span>`;
  return html`<${ButtonLink} href=${link("/admin/orders", { user: user.id })}>${text("orders")}${name}<//>
    <${Button} disabled=${isSelf(user)} onClick=${() => onChange(user, role)}>${text(role)}${name}<//>
    <${Button} kind=${user.is_active ? "danger" : "plain"} disabled=${isSelf(user)} onClick=${() => onChange(user, state)}>${text(state)}${name}<//>`;
}

const columns = () =>
  /** @type {import("../ui/table.js").Column<any>[]} */ ([
    { label: text("email"), value: (row) => html`<span>${row.email}${isSelf(row) && html` <span class="muted small">(${text("you")})</span>`}</span>` },
    { label: text("roles"), value: (row) => html`<${Badge} tone=${isAdmin(row) ? "info" : "neutral"}>${text(isAdmin(row) ? "admin" : "customer")}<//>` },
    {
      label: word("status"),
      value: (row) => html`<span class="parts"><${Badge} tone=${row.is_active ? "good" : "bad"}>${text(row.is_active ? "active" : "inactive")}<//>
        ${!row.email_verified && html`<${Badge}>${text("unverified")}<//>`}</span>`,
    },
    { label: word("created"), value: (row) => dateTime(row.created_at) },
  ]);
