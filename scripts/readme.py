#!/usr/bin/env python3
"""Run the transcripts of README.md and write what they print into it; --check: compare alone.

Each block that begins with `$ ` lines and is marked `<!-- run -->` is typed, line by line, into
one bash with the hook, in a home directory made on the spot with the repository of the demo.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
HOME = "/home/you"
BLOCK = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```\n)", re.DOTALL)
MARK = "@@@ {} @@@"

SETUP = r"""
mkdir -p "$HOME/bin" && cd "$HOME"
cat >"$HOME/bin/sky" <<'SKY'
#!/bin/sh
env | grep ^SKY | sort
SKY
chmod +x "$HOME/bin/sky"
# An identity hangs on the machine, unless it was written down.
mkdir "$HOME/.sky-dev-2" && echo 3ddc1ce7 >"$HOME/.sky-dev-2/user_id"
git init -q -b main orienter && cd orienter
cat >isoenv.toml <<'TOML'
project = "orienter"
extends = "orient"
TOML
mkdir docker && printf 'server { listen $NGINX_PORT; proxy_set_header Host $host; }\n' \
  >docker/nginx-local.template.conf
git add -A && git commit -qm first
git worktree add -q ../voice-messages && git worktree add -q ../qr-login
cd "$HOME"
"""


def main() -> None:
    """Write README.md anew, or compare."""
    text = README.read_text(encoding="utf-8")
    blocks = [match[2] for match in BLOCK.finditer(text)]
    written = iter(run(blocks))
    new = BLOCK.sub(lambda match: match[1] + next(written) + match[3], text)
    if sys.argv[1:] == ["--check"]:
        if new != text:
            sys.exit("README.md does not show what its commands print: `make readme`")
    else:
        README.write_text(new, encoding="utf-8")


def run(blocks: list[str]) -> list[str]:
    """Return the blocks with what their commands print now."""
    commands = [
        [line[2:] for line in block.splitlines() if line.startswith("$ ")] for block in blocks
    ]
    with tempfile.TemporaryDirectory() as scratch:
        home = os.path.realpath(scratch) + HOME
        os.makedirs(home)
        output = session(home, [command for block in commands for command in block])
    printed = iter(output)
    return ["".join(f"$ {command}\n{next(printed)}" for command in block) for block in commands]


def session(home: str, commands: list[str]) -> list[str]:
    """Type the commands into one bash and return what each has printed, both streams in order."""
    script = [
        SETUP,
        'eval "$(isoenv hook bash)"',
        "_isoenv_hook",
        *(
            f"echo '{MARK.format(number)}'\n{command}\n_isoenv_hook"
            for number, command in enumerate(commands)
        ),
    ]
    environ = {
        "HOME": home,
        "ISOENV_HOST_DIR": f"{home}/.host",
        "PATH": f"{home}/bin:{ROOT}/.venv/bin:{os.defpath}",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        **{
            f"GIT_{who}_{what}": "you@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    done = subprocess.run(
        ["bash", "--norc", "--noprofile"],
        input="\n".join(script),
        env=environ,
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    parts = re.split(r"@@@ \d+ @@@\n", done.stdout)
    if len(parts) != len(commands) + 1:
        sys.exit(f"the session ended early:\n{done.stdout}")
    return [align(part.replace(home, HOME)) for part in parts[1:]]


def align(printed: str) -> str:
    """Return a table with the columns that its paths have here, other output as it is."""
    if not printed.startswith("SLOT "):
        return printed
    rows = [re.split(r" {2,}", line) for line in printed.splitlines()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
