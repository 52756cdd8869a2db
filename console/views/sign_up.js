/** Opening a customer's account. */
import { html, useMemo } from "../lib/html.js";
import { keyring } from "../lib/api.js";
import { dictionary } from "../lib/i18n.js";
import { link, navigate } from "../lib/router.js";
import { signUp } from "../lib/session.js";
import { Field, Form } from "../ui/form.js";
import { Page } from "../ui/page.js";

const text = dictionary(
  {
    title: "Create an account",
    email: "E-mail address",
    password: "Password",
    hint: "At least eight characters. Long and unusual is good; special characters are not needed.",
    action: "Create the account",
    signIn: "I have an account",
  },
  {
    title: "Hesap aç",
    email: "E-posta adresi",
    password: "Parola",
    hint: "En az sekiz karakter. Uzun ve alışılmadık olması iyidir; özel karakter gerekmez.",
    action: "Hesabı aç",
    signIn: "Hesabım var",
  },
);

/** @param {{query: Record<string, string>}} props */
export default function SignUp({ query }) {
  const keyFor = useMemo(keyring, []);
  const submit = async (/** @type {Record<string, string>} */ values) => {
    await signUp(values.email, values.password, keyFor(values));
    navigate(query.next?.startsWith("/") ? query.next : "/");
  };
  return html`<${Page} title=${text("title")}>
    <div class="narrow">
      <${Form} onSubmit=${submit} action=${text("action")} class="panel" extra=${html`<a href=${link("/sign-in", query)}>${text("signIn")}</a>`}>
        <${Field} name="email" type="email" label=${text("email")} autocomplete="username" required />
        <${Field} name="password" type="password" label=${text("password")} hint=${text("hint")} autocomplete="new-password" required />
      <//>
    </div>
  <//>`;
}
