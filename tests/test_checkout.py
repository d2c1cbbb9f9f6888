"""A directory's checkout is the one that git finds, and its token is what it is known by."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoenv import checkout, tokens
from isoenv.checkout import Worktree
from isoenv.errors import IsoenvError, UsageError
from isoenv.models import Checkout
from isoenv.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Callable

    Git = Callable[..., str]

ROOT = Path(__file__).resolve().parents[1]

NAMES = {
    "simple": "simple",
    "spaces and quotes": """it's a "name" $HOME `id` \\n""",
    "newline": "new\nline",
    "not utf-8": os.fsdecode(b"\xff\xfe \xc3\xa9"),
    "leading dash": "-rf",
    "words of git": "worktrees",
}
each_name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)

# Root may write everywhere; without these capabilities it is a user like any other.
DAC = "-dac_override,-dac_read_search"
UNPRIVILEGED = ["setpriv", f"--bounding-set={DAC}", f"--inh-caps={DAC}"]
FORBIDDEN = frozenset({"start", "api", "shop-api"})


def located(directory: Path) -> Checkout:
    place = checkout.locate(str(directory))
    assert place is not None
    return place.checkout


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def in_python(code: str, *args: str, privileged: bool = True) -> subprocess.Popen[str]:
    """Start Python with `checkout`, `os` and `sys` at hand."""
    argv = [
        sys.executable,
        "-c",
        f"import os, sys\nfrom isoenv import checkout, tokens\n{code}",
        *args,
    ]
    if not privileged and os.geteuid() == 0:
        argv = [*UNPRIVILEGED, *argv]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def said(process: subprocess.Popen[str], text: str = "") -> str:
    stdout, stderr = process.communicate(text)
    assert process.returncode == 0, stderr
    return stdout.strip()


def layout(git: Git, seed: Path, top: Path) -> dict[str, Path]:
    """Make one checkout of each kind below ``top``, of a repository like ``seed``."""
    submodule = ("-c", "protocol.file.allow=always", "submodule", "--quiet")
    top.mkdir(parents=True)
    main, linked = top / "shop", top / "linked"
    shutil.copytree(seed, main, symlinks=True)
    git(main, *submodule, "add", str(seed), "vendor/lib")
    git(main, "commit", "--quiet", "--message", "submodule")
    nested = main / ".claude/worktrees/nested"
    for path in (linked, nested):
        git(main, "worktree", "add", "--quiet", "--detach", str(path))
    git(linked, *submodule, "update", "--init")
    inner = main / "vendor/lib"
    git(inner, "worktree", "add", "--quiet", "--detach", str(top / "lib"))
    git(linked / "vendor/lib", "worktree", "add", "--quiet", "--detach", str(top / "lib2"))
    git(top, "clone", "--quiet", str(main), "clone")
    git(top, "clone", "--quiet", "--bare", str(main), "bare.git")
    git(top, "clone", "--quiet", "--bare", str(main), "hidden/.bare")
    (top / "hidden/.git").write_text("gitdir: ./.bare\n")
    git(top / "bare.git", "worktree", "add", "--quiet", "--detach", str(top / "of-bare"))
    git(top / "hidden", "worktree", "add", "--quiet", "--detach", "of-hidden")
    git(top, "init", "--quiet", "--separate-git-dir", "elsewhere", "separate")
    return {
        "main": main,
        "linked": linked,
        "nested": nested,
        "clone": top / "clone",
        "submodule": inner,
        "submodule in linked": linked / "vendor/lib",
        "linked of submodule": top / "lib",
        "linked of that in linked": top / "lib2",
        "bare": top / "of-bare",
        ".bare": top / "hidden/of-hidden",
        "separate": top / "separate",
    }


def ask(git: Git, directory: Path, question: str) -> str:
    answer = git(directory, "rev-parse", question).removesuffix("\n")
    return os.path.realpath(directory / answer)


