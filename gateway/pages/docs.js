// The page /docs: Swagger UI, and a login form above it.
"use strict";

const RENEW_BEFORE_SECONDS = 60;
const element = (id) => document.getElementById(id);
const viewer = SwaggerUIBundle({
  url: "/openapi.json",
  domNode: element("viewer"),
  deepLinking: true,
  docExpansion: "list",
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
let session = null;
let renewal = 0;

async function ask(path, body, token) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const result = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Error(result.detail);
  return result;
}

// Tokens are kept in this page only; a reload removes them.
function use(result) {
  session = result;
  clearTimeout(renewal);
  if (result) {
    viewer.preauthorizeApiKey("bearer", result.access_token);
    renewal = setTimeout(renew, (result.expires_in - RENEW_BEFORE_SECONDS) * 1000);
  } else {
    viewer.authActions.logout(["bearer"]);
  }
  element("logout").hidden = !result;
  say(result ? `${result.user.email} (${result.user.roles.join(", ")}) is logged in.` : "No user is logged in.");
}

function say(text) {
  element("state").textContent = text;
}

async function renew() {
  try {
    use(await ask("/users/refresh-token", { refresh_token: session.refresh_token }));
  } catch (error) {
    use(null);
    say(error.message);
  }
}

element("session").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    use(await ask("/users/login", { email: element("email").value, password: element("password").value }));
    element("password").value = "";
  } catch (error) {
    say(error.message);
  }
});

element("logout").addEventListener("click", async () => {
  const { refresh_token, access_token } = session;
  use(null);
  await ask("/users/logout", { refresh_token }, access_token).catch((error) => say(error.message));
});
