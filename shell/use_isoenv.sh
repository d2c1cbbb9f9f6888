# shellcheck shell=bash
# isoenv in direnv. `isoenv direnv install` has put this file here, `isoenv direnv uninstall` takes
# it away again.

# Usage: use isoenv [<instance>]
#
# Loads the environment of this checkout's instance, or of the one named by number or name, and
# loads it anew when isoenv.toml, its trust or its slot changes.
#
# Example:
#
#    use isoenv
#    use isoenv 2
#
use_isoenv() {
  direnv_version 2.21 || exit
  local statements status=0
  statements=$(@ISOENV@ export bash --no-diff --watch "$@") || status=$?
  if [[ $status -ne 0 ]]; then
    # direnv forgets what a failed .envrc has watched.
    log_error "use isoenv failed: \`direnv reload\` tries again"
    # Not `return`: what follows in the .envrc must not run with another instance's ports.
    exit "$status"
  fi
  eval "$statements"
}
