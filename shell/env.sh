# shellcheck shell=sh disable=SC2154,SC2317 # set, and called, by what is ready
# isoenv for shells without a prompt: the environment of the checkout that a script starts in.
#
#   isoenv hook bash --env > ~/.isoenv-env.sh
#   export BASH_ENV=~/.isoenv-env.sh            # bash: wherever scripts and agents are started
#   . ~/.isoenv-env.sh                          # zsh: in ~/.zshenv
#
# Outside any checkout it leaves all as it is. It is silent, keeps no name but __isoenv_old_*, and
# starts a process only where nothing that is ready is fresh.

# Under `set -x` the script is traced, not this.
{ case $- in *x*) __isoenv_trace=1 && set +x ;; *) __isoenv_trace= ;; esac; } 2>/dev/null

# A shell that has the hook has all this, in functions of the same names; without a prompt nobody
# else calls it. That is so where bash takes a socket for its input, and so itself for a remote
# shell, which reads ~/.bashrc and no BASH_ENV. Agents start such shells, and give others a snapshot
# of a shell's functions, without its variables: that is no hook.
if [ -n "${__isoenv_command-}" ] && command -v _isoenv_hook >/dev/null 2>&1; then
  case $- in
    *i*) ;;
    *) ISOENV_LOG=quiet _isoenv_hook 2>/dev/null || : ;;
  esac