@each_name
def test_the_checkout_is_the_one_that_git_finds(
    git: Git, template_repository: Path, tmp_path: Path, name: str
) -> None:
    top = tmp_path / name
    for kind, path in layout(git, template_repository, top).items():
        deep = path / "src" / name
        deep.mkdir(parents=True)
        place = checkout.locate(str(deep))
        assert place is not None, kind
        found, root = place.checkout, ask(git, deep, "--show-toplevel")
        common = ask(git, deep, "--git-common-dir")
        assert (found.root, place.base) == (root, root) == (str(path), str(path)), kind
        assert found.git_dir == ask(git, deep, "--absolute-git-dir"), kind
        if "in linked" in kind:
            common = str(top / "shop/.git/modules/vendor/lib")
        assert found.common_dir == common, kind
        assert found.is_main == (kind in {"main", "clone", "submodule", "separate"}), kind
        assert checkout.back_pointer_holds(found) == (kind != "separate"), kind


def test_the_project_is_called_by_the_directory_of_the_main_checkout(
    git: Git, template_repository: Path, tmp_path: Path
) -> None:
    found = {
        kind: checkout.project_name(located(path), str(path))
        for kind, path in layout(git, template_repository, tmp_path / "top").items()
    }
    assert found == {
        **dict.fromkeys(("main", "linked", "nested"), "shop"),
        **dict.fromkeys(found.keys() - {"main", "linked", "nested"}, "lib"),
        "clone": "clone",
        "bare": "bare",
        ".bare": "hidden",
        "separate": "elsewhere",
    }
    main = located(tmp_path / "top/shop")
    assert checkout.project_name(main, f"{main.root}/services/a:b") == "a-b"
    assert checkout.project_dir(main) == f"{main.root}/.git"
    assert checkout.project_dir(located(tmp_path / "top/linked")) == f"{main.root}/.git"
    assert checkout.project_dir(Checkout("/srv/-plain")) == "/srv/-plain"
    assert checkout.project_name(Checkout("/srv/-plain"), "/srv/-plain") == "plain"
    assert checkout.project_name(Checkout("/"), "/") == "project"


