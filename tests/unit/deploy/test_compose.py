"""docker-compose.yml matches the code: everything that it names exists under that name."""

import importlib.util
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

from contracts.call_permissions import bus_services
from contracts.services import GATEWAY, PROCESSES, SERVICES
from deploy.local import install
from deploy.local.redis import Redis
from deploy.local.service_environment import ONLY_FOR
from deploy.seed import DEFAULT_PASSWORD
from deploy.server_users import ADMINISTRATOR_DATABASE, OPERATOR
from extensions.runtime.addresses import (
    database_variable,
    metrics_variable,
    owner_variable,
    redis_variable,
    uri_variable,
)

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


BLOCK = """
Under `services`:

  {name}:
    <<: *service
    command: [nameko, run, --config, config.yml, {name}.service]
    environment:
      <<: *environment
      {NAME}_AMQP_URI: pyamqp://{name}:${{{NAME}_BROKER_PASSWORD:-{name}}}@rabbitmq:5672//
      {NAME}_REDIS_URL: redis://{name}:${{{NAME}_REDIS_PASSWORD:-{name}}}@redis:6379/0
      {NAME}_DATABASE_URL: *{name}-database
    healthcheck: *healthcheck

At the end of `x-passwords`:

  {NAME}_DATABASE_URL: &{name}-database ${{{NAME}_DATABASE_URL:-postgresql+psycopg2://{name}:{name}@postgres:5432/{name}}}
  {NAME}_OWNER_DATABASE_URL: ${{{NAME}_OWNER_DATABASE_URL:-postgresql+psycopg2://{name}_owner:{name}_owner@postgres:5432/{name}}}
  {NAME}_BROKER_PASSWORD: ${{{NAME}_BROKER_PASSWORD:-{name}}}
  {NAME}_REDIS_PASSWORD: ${{{NAME}_REDIS_PASSWORD:-{name}}}

Under `depends_on` of `gateway`:

      {name}: {{condition: service_started}}
"""


PARTS = COMPOSE["services"]
RUN = {name: part["command"][-1] for name, part in PARTS.items() if part.get("command", [""])[0] == "nameko"}
MISSING = [service for service in PROCESSES if service not in PARTS]
UNKNOWN = [service for service in RUN if service not in PROCESSES]
CONFIG = (ROOT / "config.yml").read_text()
# read by the code itself and not by config.yml
READ_BY_CODE = {
    "DEMO_PASSWORD": "deploy/seed.py",
    "BROKER_DEFINITIONS_FILE": "deploy/definitions.py",
    "RABBITMQ_USER": "deploy/server_users.py",
    "RABBITMQ_PASSWORD": "deploy/server_users.py",
    "REDIS_USERS_FILE": "deploy/redis_users.py",
    "REDIS_PASSWORD": "deploy/redis_users.py",
    ADMINISTRATOR_DATABASE: "deploy/server_users.py",
}
BROKER_PASSWORDS = {f"{user.upper()}_BROKER_PASSWORD": user for user in (*bus_services(), OPERATOR)}
REDIS_PASSWORDS = {f"{service.upper()}_REDIS_PASSWORD": service for service in PROCESSES}
READ_BY_IMAGE = {
    "rabbitmq": set(),
    "postgres": {"POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS"},
    "redis": {"REDISCLI_AUTH"},
}
OURS = sorted(set(PARTS) - set(READ_BY_IMAGE))
# Addresses are set by compose only. They contain passwords, so each service gets only its own.
PLACES = re.compile(r"_(URI|URL|ADDRESS|FILE)$")


# The addresses of each service, which extensions/runtime/addresses.py reads.
ADDRESSES = {"METRICS_ADDRESS"} | {
    variable(service)
    for service in PROCESSES
    for variable in (uri_variable, redis_variable, database_variable, owner_variable, metrics_variable)
}


def config_variables() -> set[str]:
    return set(re.findall(r"\$\{(\w+)", re.sub(r"^#.*", "", CONFIG, flags=re.MULTILINE)))