else
  # The separators of the undo record, which isoenv/envdiff.py describes: US and RS, as they are,
  # because no shell has a builtin that makes them.
  __isoenv_us=''
  __isoenv_rs=''
  __isoenv_space=' '

  __isoenv_start() {
    # For this function and what it calls, until it returns.
    [ -z "${ZSH_VERSION-}" ] || emulate -L sh
    __isoenv_ifs=$IFS
    IFS=$__isoenv_space
    __isoenv_kept=
    ! __isoenv_find_base || __isoenv_enter
    for __isoenv_name in $__isoenv_kept; do
      unset -v "__isoenv_was_$__isoenv_name"
    done
    IFS=$__isoenv_ifs
  }

  # --- Where the shell is

  # Sets __isoenv_base to the nearest directory upwards with an entry .git or isoenv.toml.
  __isoenv_find_base() {
    case ${PWD-} in /*) __isoenv_base=$PWD ;; *) return 1 ;; esac
    until [ -z "$__isoenv_base" ] || [ -h "$__isoenv_base" ]; do
      __isoenv_base=${__isoenv_base%/*}
    done
    if [ -n "$__isoenv_base" ]; then
      __isoenv_follow || return
    else
      __isoenv_base=${PWD%/}
    fi
    until [ -e "$__isoenv_base/.git" ] || [ -h "$__isoenv_base/.git" ] ||
      [ -e "$__isoenv_base/isoenv.toml" ] || [ -h "$__isoenv_base/isoenv.toml" ]; do
      [ -n "$__isoenv_base" ] || return
      __isoenv_base=${__isoenv_base%/*}
    done
  }

  # Sets __isoenv_base to the physical directory: there and back, not by a process for `pwd -P`.
  __isoenv_follow() {
    if [ -n "${ZSH_VERSION-}" ]; then
      eval '__isoenv_base=${PWD:A}'
      __isoenv_base=${__isoenv_base%/}
      return
    fi
    set -- "$PWD" "${OLDPWD-}" "${OLDPWD+x}"
    command cd -P . || return
    __isoenv_base=${PWD%/}
    command cd -L -- "$1" || return
    if [ -n "$3" ]; then OLDPWD=$2; else unset -v OLDPWD; fi
  }

  # --- What belongs there

  # Goes from the environment that was inherited to the one of the base.
  __isoenv_enter() {
    # direnv has loaded this checkout, and keeps a record of its own.
    if [ -n "${DIRENV_DIR-}" ] && [ -z "${__ISOENV_UNDO-}" ] &&
      [ "${ISOENV_ROOT-}" = "${__isoenv_base:-/}" ]; then
      return
    fi
    __isoenv_undo
    if ! __isoenv_read; then
      __isoenv_restore
      __isoenv_text=$(@ISOENV@ export sh --hook </dev/null) || return
      [ -n "$__isoenv_text" ] || return
      eval "$__isoenv_text"
      __isoenv_undo
    fi
    case $__isoenv_use:$__isoenv_message in
      all:*) if __isoenv_is_inherited; then __isoenv_restore; else __isoenv_apply; fi ;;
      # A repository without configuration: what `isoenv exec` has set for it stays.
      *:) [ "$__isoenv_root" != "$__isoenv_from" ] || __isoenv_restore ;;
    esac
  }

  # Reads what is ready and fresh: for the checkout's own instance, or for one that was asked for.
  __isoenv_read() {
    __isoenv_dir=${ISOENV_STATE_DIR:-@STATE@}/t$__isoenv_base
    # A relative one would be looked for in the checkout, where anybody could have put it.
    case $__isoenv_dir in /*) ;; *) return 1 ;; esac
    case $- in *f*) __isoenv_glob=-f && set +f ;; *) __isoenv_glob=+f ;; esac
    set -- "$__isoenv_dir/@env.sh" "$__isoenv_dir"/@slot.*/@env.sh "$__isoenv_glob"
    while [ "$#" -gt 1 ]; do
      # Not another user's code: after sudo HOME may still be theirs.
      # shellcheck disable=SC3067 # bash, zsh, dash and busybox have -O
      if [ -O "$1" ]; then
        # shellcheck source=/dev/null # written by isoenv/generated.py
        if command . "$1" && ! __isoenv_stale; then
          set "$__isoenv_glob"
          return
        fi
      fi
      shift
    done
    set "$__isoenv_glob"
    return 1
  }

  # --- Out of what was loaded before

  # Undoes the inherited record. Sets __isoenv_from to the root that it is of, and
  # __isoenv_entries to how many entries it has. One that is malformed is dropped.
  __isoenv_undo() {
    __isoenv_from='' __isoenv_entries=0
    __isoenv_record=${__ISOENV_UNDO-}
    [ -n "$__isoenv_record" ] || return 0
    if ! __isoenv_undo_record; then
      __isoenv_restore
      __isoenv_from='' __isoenv_record=''
    fi
    __isoenv_keep __ISOENV_UNDO "=$__ISOENV_UNDO"
    unset -v __ISOENV_UNDO
  }

  __isoenv_undo_record() {
    case $__isoenv_record in
      "${__isoenv_us}r=$__isoenv_us$__isoenv_us"*"$__isoenv_us") ;;
      *) return 1 ;;
    esac
    case $- in *f*) __isoenv_glob=-f ;; *) __isoenv_glob=+f ;; esac
    set -f
    IFS=$__isoenv_us
    # shellcheck disable=SC2086 # to be split
    set -- $__isoenv_record
    IFS=$__isoenv_space
    set "$__isoenv_glob"
    __isoenv_at=$#
    # After the last separator zsh sees one more cell, which is empty.
    [ -z "${ZSH_VERSION-}" ] || __isoenv_at=$((__isoenv_at - 1))
    [ "$((__isoenv_at % 4))" -eq 0 ] || return
    __isoenv_decode "$4"
    __isoenv_from=$__isoenv_word
    __isoenv_entries=$((__isoenv_at / 4 - 1))
    while [ "$__isoenv_at" -gt 4 ]; do
      eval "__isoenv_undo_entry \"\${$((__isoenv_at - 3))}\" \"\${$((__isoenv_at - 2))}\" \
        \"\${$((__isoenv_at - 1))}\" \"\${$__isoenv_at}\"" || return
      __isoenv_at=$((__isoenv_at - 4))
    done
  }

  # NAME KIND OLD NEW: gives the variable OLD back if it still holds NEW.
  __isoenv_undo_entry() {
    case $1 in '' | [0-9]* | *[!A-Za-z0-9_]*) return 1 ;; esac
    __isoenv_decode "$4"
    case $1:$2:$3:$4 in
      "PATH:p=::$4")
        __isoenv_take_from_path "$__isoenv_word"
        return
        ;;
      "$1:x=:"* | "$1:x-:$3:" | "$1:"[us]"=::$4" | "$1:"[us]"-::") ;;
      *) return 1 ;;
    esac
    # As in the record, the kind's second half and NEW: `=` and a value, or `-` for unset.
    eval "__isoenv_now=\${$1+=}\${$1-}"
    __isoenv_now=${__isoenv_now:--}
    case $1 in
      __ISOENV_*) ;;
      *) [ "$__isoenv_now" = "${2#?}$__isoenv_word" ] || return 0 ;;
    esac
    __isoenv_keep "$1" "$__isoenv_now"
    unset -v "$1"
    case $2 in
      x*) __isoenv_decode "$3" && export "$1=$__isoenv_word" ;;
      # A former value is known to the shell that it was in, which may be this one.
      s*) eval "[ -z \"\${__isoenv_old_$1+x}\" ] || $1=\$__isoenv_old_$1" ;;
    esac
  }

  # ENTRIES: takes each out of PATH once, wherever it is.
  __isoenv_take_from_path() {
    [ -n "${PATH+x}" ] || return 0
    __isoenv_keep PATH "=$PATH"
    __isoenv_word=:$PATH:
    __isoenv_rest=$1:
    while [ -n "$__isoenv_rest" ]; do
      set -- ":${__isoenv_rest%%:*}:"
      __isoenv_rest=${__isoenv_rest#*:}
      case $__isoenv_word in
        *"$1"*) __isoenv_word=${__isoenv_word%%"$1"*}:${__isoenv_word#*"$1"} ;;
      esac
    done
    __isoenv_word=${__isoenv_word#:}
    if [ -n "$__isoenv_word" ]; then
      export "PATH=${__isoenv_word%:}"
    else
      unset -v PATH
    fi
  }

  # NAME =VALUE, or NAME -: notes what a variable was before it was undone.
  __isoenv_keep() {
    __isoenv_kept="$1 $__isoenv_kept"
    eval "__isoenv_was_$1=\$2"
  }

  # Gives back all that was undone.
  __isoenv_restore() {
    for __isoenv_name in $__isoenv_kept; do
      eval "__isoenv_now=\$__isoenv_was_$__isoenv_name"
      case $__isoenv_now in
        =*) export "$__isoenv_name=${__isoenv_now#=}" ;;
        *) unset -v "$__isoenv_name" ;;
      esac
    done
  }

  # --- Into what is ready

  # Whether the inherited record says that this very set is loaded: what has been changed of it
  # since is the user's.
  __isoenv_is_inherited() {
    [ -n "$__isoenv_record" ] && [ "$__isoenv_from" = "$__isoenv_root" ] || return
    __isoenv_set() { __isoenv_compare "$1" "=$2"; }
    __isoenv_unset() { __isoenv_compare "$1" -; }
    __isoenv_front=
    __isoenv_load
    [ -z "$__isoenv_front" ] || __isoenv_compare PATH "=$__isoenv_front"
    [ "$__isoenv_entries" -eq 0 ]
  }

  # NAME =VALUE, or NAME -: counts an entry of the record down; without one, out of reach of 0.
  __isoenv_compare() {
    __isoenv_encode "$2"
    __isoenv_rest=${__isoenv_record#*"$__isoenv_us$1$__isoenv_us"}
    __isoenv_now=${__isoenv_rest%%"$__isoenv_us"*}
    __isoenv_rest=${__isoenv_rest#*"$__isoenv_us"*"$__isoenv_us"}
    [ "${__isoenv_now#?}${__isoenv_rest%%"$__isoenv_us"*}" = "$__isoenv_word" ] ||
      __isoenv_entries=-1000000
    __isoenv_entries=$((__isoenv_entries - 1))
  }

  # Loads what is ready and writes its record, as envdiff.apply does.
  __isoenv_apply() {
    __isoenv_set() { if __isoenv_note "$1" = "$2"; then export "$1=$2"; fi; }
    __isoenv_unset() { if __isoenv_note "$1" - ''; then unset -v "$1"; fi; }
    __isoenv_record='' __isoenv_front=''
    __isoenv_load
    [ -n "$__isoenv_record" ] || return 0
    if [ -n "$__isoenv_front" ]; then
      export "PATH=$__isoenv_front${PATH+:$PATH}"
      __isoenv_encode "$__isoenv_front"
      set -- PATH p= '' "$__isoenv_word"
      __isoenv_record=$__isoenv_record$1$__isoenv_us$2$__isoenv_us$3$__isoenv_us$4$__isoenv_us
    fi
    __isoenv_encode "$__isoenv_root"
    set -- '' r= '' "$__isoenv_word"
    __isoenv_record=$1$__isoenv_us$2$__isoenv_us$3$__isoenv_us$4$__isoenv_us$__isoenv_record
    export "__ISOENV_UNDO=$__isoenv_record"
  }

  # What __isoenv_load calls for each entry of PATH, the first one last.
  __isoenv_prepend() {
    __isoenv_front=$1${__isoenv_front:+:$__isoenv_front}
  }

  # NAME = VALUE, or NAME - '': adds to the record what is going to happen. Fails for a variable
  # that is none of ours: read-only, or not plain text.
  __isoenv_note() {
    eval "__isoenv_now=\${$1+=}\${$1-}"
    case $__isoenv_now in
      '') __isoenv_is=u ;;
      *) __isoenv_ask "$1" || return ;;
    esac
    __isoenv_now=${__isoenv_now#=}
    case $__isoenv_is in
      s)
        # Not for the eyes of children.
        eval "__isoenv_old_$1=\$__isoenv_now"
        __isoenv_now=
        ;;
    esac
    case $__isoenv_now$3 in
      *["$__isoenv_us$__isoenv_rs"]*)
        __isoenv_encode "$__isoenv_now"
        set -- "$1" "$2" "$3" "$__isoenv_word"
        __isoenv_encode "$3"
        ;;
      *)
        set -- "$1" "$2" "$3" "$__isoenv_now"
        __isoenv_word=$3
        ;;
    esac
    __isoenv_record=$__isoenv_record$1$__isoenv_us$__isoenv_is$2$__isoenv_us$4
    __isoenv_record=$__isoenv_record$__isoenv_us$__isoenv_word$__isoenv_us
  }

  # Sets __isoenv_is to what a set variable is: x exported, or s set in this shell alone. dash does
  # not tell, and has exported what it was given.
  __isoenv_ask() {
    __isoenv_is=x
    if [ -n "${ZSH_VERSION-}" ]; then
      eval "case \${(t)$1} in
        *readonly* | *array* | *association* | *integer* | *float*) return 1 ;;
        *export*) ;;
        *) __isoenv_is=s ;;
      esac"
    elif [ -n "${BASH_VERSION-}" ]; then
      case $BASH_VERSION in [1-3].* | 4.[0-3].*) return ;; esac
      eval "case \${$1@a} in *[raAi]*) return 1 ;; *x*) ;; *) __isoenv_is=s ;; esac"
    fi
  }

  # --- The separators inside a value

  __isoenv_encode() {
    __isoenv_word=$1
    case $1 in *["$__isoenv_us$__isoenv_rs"]*) ;; *) return ;; esac
    __isoenv_replace "$__isoenv_rs" "${__isoenv_rs}0"
    __isoenv_replace "$__isoenv_us" "${__isoenv_rs}1"
  }

  __isoenv_decode() {
    __isoenv_word=$1
    case $1 in *"$__isoenv_rs"*) ;; *) return ;; esac
    __isoenv_replace "${__isoenv_rs}1" "$__isoenv_us"
    __isoenv_replace "${__isoenv_rs}0" "$__isoenv_rs"
  }

  # OLD NEW: each OLD in __isoenv_word becomes NEW.
  __isoenv_replace() {
    __isoenv_rest=$__isoenv_word
    __isoenv_word=
    while :; do
      case $__isoenv_rest in *"$1"*) ;; *) break ;; esac
      __isoenv_word=$__isoenv_word${__isoenv_rest%%"$1"*}$2
      __isoenv_rest=${__isoenv_rest#*"$1"}
    done
    __isoenv_word=$__isoenv_word$__isoenv_rest
  }

  # --- Now

  { __isoenv_start || :; } 2>/dev/null
  unset -v __isoenv_at __isoenv_base __isoenv_dir __isoenv_direnv __isoenv_entries __isoenv_from \
    __isoenv_front __isoenv_glob __isoenv_ifs __isoenv_is __isoenv_kept __isoenv_label \
    __isoenv_message __isoenv_name __isoenv_now __isoenv_record __isoenv_rest __isoenv_root \
    __isoenv_rs __isoenv_space __isoenv_text __isoenv_us __isoenv_use __isoenv_word
  unset -f __isoenv_apply __isoenv_ask __isoenv_compare __isoenv_decode __isoenv_encode \
    __isoenv_enter __isoenv_find_base __isoenv_follow __isoenv_is_inherited __isoenv_keep \
    __isoenv_load __isoenv_note __isoenv_prepend __isoenv_read __isoenv_replace __isoenv_restore \
    __isoenv_set __isoenv_stale __isoenv_start __isoenv_take_from_path __isoenv_undo \
    __isoenv_undo_entry __isoenv_undo_record __isoenv_unset 2>/dev/null || :
fi
if [ -n "$__isoenv_trace" ]; then
  unset -v __isoenv_trace
  set -x
else
  unset -v __isoenv_trace
fi
