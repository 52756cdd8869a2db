import nameko
import pytest
from nameko.containers import ServiceContainer

from contracts.services import PROCESSES, SERVICES
from deploy import seed
from deploy.config_file import ROOT, load
from extensions.cache.connection import RedisConnection
from extensions.messaging.listener import Listener
from extensions.runtime.parsed_settings import UnknownEnvironment, by_environment
from extensions.security.production import UnfitForProduction, is_common_password, require_own_secrets
from tests.support import service_class

OWN = {
    "ENVIRONMENT": "production",
    "AMQP_URI": "pyamqp://suite:f3a9c1@broker:5672//",
    "REDIS_URL": "redis://:f3a9c1@redis:6379/0",
    "DB_URIS": {f"{name}:Base": f"postgresql+psycopg2://{name}:f3a9c1@db:5432/{name}" for name in SERVICES},
}


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "private.pem"
    path.touch(mode=0o600)
    return path


def container_of(service):
    return ServiceContainer(service_class(service))


@pytest.mark.parametrize("service", PROCESSES)
def test_no_service_starts_in_production_with_the_default_settings(service, monkeypatch):
    """Each service names the settings to change. The defaults of config.yml are those of development."""
    for name in ("AMQP_URI", "REDIS_URL", "JWT_PRIVATE_KEY_FILE", *(f"{one.upper()}_DATABASE_URL" for one in SERVICES)):
        monkeypatch.delenv(name, raising=False)
    with nameko.config.patch({}):
        settings = load(ROOT / "config.yml") | {"ENVIRONMENT": "production"}
    with nameko.config.patch(settings | {"JWT_PRIVATE_KEY_FILE": "/dev/null"}):
        container = container_of(service)
        with pytest.raises(UnfitForProduction, match=rf"{service} does not start: .*AMQP_URI") as refused:
            container.shared_extensions[Listener].setup()
        assert (f"{service.upper()}_DATABASE_URL" in str(refused.value)) == (service != "gateway")
        assert "guest" not in str(refused.value)
        if RedisConnection in container.shared_extensions:
            with pytest.raises(UnfitForProduction, match="REDIS_URL"):
                container.shared_extensions[RedisConnection].setup()


@pytest.mark.parametrize("service", PROCESSES)
def test_a_service_with_its_own_secrets_starts(service, key_file):
    for redis in (False, True):
        require_own_secrets(OWN | {"JWT_PRIVATE_KEY_FILE": str(key_file)}, service, redis=redis)


@pytest.mark.parametrize("setting", ["yes", "true", "1", True])
def test_webhooks_to_this_machine_are_refused_in_production(setting, key_file):
    settings = OWN | {"JWT_PRIVATE_KEY_FILE": str(key_file), "OUTBOUND_ALLOW_LOOPBACK": setting}
    with pytest.raises(UnfitForProduction, match="OUTBOUND_ALLOW_LOOPBACK"):
        require_own_secrets(settings, "notifications")
    require_own_secrets(settings | {"ENVIRONMENT": "development"}, "notifications")
    require_own_secrets(settings | {"OUTBOUND_ALLOW_LOOPBACK": "no"}, "notifications")


def test_the_supervisor_of_development_is_refused(key_file):
    settings = OWN | {"JWT_PRIVATE_KEY_FILE": str(key_file), "SUPERVISOR_URL": "http://127.0.0.1:8001"}
    with pytest.raises(UnfitForProduction, match="SUPERVISOR_URL"):
        require_own_secrets(settings, "gateway")
    require_own_secrets(settings | {"SUPERVISOR_URL": "none"}, "gateway")


def test_the_mailbox_for_development_is_refused_in_production(key_file):
    settings = OWN | {"JWT_PRIVATE_KEY_FILE": str(key_file), "SMTP_HOST": "mailbox"}
    with pytest.raises(UnfitForProduction, match="SMTP_HOST"):
        require_own_secrets(settings, "notifications")
    for other in ({"SMTP_HOST": "none"}, {"SMTP_HOST": "mail.example.com"}, {"ENVIRONMENT": "development"}):
        require_own_secrets(settings | other, "notifications")


def test_other_environments_need_no_secrets():
    for environment in ({"ENVIRONMENT": "development"}, {"ENVIRONMENT": "test"}, {}):
        require_own_secrets(environment, "users")
        with nameko.config.patch(environment, clear=True):
            assert by_environment("HTTP_MAX_REQUESTS_PER_USER") is None


@pytest.mark.parametrize("word", ["prod", "Production", "production ", "PRODUCTION", "live", "staging", "", None, True])
def test_an_unknown_environment_does_not_count_as_development(word, monkeypatch):
    """No service starts, and the demo accounts are not created."""
    settings = OWN | {"ENVIRONMENT": word}
    with pytest.raises(UnknownEnvironment, match="development, test, production"):
        require_own_secrets(settings, "users")
    with nameko.config.patch(settings), pytest.raises(UnknownEnvironment):
        by_environment("RATE_LIMITS")
    monkeypatch.setattr(seed, "load", lambda: settings)
    with pytest.raises(UnknownEnvironment):
        seed.run()


@pytest.mark.parametrize("password", ["", "guest", "suite", "Postgres", "admin", "password", "orders", "Orders"])
def test_a_password_that_an_attacker_would_try_first_is_common(password):
    assert is_common_password("orders", password)
    assert not is_common_password("orders", password + "-f3a9c1")


@pytest.mark.parametrize(
    "url", ["amqp://suite:suite@b//", "amqp://orders:orders@b//", "amqp://b//", "amqp://orders:@b//"]
)
def test_a_separate_broker_user_needs_its_own_password(url):
    with pytest.raises(UnfitForProduction, match="ORDERS_AMQP_URI"):
        require_own_secrets(OWN | {"AMQP_URIS": {"orders": url}}, "orders")
    require_own_secrets(OWN | {"AMQP_URIS": {"orders": url}}, "payments")


def test_a_separate_redis_user_needs_its_own_password():
    for url in ("redis://orders:orders@r/0", "redis://orders@r/0"):
        settings = OWN | {"REDIS_URLS": {"orders": url}}
        with pytest.raises(UnfitForProduction, match="ORDERS_REDIS_URL"):
            require_own_secrets(settings, "orders", redis=True)
        require_own_secrets(settings, "payments", redis=True)


def test_the_private_key_must_not_be_readable_by_others(key_file):
    key_file.chmod(0o644)
    with pytest.raises(UnfitForProduction, match="JWT_PRIVATE_KEY_FILE"):
        require_own_secrets(OWN | {"JWT_PRIVATE_KEY_FILE": str(key_file)}, "users")
