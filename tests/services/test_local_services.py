"""Real PostgreSQL, MLflow, Airflow and a Celery worker, started and stopped on loopback."""

import http.client as http_client
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from typer.testing import CliRunner

from local import http, services
from local.__main__ import application
from local.errors import ServiceFailedError
from local.home import Home
from local.processes import LOOPBACK, Register, free_port, launch, stop, wait_ready
from local.servers import airflow, environment, postgres
from local.servers.commands import AIRFLOW_COMPONENTS, COMMANDS, RANKER_POOL
from local.services import Stack

pytestmark = pytest.mark.services

ENDLESS = """
import os, pathlib, time
from airflow.sdk import dag, task

@dag(schedule=None)
def endless():
    @task
    def sleep():
        (pathlib.Path(__file__).parent / "pid").write_text(str(os.getpid()))
        time.sleep(3600)
    sleep()

endless()
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    place = tmp_path_factory.mktemp("stack")
    (place / "dags").mkdir()
    (place / "dags" / "endless.py").write_text(ENDLESS)
    with services.stack(place / "home", dags=place / "dags") as running:
        yield running
    assert processes_of(place) == []


def processes_of(place: Path) -> list[str]:
    """Command lines and environments that name the folder: whatever was started from it."""
    commands = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(str(place) in part for part in words):
            commands.append(" ".join(process.cmdline()))
    return commands


def test_postgres_has_the_four_databases_and_needs_the_password(tmp_path: Path) -> None:
    with postgres.server(tmp_path) as server:
        for name in postgres.DATABASES:
            with server.connect(name) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(Exception, match="password authentication failed"):
            postgres.PostgresServer(server.service, "guessed").connect("shop")
        listening = psutil.Process(server.service.pid).net_connections(kind="inet")
        assert {connection.laddr.ip for connection in listening} == {LOOPBACK}
    assert server.service.process() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as another account")
def test_roots_postgres_opens_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, open_to_all = tmp_path / "closed", Path(tempfile.mkdtemp(dir="/var/tmp"))
    open_to_all.chmod(0o755)
    package = postgres.binary("postgres").resolve().parents[2]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, closed / folder.name, copy_function=os.link)
    for folder in (closed, tmp_path.parent):
        folder.chmod(0o700)
    monkeypatch.setattr(postgres, "CACHE", open_to_all / "cache")
    monkeypatch.setattr(
        postgres, "binary", lambda name: closed / package.name / "pginstall" / "bin" / name
    )
    try:
        with postgres.server(closed / "home") as server, server.connect("shop") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            for folder in (closed, tmp_path.parent):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(open_to_all)


def test_postgres_keeps_what_was_committed_and_its_port(tmp_path: Path) -> None:
    home, register = Home(tmp_path), Register(tmp_path / "services.json")

    def start() -> postgres.PostgresServer:
        return postgres.start(
            home.postgres,
            password=home.keys().postgres_password,
            log=home.logs / "postgres.log",
            register=register,
        )

    first = start()
    with first.connect("ledger") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert start().service == first.service
    register.path.unlink()
    assert start().service.pid == first.service.pid
    postgres.shut_down(first.service)
    second = start()
    with second.connect("ledger") as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    assert second.port == first.port
    postgres.shut_down(second.service)
    assert processes_of(tmp_path) == []


def test_every_component_is_healthy(stack: Stack) -> None:
    assert airflow.healthy(stack.airflow_url) == set(AIRFLOW_COMPONENTS)
    assert http.get(f"{stack.mlflow_url}/health") == b"OK"


def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    for service in Register(stack.home.services_file).read().values():
        leader = psutil.Process(service.pid)
        for process in (leader, *leader.children(recursive=True)):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == LOOPBACK, service.name


def test_the_pool_has_one_slot(stack: Stack) -> None:
    token = stack.token()
    answer = http.get(f"{stack.airflow_url}/api/v2/pools/{RANKER_POOL}", token)
    assert answer is not None
    assert json.loads(answer)["slots"] == 1


def test_starting_again_changes_nothing(stack: Stack) -> None:
    before = Register(stack.home.services_file).read()
    again = services.start(stack.home, dags=Path(stack.environment["AIRFLOW__CORE__DAGS_FOLDER"]))
    assert Register(stack.home.services_file).read() == before
    assert again.environment == stack.environment


def test_no_secret_is_on_a_command_line_or_in_a_log(stack: Stack) -> None:
    keys = stack.home.keys()
    secrets = [keys.postgres_password, keys.pseudonym_key, keys.airflow_fernet_key]
    secrets += [keys.login_password]
    shown = [" ".join(process.cmdline()) for process in _family(stack)]
    shown += [path.read_text(errors="replace") for path in stack.home.logs.glob("*.log")]
    assert not [text for text in shown for secret in secrets if secret in text]


def test_the_settings_file_is_private_and_leads_to_this_airflow(stack: Stack) -> None:
    path = stack.home.environment_file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    program = environment.program(("airflow",))[0]
    printed = subprocess.run(
        ["bash", "-c", f'source "{path}" && "{program}" pools get {RANKER_POOL} --output json'],
        env=environment.inherited(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(printed.stdout[printed.stdout.index("[") :])[0]["slots"] in (1, "1")


def test_nothing_below_the_home_is_open_to_other_accounts(stack: Stack) -> None:
    home = stack.home.path
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    open_to_others = [
        str(path)
        for path in home.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & 0o077
    ]
    assert open_to_others == []


def test_mlflow_takes_a_run_and_an_artifact(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("kept")
    code = (
        "import mlflow, sys; mlflow.set_experiment('probe'); run = mlflow.start_run(); "
        "mlflow.log_metric('m', 1.5); mlflow.log_artifact(sys.argv[1]); mlflow.end_run(); "
        "print(mlflow.artifacts.load_text(run.info.artifact_uri + '/note.txt'))"
    )
    assert "kept" in stack.run("python", "-c", code, str(tmp_path / "note.txt"))


def test_both_pages_ask_for_the_login(stack: Stack) -> None:
    experiments = f"{stack.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1"
    assert status_of(experiments) == 401
    assert status_of(f"{stack.mlflow_url}/") == 401
    assert status_of(f"{stack.mlflow_url}/api/2.0/mlflow-artifacts/artifacts") == 401
    assert status_of(experiments, basic(stack)) == 200
    assert status_of(experiments, basic(stack)[:-4]) == 401
    for path in ("api/v2/dags", "auth/token"):
        assert status_of(f"{stack.airflow_url}/{path}") in (401, 403)
    with pytest.raises(ServiceFailedError, match="HTTP 401"):
        airflow.token(stack.airflow_url, "guessed")


def basic(stack: Stack) -> str:
    return "Basic " + b64encode(stack.login.replace(" ", ":").encode()).decode()


def status_of(url: str, login: str = "") -> int:
    headers = {"Authorization": login} if login else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - loopback only
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_mlflow_turns_away_a_foreign_host_name(stack: Stack) -> None:
    host, port = stack.mlflow_url.removeprefix("http://").split(":")
    connection = http_client.HTTPConnection(host, int(port))
    connection.request(
        "GET",
        "/api/2.0/mlflow/experiments/search?max_results=1",
        headers={"Host": "evil.example", "Authorization": basic(stack)},
    )
    assert connection.getresponse().status == 403
    connection.close()


@pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="needs redis-server (Debian: redis-server)"
)
def test_the_celery_worker_of_compose_starts_and_answers(stack: Stack, tmp_path: Path) -> None:
    port = free_port()
    redis = launch(
        "redis",
        ["redis-server", "--bind", LOOPBACK, "--port", str(port), "--save", "", "--dir", "."],
        environment=environment.inherited(),
        log=tmp_path / "redis" / "log",
        port=port,
    )
    database = stack.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    variables = {
        **environment.inherited(),
        **stack.environment,
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": f"redis://{LOOPBACK}:{port}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
    }
    worker = launch(
        "worker",
        environment.program(COMMANDS["airflow-worker"]),
        environment=variables,
        log=tmp_path / "worker.log",
    )
    try:
        wait_ready(worker, lambda: " ready." in Path(worker.log).read_text(), 120)
        ping = subprocess.run(
            environment.program(
                (
                    *("celery", "--app", "airflow.providers.celery.executors.celery_executor.app"),
                    *("inspect", "ping"),
                )
            ),
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "pong" in ping.stdout, ping.stdout + ping.stderr
    finally:
        stop([worker, redis], 15, signal.SIGTERM)


def test_one_start_heals_whatever_was_killed(stack: Stack) -> None:
    dags = Path(stack.environment["AIRFLOW__CORE__DAGS_FOLDER"])
    task = _endless_task(stack, dags)
    busy = threading.Thread(target=_count_forever, args=[stack], daemon=True)
    busy.start()
    before = Register(stack.home.services_file).read()
    old = [*_family(stack), task]
    leaders = [psutil.Process(service.pid) for service in before.values()]
    for leader in leaders:
        leader.kill()
    psutil.wait_procs(leaders, timeout=30)
    assert {"postgres", "mlflow", "airflow-scheduler"} <= services.orphaned(stack.home)
    outcome = CliRunner().invoke(
        application, ["status"], env={"FRESHRANK_HOME": str(stack.home.path)}
    )
    assert outcome.exit_code == 1
    assert "orphaned" in outcome.output

    again = services.start(stack.home, dags=dags)
    assert again.environment == stack.environment
    after = Register(stack.home.services_file).read()
    assert {name: one.port for name, one in after.items()} == {
        name: one.port for name, one in before.items()
    }
    assert not [each for each in old if each.is_running() and each.status() != "zombie"]
    assert services.orphaned(stack.home) == set()
    test_every_component_is_healthy(again)
    busy.join(5)
    assert not busy.is_alive()


def _endless_task(stack: Stack, dags: Path) -> psutil.Process:
    """A task that runs when the scheduler is killed."""
    deadline = time.monotonic() + 120
    runs, told = f"{stack.airflow_url}/api/v2/dags/endless/dagRuns", dags / "pid"
    while http.send(runs, "POST", {"logical_date": None}, stack.token())[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    while not told.exists() or not told.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return psutil.Process(int(told.read_text()))


def _count_forever(stack: Stack) -> None:
    """A query that does not look whether its server's first process lives."""
    with suppress(psycopg.OperationalError), stack.postgres.connect("shop") as connection:
        connection.execute("SELECT count(*) FROM generate_series(1, 1e12::bigint)")


def _family(stack: Stack) -> list[psutil.Process]:
    leaders = [
        psutil.Process(service.pid)
        for service in Register(stack.home.services_file).read().values()
    ]
    return [*leaders, *(child for one in leaders for child in one.children(recursive=True))]