def default(value: str) -> str:
    """The value that compose uses if the environment sets nothing: ${NAME:-default} becomes default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def assert_agree(found: dict[str, str], wanted: dict[str, str], where: str) -> None:
    """Fail with the lines to add to docker-compose.yml or to remove from it."""
    advice = [f"add {name}, with the default {value}" for name, value in wanted.items() if name not in found]
    advice += [f"{name} is of no service in contracts/services.py: remove it" for name in found.keys() - wanted.keys()]
    advice += [f"{name} is {found[name]}: change it to {wanted[name]}" for name in found.keys() & wanted.keys()
               if found[name] != wanted[name]]  # fmt: skip
    assert not advice, "\n".join([f"{where} in docker-compose.yml:", *advice])


def module_file(dotted: str) -> Path | None:
    path = ROOT.joinpath(*dotted.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__main__.py") if p.exists()), None)


@pytest.fixture(autouse=True)
def complete(request):
    """Skip tests that would repeat the missing service; the first test reports what to add."""
    if MISSING + UNKNOWN and request.node.function is not test_compose_runs_exactly_the_services_of_the_registry:
        pytest.skip(f"docker-compose.yml and contracts/services.py differ: {', '.join(MISSING + UNKNOWN)}")


def test_compose_runs_exactly_the_services_of_the_registry():
    blocks = "".join(BLOCK.format(name=name, NAME=name.upper()) for name in MISSING)
    if MISSING:
        pytest.fail(f"docker-compose.yml has no service {', '.join(MISSING)}. Add to it:\n{blocks}", pytrace=False)
    for name in UNKNOWN:
        line = f"{name}: {name.capitalize()}Rpc"
        pytest.fail(
            f"docker-compose.yml runs {name}, which is not in the registry: add `{line}` to Services in"
            " contracts/services.py (CONTRIBUTING.md, A service)",
            pytrace=False,
        )
    assert set(RUN.values()) == {f"{service}.service" for service in PROCESSES}


@pytest.mark.parametrize("service", PROCESSES)
def test_a_service_is_started_with_the_command_of_the_readme(service):
    assert PARTS[service]["command"] == ["nameko", "run", "--config", "config.yml", f"{service}.service"]
    assert (ROOT / "config.yml").exists()
    assert module_file(f"{service}.service"), f"{service}/service.py does not exist"


@pytest.mark.parametrize("name", OURS)
def test_every_module_of_a_command_or_health_check_exists(name):
    part = PARTS[name]
    commands = [part["command"], part.get("healthcheck", {}).get("test", ["CMD"])[1:]]
    for command in commands:
        if command[:2] == ["python", "-m"]:
            assert module_file(command[2]), f"{name} runs {command[2]}, which does not exist"
            assert importlib.util.find_spec(command[2])


@pytest.mark.parametrize("service", PROCESSES)
def test_a_service_has_its_own_health_check_and_limits(service):
    part = PARTS[service]
    address = part["environment"]["GATEWAY_ADDRESS" if service == GATEWAY else "METRICS_ADDRESS"]
    assert part["healthcheck"]["test"][-1] == address.rpartition(":")[2]
    assert seconds(part["healthcheck"]["start_period"]) >= 120
    assert part["restart"] == "unless-stopped"
    assert {"cpus", "memory"} <= set(part["deploy"]["resources"]["limits"])


def seconds(text):
    return float(text.removesuffix("s"))


def run_check(name, reply):
    """The exit code of the health check of `name`, against a server that sends `reply` to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def serve():
            connection, _ = listening.accept()
            with connection:
                request = b""
                while not request.endswith((b"\r\n\r\n", b"AMQP\x00\x00\x09\x01")):  # bash writes line by line
                    received = connection.recv(1000)
                    if not received:
                        return
                    request += received
                connection.sendall(reply)

        if reply is None:
            listening.close()
        else:
            threading.Thread(target=serve, daemon=True).start()
        _, *command = PARTS[name]["healthcheck"]["test"]
        command = [word.replace("$$", "$").replace("/5672", f"/{port}") for word in command]
        command[3:] = [str(port)] * len(command[3:])
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode


@pytest.mark.parametrize("name", ["rabbitmq", *PROCESSES])
def test_a_health_check_starts_nothing_expensive(name):
    """Twelve of them run every few seconds, on the processors that orders need."""
    assert PARTS[name]["healthcheck"]["test"][:3] == ["CMD", "bash", "-c"]
    script = PARTS[name]["healthcheck"]["test"][3]
    assert not re.search(r"python|rabbitmq-|curl", script)
    assert seconds(PARTS[name]["healthcheck"]["interval"]) >= 30


@pytest.mark.parametrize("service", ["orders", GATEWAY])
@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 0),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\n200", 1),
        (b"", 1),
        (None, 1),
    ],
    ids=["alive", "stuck", "no reply", "no process"],
)
def test_the_health_check_of_a_service_reports_what_the_process_says(service, reply, code):
    assert run_check(service, reply) == code


@pytest.mark.parametrize(("reply", "code"), [(b"\x01\x00", 0), (b"", 1), (None, 1)])
def test_the_health_check_of_the_broker_awaits_its_reply(reply, code):
    assert run_check("rabbitmq", reply) == code


