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

  # An agent gives its shells a snapshot of these functions, perhaps when there is no file any more.
  function cd() {
    { \builtin local - && \builtin set +aeukxET; } 2>/dev/null
    [[ -n ${__isoenv_agent_base+x} || -z ${__isoenv_agent_file-} ]] || __isoenv_agent_look
    \builtin cd "$@" || \builtin return
    [[ -z ${__isoenv_agent_file-} ]] || __isoenv_agent_follow cd "$@"
  }
  function pushd() {
    { \builtin local - && \builtin set +aeukxET; } 2>/dev/null
    [[ -n ${__isoenv_agent_base+x} || -z ${__isoenv_agent_file-} ]] || __isoenv_agent_look
    \builtin pushd "$@" || \builtin return
    [[ -z ${__isoenv_agent_file-} ]] || __isoenv_agent_follow pushd "$@"
  }
  function popd() {
    { \builtin local - && \builtin set +aeukxET; } 2>/dev/null
    [[ -n ${__isoenv_agent_base+x} || -z ${__isoenv_agent_file-} ]] || __isoenv_agent_look
    \builtin popd "$@" || \builtin return
    [[ -z ${__isoenv_agent_file-} ]] || __isoenv_agent_follow popd "$@"
  }

  # Note where the environment is settled for: the checkout before the first step out of it.
  function __isoenv_agent_look() {
    \builtin local __isoenv_agent_found
    __isoenv_agent_find || :
    __isoenv_agent_base=${__isoenv_agent_found}
  }

  # In another checkout take its environment. Outside of any all stays. The last word of the command
  # line is what $_ is to be.
  function __isoenv_agent_follow() {
    \builtin local __isoenv_agent_found
    if __isoenv_agent_find && [ "${__isoenv_agent_found}" != "${__isoenv_agent_base}" ]; then
      __isoenv_agent_base=${__isoenv_agent_found}
      # shellcheck source=/dev/null # this one
      [[ ! -r ${__isoenv_agent_file} ]] || \builtin source "${__isoenv_agent_file}"
    fi
    \builtin : "$@"
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
