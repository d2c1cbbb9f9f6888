# shellcheck shell=bash
# isoenv in bash 4.4 and newer: the right environment at every prompt, by builtins alone.

# =============================================================================
#
# What this shell knows. Nothing of it is exported: a child shell begins with __ISOENV_UNDO alone.
#

__isoenv_command=@ISOENV@
__isoenv_default_state=@STATE@
__isoenv_off=${__isoenv_off-} # 1 after `isoenv off`
__isoenv_pwd=                 # the $PWD that __isoenv_way belongs to
__isoenv_linked=              # the physical directory, where that is another
__isoenv_way=('')             # the physical directory and all above it, / as an empty string
__isoenv_here=                # the checkout that was found for it
__isoenv_base=                # the one that is settled: __isoenv_stale is about it
__isoenv_failed=              # the one whose environment could not be computed,
__isoenv_failed_input=        # and what it was to be computed from
__isoenv_again=               # 1 in `isoenv reload`: compute it even when it seems fresh
__isoenv_said=                # the lines that are said once
__isoenv_summary=             # how much was loaded last, as it is said under this ISOENV_LOG
# What `exec 3 bash` has loaded stays outside of any checkout too.
__isoenv_pinned=${__ISOENV_PIN:+${ISOENV_PROJECT-}/${ISOENV_INSTANCE-}}

# What a generated script says of itself; it also defines __isoenv_stale and __isoenv_load.
__isoenv_root='' __isoenv_label='' __isoenv_message='' __isoenv_use='' __isoenv_direnv=''
__isoenv_shape='' __isoenv_front='' __isoenv_fresh=''

# =============================================================================
#
# The prompt: nothing but tests while nothing changes. Options are the user's here.
#
# After \builtin, unlike after a bare `local`, NAME=$VALUE is a word like any other: it needs quotes,
# also around the name where `set -k` may be in force.

function _isoenv_hook() {
  \builtin local "__isoenv_status=$?" __isoenv_directory
  if [[ -z ${__isoenv_off} ]]; then
    if [ "${PWD-}" != "${__isoenv_pwd}" ] ||
      [[ -n ${__isoenv_linked} && ! . -ef ${__isoenv_linked} ]]; then
      __isoenv_locate
    fi
    # Upwards to the checkout, as `isoenv.launch.base_of` goes.
    __isoenv_here=''
    for __isoenv_directory in "${__isoenv_way[@]}"; do
      if [[ -e ${__isoenv_directory}/.git || -e ${__isoenv_directory}/isoenv.toml ]]; then
        __isoenv_here=${__isoenv_directory:-/}
        \builtin break
      fi
    done
    if [ "${__isoenv_here}" != "${__isoenv_base}" ]; then
      __isoenv_change || :
    elif [[ -n ${__isoenv_here} ]]; then
      ! __isoenv_stale || __isoenv_change || :
    elif [[ -n ${__ISOENV_UNDO-} ]] &&
      [ "${ISOENV_PROJECT-}/${ISOENV_INSTANCE-}" != "${__isoenv_pinned}" ]; then
      __isoenv_change || :
    fi
  fi
  # The next prompt function sees the user's own status, but errexit would end the shell by it.
  [[ $- == *e* ]] || \builtin return "${__isoenv_status}"
}

# Find the physical directory of $PWD and all above it. Where a component is a symbolic link, that
# takes going there and back: a process would be dearer.
function __isoenv_locate() {
  \builtin local __isoenv_oldpwd __isoenv_had_oldpwd
  __isoenv_pwd=${PWD-} __isoenv_linked=''
  __isoenv_climb "${__isoenv_pwd}" && \builtin return
  __isoenv_oldpwd=${OLDPWD-} __isoenv_had_oldpwd=${OLDPWD+1}
  if \builtin cd -P . 2>/dev/null; then
    __isoenv_linked=${PWD}
    \builtin cd -L -- "${__isoenv_pwd}" 2>/dev/null || __isoenv_pwd=${PWD}
    OLDPWD=${__isoenv_oldpwd}
    [[ -n ${__isoenv_had_oldpwd} ]] || \builtin unset -v OLDPWD
    __isoenv_climb "${__isoenv_linked}" || :
  fi
}

