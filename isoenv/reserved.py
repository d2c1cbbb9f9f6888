"""The variables that a configuration may not set, because a shell would not let them be.

Each name was tried: ``export NAME=value`` in bash and zsh, ``set -gx NAME value`` in fish.
"""

from __future__ import annotations

_GROUPS = {
    "is read-only in bash": "BASHOPTS BASH_VERSINFO EUID PPID SHELLOPTS UID",
    # A script that assigns one of these ends there: what follows would not be set either.
    "is read-only in zsh": """
        ARGC EPOCHREALTIME EPOCHSECONDS HISTCMD LINENO TTYIDLE ZSH_EVAL_CONTEXT ZSH_SUBSHELL
        builtins dis_builtins dis_functions_source dis_patchars dis_reswords errnos
        funcfiletrace funcsourcetrace funcstack functions_source functrace history
        historywords jobdirs jobstates jobtexts keymaps langinfo modules parameters patchars
        reswords status sysparams termcap terminfo userdirs usergroups widgets
        zsh_eval_context zsh_scheduled_events
    """,
    "is read-only in fish": "FISH_VERSION PWD SHLVL _ hostname status_generation version",
    "is a list in zsh": """
        WATCH aliases argv commands dirstack dis_aliases dis_functions dis_galiases
        dis_saliases epochtime fignore functions galiases mapfile nameddirs options
        pipestatus psvar saliases signals watch zle_bracketed_paste
    """,
    "is a list of functions that a shell calls": """
        PROMPT_COMMAND chpwd_functions periodic_functions precmd_functions preexec_functions
        zsh_directory_name_functions zshaddhistory_functions zshexit_functions
    """,
    "is a number in zsh": """
        COLUMNS EGID ERRNO FUNCNEST GID HISTSIZE KEYTIMEOUT LINES LISTMAX MAILCHECK OPTIND
        RANDOM SAVEHIST SECONDS TRY_BLOCK_ERROR TRY_BLOCK_INTERRUPT
    """,
    "is set by bash itself": """
        BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_CMDS BASH_COMMAND BASH_LINENO
        BASH_SOURCE BASH_SUBSHELL DIRSTACK FUNCNAME GROUPS PIPESTATUS SRANDOM
    """,
    "is set by zsh itself": "USERNAME",
    "is set by fish itself": "umask",
    # These can be set, and then the shell itself works differently.
    "changes how a shell reads commands": "HISTCHARS IFS KEYBOARD_HACK histchars",
    "belongs to `cd -`": "OLDPWD",
    "holds the user's own entries": """
        CDPATH FPATH MAILPATH MANPATH MODULE_PATH cdpath fpath mailpath manpath module_path
    """,
}

_PREPENDED = frozenset({"PATH", "path", "fish_user_paths"})

# Why each of these is refused; a name of several groups has the reason of the last.
REASONS = {name: reason for reason, names in _GROUPS.items() for name in names.split()}


def objection(name: str) -> str | None:
    """Return what speaks against a configuration that sets this variable, with the remedy."""
    if name in _PREPENDED:
        return "holds the user's own entries: use `prepend` of `[path]`"
    if name.startswith(("ISOENV_", "__ISOENV_")):
        return "is set by isoenv itself: choose another name"
    if name.startswith(("fish_", "__fish_")):
        return "is a setting of fish: choose another name"
    reason = REASONS.get(name)
    return reason and f"{reason}: choose another name"
