"""How each agent is told to give its commands the environment, in the agent's own words."""

from __future__ import annotations

import json

# What every agent should know, for AGENTS.md, CLAUDE.md and their like.
RULES = """\
## Instances

This repository runs in several copies at once, one for each checkout. isoenv gives each its own
ports, database names and directories, and your commands have those of the directory they run in.

- Never write a port, database name or URL down: use the variables (`isoenv show` lists them) or
  `isoenv port NAME`.
- To run something in this checkout's instance, just run it. In bash a command line goes along
  with `cd`; in other shells it keeps the instance of the directory that it starts in: after a
  `cd` in it, `isoenv exec . CMD`. In another instance only if you were asked to:
  `isoenv exec INSTANCE CMD`.
- Leave the other instances alone: stop no process, drop no database and delete no directory that
  is not yours. `isoenv list` shows whose is whose.
- A port that is in use although it is yours belongs to something you have started, or to a
  stranger: `isoenv doctor` names it. Do not take another port.
- What all instances share (the package cache, a device, a deployment) is used under a lock:
  `isoenv lock run NAME -- CMD`.
- Other agents are reached by `isoenv send NAME TEXT`; `isoenv session list` shows them.
- Do not edit `isoenv.toml` or run `isoenv allow`, `claim`, `release` or `prune` unless asked.
"""


def recipe(agent: str, file: str) -> str:
    """Return the lines that make an agent read the file at each command, and where they go."""
    value = json.dumps(file)
    return _RECIPES[agent].format(file=file, value=value, word=_word(file))


def agents() -> list[str]:
    """Return the agents that a recipe is known for; ``other`` is any that runs `bash -c`."""
    return list(_RECIPES)


def _word(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_RECIPES = {
    "claude": """\
# .claude/settings.local.json, or ~/.claude/settings.json. `isoenv agent install claude` puts this
# in, with the hooks and the status line.
{{ "env": {{ "BASH_ENV": {value} }} }}
""",
    "codex": """\
# ~/.codex/config.toml
[shell_environment_policy]
set = {{ BASH_ENV = {value} }}
""",
    "gemini": """\
# ~/.gemini/.env, or .gemini/.env in the project
BASH_ENV={value}
""",
    "cursor": """\
# The shell that starts Cursor, or its terminal agent: what it runs inherits it.
export BASH_ENV={word}
""",
    "qwen": """\
# ~/.qwen/.env, or .qwen/.env in the project
BASH_ENV={value}
""",
    "other": """\
# The shell that starts the agent: each `bash -c` that it runs reads the file.
export BASH_ENV={word}
# zsh reads no BASH_ENV. Where the agent runs `zsh -c`, this line goes into ~/.zshenv:
. {word}
""",
}
