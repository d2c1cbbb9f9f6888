# The events, and the command.

function _isoenv_hook --on-event fish_prompt
    set -g __isoenv_editing
    set -q __isoenv_off
    or __isoenv_update
end

function __isoenv_at_command --on-event fish_preexec
    set -eg __isoenv_editing
end

# A key may change the directory before the command line is entered. Not so a completion, and
# between the commands of one line the environment stays what it is, unless ISOENV_HOOK_CD is set.
function __isoenv_at_cd --on-variable PWD
    set -q __isoenv_off
    or status is-command-substitution
    and return
    if set -q __isoenv_editing
        or test -n "$ISOENV_HOOK_CD"
        __isoenv_update
    end
end

function isoenv --description 'Give every checkout its own ports, names and directories'
    switch "$argv"
        case on reload
            set -eg __isoenv_off
            __isoenv_locate
            if test "$argv" = reload
                __isoenv_enter anew
            else
                __isoenv_enter
            end
        case off
            set -g __isoenv_off
            set -g __isoenv_base unknown
            __isoenv_leave
        case doctor 'doctor *'
            # An event handler is registered once, however often it is defined.
            __ISOENV_HOOK=fish:1 $__isoenv_command $argv
        case '*'
            $__isoenv_command $argv
    end
end

if string match --quiet --regex -- '^(?:[012]|3\.[0-5])\.' $version
    __isoenv_say "isoenv: fish $version is too old for the hook: 3.6 is the first that can"
    functions --erase _isoenv_hook __isoenv_at_command __isoenv_at_cd
end
