#!/bin/sh
# The command `isoenv`.
#
# It answers two questions itself, from the code that is kept ready for each checkout, without
# starting a process:
#
#   isoenv exec . [--] CMD…
#   isoenv export bash|zsh [--no-diff]
#
# All else, and every doubt, goes to isoenv-python beside it, in the environment that was given.
#
# A shell passes on what it can hold. dash and busybox drop variables whose names are no
# identifiers, such as those of exported bash functions; bash drops PS1 and PS2; all of them set
# PWD where it is missing or wrong. `isoenv-python exec …` is the same command and drops nothing.

# shellcheck disable=SC2154,SC2317 # variables are set, and functions called, by the ready code

# What wrote the code that this script understands: FORMAT in isoenv/generated.py.
__isoenv_format='# isoenv 3 0.1.0'
# The separators of the undo record, which isoenv/envdiff.py describes: US and RS, as they are,
# because no shell has a builtin that makes them.
__isoenv_us=''
__isoenv_rs=''

# What is set here is not for children, even if a hook's variables of that name are exported.
unset -v __isoenv_at __isoenv_base __isoenv_code __isoenv_direnv __isoenv_doubt __isoenv_empty \
  __isoenv_front __isoenv_had __isoenv_header __isoenv_kept __isoenv_label \
  __isoenv_last __isoenv_message __isoenv_name __isoenv_now __isoenv_old __isoenv_out \
  __isoenv_path __isoenv_program __isoenv_record __isoenv_rest __isoenv_root __isoenv_self \
  __isoenv_state __isoenv_use __isoenv_way __isoenv_word
__isoenv_ifs=$IFS
set +aeu -f

# --- Where the ready code is

# Sets __isoenv_code to the file of the checkout that the current directory is in.
__isoenv_find() {
  __isoenv_find_state && __isoenv_find_base || return
  __isoenv_code=$__isoenv_state/t$__isoenv_base/@env.sh
  # Not another user's code: after sudo HOME may still be theirs.
  # shellcheck disable=SC3067 # dash, bash, ksh and busybox have -O
  [ -O "$__isoenv_code" ] && IFS= read -r __isoenv_header <"$__isoenv_code" &&
    [ "$__isoenv_header" = "$__isoenv_format" ]
}

