# shellcheck shell=bash disable=all  # shellcheck does not know zsh: `zsh -n` reads this file
# isoenv in zsh 5.0 and newer: the right environment at every prompt, by builtins alone.

# =============================================================================
#
# What this shell knows. Nothing of it is exported: a child shell begins with __ISOENV_UNDO alone.
#

\builtin typeset -g __isoenv_command=@ISOENV@
\builtin typeset -g __isoenv_default_state=@STATE@
\builtin typeset -g __isoenv_off="${__isoenv_off-}" # 1 after `isoenv off`
\builtin typeset -g __isoenv_pwd=''               # the $PWD that __isoenv_way belongs to
\builtin typeset -g __isoenv_linked=''            # the physical directory, where that is another
\builtin typeset -ga __isoenv_way                 # the physical directory and all above it, / is ''
\builtin typeset -g __isoenv_here=''              # the checkout that was found for it
\builtin typeset -g __isoenv_base=''              # the one that is settled: __isoenv_stale is about it
\builtin typeset -g __isoenv_failed=''            # the one whose environment could not be computed,
\builtin typeset -g __isoenv_failed_input=''      # and what it was to be computed from
\builtin typeset -g __isoenv_again=''             # 1 in `isoenv reload`: compute even what seems fresh
\builtin typeset -g __isoenv_said=''              # the lines that are said once
# What `exec 3 zsh` has loaded stays outside of any checkout too.
\builtin typeset -g __isoenv_pinned="${__ISOENV_PIN:+${ISOENV_PROJECT-}/${ISOENV_INSTANCE-}}"

# What a generated script says of itself; it also defines __isoenv_stale and __isoenv_load.
\builtin typeset -g __isoenv_root='' __isoenv_label='' __isoenv_message=''
\builtin typeset -g __isoenv_use='' __isoenv_direnv=''

# =============================================================================
#
# The prompt: nothing but tests while nothing changes. Options are the user's here.
#

function _isoenv_hook() {
  # While completing, a directory is looked into, not changed to.
  [[ -z "${__isoenv_off}" && -z "${compstate+x}" ]] || \builtin return 0
  if [[ "${PWD}" != "${__isoenv_pwd}" || \
    -n "${__isoenv_linked}" && ! . -ef "${__isoenv_linked}" ]]; then
    __isoenv_locate
  fi
  # Upwards to the checkout, as `isoenv.launch.base_of` goes.
  \builtin local __isoenv_directory
  \builtin typeset -g __isoenv_here=''
  for __isoenv_directory in "${__isoenv_way[@]}"; do
    if [[ -e "${__isoenv_directory}/.git" || -e "${__isoenv_directory}/isoenv.toml" ]]; then
      \builtin typeset -g __isoenv_here="${__isoenv_directory:-/}"
      \builtin break
    fi
  done
  if [[ "${__isoenv_here}" != "${__isoenv_base}" ]]; then
    __isoenv_change || :
  elif [[ -n "${__isoenv_here}" ]]; then
    ! __isoenv_stale || __isoenv_change || :
  elif [[ -n "${__ISOENV_UNDO-}" ]]; then
    [[ "${ISOENV_PROJECT-}/${ISOENV_INSTANCE-}" == "${__isoenv_pinned}" ]] || __isoenv_change || :
  fi
}