# Note a directory and all above it; fail where one is a symbolic link.
function __isoenv_climb() {
  \builtin set -- "${1%/}"
  __isoenv_way=("$1")
  while [[ -n $1 && ! -h $1 ]]; do
    \builtin set -- "${1%/*}"
    __isoenv_way+=("$1")
  done
  [[ -z $1 ]]
}

# =============================================================================
#
# A change: another checkout, another state of its files, or none any more.
#

# Settle what belongs to ${__isoenv_here}: nothing, after `isoenv off`.
function __isoenv_change() {
  \builtin local -
  \builtin set -f +aeukET
  \builtin local __isoenv_cells __isoenv_steps __isoenv_notes __isoenv_is_read=''
  \builtin local __isoenv_from='' __isoenv_theirs=''
  __isoenv_cells=() __isoenv_steps=() __isoenv_notes=()
  # A directory that was deleted under the shell says nothing about where the user wants to be.
  [[ -d ${PWD-} || -n ${__isoenv_off} ]] || \builtin return 1
  # direnv first takes back what it has loaded elsewhere: after us it would take ours with it.
  if [[ -n ${DIRENV_DIR-} && ${PWD-}/ != "${DIRENV_DIR#-}"/* ]] &&
    \builtin declare -F _direnv_hook >/dev/null; then
    _direnv_hook
  fi
  if __isoenv_is_untouched; then
    __isoenv_from=${__isoenv_shape} __isoenv_theirs=${__isoenv_front}
  else
    __isoenv_read_record
  fi
  if [[ -z ${__isoenv_here} || -n ${__isoenv_off} ]]; then
    __isoenv_base='' __isoenv_failed=''
    [[ ${ISOENV_PROJECT-}/${ISOENV_INSTANCE-} == "${__isoenv_pinned}" && -z ${__isoenv_off} ]] ||
      __isoenv_leave
    \builtin return 0
  fi
  if [ "${__isoenv_here}" = "${__isoenv_failed}" ]; then
    \builtin local __isoenv_input
    __isoenv_read_input
    [ "${__isoenv_input}" != "${__isoenv_failed_input}" ] || \builtin return 1
  fi
  # Until this is through, what was settled before is overwritten.
  __isoenv_base=''
  if [[ -n ${__isoenv_again} ]] || ! __isoenv_find; then
    __isoenv_compute || \builtin return 1
  fi
  __isoenv_failed=''
  __isoenv_settle
  __isoenv_base=${__isoenv_here}
}

# Source the generated script of ${__isoenv_here}, if there is one and it is fresh.
function __isoenv_find() {
  \builtin local __isoenv_state="${ISOENV_STATE_DIR:-${__isoenv_default_state}}"
  \builtin local __isoenv_generated="${__isoenv_state}/t${__isoenv_here}"
  # A relative one would be looked for in the checkout, where anybody could have put it.
  [[ ${__isoenv_state} == /* ]] || \builtin return 1
  if [[ -n ${__ISOENV_PIN-} ]]; then
    __isoenv_source "${__isoenv_generated}/@slot.${__ISOENV_PIN%%:*}/@env.bash" &&
      \builtin return 0
  fi
  __isoenv_source "${__isoenv_generated}/@env.bash"
}

function __isoenv_source() {
  # shellcheck source=/dev/null
  [[ -f $1 ]] && \builtin source "$1" 2>/dev/null && ! __isoenv_stale_without_ours
}

# Compute it anew: the one process. What fails, or is interrupted, is not tried at every prompt.
# The first line is a comment, which an interactive `eval` may not know for one.
function __isoenv_compute() {
  \builtin local __isoenv_code __isoenv_input
  __isoenv_read_input
  __isoenv_failed=${__isoenv_here}
  __isoenv_failed_input=${__isoenv_input}
  if [[ ! -x ${__isoenv_command} ]]; then
    __isoenv_say_once "isoenv: ${__isoenv_command} is gone: install it again, or \`isoenv off\`"
    \builtin return 1
  fi
  __isoenv_code=$("${__isoenv_command}" export bash --hook </dev/null) || \builtin return 1
  [[ ${__isoenv_code} == '# isoenv '* ]] && \builtin eval "${__isoenv_code#*$'\n'}"
}

# Put what was found or computed in the place of what is loaded.
function __isoenv_settle() {
  if [[ -n ${__isoenv_message} ]]; then
    \builtin local __isoenv_input
    __isoenv_read_input
    __isoenv_say_once "${__isoenv_message}" "${__isoenv_input}"
  fi
  if [[ ${__isoenv_use} != all ]] || __isoenv_is_direnvs; then
    __isoenv_leave
    \builtin return 0
  fi
  if [[ -n ${__isoenv_from} && -z ${__isoenv_again} ]] && __isoenv_swap; then
    \builtin return 0
  fi
  __isoenv_read_record
  __isoenv_load
  if __isoenv_is_loaded; then
    [[ -n ${__isoenv_again} ]] || \builtin return 0
    \builtin local __isoenv_is_same=1
  fi
  __isoenv_undo
  __isoenv_do
  [[ -n ${__isoenv_is_same-} ]] || __isoenv_say_loaded
}

# Whether what is loaded is, to the letter, what was sourced last, over nothing that was set before.
function __isoenv_is_untouched() {
  [[ -n ${__isoenv_shape} ]] && [ "${__ISOENV_UNDO-}" = "${__isoenv_fresh}" ] &&
    __isoenv_is_intact
}

# Put what was sourced in the place of what is untouched, in one command, where both are of the
# same variables. All else, undone and done one by one, takes ten times as long.
function __isoenv_swap() {
  [ "${__isoenv_from}" = "${__isoenv_shape}" ] || \builtin return 1
  [[ ${ISOENV_LOG-} == quiet || ${__isoenv_summary} == "${ISOENV_LOG-}:"* ]] || \builtin return 1
  [ "${__ISOENV_UNDO}" != "${__isoenv_fresh}" ] || \builtin return 0
  if [[ -n ${__isoenv_theirs} ]]; then
    __isoenv_take "PATH=${__isoenv_front}${PATH#"${__isoenv_theirs}"}"
  else
    __isoenv_take
  fi
  __isoenv_say_loaded
}

# Whether direnv is the one that loads this checkout.
function __isoenv_is_direnvs() {
  if [[ -n ${__isoenv_direnv} ]] && \builtin declare -F _direnv_hook >/dev/null; then
    \builtin return 0
  fi
  [[ -n ${DIRENV_DIR-} && -z ${__ISOENV_UNDO-} ]] && [ "${ISOENV_ROOT-}" = "${__isoenv_here}" ]
}

# Read the files that a failure, or a message, is about, into ${__isoenv_input}.
function __isoenv_read_input() {
  \builtin local __isoenv_file __isoenv_part
  __isoenv_input=''
  for __isoenv_file in "${__isoenv_here%/}"/{isoenv,isoenv.local}.toml; do
    __isoenv_part=''
    if [[ -f ${__isoenv_file} && -r ${__isoenv_file} ]]; then
      IFS='' \builtin read -r -d '' __isoenv_part <"${__isoenv_file}"
    fi
    __isoenv_input+=${__isoenv_part}$'\x1f'
  done
}

# =============================================================================
#
# The record of what was done: cells ended by US, four for each variable. See `isoenv.envdiff`.
#

# Read __ISOENV_UNDO into __isoenv_cells, and drop it when nobody can have written it.
function __isoenv_read_record() {
  \builtin local __isoenv_index __isoenv_left IFS=$'\x1f'
  [[ -z ${__isoenv_is_read} && -n ${__ISOENV_UNDO-} ]] || \builtin return 0
  __isoenv_is_read=1
  # Not quoted, so that it is split, with nothing but US as a separator and no globbing.
  # shellcheck disable=SC2206
  __isoenv_cells=(${__ISOENV_UNDO})
  if [[ ${__ISOENV_UNDO} == *$'\x1e'* ]]; then
    __isoenv_left=${__ISOENV_UNDO//$'\x1e'[01]/}
    __isoenv_cells=("${__isoenv_cells[@]//$'\x1e1'/$'\x1f'}")
    __isoenv_cells=("${__isoenv_cells[@]//$'\x1e0'/$'\x1e'}")
  fi
  if [[ ${__ISOENV_UNDO} == *$'\x1f' && ${__isoenv_left-} != *$'\x1e'* ]] &&
    ((${#__isoenv_cells[@]} % 4 == 0)) &&
    [[ -z ${__isoenv_cells[0]} && ${__isoenv_cells[1]} == r= && -z ${__isoenv_cells[2]} ]]; then
    for ((__isoenv_index = 4; __isoenv_index < ${#__isoenv_cells[@]}; __isoenv_index += 4)); do
      case ${__isoenv_cells[__isoenv_index]} in
        '' | [!A-Za-z_]* | *[!A-Za-z0-9_]*) \builtin break ;;
      esac
      case ${__isoenv_cells[__isoenv_index + 1]} in
        [uxs][=-] | p=) ;;
        *) \builtin break ;;
      esac
    done
    ((__isoenv_index < ${#__isoenv_cells[@]})) || \builtin return 0
  fi
  __isoenv_cells=()
  \builtin unset -v __ISOENV_UNDO
  __isoenv_say 'isoenv: the undo record is damaged: what was loaded before stays as it is'
}

# Whether the script is stale for the environment as it was before isoenv: a slot that the user
# has chosen may hide behind ours, and HOME. In a scope of its own, so that nothing is undone for it.
function __isoenv_stale_without_ours() {
  if [[ ${__ISOENV_UNDO-} == *$'\x1f'x[=-]$'\x1f'[0-9]* ||
    ${__ISOENV_UNDO-} == *$'\x1f'HOME$'\x1f'* ]]; then
    \builtin local __isoenv_index __isoenv_now
    for ((__isoenv_index = 4; __isoenv_index < ${#__isoenv_cells[@]}; __isoenv_index += 4)); do
      \builtin set -- "${__isoenv_cells[@]:__isoenv_index:4}"
      __isoenv_now=${!1+1}${2:1}${!1-}
      if [[ $2 != p= ]] && { [ "${__isoenv_now}" = "1=$4" ] || [ "${__isoenv_now}" = - ]; }; then
        \builtin local "$1" || \builtin continue
        \builtin unset -v "$1"
        [[ $2 != x? ]] || \builtin printf -v "$1" %s "$3"
      fi
    done 2>/dev/null
  fi
  __isoenv_stale
}

# Take back what the record says: a variable that still is what isoenv has made of it, or that is
# isoenv's own. Any other is the user's by now.
function __isoenv_undo() {
  \builtin local __isoenv_index __isoenv_name __isoenv_kind __isoenv_now __isoenv_kept
  \builtin local __isoenv_exports __isoenv_unsets
  __isoenv_exports=() __isoenv_unsets=(__ISOENV_UNDO)
  for ((__isoenv_index = 4; __isoenv_index < ${#__isoenv_cells[@]}; __isoenv_index += 4)); do
    __isoenv_name=${__isoenv_cells[__isoenv_index]}
    __isoenv_kind=${__isoenv_cells[__isoenv_index + 1]}
    if [[ ${__isoenv_kind} == p= ]]; then
      __isoenv_remove "${__isoenv_name}" "${__isoenv_cells[__isoenv_index + 3]}"
      \builtin continue
    fi
    __isoenv_now=${!__isoenv_name+1}${__isoenv_kind:1}${!__isoenv_name-}
    __isoenv_kept=__isoenv_old_${__isoenv_name}
    if [ "${__isoenv_now}" = "1=${__isoenv_cells[__isoenv_index + 3]}" ] ||
      [ "${__isoenv_now}" = - ] || [[ ${__isoenv_name} == __ISOENV_* ]]; then
      case ${__isoenv_kind} in
        x?) __isoenv_exports+=("${__isoenv_name}=${__isoenv_cells[__isoenv_index + 2]}") ;;
        u?) __isoenv_unsets+=("${__isoenv_name}") ;;
        *)
          \builtin unset -v "${__isoenv_name}"
          [[ -z ${!__isoenv_kept+x} ]] ||
            \builtin printf -v "${__isoenv_name}" %s "${!__isoenv_kept}"
          ;;
      esac
    fi
    [[ ${__isoenv_kind} != s? ]] || \builtin unset -v "${__isoenv_kept}"
  done 2>/dev/null
  # One command for all: a command is what costs.
  ((${#__isoenv_exports[@]} == 0)) || \builtin export "${__isoenv_exports[@]}" 2>/dev/null
  \builtin unset -v "${__isoenv_unsets[@]}" 2>/dev/null
  __isoenv_cells=()
}

# Take each of these entries out of a list like PATH once, wherever it is.
function __isoenv_remove() {
  [[ -n ${!1+x} ]] || \builtin return 0
  \builtin local __isoenv_list=":${!1}:" __isoenv_rest="$2:" __isoenv_entry __isoenv_before
  while [[ -n ${__isoenv_rest} ]]; do
    __isoenv_entry=:${__isoenv_rest%%:*}:
    __isoenv_rest=${__isoenv_rest#*:}
    __isoenv_before=${__isoenv_list%%"${__isoenv_entry}"*}
    if [ "${__isoenv_before}" != "${__isoenv_list}" ]; then
      __isoenv_list=${__isoenv_before}:${__isoenv_list#*"${__isoenv_entry}"}
    fi
  done
  if [ "${__isoenv_list}" = : ]; then
    \builtin unset -v "$1"
  else
    __isoenv_list=${__isoenv_list#:}
    \builtin printf -v "$1" %s "${__isoenv_list%:}"
  fi
}

# Undo what is loaded, where nothing comes in its place.
function __isoenv_leave() {
  __isoenv_read_record
  ((${#__isoenv_cells[@]})) || \builtin return 0
  \builtin local __isoenv_left="${ISOENV_PROJECT-}/${ISOENV_INSTANCE-} ${ISOENV_NAME-}"
  __isoenv_undo
  [[ ${ISOENV_LOG-} != diff ]] || __isoenv_say "isoenv: left ${__isoenv_left}"
}

# =============================================================================
#
# Loading: of each step the name, what to do (`=`, `-` or, for PATH, `p`), and the value.
#

# Whether the record holds just these steps already.
function __isoenv_is_loaded() {
  [ "${__isoenv_cells[3]-}" = "${__isoenv_root}" ] || \builtin return 1
  \builtin local -A __isoenv_known
  \builtin local __isoenv_index __isoenv_path='' __isoenv_wanted=''
  for ((__isoenv_index = 4; __isoenv_index < ${#__isoenv_cells[@]}; __isoenv_index += 4)); do
    \builtin set -- "${__isoenv_cells[@]:__isoenv_index:4}"
    if [[ $2 == p= ]]; then
      __isoenv_path=$4:${__isoenv_path}
    else
      __isoenv_known[$1]=${2:1}$4
    fi
  done
  for ((__isoenv_index = 0; __isoenv_index < ${#__isoenv_steps[@]}; __isoenv_index += 3)); do
    \builtin set -- "${__isoenv_steps[@]:__isoenv_index:3}"
    if [[ $2 == p ]]; then
      __isoenv_wanted=$3:${__isoenv_wanted}
    else
      [ "${__isoenv_known[$1]-}" = "$2$3" ] || \builtin return 1
      \builtin unset -v "__isoenv_known[$1]"
    fi
  done
  ((${#__isoenv_known[@]} == 0)) && [ "${__isoenv_path}" = "${__isoenv_wanted}" ]
}

# Take the steps. They are on record before they are taken, so that an interrupt leaves none behind.
function __isoenv_do() {
  \builtin local __isoenv_index __isoenv_name __isoenv_step __isoenv_new __isoenv_was __isoenv_old
  \builtin local __isoenv_sign __isoenv_record __isoenv_exports __isoenv_unsets __isoenv_front=''
  __isoenv_exports=() __isoenv_unsets=()
  __isoenv_cells=('' r= '' "${__isoenv_root}")
  for ((__isoenv_index = 0; __isoenv_index < ${#__isoenv_steps[@]}; __isoenv_index += 3)); do
    __isoenv_name=${__isoenv_steps[__isoenv_index]}
    __isoenv_step=${__isoenv_steps[__isoenv_index + 1]}
    __isoenv_new=${__isoenv_steps[__isoenv_index + 2]}
    __isoenv_was=u __isoenv_old='' __isoenv_sign='~'
    case ${!__isoenv_name+${!__isoenv_name@a}=} in
      '') __isoenv_sign=+ ;;
      *[!xt=]*)
        __isoenv_say_once \
          "isoenv: ${__isoenv_name} is readonly or no plain variable here: left alone"
        \builtin continue
        ;;
      *x*) __isoenv_was=x __isoenv_old=${!__isoenv_name} ;;
      *) __isoenv_was=s ;;
    esac
    case ${__isoenv_was}${__isoenv_step} in
      u-) __isoenv_sign='' ;;
      ?-) __isoenv_sign=- ;;
      [sx]=) [ "${!__isoenv_name}" != "${__isoenv_new}" ] || __isoenv_sign='' ;;
    esac
    # Of isoenv's own people need no word.
    [[ -z ${__isoenv_sign} || ${__isoenv_name} == ISOENV_* || ${__isoenv_name} == __ISOENV_* ]] ||
      __isoenv_notes+=("${__isoenv_sign}${__isoenv_name}")
    case ${__isoenv_step} in
      =) __isoenv_exports+=("${__isoenv_name}=${__isoenv_new}") ;;
      -) __isoenv_unsets+=("${__isoenv_name}") ;;
      p) __isoenv_front=${__isoenv_new}:${__isoenv_front} __isoenv_was=p __isoenv_old='' ;;
    esac
    [[ ${__isoenv_was} != s ]] ||
      \builtin printf -v "__isoenv_old_${__isoenv_name}" %s "${!__isoenv_name}"
    __isoenv_cells+=(
      "${__isoenv_name}" "${__isoenv_was}${__isoenv_step/p/=}" "${__isoenv_old}" "${__isoenv_new}"
    )
  done
  __isoenv_join "${__isoenv_cells[@]}"
  \builtin export "__ISOENV_UNDO=${__isoenv_record}" "${__isoenv_exports[@]}"
  ((${#__isoenv_unsets[@]} == 0)) || \builtin unset -v "${__isoenv_unsets[@]}"
  if [[ -n ${__isoenv_front} && -n ${PATH+x} ]]; then
    PATH=${__isoenv_front}${PATH}
  elif [[ -n ${__isoenv_front} ]]; then
    \builtin export "PATH=${__isoenv_front%:}"
  fi
  __isoenv_summary=''
}

# Put together the record of the cells that are given.
function __isoenv_join() {
  \builtin local IFS=' '
  if [[ $* == *[$'\x1e\x1f']* ]]; then
    \builtin set -- "${@//$'\x1e'/$'\x1e0'}"
    \builtin set -- "${@//$'\x1f'/$'\x1e1'}"
  fi
  IFS=$'\x1f'
  __isoenv_record=$*$'\x1f'
}

# =============================================================================
#
# What people read: one line each, on standard error.
#

function __isoenv_say() {
  ((BASH_SUBSHELL)) || [[ -n ${COMP_LINE-} ]] || \builtin printf '%s\n' "${1//[[:cntrl:]]/?}" >&2
}

# Say $1 once in this shell, and again when $2 is another.
function __isoenv_say_once() {
  [[ ${__isoenv_said} != *$'\x1f'"$1"$'\x1e'"${2-}"$'\x1f'* ]] || \builtin return 0
  __isoenv_said+=$'\x1f'$1$'\x1e'${2-}$'\x1f'
  __isoenv_say "$1"
}

function __isoenv_say_loaded() {
  [[ ${ISOENV_LOG-} != quiet ]] || \builtin return 0
  [[ ${__isoenv_summary} == "${ISOENV_LOG-}:"* ]] || __isoenv_summarize
  __isoenv_say "isoenv: ${__isoenv_label}${__isoenv_summary#*:}"
}

# Put what was loaded into few words, as `isoenv.envdiff.summary` does.
function __isoenv_summarize() {
  \builtin local __isoenv_sign __isoenv_name __isoenv_names __isoenv_last='' __isoenv_changes=''
  for __isoenv_sign in + '~' -; do
    __isoenv_names=()
    for __isoenv_name in "${__isoenv_notes[@]}"; do
      # Entries of one list are noted one after another.
      if [[ ${__isoenv_name} == "${__isoenv_sign}"* && ${__isoenv_name} != "${__isoenv_last}" ]]; then
        __isoenv_names+=("${__isoenv_name}")
        __isoenv_last=${__isoenv_name}
      fi
    done
    if [[ ${ISOENV_LOG-} == diff ]] ||
      { [[ ${__isoenv_sign} != + ]] && ((${#__isoenv_names[@]} <= 3)); }; then
      __isoenv_sort
      for __isoenv_name in "${__isoenv_names[@]}"; do
        __isoenv_changes+=" ${__isoenv_name}"
      done
    elif ((${#__isoenv_names[@]})); then
      __isoenv_changes+=" ${__isoenv_sign}${#__isoenv_names[@]}"
    fi
  done
  __isoenv_summary=${ISOENV_LOG-}:${__isoenv_changes:+ (${__isoenv_changes# })}
}

function __isoenv_sort() {
  \builtin local __isoenv_end __isoenv_index
  for ((__isoenv_end = 1; __isoenv_end < ${#__isoenv_names[@]}; __isoenv_end++)); do
    __isoenv_name=${__isoenv_names[__isoenv_end]}
    for ((__isoenv_index = __isoenv_end; __isoenv_index > 0; __isoenv_index--)); do
      [ "${__isoenv_name}" \< "${__isoenv_names[__isoenv_index - 1]}" ] || \builtin break
      __isoenv_names[__isoenv_index]=${__isoenv_names[__isoenv_index - 1]}
    done
    __isoenv_names[__isoenv_index]=${__isoenv_name}
  done
}

# =============================================================================
#
# The command. Three words of it are about this shell; any other may have mended what failed.
#

function isoenv() {
  # In an agent's snapshot of a shell's functions there is nothing that this could act on.
  if [[ -z ${__isoenv_command-} ]]; then
    \builtin command isoenv "$@"
    \builtin return
  fi
  \builtin local "__isoenv_status=0"
  case $#:${1-} in
    1:on)
      __isoenv_off='' __isoenv_failed=''
      _isoenv_hook
      ;;
    1:off)
      __isoenv_off=1
      __isoenv_change
      ;;
    1:reload)
      \builtin local "__isoenv_again=1"
      __isoenv_off='' __isoenv_failed='' __isoenv_base=''
      _isoenv_hook
      [ "${__isoenv_base}" = "${__isoenv_here}" ]
      ;;
    *:doctor)
      # It cannot see from its own process how often the hook stands in the prompt.
      \builtin local "__isoenv_rest=${PROMPT_COMMAND[*]-}" "__isoenv_times=0"
      while [[ ${__isoenv_rest} == *_isoenv_hook* ]]; do
        __isoenv_rest=${__isoenv_rest#*_isoenv_hook}
        __isoenv_times=$((__isoenv_times + 1))
      done
      __ISOENV_HOOK=bash:${__isoenv_times} "${__isoenv_command}" "$@"
      ;;
    *)
      "${__isoenv_command}" "$@" || __isoenv_status=$?
      __isoenv_failed=''
      \builtin return "${__isoenv_status}"
      ;;
  esac
}

# =============================================================================
#
# To begin: eval "$(isoenv hook bash)", in ~/.bashrc.
#

# Without a subscript it is the first element, where PROMPT_COMMAND is an array, as it may be since
# bash 5.1.
# shellcheck disable=SC2128,SC2178
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  \builtin printf '%s\n' "isoenv: bash ${BASH_VERSION} is too old for the hook: it takes 4.4" >&2
elif [[ ${PROMPT_COMMAND[*]-} != *_isoenv_hook* ]]; then
  PROMPT_COMMAND=_isoenv_hook${PROMPT_COMMAND:+;${PROMPT_COMMAND}}
fi
