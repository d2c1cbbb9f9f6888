# isoenv, for fish 3.6 and newer: the way from a directory to its environment, and back.
#
# A base is a directory that holds a .git or an isoenv.toml; here it ends with a slash. What is
# ready for one is fish code in the state directory. It defines __isoenv_stale and __isoenv_load,
# and a few facts: __isoenv_root, __isoenv_label, __isoenv_message, __isoenv_use, __isoenv_direnv.
#
# No builtin of use here starts a process, but a command substitution costs twenty times a test:
# there is none on the way of a prompt.

set -g __isoenv_command @ISOENV@
set -g __isoenv_default_state @STATE@

# The base that the environment is settled for, empty outside of all, and the one that failed.
set -g __isoenv_base unknown
set -g __isoenv_failed none
# What `exec 3 fish` began with stays outside of any checkout too, until something else is loaded.
set -g __isoenv_pinned
test -n "$__ISOENV_UNDO"
and set -g __isoenv_pinned $__ISOENV_PIN

function __isoenv_update --description 'Bring the environment in line with the directory'
    if test "$PWD" != "$__isoenv_pwd"
        or test $__isoenv_nearer
        or not test $__isoenv_marks
        __isoenv_locate
    end
    if test "$__isoenv_here" = "$__isoenv_base"
        test -n "$__isoenv_here"
        and __isoenv_stale
        or return 0
    else if test "$__isoenv_here" = "$__isoenv_failed"
        __isoenv_read_input
        test "$__isoenv_input" = "$__isoenv_failed_input"
        and return 1
    end
    __isoenv_enter
end

function __isoenv_locate --description 'Find the base of $PWD, and the tests that it still is'
    set -g __isoenv_pwd $PWD
    __isoenv_climb $PWD
    set -l links -n ''
    for directory in $__isoenv_ancestors
        set -a links -o -L $directory
    end
    if test $links
        __isoenv_climb (builtin path resolve --null-out -- . | string split0)
    end

    set -g __isoenv_here ''
    set -g __isoenv_marks -n outside
    set -g __isoenv_nearer -n ''
    for directory in $__isoenv_ancestors
        set -l marks -e $directory/.git -o -e $directory/isoenv.toml
        if test $marks
            set -g __isoenv_here $directory/
            set -g __isoenv_marks $marks
            break
        end
        set -a __isoenv_nearer -o $marks
    end
end

function __isoenv_climb --argument-names directory --description 'List a directory and all above'
    test "$directory" = /
    and set directory ''
    set -g __isoenv_ancestors $directory
    while string match --quiet --regex -- '(?s)^(?<directory>.*)/[^/]+\z' "$directory"
        set -a __isoenv_ancestors $directory
    end
end

function __isoenv_enter --description 'Load the environment of where we are, or leave the last'
    # One that was deleted under the shell says nothing about where the user wants to be.
    test -d "$PWD"
    or return 1
    # direnv first takes back what it has loaded elsewhere: after us it would take ours with it.
    if test -n "$DIRENV_DIR"
        and test (string sub --length (string length -- $DIRENV_DIR) -- $PWD/) != (string sub --start 2 -- $DIRENV_DIR)/
        and builtin functions --query __direnv_export_eval
        __direnv_export_eval
    end
    # What ends half-way is made good at the next prompt.
    set -g __isoenv_base unknown
    if test -z "$__isoenv_here"
        test -n "$__isoenv_pinned"
        or __isoenv_leave
    else if test "$argv" != anew
        and __isoenv_fetch
        or __isoenv_compute
        __isoenv_settle $argv
    else
        return 1
    end
    set -g __isoenv_failed none
    set -g __isoenv_base $__isoenv_here
    return 0
end

function __isoenv_fetch --description 'Take what is ready, if it is fresh'
    set -l state $__isoenv_default_state
    test -n "$ISOENV_STATE_DIR"
    and set state $ISOENV_STATE_DIR
    # A relative one would be looked for in the checkout, where anybody could have put it.
    string match --quiet -- '/*' $state
    or return 1
    set -l directory $state/t$__isoenv_here
    set -l slot
    if string match --quiet --regex -- '^(?<slot>[0-9]+):' "$__ISOENV_PIN"
        __isoenv_source $directory@slot.$slot/@env.fish
        and return 0
    end
    __isoenv_source $directory@env.fish
end

function __isoenv_source --argument-names file
    test -f $file -a -r $file
    or return 1
    set -eg __isoenv_root
    builtin source $file 2>/dev/null
    set -q __isoenv_root
    and not __isoenv_stale_once_undone
end

