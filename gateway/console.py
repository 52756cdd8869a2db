"""The console: the page at `/` and its modules, from console/ and from the packages that npm has installed there.

The modules have the hash of all of them in their path, so a browser keeps them for a year, and a page never mixes two
versions. The page itself is asked for each time.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from nameko import config
from nameko.extensions import DependencyProvider

from contracts.errors import ServiceUnavailable
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response
from extensions.http.message.static_files import IMMUTABLE, StaticFile
from extensions.http.routing.dispatcher import HttpServer
from extensions.runtime.parsed_settings import is_production

FOLDER = Path(__file__).parents[1] / "console"
# What modules import by name, and the file of the package that has it.
PACKAGES = {
    "preact": "preact/dist/preact.mjs",
    "preact/hooks": "preact/hooks/dist/hooks.mjs",
    "htm": "htm/dist/htm.module.js",
    "uplot": "uplot/dist/uPlot.esm.js",
    "@preact/signals-core": "@preact/signals-core/dist/signals-core.mjs",
}
STYLES_OF_PACKAGES = {"uplot.css": "uplot/dist/uPlot.min.css"}
MEDIA_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
SOURCES = ("*.js", "lib/**/*.js", "ui/**/*.js", "views/**/*.js", "styles/*.css", "*.svg")
FIRST_MODULE = "app.js"
POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; connect-src 'self'{supervisor}; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# What only people read: comments in the form of JSDoc and whole lines of comments, and indentation. Templates of htm
# ignore indentation too, and no other text of the console has several lines.
_DOCUMENTATION = re.compile(r"/\*\*(?:(?!\*/).)*\*/ ?|^[ \t]*//[^\n]*$", re.MULTILINE | re.DOTALL)
_INDENTATION = re.compile(r"^\s+", re.MULTILINE)
# A static import or re-export. Modules that are imported while the page runs, by import(), are not matched.
_IMPORT = re.compile(r"""^(?:import|export)\b[^;"']*?["']([^"']+)["'];""", re.MULTILINE)
_SUPERVISOR = re.compile(r"http://127\.0\.0\.1:[0-9]{1,5}")
_NOT_INSTALLED = (
    "The packages of the console are not installed. Run `make console` while this machine reaches its npm registry, "
    "then restart the gateway. The API works without them."
)


class PackagesMissing(ServiceUnavailable):
    """npm has not installed the packages of the console."""

    detail = _NOT_INSTALLED


class MissingPage(StaticFile):
    """Stands at `/` while the packages are not installed, and says what to do."""

    def response(self, _request: HttpRequest) -> Response:
        """Raise PackagesMissing."""
        raise PackagesMissing


class Console(DependencyProvider):
    """Makes the gateway serve the console: `console = Console()`."""

    server = HttpServer()

    def setup(self) -> None:
        """Read the files, and add them to the server."""
        self.server.serve_files(static_files(FOLDER))

    def get_dependency(self, _worker_ctx: Any) -> None:
        """Workers need nothing of it."""


def supervisor_url() -> str | None:
    """Return the address of the supervisor of `make run`, which the page may call; None in production and elsewhere."""
    url = str(config.get("SUPERVISOR_URL") or "")
    return url if _SUPERVISOR.fullmatch(url) and not is_production(config) else None


def static_files(folder: Path) -> dict[str, StaticFile]:
    """Return the files of the console by their paths; only a page that says what to do if packages are missing."""
    try:
        contents = read_contents(folder)
    except FileNotFoundError:
        return {"/": MissingPage(b"", "text/html")}
    base = f"/console/{_hash_of(contents)}"
    files = {
        f"{base}/{name}": StaticFile(
            content, f"{MEDIA_TYPES[PurePosixPath(name).suffix]}; charset=utf-8", {"Cache-Control": IMMUTABLE}
        )
        for name, content in contents.items()
    }
    return {"/": _page((folder / "index.html").read_text("utf-8"), base, contents), **files}


def read_contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each module, style and image by its path below the base. Raises FileNotFoundError."""
    found = (path for pattern in SOURCES for path in sorted(folder.glob(pattern)))
    names = [path.relative_to(folder) for path in found]
    contents = {str(name): without_documentation((folder / name).read_text("utf-8")).encode() for name in names}
    packages = folder / "node_modules"
    contents |= {f"npm/{name}.js": (packages / path).read_bytes() for name, path in PACKAGES.items()}
    return contents | {f"npm/{name}": (packages / path).read_bytes() for name, path in STYLES_OF_PACKAGES.items()}


def without_documentation(source: str) -> str:
    """Return a module or a style without comments and indentation: a fifth of what would be sent."""
    return _INDENTATION.sub("", _DOCUMENTATION.sub("", source))


def first_modules(contents: Mapping[str, bytes]) -> list[str]:
    """Return the modules that the first module imports, directly or not, in the order in which a browser finds them."""
    found = [FIRST_MODULE]
    for name in found:  # grows meanwhile
        found += [one for one in _imports_of(name, contents[name]) if one in contents and one not in found]
    return found


def _imports_of(name: str, content: bytes) -> Iterable[str]:
    folder = PurePosixPath(name).parent
    for target in dict.fromkeys(_IMPORT.findall(content.decode("utf-8"))):
        if target in PACKAGES:
            yield f"npm/{target}.js"
        elif target.startswith("."):
            yield _normal(folder / target)


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _hash_of(contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _page(template: str, base: str, contents: Mapping[str, bytes]) -> StaticFile:
    """Return index.html with the import map, which the policy allows by its hash, and the modules of the first view."""
    import_map = json.dumps({"imports": {name: f"{base}/npm/{name}.js" for name in PACKAGES}}, separators=(",", ":"))
    preloads = "\n".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in first_modules(contents))
    styles = "\n".join(f'<link rel="stylesheet" href="{base}/{name}">' for name in contents if name.endswith(".css"))
    page = template.replace("{{styles}}", styles).replace("{{preloads}}", preloads)
    page = page.replace("{{import_map}}", import_map).replace("{{base}}", base)
    digest = b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _policy(digest)}
    return StaticFile(page.encode(), "text/html; charset=utf-8", headers)


def _policy(digest: str) -> str:
    supervisor = supervisor_url()
    return POLICY.format(digest=digest, supervisor=f" {supervisor}" if supervisor else "")
