# shellcheck shell=bash disable=SC2154,SC2317 # set, and called, by what is ready
# isoenv for bash without a prompt, the short way: where the environment is loaded already, where
# nothing is and none of its variables is set, and where another checkout of the same project is
# loaded. What fails here, with nothing changed, is for env.sh, which every sh understands.

__isoenv_at_once() {
  \builtin local __isoenv_root __isoenv_label __isoenv_message __isoenv_use __isoenv_direnv
  \builtin local __isoenv_shape='' __isoenv_front='' __isoenv_fresh=''
  \builtin local __isoenv_base=- __isoenv_from='' __isoenv_theirs='' __isoenv_path
  \builtin local "__isoenv_up=${PWD-}" "__isoenv_ready=${ISOENV_STATE_DIR:-@STATE@}/t"
  [[ ${__isoenv_up} == /* && ${__isoenv_ready} == /* ]] || \builtin return 1
  [[ -z ${DIRENV_DIR-} ]] || \builtin return 1
  __isoenv_up=${__isoenv_up%/}
  while [[ -n ${__isoenv_up} ]]; do
    [[ ! -h ${__isoenv_up} ]] || \builtin return 1
    if [[ ${__isoenv_base} == - ]] &&
      [[ -e ${__isoenv_up}/.git || -h ${__isoenv_up}/.git ||
        -e ${__isoenv_up}/isoenv.toml || -h ${__isoenv_up}/isoenv.toml ]]; then
      __isoenv_base=${__isoenv_up}
    fi
    __isoenv_up=${__isoenv_up%/*}
  done
  if [[ ${__isoenv_base} == - ]]; then
    [[ ! -e /.git && ! -e /isoenv.toml ]]
    \builtin return
  fi
  if [[ -n ${__ISOENV_UNDO-} && ${ISOENV_ROOT-} != "${__isoenv_base}" ]]; then
    __isoenv_find "${ISOENV_ROOT-}" __isoenv_is_loaded || \builtin return 1
    __isoenv_from=${__isoenv_shape} __isoenv_theirs=${__isoenv_front}
  fi
  __isoenv_find "${__isoenv_base}" __isoenv_is_right || \builtin return 1
  [[ ${__isoenv_use} == all && -z ${__isoenv_message} && -n ${__isoenv_shape} ]] ||
    \builtin return 1
  [ "${__ISOENV_UNDO-}" != "${__isoenv_fresh}" ] || \builtin return 0
  if [[ -n ${__ISOENV_UNDO-} ]]; then
    [ "${__isoenv_from}" = "${__isoenv_shape}" ] || \builtin return 1
  else
    __isoenv_is_clear || \builtin return 1
  fi
  __isoenv_path=${PATH-}
  if [[ -n ${__isoenv_front} ]]; then
    [ "${PATH@a}" = x ] || \builtin return 1
    __isoenv_path=${__isoenv_front}${PATH#"${__isoenv_theirs}"}
  fi
  __isoenv_take ${__isoenv_front:+"PATH=${__isoenv_path}"}
}

# Source what is ready for a checkout, for the instance of `exec NUMBER` first, until it passes.
__isoenv_find() {
  \builtin local __isoenv_file
  for __isoenv_file in ${__ISOENV_PIN:+"@slot.${__ISOENV_PIN%%:*}/@env.bash"} @env.bash; do
    __isoenv_file=${__isoenv_ready}$1/${__isoenv_file}
    # Not another user's code: after sudo HOME may still be theirs.
    # shellcheck source=/dev/null # written by isoenv/generated.py
    [[ -O ${__isoenv_file} ]] && \builtin source "${__isoenv_file}" && "$2" && \builtin return
  done
  \builtin return 1
}

__isoenv_is_loaded() { [ "${__ISOENV_UNDO}" = "${__isoenv_fresh}" ] && __isoenv_is_intact; }
__isoenv_is_right() { ! __isoenv_stale; }

if __isoenv_at_once 2>/dev/null; then __isoenv_done=1; else __isoenv_done=; fi
unset -f __isoenv_at_once __isoenv_find __isoenv_is_clear __isoenv_is_intact __isoenv_is_loaded \
  __isoenv_is_right __isoenv_load __isoenv_stale __isoenv_take
