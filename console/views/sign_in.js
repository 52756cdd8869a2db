/** Signing in, and the demo accounts where the gateway does not run in production. */
import { html, useSignal } from "../lib/html.js";
import { Problem } from "../lib/http.js";
import { dictionary } from "../lib/i18n.js";
import { link, navigate } from "../lib/router.js";
import { browserState, signIn } from "../lib/session.js";
import { Button } from "../ui/button.js";
import { Field, Form } from "../ui/form.js";
import { Page, Panel } from "../ui/page.js";

const text = dictionary(
  {
    title: "Sign in",
    email: "E-mail address",
    password: "Password",
    action: "Sign in",
    signUp: "Create an account",
    demo: "Demo accounts",
    demoText: "This gateway does not run in production, so its shop can have these accounts.",
    customer: "Sign in as the customer",
    admin: "Sign in as the administrator",
    otherPassword: "The demo accounts have another password here: the one in DEMO_PASSWORD, which make run printed. Enter it in the form.",
  },
  {
    title: "Giriş yap",
    email: "E-posta adresi",
    password: "Parola",
    action: "Giriş yap",
    signUp: "Hesap aç",
    demo: "Gösteri hesapları",
    demoText: "Bu geçit üretimde çalışmıyor; mağazasında bu hesaplar olabilir.",
    customer: "Müşteri olarak gir",
    admin: "Yönetici olarak gir",
    otherPassword: "Gösteri hesaplarının parolası burada başka: make run'ın yazdığı DEMO_PASSWORD. Onu forma girin.",
  },
);

/** @param {{query: Record<string, string>}} props */
export default function SignIn({ query }) {
  const state = useSignal(browserState);
  const goOn = () => navigate(query.next?.startsWith("/") ? query.next : "/");
  const submit = async (/** @type {Record<string, string>} */ values) => {
    await signIn(values.email, values.password);
    goOn();
  };
  return html`<${Page} title=${text("title")}>
    <div class="narrow stack">
      <${Form} onSubmit=${submit} action=${text("action")} class="panel" extra=${html`<a href=${link("/sign-up", query)}>${text("signUp")}</a>`}>
        <${Field} name="email" type="email" label=${text("email")} autocomplete="username" required />
        <${Field} name="password" type="password" label=${text("password")} autocomplete="current-password" required />
      <//>
      ${state.demo_accounts.length > 0 && html`<${DemoAccounts} accounts=${state.demo_accounts} onSignedIn=${goOn} />`}
    </div>
  <//>`;
}

/** @param {{accounts: import("../lib/session.js").DemoAccount[], onSignedIn: () => void}} props */
export function DemoAccounts({ accounts, onSignedIn }) {
  const enter = async (/** @type {import("../lib/session.js").DemoAccount} */ account) => {
    try {
      await signIn(account.email, account.password);
    } catch (error) {
      if (error instanceof Problem && error.code === "INVALID_CREDENTIALS") {
        throw new Problem({ status: 401, code: "DEMO_PASSWORD", detail: text("otherPassword") });
      }
      throw error;
    }
    onSignedIn();
  };
  return html`<${Panel} title=${text("demo")}>
    <p class="muted">${text("demoText")}</p>
    <ul class="plain-list">
      ${accounts.map(
        (account) => html`<li key=${account.email} class="line">
          <span>${account.email}</span>
          <${Button} onClick=${() => enter(account)}>${text(account.role === "admin" ? "admin" : "customer")}<//>
        </li>`,
      )}
    </ul>
  <//>`;
}