# Find the physical directory of $PWD and all above it.
function __isoenv_locate() {
  \builtin emulate -L zsh
  \builtin local __isoenv_directory=${PWD:A}
  __isoenv_pwd=$PWD __isoenv_linked=''
  [[ $__isoenv_directory == "$PWD" ]] || __isoenv_linked=$__isoenv_directory
  __isoenv_directory=${__isoenv_directory%/}
  __isoenv_way=("$__isoenv_directory")
  while [[ -n $__isoenv_directory ]]; do
    __isoenv_directory=${__isoenv_directory%/*}
    __isoenv_way+=("$__isoenv_directory")
  done
}

# =============================================================================
#
# A change: another checkout, another state of its files, or none any more.
#

# Settle what belongs to $__isoenv_here: nothing, after `isoenv off`.
function __isoenv_change() {
  \builtin emulate -L zsh
  # Bytes are no characters here, no word of a generated script is an alias, and nothing is printed
  # about a name that is declared twice.
  \builtin setopt no_aliases no_multibyte typeset_silent
  \builtin local -a __isoenv_cells __isoenv_steps __isoenv_notes
  # A directory that was deleted under the shell says nothing about where the user wants to be.
  [[ -d $PWD || -n $__isoenv_off ]] || \builtin return 1
  # direnv first takes back what it has loaded elsewhere: after us it would take ours with it.
  if [[ -n ${DIRENV_DIR-} && $PWD/ != "${DIRENV_DIR#-}"/* ]] && (( ${+functions[_direnv_hook]} ))
  then
    _direnv_hook
  fi
  __isoenv_read_record
  if [[ -z $__isoenv_here || -n $__isoenv_off ]]; then
    __isoenv_base='' __isoenv_failed=''
    [[ ${ISOENV_PROJECT-}/${ISOENV_INSTANCE-} == "$__isoenv_pinned" && -z $__isoenv_off ]] ||
      __isoenv_leave
    \builtin return 0
  fi
  if [[ $__isoenv_here == "$__isoenv_failed" ]]; then
    \builtin local __isoenv_input
    __isoenv_read_input
    [[ $__isoenv_input != "$__isoenv_failed_input" ]] || \builtin return 1
  fi
  # Until this is through, what was settled before is overwritten.
  __isoenv_base=''
  if [[ -n $__isoenv_again ]] || ! __isoenv_find; then
    __isoenv_compute || \builtin return 1
  fi
  __isoenv_failed=''
  __isoenv_settle
  __isoenv_base=$__isoenv_here
}

# Source the generated script of $__isoenv_here, if there is one and it is fresh.
function __isoenv_find() {
  \builtin local __isoenv_state=${ISOENV_STATE_DIR:-$__isoenv_default_state}
  \builtin local __isoenv_generated=$__isoenv_state/t$__isoenv_here
  # A relative one would be looked for in the checkout, where anybody could have put it.
  [[ $__isoenv_state == /* ]] || \builtin return 1
  if [[ -n ${__ISOENV_PIN-} ]]; then
    __isoenv_source "$__isoenv_generated/@slot.${__ISOENV_PIN%%:*}/@env.sh" && \builtin return 0
  fi
  __isoenv_source "$__isoenv_generated/@env.sh"
}

function __isoenv_source() {
  [[ -f $1 ]] && \builtin source "$1" 2>/dev/null && ! __isoenv_stale_without_ours
}

# Compute it anew: the one process. What fails, or is interrupted, is not tried at every prompt.
function __isoenv_compute() {
  \builtin local __isoenv_code __isoenv_input
  __isoenv_read_input
  __isoenv_failed=$__isoenv_here
  __isoenv_failed_input=$__isoenv_input
  if [[ ! -x $__isoenv_command ]]; then
    __isoenv_say_once "isoenv: $__isoenv_command is gone: install it again, or \`isoenv off\`"
    \builtin return 1
  fi
  __isoenv_code=$("$__isoenv_command" export zsh --hook </dev/null) || \builtin return 1
  [[ $__isoenv_code == '# isoenv '* ]] && \builtin eval "$__isoenv_code"
}

# Put what was found or computed in the place of what is loaded.
function __isoenv_settle() {
  if [[ -n $__isoenv_message ]]; then
    \builtin local __isoenv_input
    __isoenv_read_input
    __isoenv_say_once "$__isoenv_message" "$__isoenv_input"
  fi
  if [[ $__isoenv_use != all ]] || __isoenv_is_direnvs; then
    __isoenv_leave
    \builtin return 0
  fi
  __isoenv_load
  if __isoenv_is_loaded; then
    [[ -n $__isoenv_again ]] || \builtin return 0
    \builtin local __isoenv_is_same=1
  fi
  __isoenv_undo
  __isoenv_do
  [[ -n ${__isoenv_is_same-} ]] || __isoenv_say_loaded
}

# Whether direnv is the one that loads this checkout.
function __isoenv_is_direnvs() {
  if [[ -n $__isoenv_direnv ]] && (( ${+functions[_direnv_hook]} )); then
    \builtin return 0
  fi
  [[ -n ${DIRENV_DIR-} && -z ${__ISOENV_UNDO-} && ${ISOENV_ROOT-} == "$__isoenv_here" ]]
}

# Read the files that a failure, or a message, is about, into $__isoenv_input.
function __isoenv_read_input() {
  \builtin local __isoenv_file __isoenv_part
  __isoenv_input=''
  for __isoenv_file in "${__isoenv_here%/}"/isoenv{,.local}.toml; do
    __isoenv_part=''
    if [[ -f $__isoenv_file && -r $__isoenv_file ]]; then
      IFS='' \builtin read -r -d '' __isoenv_part <"$__isoenv_file"
    fi
    __isoenv_input+=$__isoenv_part$'\x1f'
  done
}

# =============================================================================
#
# The record of what was done: cells ended by US, four for each variable. See `isoenv.envdiff`.
#

# Read __ISOENV_UNDO into __isoenv_cells, and drop it when nobody can have written it.
function __isoenv_read_record() {
  [[ -n ${__ISOENV_UNDO-} ]] || \builtin return 0
  \builtin local __isoenv_name __isoenv_kind __isoenv_old __isoenv_new __isoenv_wrong=''
  \builtin local __isoenv_rs=$'\x1e' __isoenv_us=$'\x1f'
  __isoenv_cells=("${(@ps:\x1f:)__ISOENV_UNDO}")
  # What follows the last US is no cell.
  [[ -z ${__isoenv_cells[-1]} ]] || __isoenv_wrong=1
  __isoenv_cells[-1]=()
  if [[ $__ISOENV_UNDO == *$'\x1e'* ]]; then
    [[ ${__ISOENV_UNDO//$'\x1e'[01]/} != *$'\x1e'* ]] || __isoenv_wrong=1
    __isoenv_cells=("${(@)__isoenv_cells//${__isoenv_rs}1/$__isoenv_us}")
    __isoenv_cells=("${(@)__isoenv_cells//${__isoenv_rs}0/$__isoenv_rs}")
  fi
  (( ${#__isoenv_cells} && ${#__isoenv_cells} % 4 == 0 )) || __isoenv_wrong=1
  [[ ${(pj:\x1f:)__isoenv_cells[1,3]} == $'\x1fr=\x1f' ]] || __isoenv_wrong=1
  for __isoenv_name __isoenv_kind __isoenv_old __isoenv_new in "${(@)__isoenv_cells[5,-1]}"; do
    [[ $__isoenv_name == [A-Za-z_]* && $__isoenv_name != *[^A-Za-z0-9_]* ]] || __isoenv_wrong=1
    [[ $__isoenv_kind == [uxs][=-] || $__isoenv_kind == p= ]] || __isoenv_wrong=1
  done
  [[ -n $__isoenv_wrong ]] || \builtin return 0
  __isoenv_cells=()
  \builtin unset __ISOENV_UNDO
  __isoenv_say 'isoenv: the undo record is damaged: what was loaded before stays as it is'
}

# Make a value fit into a cell.
function __isoenv_escape() {
  \builtin local __isoenv_rs=$'\x1e' __isoenv_us=$'\x1f'
  REPLY=${1//$__isoenv_rs/${__isoenv_rs}0}
  REPLY=${REPLY//$__isoenv_us/${__isoenv_rs}1}
}

# Whether the script is stale for the environment as it was before isoenv: a slot that the user
# has chosen may hide behind ours, and HOME. In a scope of its own, so that nothing is undone for it.
function __isoenv_stale_without_ours() {
  if [[ ${__ISOENV_UNDO-} == *$'\x1f'x[=-]$'\x1f'[0-9]* ||
    ${__ISOENV_UNDO-} == *$'\x1f'HOME$'\x1f'* ]]; then
    \builtin local __isoenv_name __isoenv_kind __isoenv_old __isoenv_new __isoenv_now
    for __isoenv_name __isoenv_kind __isoenv_old __isoenv_new in "${(@)__isoenv_cells[5,-1]}"; do
      [[ $__isoenv_kind != p= ]] || \builtin continue
      __isoenv_now=${(P)+__isoenv_name}${__isoenv_kind#?}${(P)__isoenv_name-}
      [[ $__isoenv_now == "1=$__isoenv_new" || $__isoenv_now == 0- ]] || \builtin continue
      if [[ $__isoenv_kind == x? ]]; then
        \builtin local "$__isoenv_name=$__isoenv_old"
      else
        \builtin local "$__isoenv_name"
        \builtin unset "$__isoenv_name"
      fi
    done 2>/dev/null
  fi
  __isoenv_stale
}

# Take back what the record says: a variable that still is what isoenv has made of it, or that is
# isoenv's own. Any other is the user's by now.
function __isoenv_undo() {
  \builtin local __isoenv_name __isoenv_kind __isoenv_old __isoenv_new __isoenv_kept __isoenv_now
  for __isoenv_name __isoenv_kind __isoenv_old __isoenv_new in "${(@)__isoenv_cells[5,-1]}"; do
    __isoenv_kept=__isoenv_old_$__isoenv_name
    __isoenv_now=${(P)+__isoenv_name}${__isoenv_kind#?}${(P)__isoenv_name-}
    if [[ $__isoenv_kind == p= ]]; then
      __isoenv_remove "$__isoenv_name" "$__isoenv_new"
    elif [[ $__isoenv_now == "1=$__isoenv_new" || $__isoenv_now == 0- || \
      $__isoenv_name == __ISOENV_* ]]; then
      case $__isoenv_kind in
        (x?) \builtin export "$__isoenv_name=$__isoenv_old" ;;
        (u?) \builtin unset "$__isoenv_name" ;;
        (*)
          if (( ${(P)+__isoenv_kept} )); then
            \builtin typeset -g +x "$__isoenv_name=${(P)__isoenv_kept}"
          else
            \builtin unset "$__isoenv_name"
          fi
          ;;
      esac
    fi
    [[ $__isoenv_kind != s? ]] || \builtin unset "$__isoenv_kept"
  done 2>/dev/null
  \builtin unset __ISOENV_UNDO
  __isoenv_cells=()
}

# Take each of these entries out of a list like PATH once, wherever it is.
function __isoenv_remove() {
  (( ${(P)+1} )) || \builtin return 0
  \builtin local __isoenv_list=:${(P)1}: __isoenv_entry
  for __isoenv_entry in "${(@s.:.)2}"; do
    __isoenv_entry=:$__isoenv_entry:
    if [[ $__isoenv_list == *"$__isoenv_entry"* ]]; then
      __isoenv_list=${__isoenv_list%%"$__isoenv_entry"*}:${__isoenv_list#*"$__isoenv_entry"}
    fi
  done
  if [[ $__isoenv_list == : ]]; then
    \builtin unset "$1"
  else
    : ${(P)1::=${${__isoenv_list#:}%:}}
  fi
}

# Undo what is loaded, where nothing comes in its place.
function __isoenv_leave() {
  (( ${#__isoenv_cells} )) || \builtin return 0
  \builtin local __isoenv_left="${ISOENV_PROJECT-}/${ISOENV_INSTANCE-} ${ISOENV_NAME-}"
  __isoenv_undo
  [[ ${ISOENV_LOG-} != diff ]] || __isoenv_say "isoenv: left $__isoenv_left"
}

# =============================================================================
#
# Loading. A generated __isoenv_load names its steps by these three.
#

function __isoenv_set() { __isoenv_steps+=("$1" '=' "$2"); }
function __isoenv_unset() { __isoenv_steps+=("$1" '-' ''); }
function __isoenv_prepend() { __isoenv_steps+=(PATH p "$1"); }

# Whether the record holds just these steps already.
function __isoenv_is_loaded() {
  [[ ${__isoenv_cells[4]-} == "$__isoenv_root" ]] || \builtin return 1
  \builtin local -A __isoenv_known
  \builtin local __isoenv_name __isoenv_kind __isoenv_old __isoenv_new
  \builtin local __isoenv_path='' __isoenv_wanted=''
  for __isoenv_name __isoenv_kind __isoenv_old __isoenv_new in "${(@)__isoenv_cells[5,-1]}"; do
    if [[ $__isoenv_kind == p= ]]; then
      __isoenv_path=$__isoenv_new:$__isoenv_path
    else
      __isoenv_known[$__isoenv_name]=${__isoenv_kind#?}$__isoenv_new
    fi
  done
  for __isoenv_name __isoenv_kind __isoenv_new in "${(@)__isoenv_steps}"; do
    if [[ $__isoenv_kind == p ]]; then
      __isoenv_wanted=$__isoenv_new:$__isoenv_wanted
    else
      [[ ${__isoenv_known[$__isoenv_name]-} == "$__isoenv_kind$__isoenv_new" ]] || \builtin return 1
      \builtin unset "__isoenv_known[$__isoenv_name]"
    fi
  done
  [[ ${#__isoenv_known} == 0 && $__isoenv_path == "$__isoenv_wanted" ]]
}

# Take the steps. Each is on record before it is taken, so that an interrupt leaves none behind.
function __isoenv_do() {
  \builtin local __isoenv_name __isoenv_kind __isoenv_new __isoenv_was __isoenv_old __isoenv_sign
  \builtin local __isoenv_type __isoenv_us=$'\x1f' REPLY
  __isoenv_escape "$__isoenv_root"
  \builtin export __ISOENV_UNDO=$'\x1fr=\x1f\x1f'$REPLY$__isoenv_us
  for __isoenv_name __isoenv_kind __isoenv_new in "${(@)__isoenv_steps}"; do
    __isoenv_was=u __isoenv_old='' __isoenv_sign='~' __isoenv_type=${(Pt)__isoenv_name}
    case $__isoenv_type in
      ('') __isoenv_sign=+ ;;
      # What is put in a list, a number or what is cut to a width does not come out as it was.
      (array*|association*|integer*|float*|*-readonly*|*-left*|*-right*|*-lower*|*-upper*)
        __isoenv_say_once \
          "isoenv: $__isoenv_name is readonly or no plain variable here: left alone"
        \builtin continue
        ;;
      (*-export*) __isoenv_was=x __isoenv_old=${(P)__isoenv_name} ;;
      (*) __isoenv_was=s ;;
    esac
    case $__isoenv_was$__isoenv_kind in
      (u-) __isoenv_sign='' ;;
      (?-) __isoenv_sign=- ;;
      ([sx]=) [[ ${(P)__isoenv_name} != "$__isoenv_new" ]] || __isoenv_sign='' ;;
    esac
    # Of isoenv's own people need no word.
    [[ -z $__isoenv_sign || $__isoenv_name == ISOENV_* || $__isoenv_name == __ISOENV_* ]] ||
      __isoenv_notes+=("$__isoenv_sign$__isoenv_name")
    [[ $__isoenv_was$__isoenv_kind != s[=-] ]] ||
      \builtin typeset -g "__isoenv_old_$__isoenv_name=${(P)__isoenv_name}"
    if [[ $__isoenv_kind != p ]]; then
      __isoenv_was+=$__isoenv_kind
    elif [[ $__isoenv_type != *-unique* || :${(P)__isoenv_name}: != *":$__isoenv_new:"* ]]; then
      __isoenv_was=p= __isoenv_old=''
    else
      # Where entries are kept unique, one that is there already only moves, and is not ours.
      __isoenv_was=''
    fi
    if [[ -n $__isoenv_was ]]; then
      REPLY=$__isoenv_old$__isoenv_us$__isoenv_new
      if [[ $__isoenv_old$__isoenv_new == *[$'\x1e\x1f']* ]]; then
        __isoenv_escape "$__isoenv_old"
        __isoenv_old=$REPLY
        __isoenv_escape "$__isoenv_new"
        REPLY=$__isoenv_old$__isoenv_us$REPLY
      fi
      __ISOENV_UNDO+=$__isoenv_name$__isoenv_us$__isoenv_was$__isoenv_us$REPLY$__isoenv_us
    fi
    case $__isoenv_kind in
      (=) \builtin export "$__isoenv_name=$__isoenv_new" ;;
      (-) \builtin unset "$__isoenv_name" ;;
      (p)
        if [[ -z $__isoenv_type ]]; then
          \builtin export "$__isoenv_name=$__isoenv_new"
        else
          : ${(P)__isoenv_name::=$__isoenv_new:${(P)__isoenv_name}}
        fi
        ;;
    esac
  done
}

# =============================================================================
#
# What people read: one line each, on standard error.
#

function __isoenv_say() {
  \builtin setopt local_options multibyte
  (( ZSH_SUBSHELL )) || [[ -n ${WIDGET-} ]] || \builtin print -r -u2 -- "${1//[[:cntrl:]]/?}"
}

# Say $1 once in this shell, and again when $2 is another.
function __isoenv_say_once() {
  [[ $__isoenv_said != *$'\x1f'"$1"$'\x1e'"${2-}"$'\x1f'* ]] || \builtin return 0
  __isoenv_said+=$'\x1f'$1$'\x1e'${2-}$'\x1f'
  __isoenv_say "$1"
}

# Say what was loaded, as `isoenv.envdiff.summary` does.
function __isoenv_say_loaded() {
  [[ ${ISOENV_LOG-} != quiet ]] || \builtin return 0
  \builtin local __isoenv_sign
  \builtin local -a __isoenv_names __isoenv_changes
  for __isoenv_sign in + '~' -; do
    __isoenv_names=("${(@uoi)${(@M)__isoenv_notes:#$__isoenv_sign*}}")
    if [[ ${ISOENV_LOG-} == diff ]] || [[ $__isoenv_sign != + && ${#__isoenv_names} -le 3 ]]; then
      __isoenv_changes+=("${(@)__isoenv_names}")
    else
      __isoenv_changes+=("$__isoenv_sign${#__isoenv_names}")
    fi
  done
  __isoenv_changes=(${__isoenv_changes:#+0})
  __isoenv_say "isoenv: $__isoenv_label${__isoenv_changes:+ ($__isoenv_changes)}"
}

# =============================================================================
#
# The command. Three words of it are about this shell; any other may have mended what failed.
#

function isoenv() {
  # In an agent's snapshot of a shell's functions there is nothing that this could act on.
  if [[ -z "${__isoenv_command-}" ]]; then
    \builtin command isoenv "$@"
    \builtin return
  fi
  case "$#:${1-}" in
    (1:on)
      \builtin typeset -g __isoenv_off='' __isoenv_failed=''
      _isoenv_hook
      ;;
    (1:off)
      \builtin typeset -g __isoenv_off=1
      __isoenv_change
      ;;
    (1:reload)
      \builtin local __isoenv_again=1
      \builtin typeset -g __isoenv_off='' __isoenv_failed='' __isoenv_base=''
      _isoenv_hook
      [[ "${__isoenv_base}" == "${__isoenv_here}" ]]
      ;;
    (*:doctor)
      # It cannot see from its own process how often the hook stands in the prompt.
      \builtin local -a __isoenv_times
      __isoenv_times=("${(@M)precmd_functions:#_isoenv_hook}")
      __ISOENV_HOOK="zsh:${#__isoenv_times}" "${__isoenv_command}" "$@"
      ;;
    (*)
      \builtin local __isoenv_status=0
      "${__isoenv_command}" "$@" || __isoenv_status=$?
      \builtin typeset -g __isoenv_failed=''
      \builtin return "${__isoenv_status}"
      ;;
  esac
}

# =============================================================================
#
# To begin: eval "$(isoenv hook zsh)", in ~/.zshrc.
#

function __isoenv_begin() {
  \builtin emulate -L zsh
  \builtin typeset -ga precmd_functions chpwd_functions
  # Before the others, which may want to show what is loaded; and once, however often this is run.
  precmd_functions=(_isoenv_hook "${(@)precmd_functions:#_isoenv_hook}")
  chpwd_functions=(_isoenv_hook "${(@)chpwd_functions:#_isoenv_hook}")
}

if [[ "$ZSH_VERSION" == [0-4].* ]]; then
  \builtin print -r -u2 -- "isoenv: zsh $ZSH_VERSION is too old for the hook: it takes 5.0"
else
  __isoenv_begin
fi
