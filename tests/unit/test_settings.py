from __future__ import annotations

import ast
import dataclasses
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from taskapp.errors import InvalidSetting, UnknownSetting
from taskapp.setting_values import value_of
from taskapp.settings import SETTING_NAMES, Settings, find_env_file, load_settings

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_need_no_variable() -> None:
    settings = load_settings({})

    assert settings.queues == ("critical", "high", "default", "low")
    assert settings.broker_url is None


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"TASKAPP_BROKER_URI": "x"}, "unknown setting TASKAPP_BROKER_URI; did you mean TASKAPP_BROKER_URL?"),
        ({"TASKAPP_XYZZY": "x"}, "unknown setting TASKAPP_XYZZY"),
        (
            {"TASKAPP_BROKER_URL": "localhost"},
            "setting TASKAPP_BROKER_URL cannot be '***': use a URL, such as redis://localhost:6379/0",
        ),
        (
            {"TASKAPP_SMTP_PORT": "mail"},
            "setting TASKAPP_SMTP_PORT cannot be 'mail': "
            "input should be a valid integer, unable to parse string as an integer",
        ),
        (
            {"TASKAPP_QUEUES": "fast,slow"},
            "setting TASKAPP_QUEUES cannot be 'fast,slow': it must include 'default', the queue of tasks "
            "without a route",
        ),
        (
            {"TASKAPP_ROUTES": "shop.pay=hihg"},
            "setting TASKAPP_ROUTES cannot be 'shop.pay=hihg': "
            "routes: 'shop.pay=hihg' names an unknown queue (queues: critical, high, default, low)",
        ),
        (
            {"TASKAPP_WEB_HOSTS": "a.example,https://b.example"},
            "setting TASKAPP_WEB_HOSTS cannot be 'a.example,https://b.example': "
            "'https://b.example' is not a host name; write it without scheme, port and path",
        ),
        (
            {"TASKAPP_QUEUE_LIMITS": "default=0"},
            "setting TASKAPP_QUEUE_LIMITS cannot be 'default=0': "
            "'default=0' does not have the form queue=number, with a number above 0",
        ),
        ({"TASKAPP_QUEUE_LIMITS": "default"}, "setting TASKAPP_QUEUE_LIMITS cannot be 'default': 'default' does not"),
        ({"TASKAPP_QUEUE_LIMITS": "low=many"}, "setting TASKAPP_QUEUE_LIMITS cannot be 'low=many': 'low=many' does"),
        ({"TASKAPP_EMBEDDED": "sometimes"}, "setting TASKAPP_EMBEDDED cannot be 'sometimes': "),
        (
            {"TASKAPP_RESULT_URL": "rpc://"},
            "setting TASKAPP_RESULT_URL cannot be '***': rpc:// sends results to one client",
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_name(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises((UnknownSetting, InvalidSetting)) as refusal:
        load_settings(environ)

    assert str(refusal.value).startswith(sentence)


KINDS = get_type_hints(Settings)
LIMITED = [field for field in dataclasses.fields(Settings) if KINDS[field.name] in (int, float)]
whatever = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 62), 1 << 62),
    st.floats(-1e15, 1e15),
    st.sampled_from([float("nan"), float("inf")]),
    st.lists(st.text()),
    st.text("0123456789+-._eEnaif ", max_size=7),
    st.integers(-1_000_000, 1 << 40).map(str),
    st.floats().map(repr),
    st.sampled_from(["on", "Yes", "TRUE", "f", "text", "json", "1_000", "٣", "", "9" * 4_301, "\udcff"]),
)


def said_by_pydantic(kind: Any, limits: Mapping[str, Any], given: Any) -> Any:
    bounds = {name: limits[name] for name in ("ge", "gt", "le") if limits.get(name) is not None}
    try:
        return TypeAdapter(Annotated[kind, Field(**bounds)] if bounds else kind).validate_python(given)
    except ValidationError as error:
        message: str = error.errors()[0]["msg"]
        return message[0].lower() + message[1:]


@given(whatever, st.sampled_from([*LIMITED, *(f for f in dataclasses.fields(Settings) if KINDS[f.name] is bool)]))
@example("other", Settings.__dataclass_fields__["embedded"])
@example("", Settings.__dataclass_fields__["log_format"])
@example("json", Settings.__dataclass_fields__["log_format"])
def test_a_value_is_read_as_pydantic_would(given: Any, field: dataclasses.Field[Any]) -> None:
    # Pydantic takes no blanks beside underscores in numbers, and "0-6" for an integer.
    text = given if isinstance(given, str) else ""
    assume(not ("_" in text and text != text.strip()) and not re.search(r"\d[+-]", text))
    limits = {} if field.metadata is None else field.metadata
    try:
        read = value_of(given, KINDS[field.name], limits)
    except ValueError as error:
        read = str(error)

    assert repr(read) == repr(said_by_pydantic(KINDS[field.name], limits, given))


