"""`isoenv check`: every problem at once, with file and line, and what else is to know."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from isoenv import ports, presets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]

WRONG = """\
prots = 3

[ports]
web = 80
nginx = 80
api = 70000

[env]
URL = "http://localhost:{ports.wbe}"
UID = "1"
"""
PROBLEMS = [
    "isoenv.toml:1: prots: unknown key: did you mean `ports`?",
    "isoenv.toml:5: ports.nginx: port 80 is already `web`: give each port its own",
    "isoenv.toml:6: ports.api: expected an integer from 1 to 65535, got 70000",
    "isoenv.toml:9: env.URL: no field `{ports.wbe}` here: did you mean `{ports.web}`?",
    "isoenv.toml:10: env.UID: is read-only in bash: choose another name",
]
CLASH = "`web` of slot 5 is `api` of slot 0: 8000"


@pytest.fixture
def check(isoenv: Isoenv) -> Isoenv:
    """Run `isoenv check` without any trust, which it does not need."""

    def check(*args: str, cwd: Path) -> CompletedProcess[str]:
        return isoenv("check", *args, cwd=cwd, trusted=False)

    return check


def test_every_problem_is_told_at_once_on_a_line_of_its_own(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text(WRONG)
    done = check(cwd=repo)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == PROBLEMS


def test_the_users_own_layer_is_checked_with_the_file_below_it(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text(WRONG)
    (repo / "isoenv.local.toml").write_text('[env]\nUID = "2"\nOK = "{ports.web}"\nB = true\n')
    lines = check(cwd=repo).stdout.splitlines()
    assert lines[:4] == PROBLEMS[:4]
    # What the upper layer sets is wrong there, and said once.
    assert lines[4:] == [
        "isoenv.local.toml:2: env.UID: is read-only in bash: choose another name",
        "isoenv.local.toml:4: env.B: expected a string in quotes or false, got true",
    ]


def test_syntax_errors_of_both_files_are_told(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text("[ports\nweb = 80\n")
    (repo / "isoenv.local.toml").write_text("\n\nx = \n")
    done = check(cwd=repo)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first.startswith("isoenv.toml:1: not valid TOML: ")
    assert second.startswith("isoenv.local.toml:3: not valid TOML: ")


def test_bytes_that_are_no_text_are_told_for_both_files(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_bytes(b"# \xff\n")
    (repo / "isoenv.local.toml").write_bytes(b"#\n# \xfe\n")
    done = check(cwd=repo)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "isoenv.toml:1: byte 0xff is not UTF-8: save the file as UTF-8",
        "isoenv.local.toml:2: byte 0xfe is not UTF-8: save the file as UTF-8",
    ]


def test_a_right_file_is_said_to_be_right(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text("[ports]\nweb = 3000\n")
    (repo / "isoenv.local.toml").write_text('[env]\nA = "b"\n')
    done = check(cwd=repo)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert told[-1] == "isoenv.toml and isoenv.local.toml: right, 1 port, last slot 62"


def test_slots_that_meet_are_spelled_out_and_are_no_error(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text("[ports]\nweb = 3000\napi = 8000\ndb = 3001\n")
    done = check(cwd=repo)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"note: {CLASH}: such slots are skipped"


def test_slots_that_nobody_reaches_are_no_news(repo: Path, check: Isoenv) -> None:
    text = "[instance]\nstride = 10\n[ports]\nweb = 3000\napi = {}\n"
    (repo / "isoenv.toml").write_text(text.format(3990))
    assert "`web` of slot 99 is `api` of slot 0: 3990" in check(cwd=repo).stdout
    (repo / "isoenv.toml").write_text(text.format(4000))
    assert "note" not in check(cwd=repo).stdout


def test_the_first_port_in_the_ephemeral_range_is_a_note(repo: Path, check: Isoenv) -> None:
    bounds = ports.ephemeral_range()
    assert bounds is not None
    low, high = bounds
    protected = ports.reserved_ports()
    base = next(port for port in range(low - 995, low) if port + 2000 not in protected)
    (repo / "isoenv.toml").write_text(f"[ports]\nweb = {base - 1000}\n")
    (note, _) = check(cwd=repo).stdout.splitlines()
    slot = next(n for n in range(1, 9) if low <= base - 1000 + n * 1000 <= high)
    port = base - 1000 + slot * 1000
    assert note.startswith(
        f"note: `web` of slot {slot} is {port}, in the kernel's ephemeral range {low}-{high}: "
    )
    # Slot 0 is where the user put it.
    (repo / "isoenv.toml").write_text(f"[instance]\nstride = 65535\n[ports]\nweb = {low}\n")
    assert "ephemeral" not in check(cwd=repo).stdout


def test_a_stride_that_leaves_one_slot_is_a_note(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text("[instance]\nstride = 10000\n[ports]\nweb = 60000\n")
    done = check(cwd=repo)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "note: no slot but 0: `web` of slot 1 is above 65535: lower `stride` or the port",
        "isoenv.toml: right, 1 port, last slot 0",
    ]


def test_blocks_have_no_formula_and_as_many_slots_as_fit(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text(
        "[instance]\nports = 'block'\nrange = [20000, 20099]\n[ports]\nweb = 3000\napi = 4000\n"
    )
    assert check(cwd=repo).stdout == "isoenv.toml: right, 2 ports, last slot 10\n"
    eleven = "".join(f"p{n} = {3000 + n}\n" for n in range(11))
    with (repo / "isoenv.toml").open("a") as file:
        file.write(eleven.replace("p0 = 3000", "p0 = 3999"))
    assert check(cwd=repo).stdout == "isoenv.toml: right, 13 ports, last slot 5\n"


def test_json_has_the_problems_and_the_notes_in_an_envelope(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text(WRONG)
    done = check("--json", cwd=repo)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["version"] == 1
    found = document["check"]
    assert found["files"] == ["isoenv.toml"]
    assert (found["notes"], found["last_slot"]) == ([], None)
    told = [
        f"{each['file']}:{each['line']}: {each['key']}: {each['message']}"
        for each in found["problems"]
    ]
    assert told == PROBLEMS

    (repo / "isoenv.toml").write_text("[ports]\nweb = 3000\napi = 8000\n")
    found = json.loads(check("--json", cwd=repo).stdout)["check"]
    assert (found["problems"], found["last_slot"]) == ([], 57)
    assert found["notes"][0] == {"kind": "clash", "message": f"{CLASH}: such slots are skipped"}
    assert {note["kind"] for note in found["notes"]} <= {"clash", "ephemeral"}


def test_a_file_that_is_named_is_checked_alone_and_called_as_it_was_named(
    repo: Path, tmp_path: Path, check: Isoenv
) -> None:
    (repo / "isoenv.toml").write_text(WRONG)
    (tmp_path / "other.toml").write_text("[ports]\nweb = 0\n")
    done = check("../../other.toml", cwd=repo)
    expected = "../../other.toml:2: ports.web: expected an integer from 1 to 65535, got 0\n"
    assert (done.returncode, done.stdout) == (1, expected)
    (tmp_path / "other.toml").write_text("[ports]\nweb = 3000\n")
    done = check(str(tmp_path / "other.toml"), cwd=tmp_path)
    assert done.returncode == 0
    assert f"{tmp_path}/other.toml: right, 1 port, last slot 62" in done.stdout


def test_from_below_the_file_is_named_by_a_path_that_leads_to_it(repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text("zzz = 1\n")
    (repo / "a/b").mkdir(parents=True)
    told = check(cwd=repo / "a/b").stdout
    match = re.match(r"(.*?):1: zzz: unknown key", told)
    assert match is not None
    assert (repo / "a/b" / match[1]).resolve() == (repo / "isoenv.toml").resolve()


def test_where_there_is_no_file_the_remedy_is_init(
    repo: Path, tmp_path: Path, check: Isoenv
) -> None:
    for done in (check(cwd=repo), check("nosuch.toml", cwd=repo), check(cwd=tmp_path)):
        assert (done.returncode, done.stdout) == (5, "")
        assert "`isoenv init` writes" in done.stderr


@pytest.mark.parametrize("kind", ["directory", "pipe", "huge"])
def test_what_is_no_file_is_one_line_and_exit_1(kind: str, repo: Path, check: Isoenv) -> None:
    target = repo / "isoenv.toml"
    if kind == "directory":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.write_bytes(b"#" * (1 << 20) + b"\n#")
    done = check(cwd=repo)
    assert done.returncode == 1
    assert len((done.stdout + done.stderr).splitlines()) == 1


def test_nothing_is_trusted_leased_or_written_by_a_check(
    repo: Path, tmp_path: Path, check: Isoenv, isoenv: Isoenv
) -> None:
    (repo / "isoenv.toml").write_text("[ports]\nweb = 3000\n[setup]\nrun = ['touch made']\n")
    assert check(cwd=repo).returncode == 0
    assert not (tmp_path / "state").exists()
    assert not (repo / ".git/isoenv").exists()
    assert not (repo / "made").exists()
    assert isoenv("show", cwd=repo, trusted=False).returncode == 4


@pytest.mark.parametrize("name", presets.NAMES)
def test_the_presets_are_right(name: str, repo: Path, check: Isoenv) -> None:
    (repo / "isoenv.toml").write_text(f'extends = "{name}"\n')
    done = check(cwd=repo)
    assert done.returncode == 0, done.stdout
    assert "isoenv.toml: right, " in done.stdout