# Guesses the state directory. A wrong guess costs time alone: no ready code is found there.
__isoenv_find_state() {
  if [ -n "${ISOENV_STATE_DIR-}" ]; then
    __isoenv_state=$ISOENV_STATE_DIR
  elif [ -n "${XDG_STATE_HOME-}" ]; then
    __isoenv_state=$XDG_STATE_HOME/isoenv
  elif [ -d /System/Library/CoreServices ]; then
    __isoenv_state="${HOME-}/Library/Application Support/isoenv"
  else
    __isoenv_state=${HOME-}/.local/state/isoenv
  fi
  case $__isoenv_state in /*) ;; *) return 1 ;; esac
}

# Finds the nearest directory upwards that has an entry .git or isoenv.toml, of any type.
__isoenv_find_base() {
  set -- "$PWD" "${OLDPWD-}" "${OLDPWD+x}"
  # The physical directory, without the process of a $(pwd -P).
  command cd -P . 2>/dev/null || return
  __isoenv_base=${PWD%/}
  PWD=$1
  if [ -n "$3" ]; then OLDPWD=$2; else unset -v OLDPWD; fi
  until [ -e "$__isoenv_base/.git" ] || [ -h "$__isoenv_base/.git" ] ||
    [ -e "$__isoenv_base/isoenv.toml" ] || [ -h "$__isoenv_base/isoenv.toml" ]; do
    [ -n "$__isoenv_base" ] || return
    __isoenv_base=${__isoenv_base%/*}
  done
}

# --- What is changed can be changed back

# Notes what a variable is, before it is changed for the first time.
__isoenv_keep() {
  case " $__isoenv_kept " in *" $1 "*) return ;; esac
  __isoenv_kept="$__isoenv_kept $1"
  eval "__isoenv_had_$1=\${$1+x} __isoenv_was_$1=\${$1-}"
}

# Gives back the environment as it was given.
__isoenv_restore() {
  for __isoenv_name in $__isoenv_kept; do
    eval "__isoenv_had=\$__isoenv_had_$__isoenv_name __isoenv_old=\$__isoenv_was_$__isoenv_name"
    if [ -n "$__isoenv_had" ]; then
      export "$__isoenv_name=$__isoenv_old"
    else
      unset -v "$__isoenv_name"
    fi
  done
}

# Whether some shell sets this variable itself, or holds something else than it was given.
__isoenv_is_special() {
  case $1 in
    _ | BASH* | COLUMNS | COMP_* | DIRSTACK | ENV | EPOCH* | EUID | FCEDIT | FUNCNAME) ;;
    GROUPS | HIST* | HOST* | IFS | JOBMAX | KSH_* | LINENO | LINES | MACHTYPE | MAILCHECK) ;;
    OLDPWD | OPT* | OSTYPE | PATH | PIPESTATUS | POSIXLY_CORRECT | PPID | PS[0-9] | PWD) ;;
    RANDOM | SECONDS | SHELL | SHELLOPTS | SHLVL | SRANDOM | TERM | TMOUT | UID) ;;
    *) return 1 ;;
  esac
}

# --- Out of what isoenv has set before

# Undoes the record that was given, the last entry first. Fails where there is doubt.
__isoenv_undo() {
  case ${__ISOENV_UNDO-} in
    '') return ;;
    *"$__isoenv_rs"*) return 1 ;;
    "${__isoenv_us}r=$__isoenv_us$__isoenv_us"*"$__isoenv_us") __isoenv_keep __ISOENV_UNDO ;;
    *) return 1 ;;
  esac
  IFS=$__isoenv_us
  # shellcheck disable=SC2086 # to be split
  set -- $__ISOENV_UNDO
  IFS=$__isoenv_ifs
  [ "$(($# % 4))" -eq 0 ] || return
  __isoenv_at=$#
  while [ "$__isoenv_at" -gt 4 ]; do
    eval "__isoenv_undo_entry \"\${$((__isoenv_at - 3))}\" \"\${$((__isoenv_at - 2))}\" \
      \"\${$((__isoenv_at - 1))}\" \"\${$__isoenv_at}\"" || return
    __isoenv_at=$((__isoenv_at - 4))
  done
  unset -v __ISOENV_UNDO
}

# NAME KIND OLD NEW: gives the variable OLD back if it still holds NEW.
__isoenv_undo_entry() {
  case $1 in '' | [0-9]* | *[!A-Za-z0-9_]*) return 1 ;; esac
  case $1:$2:$3:$4 in
    "PATH:p=::$4")
      __isoenv_take_from_path "$4"
      return
      ;;
    "$1:x=:"* | "$1:x-:$3:" | "$1:"[us]"=::$4" | "$1:"[us]"-::") ;;
    *) return 1 ;;
  esac
  ! __isoenv_is_special "$1" || return
  # As in the record, the kind's second half and NEW: `=` and a value, or `-` for unset.
  eval "__isoenv_now=\${$1+=}\${$1-}"
  case $1 in
    __ISOENV_*) ;;
    *) [ "${__isoenv_now:--}" = "${2#?}$4" ] || return 0 ;;
  esac
  __isoenv_keep "$1"
  case $2 in
    x*) export "$1=$3" ;;
    *) unset -v "$1" ;;
  esac
}

# ENTRIES: takes each out of PATH once, wherever it is.
__isoenv_take_from_path() {
  [ -n "${PATH+x}" ] || return 0
  __isoenv_keep PATH
  __isoenv_path=:$PATH:
  IFS=:
  for __isoenv_name in $1; do
    __isoenv_cut "$__isoenv_name" || :
  done
  IFS=$__isoenv_ifs
  __isoenv_path=${__isoenv_path#:}
  if [ -n "$__isoenv_path" ]; then
    export "PATH=${__isoenv_path%:}"
  else
    unset -v PATH
  fi
}

# ENTRY: cuts it out of __isoenv_path once. Fails if it is not in there.
__isoenv_cut() {
  case $__isoenv_path in *":$1:"*) ;; *) return 1 ;; esac
  __isoenv_path=${__isoenv_path%%":$1:"*}:${__isoenv_path#*":$1:"}
}

# --- Into what is ready

# Loads what is ready and writes its record, as envdiff.apply does. Fails where there is doubt.
__isoenv_apply() {
  __isoenv_note '' r= '' "$__isoenv_root"
  __isoenv_empty=$__isoenv_record
  __isoenv_load
  [ "$__isoenv_record" != "$__isoenv_empty" ] || return 0
  if [ -n "$__isoenv_front" ]; then
    __isoenv_keep PATH
    export "PATH=$__isoenv_front${PATH+:$PATH}"
    __isoenv_note PATH p= '' "$__isoenv_front"
  fi
  __isoenv_keep __ISOENV_UNDO
  export "__ISOENV_UNDO=$__isoenv_record"
  [ -z "$__isoenv_doubt" ]
}

# NAME = VALUE, or NAME - '': notes what is going to happen to a variable, unless there is doubt.
__isoenv_plan() {
  if __isoenv_is_special "$1"; then
    __isoenv_doubt=1
    return 1
  fi
  __isoenv_keep "$1"
  eval "__isoenv_had=\${$1+x} __isoenv_old=\${$1-}"
  __isoenv_note "$1" "${__isoenv_had:-u}$2" "$__isoenv_old" "$3"
}

# NAME KIND OLD NEW: adds an entry to the record.
__isoenv_note() {
  case $3$4 in *["$__isoenv_us$__isoenv_rs"]*) __isoenv_doubt=1 ;; esac
  __isoenv_record=$__isoenv_record$1$__isoenv_us$2$__isoenv_us$3$__isoenv_us$4$__isoenv_us
}

# What __isoenv_load calls: for each variable, and for each entry of PATH, the first one last.
__isoenv_set() {
  if __isoenv_plan "$1" = "$2"; then export "$1=$2"; fi
}

__isoenv_unset() {
  if __isoenv_plan "$1" - ''; then unset -v "$1"; fi
}

__isoenv_prepend() {
  __isoenv_front=$1${__isoenv_front:+:$__isoenv_front}
}

# --- The commands, which return only where there is doubt

# exec . [--] CMD…
__isoenv_exec() {
  __isoenv_apply || return
  shift 2
  [ "$1" != -- ] || shift
  # To say why something cannot be run is left to the other way.
  __isoenv_is_program "$1" || return
  set +f
  exec "$@"
}

# NAME: whether `exec` finds a program of that name.
__isoenv_is_program() {
  case $1 in */*) [ -f "$1" ] && [ -x "$1" ] && return || return 1 ;; esac
  __isoenv_rest=${PATH-}:
  while [ -n "$__isoenv_rest" ]; do
    __isoenv_path=${__isoenv_rest%%:*}/$1
    __isoenv_rest=${__isoenv_rest#*:}
    [ ! -f "$__isoenv_path" ] || [ ! -x "$__isoenv_path" ] || return 0
  done
  return 1
}