def test_git_variables_of_the_caller_do_not_lead_astray(
    git: Git, template_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = layout(git, template_repository, tmp_path / "top")
    before = {kind: located(path) for kind, path in kinds.items()}
    listed = {kind: checkout.linked_worktrees(found) for kind, found in before.items()}
    stranger = kinds["clone"]
    monkeypatch.setenv("GIT_DIR", f"{stranger}/.git")
    monkeypatch.setenv("GIT_COMMON_DIR", f"{stranger}/.git")
    monkeypatch.setenv("GIT_WORK_TREE", str(stranger))
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent")
    for kind, path in kinds.items():
        assert located(path) == before[kind]
        assert checkout.linked_worktrees(before[kind]) == listed[kind]
        assert checkout.back_pointer_holds(before[kind]) == (kind != "separate")


def test_symbolic_links_on_the_way_lead_to_the_physical_checkout(
    git: Git, repo: Path, worktree: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    linked = worktree(repo, "linked")
    (linked / "src").mkdir()
    (tmp_path / "to-src").symlink_to(linked / "src")
    (repo / "outwards").symlink_to(linked / "src")
    (tmp_path / "to-top").symlink_to(repo.parent)
    assert located(tmp_path / "to-src") == located(repo / "outwards") == located(linked)
    assert located(tmp_path / "to-top" / repo.name) == located(repo)
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    (borrowed / ".git").symlink_to(repo / ".git")
    assert located(borrowed).git_dir == ask(git, borrowed, "--absolute-git-dir")
    assert not checkout.back_pointer_holds(located(borrowed))


def test_where_git_has_no_work_tree_there_is_no_checkout(
    git: Git, template_repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "isoenv.toml").touch()
    kinds = layout(git, template_repository, tmp_path / "top")
    top, main = tmp_path / "top", kinds["main"]
    git(top, "clone", "--quiet", "--bare", str(main), "bare/.git")
    git(kinds["bare"], "sparse-checkout", "set", "--cone", "src")
    assert "bare" not in (top / "bare.git/config").read_text()
    (top / "gitfile").mkdir()
    (top / "gitfile/.git").write_text("gitdir: ../bare.git")
    inside = ("bare.git", "bare.git/refs", "hidden", "hidden/.bare", "bare", "bare/.git", "gitfile")
    for directory in (*(top / name for name in inside), main / ".git", main / ".git/refs/heads"):
        assert git(directory, "rev-parse", "--is-inside-work-tree") == "false\n"
        assert checkout.locate(str(directory)) is None, directory
    assert located(kinds["bare"]).root == str(kinds["bare"])
    config = main / ".git/config"
    for line in ('[core]\n\tBare = "YES" ; x', "[CORE] bare=1", "[alias]\n\tbare = log"):
        config.write_text(f"{config.read_text()}\n{line}\n")
        assert checkout.locate(str(main)) is None
    config.write_text(f"{config.read_text()}\n[core]\nbare = false\n")
    assert located(main).root == str(main)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"garbage", b"gitdir: ", b"gitdir:/x", b"gitdir: /nonexistent\n", b"gitdir: ..\n"),
        *(b"gitdir: x\0y\n", b"gitdir: " + b"x/" * 5000, b"\0" * (1 << 21)),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_broken_git_file_is_an_error_that_names_it(repo: Path, content: bytes) -> None:
    (repo / "sub/deep").mkdir(parents=True)
    (repo / "sub/.git").write_bytes(content)
    git = subprocess.run(["git", "rev-parse"], cwd=repo / "sub/deep", check=False)
    assert git.returncode == 128
    with pytest.raises(IsoenvError, match="`git worktree repair`") as failure:
        checkout.locate(str(repo / "sub/deep"))
    assert repr(str(repo / "sub/.git")) in str(failure.value)
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 2000


def test_what_only_looks_like_a_repository_is_passed_by_as_git_does(git: Git, repo: Path) -> None:
    for name in ("empty", "dangling", "pipe", "half"):
        (repo / name).mkdir()
    (repo / "empty/.git").mkdir()
    (repo / "dangling/.git").symlink_to("nowhere")
    os.mkfifo(repo / "pipe/.git")
    (repo / "half/HEAD").touch()
    for name in ("empty", "dangling", "pipe", "half"):
        assert located(repo / name).root == ask(git, repo / name, "--show-toplevel") == str(repo)
    for ending in ("", "\r\n", "\n\n"):
        (repo / "half/.git").write_text(f"gitdir: ../.git{ending}")
        assert located(repo / "half").root == ask(git, repo / "half", "--show-toplevel")


def test_a_directory_that_is_gone_is_an_error(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "gone").mkdir()
    monkeypatch.chdir(repo / "gone")
    (repo / "gone").rmdir()
    for directory in (".", str(repo / "gone"), "nul\0"):
        with pytest.raises(IsoenvError, match=re.escape(repr(directory))):
            checkout.locate(directory)
    # Leave a directory that later tests can start in.
    monkeypatch.chdir(tmp_path)


def test_directories_that_may_not_be_searched_hide_nothing_above_them(repo: Path) -> None:
    closed = repo / "closed"
    (closed / "deep").mkdir(parents=True)
    closed.chmod(0)
    code = "print(checkout.locate(sys.argv[1]).checkout.root)"
    assert said(in_python(code, str(closed / "deep"), privileged=False)) == str(repo)
    closed.chmod(0o700)


def test_the_base_is_where_the_nearest_configuration_is(repo: Path, tmp_path: Path) -> None:
    plain, deep = tmp_path / "plain", tmp_path / "plain/a/b"
    deep.mkdir(parents=True)
    assert checkout.locate(str(deep)) is None
    (plain / "isoenv.toml").touch()
    assert checkout.locate(str(deep)) == checkout.Place(Checkout(str(plain)), str(plain))
    (plain / "a/isoenv.toml").touch()
    assert checkout.locate(str(deep)) == checkout.Place(Checkout(f"{plain}/a"), f"{plain}/a")
    shutil.copytree(repo, plain / "repo")
    (plain / "repo/sub/deep").mkdir(parents=True)
    assert checkout.locate(str(plain / "repo/sub")) == checkout.Place(
        Checkout(f"{plain}/repo", f"{plain}/repo/.git", f"{plain}/repo/.git"), f"{plain}/repo"
    )
    (plain / "repo/isoenv.toml").touch()
    (plain / "repo/sub/isoenv.toml").touch()
    place = checkout.locate(str(plain / "repo/sub/deep"))
    assert place is not None
    assert (place.checkout.root, place.base) == (f"{plain}/repo", f"{plain}/repo/sub")


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        *(("feature auth", "feature auth"), ("é🚒", "é🚒"), ("12a", "12a")),
        *(("42", "shop-42"), ("٣", "shop-٣"), ("start", "shop-start"), ("", "shop-")),
        *(("api", "shop-shop-api"), ("-rf", "shop--rf"), (".", "shop-.")),
        *(("a:b/c", "a-b-c"), ("a\nb\x1b\udcff", "a-b--"), ("\u202eevil", "-evil")),
    ],
)
def test_an_instance_is_called_by_its_directory_where_it_may(directory: str, name: str) -> None:
    expected = f"shop-{name}" if name == "-evil" else name
    assert checkout.instance_name(directory, "shop", FORBIDDEN) == expected
    checkout.check_name(expected, FORBIDDEN)


