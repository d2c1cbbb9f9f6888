"""The family of the Bourne shell: sh, bash and zsh, and the files it could read."""

from __future__ import annotations

from isoenv.shells.base import Shell, checked_value

# What no reader of a .env file gives a meaning to; zsh does to a `=` in front.
PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_%+,-./:@")


class Posix(Shell):
    """A shell in which nothing has a meaning between single quotes, not even a backslash."""

    def quote(self, value: str) -> str:
        """One word that is exactly this value, whatever the options and the history say."""
        return "'" + checked_value(value).replace("'", r"'\''") + "'"


class Dotenv(Shell):
    r"""The lines of a ``.env`` file, for ``set -a; . FILE``, docker compose and python-dotenv.

    A plain value stands bare, as ``docker run --env-file`` needs it. Others are in single quotes,
    newlines as they are. What has a single quote or a backslash is in double quotes, with a
    backslash before each of ``\\``, ``"``, ``$`` and the backtick: the shell reads every value back
    byte for byte; the other two keep the backslash of a backtick there, and python-dotenv that of
    a ``$`` too. python-dotenv expands ``${NAME}`` in any quotes.
    """

    def quote(self, value: str) -> str:
        """One value as the right side of ``NAME=``."""
        if PLAIN.issuperset(checked_value(value)):
            return value
        if "'" not in value and "\\" not in value:
            return f"'{value}'"
        for special in '\\"$`':
            value = value.replace(special, "\\" + special)
        return f'"{value}"'


# -v: a plain `unset` takes a function when there is no variable of that name.
UNSET = "unset -v {0}"

SH = Posix("sh", export="export {0}={1}", assign=UNSET + "; {0}={1}", unset=UNSET)
BASH = Posix("bash", export="export {0}={1}", assign="export -n {0}={1}", unset=UNSET)
# Unlike `unset`, `typeset` keeps a variable tied to its array.
ZSH = Posix("zsh", export="export {0}={1}", assign="typeset -g +x {0}={1}", unset=UNSET)
DOTENV = Dotenv("dotenv", export="{0}={1}", assign="{0}={1}", unset="# {0} is unset")