function __isoenv_stale_once_undone --description 'Ask as if the present environment were undone'
    # Below our HOME is the user's.
    if string match --quiet --regex -- "(?xs) \x1f HOME \x1f [uxs][=-] \x1f (?<__isoenv_old>[^\x1f]*+)
        \x1f (?<__isoenv_new>[^\x1f]*+) \x1f" "$__ISOENV_UNDO"
        test "$HOME" = "$__isoenv_new"
        and set -fx HOME $__isoenv_old
    end
    # Below our slot may be one that the user asks for. The copies are this function's own, and
    # those that it calls see them because they are exported.
    if string match --quiet --regex -- '^[0-9]+\z' "$__ISOENV_SLOT"
        set -l __isoenv_slot $__ISOENV_SLOT
        string match --quiet --all --regex -- "(?xs) (?<__isoenv_names>[A-Za-z_][A-Za-z0-9_]*+) \x1f
            [uxs]= \x1f (?<__isoenv_old>[^\x1f]*+) \x1f $__isoenv_slot \x1f" "$__ISOENV_UNDO"
        for __isoenv_name in $__isoenv_names
            test "$$__isoenv_name" = $__isoenv_slot
            and set -fx $__isoenv_name $__isoenv_old[1]
            set -e __isoenv_old[1]
        end
    end
    __isoenv_stale
end

function __isoenv_compute --description 'Have it computed: the one way that starts a process'
    # Before it, so that what is interrupted is not begun again at every prompt.
    __isoenv_read_input
    set -g __isoenv_failed_input $__isoenv_input
    set -g __isoenv_failed $__isoenv_here
    if not test -x $__isoenv_command
        __isoenv_say_once "isoenv: $__isoenv_command is gone: install it again, or `isoenv off`"
        return 1
    end
    set -eg __isoenv_root
    $__isoenv_command export fish --hook </dev/null | builtin source -
    set -q __isoenv_root
end

function __isoenv_read_input --description 'Read what a failure or a message is about'
    set -g __isoenv_input
    for file in $__isoenv_here{isoenv,isoenv.local}.toml
        set -l content ''
        test -f $file -a -r $file
        and read --null content <$file
        set -a __isoenv_input "$content"
    end
end

function __isoenv_settle --description 'Make what was sourced the environment, if it is not yet'
    if test -n "$__isoenv_message"
        __isoenv_read_input
        __isoenv_say_once $__isoenv_message "$__isoenv_input"
    end
    if test "$__isoenv_use" != all
        or begin
            test -n "$__isoenv_direnv"
            and builtin functions --query __direnv_export_eval
        end
        __isoenv_leave
        return
    end
    # What direnv has loaded, direnv takes back.
    if set -q DIRENV_DIR
        and not set -q __ISOENV_UNDO
        and test "$ISOENV_ROOT" = "$__isoenv_root"
        return
    end
    __isoenv_plan
    __isoenv_read_record
    if not __isoenv_is_done
        __isoenv_undo
        __isoenv_do
        __isoenv_announce
    else if test "$argv" = anew
        # The user asks for it: what the user has changed is set again.
        __isoenv_undo
        __isoenv_do
    end
end

function __isoenv_leave --description 'Undo what is loaded, without anything in its place'
    set -l label "$ISOENV_PROJECT/$ISOENV_INSTANCE $ISOENV_NAME"
    __isoenv_read_record
    test -n "$__ISOENV_UNDO"
    or return 0
    __isoenv_undo
    test "$ISOENV_LOG" = diff
    and __isoenv_say "isoenv: left $label"
    return 0
end

# Lines for people, on standard error.

function __isoenv_announce --description 'Say what was loaded: (+14 ~PATH)'
    test "$ISOENV_LOG" = quiet
    and return
    # Where it is empty, no output of a command would be split into lines.
    set -fx IFS \n
    set -l added (string match --invert --regex -- '^(?:__)?ISOENV_' ISOENV_ $__isoenv_added)
    set -l words
    switch "$ISOENV_LOG"
        case diff
            set words (__isoenv_sort + $added) (__isoenv_sort '~' $__isoenv_changed) \
                (__isoenv_sort - $__isoenv_removed)
        case '*'
            set words (__isoenv_count + $added) (__isoenv_sort_few '~' $__isoenv_changed) \
                (__isoenv_sort_few - $__isoenv_removed)
    end
    if set -q words[1]
        __isoenv_say "isoenv: $__isoenv_label ($words)"
    else
        __isoenv_say "isoenv: $__isoenv_label"
    end
end

function __isoenv_sort --argument-names sign
    set -q argv[2]
    and builtin printf "$sign%s\n" (builtin path sort -- $argv[2..])
end

function __isoenv_sort_few
    # Of more than three the number says enough.
    if set -q argv[5]
        __isoenv_count $argv
    else
        __isoenv_sort $argv
    end
end

function __isoenv_count --argument-names sign
    set -q argv[2]
    and builtin printf "$sign%s\n" (builtin count $argv[2..])
end

function __isoenv_say_once --argument-names line about
    status is-command-substitution
    and return
    builtin contains -- "$line $about" $__isoenv_said
    and return
    set -ga __isoenv_said "$line $about"
    __isoenv_say $line
end

function __isoenv_say --argument-names line
    status is-command-substitution
    or string replace --all --regex '[[:cntrl:]]' '?' -- $line >&2
end