def test_a_refused_password_is_not_shown() -> None:
    with pytest.raises(InvalidSetting) as refusal:
        load_settings({"TASKAPP_SMTP_PASSWORD": "hunter2", "TASKAPP_SMTP_PORT": "0"})

    assert "hunter2" not in str(refusal.value)
    assert "hunter2" not in repr(load_settings({"TASKAPP_SMTP_PASSWORD": "hunter2"}))


def test_variables_that_kubernetes_injects_are_passed_over() -> None:
    injected = {
        "TASKAPP_REDIS_SERVICE_HOST": "10.0.0.1",
        "TASKAPP_REDIS_SERVICE_PORT": "6379",
        "TASKAPP_REDIS_SERVICE_PORT_METRICS": "9121",
        "TASKAPP_REDIS_PORT": "tcp://10.0.0.1:6379",
        "TASKAPP_REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
    }

    assert load_settings(injected) == load_settings({})


def test_the_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TASKAPP_KEY_PREFIX=file\nTASKAPP_INCLUDE=shop.tasks, billing.tasks\nOTHER=1\n")

    settings = load_settings({"TASKAPP_KEY_PREFIX": "environment"}, tmp_path / ".env")

    assert settings.key_prefix == "environment"
    assert settings.include == ("shop.tasks", "billing.tasks")


def test_the_env_file_is_looked_for_up_to_the_project_root(tmp_path: Path) -> None:
    (tmp_path / ".env").touch()
    (tmp_path / "project" / "deep").mkdir(parents=True)

    assert find_env_file(tmp_path / "project" / "deep", {}) == tmp_path / ".env"
    (tmp_path / "project" / "pyproject.toml").touch()
    assert find_env_file(tmp_path / "project" / "deep", {}) is None
    assert find_env_file(tmp_path, {"TASKAPP_ENV_FILE": ""}) is None


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings({}).key_prefix = "other"


def test_env_example_lists_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    shown = dict(match.groups() for line in lines if (match := re.fullmatch(r"#? ?(TASKAPP_\w+)=(.*)", line)))

    assert tuple(shown) == SETTING_NAMES
    for name, default in dataclasses.asdict(Settings()).items():
        if name == "data_dir":
            continue  # differs from user to user
        variable = f"TASKAPP_{name.upper()}"
        assert getattr(load_settings({variable: shown[variable]}), name) == default


def meanings() -> dict[str, str]:
    """What is said of each setting where it is defined."""
    [fields] = [
        node.body
        for node in ast.parse((ROOT / "taskapp/settings.py").read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    ]
    return {
        f"TASKAPP_{field.target.id.upper()}": " ".join(said.value.value.split())
        for field, said in itertools.pairwise(fields)
        if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Expr)
    }


def test_the_readme_table_says_of_every_setting_what_it_means() -> None:
    rows = re.findall(r"^\| `(TASKAPP_\w+)` \| .* \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert rows == list(meanings().items())
    assert tuple(meanings()) == SETTING_NAMES


def test_env_example_says_of_every_setting_what_it_means() -> None:
    blocks = [block.splitlines() for block in (ROOT / ".env.example").read_text().split("\n\n")]
    said = {
        name: " ".join(line.removeprefix("# ") for line in block[:-1])
        for block in blocks
        if (name := block[-1].removeprefix("# ").partition("=")[0]) in SETTING_NAMES
    }

    assert said == meanings()


SEVERAL = "redis://one:6379/0;redis://two:6379/0"


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"TASKAPP_BROKER_URL": SEVERAL},
            "broker_url: it names several Redis servers, and results need a single one: set TASKAPP_RESULT_URL",
        ),
        ({"TASKAPP_RESULT_URL": SEVERAL}, "result_url: it names several Redis servers; results need a single one"),
    ],
)
def test_results_are_not_kept_on_one_of_several_servers(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(sentence)):
        load_settings(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"TASKAPP_BROKER_URL": SEVERAL, "TASKAPP_RESULT_URL": "redis://three:6379/0"},
        {"TASKAPP_BROKER_URL": "amqp://one//;amqp://two//"},
        {"TASKAPP_BROKER_URL": "sentinel://one:26379;sentinel://two:26379"},
    ],
)
def test_a_broker_may_be_one_of_several_servers(environ: dict[str, str]) -> None:
    assert load_settings(environ)


def test_readme_lists_every_variable_that_is_read_and_is_no_setting() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "taskapp").rglob("*.py"))
    read = {
        *re.findall(r"""os\.environ(?:\.get\(|\.pop\(|\[)"(\w+)\"""", code),
        *re.findall(r'_VARIABLE = "(\w+)"', code),
    }

    _, _, section = (ROOT / "README.md").read_text().partition("Variables that are not settings:")
    assert {*re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)} == read - {*SETTING_NAMES}
    assert "TASKAPP_ENV_FILE" in read