def test_the_broker_blocks_publishers_before_its_container_is_full():
    """It would take 40 % of the memory of the host."""
    conf = (ROOT / "deploy/rabbitmq/compose.conf").read_text()
    watermark = int(re.search(r"^vm_memory_high_watermark\.absolute = (\d+)MiB$", conf, re.MULTILINE)[1])
    assert PARTS["rabbitmq"]["deploy"]["resources"]["limits"]["memory"] == "1G"
    assert 300 < watermark <= 512  # MiB; the node needs 310 with a full log (docs/performance.md)


def test_no_limit_of_open_files_that_an_engine_may_not_set():
    limits = {name: part["ulimits"]["nofile"] for name, part in PARTS.items() if "ulimits" in part}
    assert limits == {"rabbitmq": 16384}


def test_settings_are_checked_before_the_volume_of_the_databases_is_made():
    secrets = COMPOSE["x-passwords"].items()
    assert secrets <= PARTS["check-settings"]["environment"].items()
    assert secrets <= PARTS["prepare"]["environment"].items()
    assert PARTS["check-settings"]["depends_on"] == {}
    assert PARTS["postgres"]["depends_on"] == {"check-settings": {"condition": "service_completed_successfully"}}
    for name in ("prepare", "rabbitmq", "redis"):
        assert "postgres" in PARTS[name]["depends_on"] or "prepare" in PARTS[name]["depends_on"]


@pytest.mark.parametrize("name", OURS)
def test_the_code_reads_every_variable(name):
    for variable in PARTS[name]["environment"]:
        if variable in READ_BY_CODE:
            assert variable in (ROOT / READ_BY_CODE[variable]).read_text()
        elif variable not in {*BROKER_PASSWORDS, *REDIS_PASSWORDS, *ADDRESSES}:
            assert variable in config_variables(), (
                f"{name} sets {variable}, which nothing reads: remove it, or read it in config.yml"
            )


@pytest.mark.parametrize("setting", sorted(name for name in config_variables() if not PLACES.search(name)))
def test_every_setting_of_config_can_be_set_for_every_service(setting):
    """In the environment of compose or in .env: a variable without a value is passed on only if it is set."""
    for service in ONLY_FOR.get(setting, PROCESSES):
        environment = PARTS[service]["environment"]
        assert setting in environment, f"{service} does not receive {setting}: add it to x-environment"
        assert environment[setting] is None or f"${{{setting}:-" in environment[setting]


@pytest.mark.parametrize("name", sorted(READ_BY_IMAGE))
def test_the_image_of_a_server_reads_every_variable(name):
    assert set(PARTS[name].get("environment", {})) == READ_BY_IMAGE[name]


@pytest.mark.parametrize("service", PROCESSES)
def test_a_service_gets_the_addresses_it_needs_and_only_its_own_database(service):
    environment = PARTS[service]["environment"]
    databases = {name for name in environment if name.endswith("_DATABASE_URL")}
    assert databases == ({f"{service.upper()}_DATABASE_URL"} if service in SERVICES else set())
    assert {redis_variable(service), "ENVIRONMENT"} <= set(environment)


def test_only_users_and_the_job_that_creates_it_can_read_the_private_key():
    assert {name for name in OURS if "JWT_PRIVATE_KEY_FILE" in PARTS[name]["environment"]} == {"prepare", "users"}
    mounted = {name for name in OURS if any(v.startswith("private-keys:") for v in PARTS[name].get("volumes", []))}
    assert mounted == {"prepare", "users"}


@pytest.mark.parametrize("name", OURS)
def test_each_key_file_is_in_a_volume_that_the_image_prepares(name):
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    mounts = [volume.split(":")[1] for volume in PARTS[name].get("volumes", [])]
    for variable, path in PARTS[name]["environment"].items():
        if variable.startswith("JWT_"):
            folder = str(Path(path).parent)
            assert folder in mounts
            assert folder in dockerfile


def test_the_first_job_creates_the_databases_with_the_passwords_of_services_and_server():
    job = PARTS["prepare"]["environment"]
    urls = {name: default(value) for name, value in job.items() if name.endswith("_DATABASE_URL")}
    administrator = urls.pop(ADMINISTRATOR_DATABASE)
    address = "postgresql+psycopg2://{0}:{0}@postgres:5432/{1}"
    own = {database_variable(service): address.format(service, service) for service in SERVICES}
    owners = {owner_variable(service): address.format(f"{service}_owner", service) for service in SERVICES}
    assert_agree(urls, own | owners, "`x-passwords`")
    assert administrator == address.format("postgres", "postgres")
    assert PARTS["postgres"]["environment"]["POSTGRES_PASSWORD"] in job[ADMINISTRATOR_DATABASE]
    for service in SERVICES:
        assert PARTS[service]["environment"][database_variable(service)] == job[database_variable(service)]