# export bash|zsh: the difference. A shell that fails in the middle must be able to undo the first
# half: the record is set before all else, and unset after it.
__isoenv_export() {
  __isoenv_apply || return
  for __isoenv_name in $__isoenv_kept; do
    eval "__isoenv_old=\$__isoenv_had_$__isoenv_name\$__isoenv_was_$__isoenv_name \
      __isoenv_had=\${$__isoenv_name+x} __isoenv_now=\${$__isoenv_name-}"
    [ "$__isoenv_old" != "$__isoenv_had$__isoenv_now" ] || continue
    __isoenv_spell "$__isoenv_name" "$__isoenv_had" "$__isoenv_now"
    case $__isoenv_name$__isoenv_had in
      __ISOENV_UNDOx) __isoenv_out=$__isoenv_word$__isoenv_out ;;
      *x) __isoenv_out=$__isoenv_out$__isoenv_word ;;
      __ISOENV_UNDO) __isoenv_last=$__isoenv_last$__isoenv_word ;;
      *) __isoenv_last=$__isoenv_word$__isoenv_last ;;
    esac
  done
  __isoenv_print "$__isoenv_out$__isoenv_last"
}

# export bash|zsh --no-diff: all of it, and PATH with the entries in front of the given one.
__isoenv_export_plain() {
  __isoenv_restore
  __isoenv_path=:${PATH-}:
  __isoenv_set() { __isoenv_spell "$1" x "$2" && __isoenv_out=$__isoenv_out$__isoenv_word; }
  __isoenv_unset() { __isoenv_spell "$1" '' && __isoenv_out=$__isoenv_out$__isoenv_word; }
  __isoenv_prepend() {
    while __isoenv_cut "$1"; do :; done
    __isoenv_front=$1${__isoenv_front:+:$__isoenv_front}
  }
  __isoenv_load
  [ -z "$__isoenv_front" ] || __isoenv_set PATH "$__isoenv_front${__isoenv_path%:}"
  __isoenv_print "$__isoenv_out"
}

