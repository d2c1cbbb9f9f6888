# shellcheck shell=bash
# isoenv in the one command line that an agent gives to `bash -c`: after `cd ../other &&` the rest of
# it has the environment of ../other. Part of the file that BASH_ENV names in agents' shells, and
# defined in no script. Who has a `cd` of his own keeps it.

if [[ ${BASH_SOURCE[0]-} == /* ]] &&
  ! { \builtin declare -F cd || \builtin declare -F pushd || \builtin declare -F popd; } >/dev/null; then
  # Under `set -a` these would go to children, who read the file themselves.
  case $- in *a*) __isoenv_agent_all=-a && \builtin set +a ;; *) __isoenv_agent_all=+a ;; esac
  \builtin unset -v __isoenv_agent_base
  __isoenv_agent_file=${BASH_SOURCE[0]}

  # An agent gives its shells a snapshot of these three, perhaps when there is no file any more.
  function cd() {
    { \builtin local - && \builtin set +aeukxET; } 2>/dev/null
    [[ -n ${__isoenv_agent_file-} ]] || { \builtin cd "$@" || \builtin return; \builtin return 0; }
    __isoenv_agent_step cd "$@" || \builtin return
  }
  function pushd() {
    { \builtin local - && \builtin set +aeukxET; } 2>/dev/null
    [[ -n ${__isoenv_agent_file-} ]] || { \builtin pushd "$@" || \builtin return; \builtin return 0; }
    __isoenv_agent_step pushd "$@" || \builtin return
  }
  function popd() {
    { \builtin local - && \builtin set +aeukxET; } 2>/dev/null
    [[ -n ${__isoenv_agent_file-} ]] || { \builtin popd "$@" || \builtin return; \builtin return 0; }
    __isoenv_agent_step popd "$@" || \builtin return
  }

  # In another checkout take its environment. Outside of any all stays.
  function __isoenv_agent_step() {
    \builtin local __isoenv_agent_found
    if [[ -z ${__isoenv_agent_base+x} ]]; then
      __isoenv_agent_find || :
      __isoenv_agent_base=${__isoenv_agent_found}
    fi
    \builtin "$@" 2>/dev/null || { __isoenv_agent_complain "$?" "$@" || \builtin return; }
    if __isoenv_agent_find && [ "${__isoenv_agent_found}" != "${__isoenv_agent_base}" ]; then
      __isoenv_agent_base=${__isoenv_agent_found}
      # shellcheck source=/dev/null # this one
      [[ ! -r ${__isoenv_agent_file} ]] || \builtin source "${__isoenv_agent_file}"
    fi
    # Whatever became of the environment, the directory is changed.
    \builtin return 0
  }

  # Fail with a status, and say why in the words that bash has outside of a function.
  function __isoenv_agent_complain() {
    \builtin local __isoenv_agent_status="$1" __isoenv_agent_said
    \builtin shift
    __isoenv_agent_said=$({ \builtin "$@" >/dev/null; } 2>&1)
    __isoenv_agent_said=${__isoenv_agent_said#"${__isoenv_agent_file}: line "*: }
    \builtin printf '%s: line %s: %s\n' "$0" "${BASH_LINENO[2]}" "${__isoenv_agent_said}" >&2
    \builtin return "${__isoenv_agent_status}"
  }

  # Set __isoenv_agent_found to the nearest directory upwards with an entry .git or isoenv.toml.
  function __isoenv_agent_find() {
    \builtin local "__isoenv_agent_up=${PWD%/}" __isoenv_agent_oldpwd __isoenv_agent_had_oldpwd
    while [[ -n ${__isoenv_agent_up} && ! -h ${__isoenv_agent_up} ]]; do
      __isoenv_agent_up=${__isoenv_agent_up%/*}
    done
    __isoenv_agent_found=${PWD%/}
    if [[ -n ${__isoenv_agent_up} ]]; then
      # The physical directory: there and back, which takes no process.
      __isoenv_agent_oldpwd=${OLDPWD-} __isoenv_agent_had_oldpwd=${OLDPWD+x}
      __isoenv_agent_up=${PWD}
      \builtin cd -P . || \builtin return
      __isoenv_agent_found=${PWD%/}
      \builtin cd -L -- "${__isoenv_agent_up}" || :
      OLDPWD=${__isoenv_agent_oldpwd}
      [[ -n ${__isoenv_agent_had_oldpwd} ]] || \builtin unset -v OLDPWD
    fi
    until [[ -e ${__isoenv_agent_found}/.git || -e ${__isoenv_agent_found}/isoenv.toml ]]; do
      [[ -n ${__isoenv_agent_found} ]] || \builtin return
      __isoenv_agent_found=${__isoenv_agent_found%/*}
    done
  }

  \builtin set "${__isoenv_agent_all}"
  \builtin unset -v __isoenv_agent_all
fi