@pytest.mark.parametrize("service", PROCESSES)
def test_a_service_has_only_its_own_user_of_the_broker(service):
    environment = PARTS[service]["environment"]
    uris = {name: default(value) for name, value in environment.items() if name.endswith("AMQP_URI")}
    assert uris == {uri_variable(service): f"pyamqp://{service}:{service}@rabbitmq:5672//"}
    assert not {"RABBITMQ_PASSWORD", *BROKER_PASSWORDS} & set(environment)


@pytest.mark.parametrize("service", PROCESSES)
def test_a_service_has_only_its_own_user_of_redis(service):
    environment = PARTS[service]["environment"]
    urls = {name: default(value) for name, value in environment.items() if name.endswith("REDIS_URL")}
    assert urls == {redis_variable(service): f"redis://{service}:{service}@redis:6379/0"}
    assert not {"REDIS_PASSWORD", *REDIS_PASSWORDS} & set(environment)
    assert PARTS["prepare"]["environment"][f"{service.upper()}_REDIS_PASSWORD"] in environment[redis_variable(service)]


def test_redis_loads_the_users_file_of_the_first_job_with_the_same_passwords():
    job, server = PARTS["prepare"]["environment"], PARTS["redis"]
    passwords = {name: default(value) for name, value in job.items() if name.endswith("_REDIS_PASSWORD")}
    assert_agree(passwords, REDIS_PASSWORDS, "`x-passwords`")
    assert server["command"][-2:] == ["--aclfile", job["REDIS_USERS_FILE"]]
    assert server["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}
    assert job["REDIS_PASSWORD"] == server["environment"]["REDISCLI_AUTH"]  # used by the health check
    assert ("redis:/redis" in PARTS["prepare"]["volumes"], "redis:/redis:ro" in server["volumes"]) == (True, True)
    assert [name for name, part in PARTS.items() if "redis:" in str(part.get("volumes"))] == ["redis", "prepare"]
    assert " /redis" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_the_seed_job_uses_the_operators_account():
    assert default(PARTS["seed"]["environment"]["AMQP_URI"]) == f"pyamqp://{OPERATOR}:{OPERATOR}@rabbitmq:5672//"


def test_what_a_profile_leaves_behind_can_start_again():
    """`down` without the profile keeps the container, and removes the network that it would refer to."""
    kept = [name for name, part in PARTS.items() if "profiles" in part]
    assert kept == ["seed"]
    assert all(PARTS[name]["network_mode"] == "service:gateway" and not PARTS[name]["networks"] for name in kept)


def test_the_broker_loads_the_definitions_of_the_first_job_with_the_same_passwords():
    job = PARTS["prepare"]["environment"]
    passwords = {name: default(value) for name, value in job.items() if name.endswith("_BROKER_PASSWORD")}
    assert_agree(passwords, BROKER_PASSWORDS, "`x-passwords`")
    assert job["BROKER_DEFINITIONS_FILE"] == "/broker/definitions.json"
    assert "broker:/broker" in PARTS["prepare"]["volumes"]
    assert "broker:/broker:ro" in PARTS["rabbitmq"]["volumes"]
    assert [name for name, part in PARTS.items() if "broker:" in str(part.get("volumes"))] == ["rabbitmq", "prepare"]
    assert "load_definitions = /broker/definitions.json" in (ROOT / "deploy/rabbitmq/compose.conf").read_text()
    assert "/broker" in (ROOT / "deploy" / "Dockerfile").read_text()
    for service in PROCESSES:
        for name, value in PARTS[service]["environment"].items():
            if name.endswith("AMQP_URI"):  # the same variable, so that setting one changes both
                assert job[f"{service.upper()}_BROKER_PASSWORD"] in value


def test_the_demo_password_is_the_documented_one():
    assert default(PARTS["seed"]["environment"]["DEMO_PASSWORD"]) == DEFAULT_PASSWORD
    assert PARTS["seed"]["profiles"] == ["demo"]


def test_only_the_api_is_published_and_the_brokers_web_pages_on_loopback():
    published = {name: [default(port) for port in part["ports"]] for name, part in PARTS.items() if "ports" in part}
    pages = {"rabbitmq": ["127.0.0.1:15672:15672"], "mailbox": ["127.0.0.1:8025:8025"]}
    assert published == {"gateway": ["8000:8000"], **pages}
    container_port = PARTS["gateway"]["environment"]["GATEWAY_ADDRESS"].rpartition(":")[2]
    assert published["gateway"] == [f"8000:{container_port}"]
    assert f"EXPOSE {container_port}" in (ROOT / "deploy" / "Dockerfile").read_text()


@pytest.mark.parametrize("service", PROCESSES)
def test_metrics_are_served_inside_the_network_only(service):
    host, _, port = PARTS[service]["environment"]["METRICS_ADDRESS"].rpartition(":")
    assert host == "0.0.0.0"
    assert not [published for published in PARTS[service].get("ports", []) if published.endswith(f":{port}")]


def test_every_dependency_waits_for_health_or_completion():
    for name in OURS:
        for needed, how in PARTS[name]["depends_on"].items():
            job = "healthcheck" not in PARTS[needed]
            wanted = "service_completed_successfully" if job else "service_healthy"
            if name == GATEWAY and needed in SERVICES:  # it starts without them, so a slow one must not keep it away
                wanted = "service_started"
            assert how["condition"] == wanted, (name, needed)
    missing = set(SERVICES) - set(PARTS["gateway"]["depends_on"])
    assert not missing, f"add {', '.join(missing)} to `depends_on` of `gateway` in docker-compose.yml"


def test_every_volume_and_mounted_file_exists():
    used = [volume.split(":")[0] for part in PARTS.values() for volume in part.get("volumes", [])]
    named = {volume for volume in used if not volume.startswith(".")}
    assert named == set(COMPOSE["volumes"])
    assert all((ROOT / volume).exists() for volume in used if volume.startswith("."))


def test_the_image_is_built_from_files_that_exist_and_are_not_ignored():
    assert {PARTS[name]["image"] for name in OURS} == {"order-suite:local"}
    built = [part["build"] for part in PARTS.values() if "build" in part]
    assert len(built) == 1, "concurrent builds of one image fail"
    assert (ROOT / built[0]["context"] / built[0]["dockerfile"]).exists()


def is_included(path):
    """Does .dockerignore include this path? The last pattern that matches the path or a parent folder decides."""
    included = True
    for pattern in ignore_patterns():
        expression = re.escape(pattern.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.match(rf"{expression}(/|$)", path):
            included = pattern[0] == "!"
    return included


def ignore_patterns():
    return [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]


def is_searched(folder):
    """Does Docker's classic builder look into this folder? Not if it is excluded and no exception begins with it."""
    exceptions = [f"{pattern[1:]}/" for pattern in ignore_patterns() if pattern[0] == "!"]
    return is_included(folder) or any(exception.startswith(f"{folder}/") for exception in exceptions)


def is_in_the_image(path):
    folders = [str(folder) for folder in Path(path).parents][:-1]
    return is_included(path) and all(map(is_searched, folders))


def test_the_build_context_has_exactly_the_files_that_the_services_need():
    needed = {*PROCESSES, "contracts", "extensions"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    seen = {path for path in tracked if is_in_the_image(path)}
    expected = {path for path in tracked if path.partition("/")[0] in needed and "/" in path}
    expected |= {path for path in tracked if re.fullmatch(r"deploy/[^/]+\.py", path)}
    expected |= {"config.yml", "requirements.txt", "requirements-build.txt", "requirements-node.txt"}
    page = {path for path in tracked if path.startswith("console/") and not path.startswith("console/lint/")}
    expected |= page - {"console/tsconfig.json"}
    advice = [f"- {path} is not in the image: add `!{path}` to .dockerignore" for path in sorted(expected - seen)]
    advice += [
        f"- the image has {top}/, which is no service: add it to contracts/services.py, or exclude it in .dockerignore"
        for top in sorted({path.partition("/")[0] for path in seen - expected})
    ]
    assert not advice, "\n".join(["of the files that git tracks:", *advice])
    left_behind = (".env", "var/env", "var/data/x.py", ".venv/lib/x.py", "orders/x.pyc", "notes.py")
    assert not any(map(is_in_the_image, left_behind))


def test_code_in_the_image_imports_nothing_that_the_image_leaves_out():
    """deploy/local stays on the developer's machine."""
    assert not [path for path in (ROOT / "deploy").glob("*.py") if "deploy.local" in path.read_text()]


def test_redis_has_the_eviction_settings_of_make_run(monkeypatch, tmp_path):
    monkeypatch.setattr(install, "redis", lambda: "redis-server")
    options = Redis(tmp_path, tmp_path, 6379).command()[1:]
    here = dict(zip(options[::2], options[1::2], strict=True))
    command = PARTS["redis"]["command"]
    for option in ("--maxmemory", "--maxmemory-policy", "--save", "--appendonly"):
        assert command[command.index(option) + 1] == here[option]
