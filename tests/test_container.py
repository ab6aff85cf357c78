"""The container files, as far as they can be checked without building: nothing in them is made up."""

import ast
import fnmatch
import json
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from sqlalchemy import make_url

import stepin
from serving.routes import OPEN
from serving.settings import Settings
from serving.variables import names

ROOT = Path(__file__).parents[1]
OURS = {"STEPIN_MODEL", *names(Settings)}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def instructions():
    """Instruction and arguments, line by line of the Dockerfile."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def of(name):
    return [arguments for instruction, arguments in instructions() if instruction == name]


def compose():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def copied():
    """Sources that are copied from the project, not from another stage."""
    return [
        source
        for arguments in of("COPY")
        if not arguments.startswith("--from")
        for source in shlex.split(arguments)[:-1]
    ]


def is_ignored(path):
    """As Docker reads .dockerignore: the last line that matches decides, for folders and all in them."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = [path, *(str(above) for above in Path(path).parents if str(above) != ".")]
        plain = pattern.removeprefix("**/")
        if any(fnmatch.fnmatchcase(part, pattern) for part in parts) or (
            plain != pattern and any(fnmatch.fnmatchcase(name, plain) for name in Path(path).parts)
        ):
            ignored = not line.startswith("!")
    return ignored


def read_as_a_command(arguments):
    """Let the command line read its arguments, without doing what they say; a wrong one ends the test."""
    command, context = stepin.cli, None
    while True:
        context = command.make_context(arguments[0] if context else "stepin", list(arguments), parent=context)
        arguments = [*context._protected_args, *context.args]
        if not hasattr(command, "commands") or not arguments:
            return command, context.params
        command = command.commands[arguments[0]]
        arguments = arguments[1:]


def filled(text):
    """As compose fills variables in that nobody set; one that has to be set is 'secret'."""
    return VARIABLE.sub(lambda match: "secret" if match[2] == "?" else match[3] or "", text)


def test_every_source_that_is_copied_is_there_and_is_sent_to_the_builder():
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source
    assert is_ignored("mlflow.db")
    assert is_ignored(".venv")
    assert is_ignored("tests")
    assert is_ignored("serving/__pycache__")


def test_all_that_the_package_is_built_of_is_copied():
    import tomllib

    built = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = built["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert {*wheel, "pyproject.toml", built["project"]["readme"]} <= set(copied())


def test_packages_come_from_the_lock_with_hashes_and_from_no_named_place():
    installs = [arguments for arguments in of("RUN") if "pip install" in arguments]
    assert len(installs) == 2
    for install in installs:
        assert "--require-hashes -r requirements/run.txt" in install or "--no-deps" in install
        assert "index" not in install
        assert "://" not in install
    lock = (ROOT / "requirements" / "run.txt").read_text()
    assert {"psycopg-binary", "hatchling", "uvicorn"} <= set(re.findall(r"^([a-z-]+)==", lock, re.M))


def test_images_are_named_without_a_registry():
    stages = [arguments.split()[0] for arguments in of("FROM")]
    images = [*stages, *(each["image"] for each in compose()["services"].values())]
    for image in images:
        assert re.fullmatch(r"[a-z]+(:[\w.-]+)?", image), image
    minor = stages[0].removeprefix("python:").removesuffix("-slim")
    assert f">={minor}," in (ROOT / "pyproject.toml").read_text()


def test_the_server_runs_as_nobody_special():
    assert of("USER") == ["10001"]
    order = [instruction for instruction, _ in instructions()]
    assert order.index("USER") < order.index("ENTRYPOINT")
    service = compose()["services"]["stepin"]
    assert "user" not in service
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


@pytest.mark.parametrize("where", ["Dockerfile", "compose.yaml"])
def test_the_command_is_one_that_stepin_has(where):
    assert json.loads(of("ENTRYPOINT")[0]) == ["stepin"]
    if where == "Dockerfile":
        arguments = json.loads(of("CMD")[0])
    else:
        arguments = [filled(each) for each in compose()["services"]["stepin"]["command"]]
    command, given = read_as_a_command(arguments)
    assert command is stepin.cli.commands["serve"]
    assert (given["model"], given["host"], given["port"]) == ("/models/stepin", "0.0.0.0", 8080)
    assert of("EXPOSE") == ["8080"]


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml"])
def test_the_commands_in_the_comments_are_ones_that_stepin_has(file):
    said = re.findall(
        r"(?:run --rm stepin|: stepin) ((?:key|serve|score|train)[^\n]*)", (ROOT / file).read_text()
    )
    assert said
    for line in said:
        command, _ = read_as_a_command(shlex.split(line))
        assert command is not stepin.cli


def test_the_models_place_is_mounted():
    mounts = [volume.split(":")[1] for volume in compose()["services"]["stepin"]["volumes"]]
    assert json.loads(of("CMD")[0])[1] in mounts
    assert of("VOLUME") == of("WORKDIR")[-1:] == ["/srv/stepin"]
    assert "/srv/stepin" in mounts


def test_every_variable_is_one_that_the_server_reads_and_its_default_is_accepted():
    environment = compose()["services"]["stepin"]["environment"]
    ours = {name: filled(str(text)) for name, text in environment.items() if name.startswith("STEPIN_")}
    assert set(ours) <= OURS
    settings = Settings.from_environ({"STEPIN_MODEL": "/models/stepin", **ours})
    assert settings.hours is None
    assert settings.poll_seconds == 2.0
    for name in environment:
        assert name in OURS or name == "MLFLOW_TRACKING_URI"


def test_every_variable_of_the_shell_has_a_default_or_must_be_set():
    text = (ROOT / "compose.yaml").read_text()
    found = VARIABLE.findall(text)
    assert len(found) == text.count("${")
    assert all(kind for _, kind, _ in found)
    secret = {name for name, kind, _ in found if kind == "?"}
    assert secret == {"STEPIN_DB_PASSWORD"}


def test_the_service_reaches_the_database_that_stands_beside_it():
    services = compose()["services"]
    url = make_url(filled(services["stepin"]["environment"]["STEPIN_DATABASE"]))
    database = {name: filled(text) for name, text in services["database"]["environment"].items()}
    assert url.drivername == "postgresql+psycopg"
    assert url.host in services["stepin"]["depends_on"]
    assert (url.username, url.password, url.database) == (
        database["POSTGRES_USER"],
        database["POSTGRES_PASSWORD"],
        database["POSTGRES_DB"],
    )
    assert services["stepin"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert "healthcheck" in services["database"]


def test_named_volumes_are_declared():
    content = compose()
    used = [volume.split(":")[0] for each in content["services"].values() for volume in each["volumes"]]
    assert {name for name in used if not name.startswith(".")} == set(content["volumes"])


def test_only_the_loopback_of_the_host_is_opened():
    assert all(port.startswith("127.0.0.1:") for port in compose()["services"]["stepin"]["ports"])
    assert "ports" not in compose()["services"]["database"]


class Answers(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("status", "is_well"), [(200, True), (503, False)])
def test_the_health_check_tells_a_ready_server_from_one_that_is_not(status, is_well):
    [check] = of("HEALTHCHECK")
    command = ast.literal_eval(check[check.index("CMD ") + 4 :])
    assert command[:2] == ["python", "-c"]
    [path] = re.findall(r"8080(/\w+)", command[2])
    assert path in OPEN
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (Answers,), {"status": status}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        code = command[2].replace("8080", str(server.server_port))
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=20)
    finally:
        server.shutdown()
        server.server_close()
    assert (ran.returncode == 0) is is_well