@given(st.text(), st.text(min_size=1))
def test_every_directory_gives_a_name_that_may_be_claimed(directory: str, project: str) -> None:
    project = checkout.project_name(Checkout("/"), f"/{project}")
    checkout.check_name(checkout.instance_name(directory, project, FORBIDDEN), FORBIDDEN)


@pytest.mark.parametrize("name", ["", "7", ".", "start", "-x", "a:1", "a/b", "a\tb", "\udcff"])
def test_a_name_that_no_instance_may_have_is_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="`isoenv claim --name NAME`") as failure:
        checkout.check_name(name, FORBIDDEN)
    assert repr(name) in str(failure.value)


words = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\\t\n\rtn\udcff"))


@settings(deadline=None)
@given(st.dictionaries(words, st.tuples(st.integers(0, 65535), words)))
def test_a_token_is_read_as_it_was_written(entries: dict[str, tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        written = Token("0123456789abcdef" * 2, entries)
        tokens.write_token(Checkout(root), written)
        assert tokens.read_token(Checkout(root)) == written


# Too long, and whole wherever a reader stops at a power of two and one byte.
ENDLESS = "f" * 32 + "\n" + f"1\tname\t{'k' * 24}\n" * 40_000


@pytest.mark.parametrize(
    "content",
    [
        *("", "\n", "f" * 32, "f" * 31 + "\n", "G" * 32 + "\n", "f" * 32 + "\n1\tname\n"),
        *("f" * 32 + "\nx\tname\tkey\n", "f" * 32 + "\n1\tname\tkey", ENDLESS),
    ],
    ids=range(9),
)
def test_a_damaged_token_is_none_and_is_made_anew(tmp_path: Path, content: str) -> None:
    place = Checkout(str(tmp_path))
    (tmp_path / ".isoenv").mkdir()
    (tmp_path / ".isoenv/id").write_text(content)
    assert tokens.read_token(place) is None
    token = tokens.mint(place)
    assert tokens.mint(place) == tokens.read_token(place) == token


def test_a_token_is_not_read_or_written_through_links_and_pipes(tmp_path: Path) -> None:
    victim = Checkout(str(tmp_path / "victim"))
    thief, pipe = tmp_path / "thief", tmp_path / "pipe"
    for path in (thief, pipe / ".isoenv", tmp_path / "victim"):
        path.mkdir(parents=True)
    token = tokens.mint(victim)
    os.mkfifo(pipe / ".isoenv/id")
    assert tokens.read_token(Checkout(str(pipe))) is None
    with open(pipe / ".isoenv/id", "r+b", buffering=0) as file:
        file.write(Path(victim.token_file).read_bytes())
        assert tokens.read_token(Checkout(str(pipe))) is None
    (pipe / ".isoenv/id").unlink()
    (pipe / ".isoenv/id").mkdir()
    assert tokens.read_token(Checkout(str(pipe))) is None
    with pytest.raises(IsoenvError, match="is a directory"):
        tokens.mint(Checkout(str(pipe)))
    assert names(pipe / ".isoenv") == [".gitignore", "id"]
    (thief / ".isoenv").symlink_to(tmp_path / "victim/.isoenv")
    assert tokens.read_token(Checkout(str(thief))) is None
    with pytest.raises(IsoenvError, match="cannot write"):
        tokens.mint(Checkout(str(thief)))
    (thief / ".isoenv").unlink()
    (thief / ".isoenv").mkdir()
    (thief / ".isoenv/id").symlink_to(victim.token_file)
    assert tokens.read_token(Checkout(str(thief))) is None
    assert tokens.mint(Checkout(str(thief))) != token
    assert tokens.read_token(victim) == token


def test_a_token_lies_where_git_does_not_see_it(
    git: Git, repo: Path, worktree: Callable[[Path, str], Path]
) -> None:
    (repo / "plain").mkdir()
    places = [located(repo), located(worktree(repo, "linked")), Checkout(str(repo / "plain"))]
    minted = {tokens.mint(place).value for place in places}
    assert len(minted) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in minted)
    assert git(repo, "status", "--porcelain", "--untracked-files=all") == ""
    assert (repo / "plain/.isoenv/.gitignore").read_text() == "*\n"
    assert names(repo / "plain/.isoenv") == [".gitignore", "id"]
    assert names(repo / ".git/isoenv") == ["id"]
    assert (repo / ".git/isoenv").stat().st_mode & 0o777 == 0o700
    git(repo, "worktree", "remove", str(repo.parent / "linked"))


@pytest.mark.parametrize("content", [None, "damaged"])
def test_twenty_processes_at_once_agree_on_one_token(repo: Path, content: str | None) -> None:
    if content:
        (repo / ".git/isoenv").mkdir()
        (repo / ".git/isoenv/id").write_text(content)
    code = """
place = checkout.locate(sys.argv[1]).checkout
print("ready", flush=True)
sys.stdin.readline()
print(tokens.mint(place).value)"""
    processes = [in_python(code, str(repo)) for _ in range(20)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    values = {said(process) for process in processes}
    token = tokens.read_token(located(repo))
    assert token is not None
    assert values == {token.value}
    assert names(repo / ".git/isoenv") == ["id"]


def test_a_damaged_token_is_made_anew_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / ".isoenv"
    folder.mkdir()
    (folder / "id").write_text("damaged")
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    code = "from isoenv.models import Checkout\nprint(tokens.mint(Checkout(sys.argv[1])).value)"
    late = in_python(code, str(tmp_path))
    while late.poll() is None and not any(name.startswith("id.") for name in names(folder)):
        time.sleep(0.01)
    # Time to go wrong in; what is right waits for the lock.
    time.sleep(0.3)
    first = Token("0123456789abcdef" * 2)
    tokens.write_token(Checkout(str(tmp_path)), first)
    os.close(descriptor)
    assert said(late) == first.value
    assert tokens.read_token(Checkout(str(tmp_path))) == first


FAILING = """
from isoenv.errors import IsoenvError
from isoenv.models import Checkout
place = checkout.locate(sys.argv[1])
place = place.checkout if place else Checkout(sys.argv[1])
if sys.argv[2] == "full":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    tokens.mint(place)
except IsoenvError as error:
    print(error)"""


@pytest.mark.parametrize("trouble", ["full", "read-only"])
@pytest.mark.parametrize("kind", ["git", "plain"])
def test_a_disk_that_takes_nothing_is_one_line_and_nothing_is_left(
    repo: Path, tmp_path: Path, trouble: str, kind: str
) -> None:
    root, target = (repo, repo / ".git") if kind == "git" else (tmp_path / "p", tmp_path / "p")
    target.mkdir(exist_ok=True)
    before = names(target)
    if trouble == "read-only":
        target.chmod(0o500)
    message = said(in_python(FAILING, str(root), trouble, privileged=False))
    reason = "file too large" if trouble == "full" else "permission denied"
    assert message.startswith(f"cannot write {str(target)!r}"[:-1])
    assert reason in message
    assert "\n" not in message
    target.chmod(0o700)
    assert names(target) == before


def recorded(directory: str | None) -> tuple[str, int, int]:
    assert directory
    found = Path(directory).stat()
    return directory, found.st_dev, found.st_ino


def test_a_token_stays_through_moves_and_ends_with_its_checkout(
    git: Git,
    make_repo: Callable[[str], Path],
    worktree: Callable[[Path, str], Path],
    tmp_path: Path,
) -> None:
    main = make_repo("shop")
    linked = worktree(main, "feature")
    token, main_token = tokens.mint(located(linked)), tokens.mint(located(main))
    first = recorded(located(linked).git_dir)

    git(main, "worktree", "move", str(linked), str(tmp_path / "moved"))
    assert tokens.read_token(located(tmp_path / "moved")) == token
    assert checkout.back_pointer_holds(located(tmp_path / "moved"))
    (tmp_path / "moved").rename(tmp_path / "by-hand")
    assert not checkout.back_pointer_holds(located(tmp_path / "by-hand"))
    git(main, "worktree", "repair", str(tmp_path / "by-hand"))
    assert tokens.read_token(located(tmp_path / "by-hand")) == token
    assert checkout.back_pointer_holds(located(tmp_path / "by-hand"))
    assert tokens.is_gone(*first) is False

    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", main, copy], check=True)
    assert tokens.read_token(located(copy)) == main_token
    assert recorded(located(copy).git_dir)[2] != recorded(located(main).git_dir)[2]
    git(tmp_path, "clone", "--quiet", str(main), "clone")
    assert tokens.read_token(located(tmp_path / "clone")) is None

    main = main.rename(tmp_path / "renamed")
    with pytest.raises(IsoenvError, match="git worktree repair"):
        checkout.locate(str(tmp_path / "by-hand"))
    git(main, "worktree", "repair", str(tmp_path / "by-hand"))
    assert tokens.read_token(located(main)) == main_token
    assert tokens.read_token(located(tmp_path / "by-hand")) == token

    git(main, "worktree", "remove", str(tmp_path / "by-hand"))
    again = worktree(main, "by-hand")
    assert tokens.read_token(located(again)) is None
    assert tokens.mint(located(again)).value != token.value


def test_gone_is_said_on_proof_alone(
    make_repo: Callable[[str], Path], git: Git, worktree: Callable[[Path, str], Path]
) -> None:
    main = make_repo("disk/shop")
    disk, linked = main.parent, worktree(main, "../feature")
    (disk / "plain").mkdir()
    known = [recorded(located(path).git_dir) for path in (main, linked)]
    known.append(recorded(str(disk / "plain")))
    assert [tokens.is_gone(*one) for one in known] == [False] * 3
    # A disk that is mounted again may have another device number.
    assert [tokens.is_gone(path, 0, inode) for path, _, inode in known] == [False] * 3
    assert [tokens.is_gone(path, device, 1) for path, device, _ in known] == [True] * 3
    assert [tokens.is_gone(path, 0, 1) for path, _, _ in known] == [None] * 3

    disk.rename(disk.with_name("unmounted"))
    assert [tokens.is_gone(*one) for one in known] == [None] * 3
    disk.mkdir()
    assert [tokens.is_gone(path, 0, inode) for path, _, inode in known] == [None] * 3
    disk.rmdir()
    disk.with_name("unmounted").rename(disk)
    disk.chmod(0)
    code = "print(tokens.is_gone(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))"
    for one in known:
        assert said(in_python(code, *map(str, one), privileged=False)) == "None"
    disk.chmod(0o700)

    git(main, "worktree", "remove", str(linked))
    assert not (main / ".git/worktrees").exists()
    assert [tokens.is_gone(*one) for one in known] == [False, True, False]
    shutil.rmtree(main)
    (disk / "plain").rmdir()
    assert [tokens.is_gone(*one) for one in known] == [True] * 3


@each_name
def test_the_worktrees_are_those_that_git_lists(
    git: Git, template_repository: Path, tmp_path: Path, name: str
) -> None:
    top = tmp_path / name
    kinds = layout(git, template_repository, top)
    main = kinds["main"]
    git(main, "worktree", "lock", "--reason", f"on {name}", str(kinds["linked"]))
    git(main, "worktree", "lock", str(kinds["nested"]))
    for path in ("lost", "lost-locked"):
        git(main, "worktree", "add", "--quiet", "--detach", str(top / path))
        shutil.rmtree(top / path)
    git(main, "worktree", "lock", str(top / "lost-locked"))
    for kind in ("main", "linked", "bare", ".bare"):
        listed = {}
        for block in git(kinds[kind], "worktree", "list", "--porcelain", "-z").split("\0\0"):
            if block:
                fields = dict(line.partition(" ")[::2] for line in block.split("\0"))
                flags = (fields.get("locked"), "prunable" in fields, "bare" in fields)
                listed[fields["worktree"]] = flags
        found = checkout.linked_worktrees(located(kinds[kind]))
        assert {one.path: (one.locked, one.prunable, one.bare) for one in found} == listed
        for one in found:
            if Path(one.path).exists():
                assert ask(git, Path(one.path), "--absolute-git-dir") == one.git_dir
    inner = checkout.linked_worktrees(located(top / "lib2"))
    assert [one.path for one in inner] == [str(kinds["submodule in linked"]), str(top / "lib2")]
    separate = kinds["separate"]
    assert checkout.linked_worktrees(located(separate)) == [
        Worktree(str(separate), str(top / "elsewhere"))
    ]
    assert checkout.linked_worktrees(Checkout(str(top))) == []
    assert checkout.owner(Checkout(str(top))) is None


def test_a_relative_back_pointer_holds_too(
    repo: Path, worktree: Callable[[Path, str], Path]
) -> None:
    linked = worktree(repo, "linked")
    place = located(linked)
    assert place.git_dir is not None
    (linked / ".git").write_text(f"gitdir: {os.path.relpath(place.git_dir, linked)}\n")
    Path(place.git_dir, "gitdir").write_text(os.path.relpath(linked / ".git", place.git_dir))
    assert located(linked) == place
    assert checkout.back_pointer_holds(place)
    assert checkout.linked_worktrees(place)[1] == Worktree(str(linked), place.git_dir)


def test_a_forged_pointer_into_a_repository_does_not_hold(
    git: Git, template_repository: Path, tmp_path: Path
) -> None:
    kinds = layout(git, template_repository, tmp_path / "top")
    evil = tmp_path / "evil"
    for kind, path in kinds.items():
        evil.mkdir()
        (evil / ".git").write_text(f"gitdir: {located(path).git_dir}\n")
        assert not checkout.back_pointer_holds(located(evil)), kind
        is_linked = os.path.exists(f"{located(path).git_dir}/gitdir")
        assert checkout.owner(located(evil)) == (str(path) if is_linked else None), kind
        shutil.rmtree(evil)
    trusted = str(kinds["main"] / ".git")
    own = evil / "own.git/worktrees/evil"
    own.mkdir(parents=True)
    (evil / ".git").write_text("gitdir: own.git/worktrees/evil\n")
    (own / "HEAD").write_text("ref: refs/heads/main\n")
    (own / "commondir").write_text(f"{trusted}\n")
    (own / "gitdir").write_text(f"{evil}/.git\n")
    assert located(evil).common_dir == ask(git, evil, "--git-common-dir") == trusted
    assert not checkout.back_pointer_holds(located(evil))
    (evil / ".git").unlink()
    own.rename(evil / ".git")
    assert located(evil).common_dir == trusted
    assert not checkout.back_pointer_holds(located(evil))
