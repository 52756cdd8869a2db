"""What the suite installs is pinned: packages by their hashes, base images by settings that take a digest."""

import os
import re
import subprocess

import pytest

from deploy.config_file import ROOT

INSTALLERS = ("Makefile", "deploy/Dockerfile", "deploy/local/venv.sh")
REQUIREMENTS = sorted(path.name for path in ROOT.glob("requirements*.txt"))
IMAGES = {"PYTHON_IMAGE", "POSTGRES_IMAGE", "RABBITMQ_IMAGE", "REDIS_IMAGE"}


def text(name):
    """The file, with continued lines joined and shell arrays and variables of the installers in place."""
    joined = (ROOT / name).read_text().replace("\\\n", " ")
    variables = dict(re.findall(r"^(\w+) :?= (.*)$", joined, re.MULTILINE))
    variables |= {f"{{{name}[@]}}": value for name, value in re.findall(r"^(\w+)=\((.*)\)$", joined, re.MULTILINE)}
    for variable, value in variables.items():
        joined = joined.replace(f"$({variable})", value).replace(f'"${variable}"', value)
    return joined


def installations():
    parts = [(name, part) for name in INSTALLERS for part in re.split(r"\n|&&|;", text(name))]
    return [(name, part.strip()) for name, part in parts if re.search(r"pip\S* install\b", part) and "=(" not in part]


def test_every_installation_is_found():
    assert len(installations()) >= 7
    assert {name for name, _ in installations()} == set(INSTALLERS)


@pytest.mark.parametrize(("name", "command"), installations())
def test_an_installation_checks_hashes_and_builds_only_with_pinned_tools(name, command):
    assert "--require-hashes" in command
    assert "--no-build-isolation" in command or "--only-binary :all:" in command
    assert re.search(r"--requirement (\$<|requirements(-\w+)?\.txt)", command), "name a file of requirements"


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_has_an_exact_version_and_hashes(name):
    lines = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    assert lines
    for line in lines:
        assert re.match(r"[\w.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("group", ["build", "compile"])
def test_tools_are_in_their_lock_files(group):
    pyproject = (ROOT / "pyproject.toml").read_text()
    tools = re.search(rf"^{group} = \[(.*?)\]", pyproject, re.MULTILINE | re.DOTALL)[1]
    locked = (ROOT / f"requirements-{group}.txt").read_text()
    assert all(f"{tool} " in locked for tool in re.findall(r'"([\w-]+==\S+)"', tools))
    system = re.search(r'requires = \["(setuptools==\S+)"\]', pyproject)[1]
    assert f"{system} " in (ROOT / "requirements-build.txt").read_text()


def test_every_base_image_is_a_setting_that_takes_a_digest():
    compose, dockerfile = (ROOT / "docker-compose.yml").read_text(), (ROOT / "deploy/Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert bases == ["${PYTHON_IMAGE}"] * 3
    foreign = [image for image in re.findall(r"^ +image: (\S+)", compose, re.MULTILINE) if image != "order-suite:local"]
    assert all(re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[\w.:/-]+\}", image) for image in foreign)
    assert set(re.findall(r"\$\{([A-Z]+_IMAGE):-", compose)) == IMAGES
    in_compose = re.search(r"\$\{PYTHON_IMAGE:-(\S+)\}", compose)[1]
    assert f"ARG PYTHON_IMAGE={in_compose}\n" in dockerfile


def pins(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_every_base_image_is_pinned_by_a_digest_of_its_tag():
    compose = (ROOT / "docker-compose.yml").read_text()
    pinned = pins(ROOT / "deploy/images.env")
    assert set(pinned) == IMAGES
    for setting, image in pinned.items():
        tag = re.search(rf"\$\{{{setting}:-(\S+)\}}", compose)[1]
        assert re.fullmatch(rf"{re.escape(tag)}@sha256:[0-9a-f]{{64}}", image), "make image-digests"


def test_the_digests_are_renewed(tmp_path):
    fake, renewed = tmp_path / "docker", tmp_path / "images.env"
    digest = "sha256:" + "0123456789abcdef" * 4
    fake.write_text(f'#!/bin/sh\n[ "$1" = pull ] || echo "name@{digest}"\n')
    fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [ROOT / "deploy/image-digests.sh", renewed]
    subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert pins(renewed) == {
        setting: image.partition("@")[0] + "@" + digest for setting, image in pins(ROOT / "deploy/images.env").items()
    }


def test_a_registry_that_does_not_answer_leaves_the_pins(tmp_path):
    fake, renewed = tmp_path / "docker", tmp_path / "images.env"
    fake.write_text('#!/bin/sh\n[ "$3" = postgres:16 ] || exit 1\necho name@sha256:0\n')
    fake.chmod(0o755)
    renewed.write_text("before\n")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [ROOT / "deploy/image-digests.sh", renewed]
    assert subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode
    assert renewed.read_text() == "before\n"