# TEXT: the output, and the end.
__isoenv_print() {
  { printf %s "$1"; } 2>/dev/null && exit
  echo "isoenv: cannot write to standard output" >&2
  exit 1
}

# NAME SET VALUE: sets __isoenv_word to the statement that bash and zsh take.
__isoenv_spell() {
  __isoenv_word="unset -v $1;
"
  [ -n "$2" ] || return 0
  __isoenv_word="export $1='"
  __isoenv_rest=$3
  while :; do
    case $__isoenv_rest in *"'"*) ;; *) break ;; esac
    __isoenv_word=$__isoenv_word${__isoenv_rest%%"'"*}"'\\''"
    __isoenv_rest=${__isoenv_rest#*"'"}
  done
  __isoenv_word="$__isoenv_word$__isoenv_rest';
"
}

# --- Which way

# Serves a command from the ready code. Returns only where there is doubt.
__isoenv_serve() {
  # shellcheck source=/dev/null # written by isoenv/generated.py
  # Undone first: a checkout may set HOME, which the state directory is below.
  __isoenv_undo && __isoenv_find && command . "$__isoenv_code" && ! __isoenv_stale || return
  case $__isoenv_use:${__isoenv_program##*/} in
    exec:sky) return ;; # a preset of its own
    all:* | exec:*) "$__isoenv_way" "$@" ;;
  esac
}

# Becomes the entry point of Python, which the installer has put beside this script.
__isoenv_python() {
  __isoenv_self=$0
  while :; do
    case $__isoenv_self in
      */*) __isoenv_path=${__isoenv_self%/*} ;;
      *) __isoenv_path=. ;;
    esac
    [ ! -x "$__isoenv_path/isoenv-python" ] || exec "$__isoenv_path/isoenv-python" "$@"
    # Beside the link, where uv puts another, or beside what it points to, as with pipx.
    [ -h "$__isoenv_self" ] || break
    __isoenv_rest=$(command -p readlink "$__isoenv_self" && echo .) || break
    __isoenv_rest=${__isoenv_rest%??}
    case $__isoenv_rest in
      /*) __isoenv_self=$__isoenv_rest ;;
      *) __isoenv_self=$__isoenv_path/$__isoenv_rest ;;
    esac
  done
  echo "isoenv: there is no isoenv-python beside $0: \`pip install --force-reinstall isoenv\`" >&2
  exit 1
}

case ${1-} in
  exec)
    __isoenv_program=${3-}
    [ "$__isoenv_program" != -- ] || __isoenv_program=${4-}
    # What begins with - is an option of ours, for the other way to judge.
    case ${2-}:$__isoenv_program in
      .: | .:-*) ;;
      .:*) __isoenv_way=__isoenv_exec ;;
    esac
    ;;
  export)
    case $#:${2-}:${3-} in
      2:bash: | 2:zsh:) __isoenv_way=__isoenv_export ;;
      3:bash:--no-diff | 3:zsh:--no-diff) __isoenv_way=__isoenv_export_plain ;;
    esac
    ;;
esac
if [ -n "$__isoenv_way" ] && [ -z "${_ISOENV_COMPLETE-}" ]; then
  __isoenv_serve "$@"
  __isoenv_restore
fi
__isoenv_python "$@"
