# What is to be done, doing it, and the record by which any shell can undo it.
#
# The record is cells that end with US, four for each variable: its name, what it was (unset,
# exported, set in the shell alone) with what we did (= or -), its old value, its new one.
# Where a managed variable is touched, local names begin with __isoenv_: a plain one would hide a
# managed one of that name. And what a match is to set is declared: it would be that one, too.

# What a generated __isoenv_load calls. It only says what there is to do, for it may be done.

function __isoenv_set
    set -a __isoenv_steps $argv[1]
    set -a __isoenv_signs =
    set -a __isoenv_values $argv[2]
end

function __isoenv_unset
    set -a __isoenv_steps $argv[1]
    set -a __isoenv_signs -
    set -a __isoenv_values ''
end

function __isoenv_prepend
    set -p __isoenv_entries $argv[1]
end

function __isoenv_plan --description 'Take down what is to be done'
    set -g __isoenv_steps
    set -g __isoenv_signs
    set -g __isoenv_values
    set -g --path __isoenv_entries
    __isoenv_load
end

function __isoenv_is_done --description 'Is the plan what the record says, whoever did it?'
    test "$__isoenv_loaded_root" = "$__isoenv_root"
    and test "$__isoenv_loaded_entries" = "$__isoenv_entries"
    and test "$__isoenv_names" = "$__isoenv_steps"
    and test "$__isoenv_did" = "$__isoenv_signs"
    or return 1
    # A login shell may have set its PATH anew, below a record that says otherwise.
    for entry in $__isoenv_entries
        builtin contains -- $entry $PATH
        or return 1
    end
    set -l values $__isoenv_values
    for value in $__isoenv_new
        test "x$value" = "x$values[1]"
        or return 1
        set -e values[1]
    end
end

function __isoenv_do --description 'Do what is planned, each step recorded before it is taken'
    set -g __isoenv_added
    set -g __isoenv_changed
    set -g __isoenv_removed
    set -g __isoenv_rest
    set -g __isoenv_refused
    set -g __isoenv_universal
    set -g __isoenv_cells "$__isoenv_root" "$__isoenv_entries" $__isoenv_values
    __isoenv_escape __isoenv_cells
    set -gx __ISOENV_UNDO \x1f'r='\x1f\x1f$__isoenv_cells[1]\x1f
    if set -q __isoenv_entries[1]
        set -gx __ISOENV_UNDO $__ISOENV_UNDO'PATH'\x1f'p='\x1f\x1f$__isoenv_cells[2]\x1f
        set __isoenv_changed PATH
        set -gx PATH $__isoenv_entries $PATH
    end
    set -e __isoenv_cells[1..2]
    for __isoenv_name in $__isoenv_steps
        if set -q $__isoenv_name
            __isoenv_replace $__isoenv_name
        else
            set -gx __ISOENV_UNDO \
                $__ISOENV_UNDO$__isoenv_name\x1f'u'$__isoenv_signs[1]\x1f\x1f$__isoenv_cells[1]\x1f
            if test $__isoenv_signs[1] = =
                # A success would leave the status as it was.
                builtin true
                set -gx $__isoenv_name $__isoenv_values[1]
                and set -a __isoenv_added $__isoenv_name
                or set -a __isoenv_refused $__isoenv_name
            end
        end
        set -e __isoenv_signs[1] __isoenv_values[1] __isoenv_cells[1]
    end 2>/dev/null
    for name in $__isoenv_refused
        __isoenv_say_once "isoenv: $name is read-only in this fish: left alone"
    end
end

function __isoenv_replace --description 'Take the next step, on a variable that there is' \
    --argument-names __isoenv_name
    set -l __isoenv_was s
    set -l __isoenv_news __isoenv_added
    set -g __isoenv_before ''
    if set -qx $__isoenv_name
        set __isoenv_was x
        set __isoenv_before "$$__isoenv_name"
        set __isoenv_news __isoenv_changed
    end
    # A list is to come back as a list, and what children do not see stays out of the record.
    if test $__isoenv_was = s
        or set -q {$__isoenv_name}[2]
        set -g __isoenv_old_$__isoenv_name $$__isoenv_name
    else
        set -eg __isoenv_old_$__isoenv_name
    end
    set -qg $__isoenv_name
    or set -a __isoenv_universal $__isoenv_name
    if test $__isoenv_was$__isoenv_signs[1] = x-
        set __isoenv_news __isoenv_removed
    else if test $__isoenv_signs[1] = -
        or test "x$__isoenv_before" = "x$__isoenv_values[1]"
        or string match --quiet --regex -- '^(?:__)?ISOENV_' $__isoenv_name
        set __isoenv_news __isoenv_rest
    end
    __isoenv_escape __isoenv_before
    set -gx __ISOENV_UNDO $__ISOENV_UNDO$__isoenv_name\x1f$__isoenv_was$__isoenv_signs[1]\x1f$__isoenv_before\x1f$__isoenv_cells[1]\x1f

    if test $__isoenv_signs[1] = -
        set -eg $__isoenv_name
        # One that is universal belongs to every fish of the user: it can only be made empty here.
        set -q $__isoenv_name
        and set -gx $__isoenv_name
        builtin true
    else
        builtin true
        set -gx $__isoenv_name $__isoenv_values[1]
    end
    or set __isoenv_news __isoenv_refused
    set -ga $__isoenv_news $__isoenv_name
end

function __isoenv_undo --description 'Take back what was read, but for what the user has changed'
    for __isoenv_name in $__isoenv_names
        if test $__isoenv_was[1]$__isoenv_did[1] != u=
            __isoenv_restore $__isoenv_name $__isoenv_was[1] $__isoenv_did[1] \
                "$__isoenv_old[1]" "$__isoenv_new[1]"
        else if test "x$$__isoenv_name" = "x$__isoenv_new[1]"
            or string match --quiet -- '__ISOENV_*' $__isoenv_name
            set -eg $__isoenv_name
        end
        set -e __isoenv_was[1] __isoenv_did[1] __isoenv_old[1] __isoenv_new[1]
    end
    for entry in $__isoenv_loaded_entries
        if test "$PATH[1]" = $entry
            set -e PATH[1]
        else if set -l index (builtin contains --index -- $entry $PATH)
            set -e PATH[$index]
        end
    end
    set -eg __ISOENV_UNDO
    set -g __isoenv_pinned
end

function __isoenv_restore --description 'Give a variable back what it had, if it is still ours' \
    --argument-names __isoenv_name __isoenv_was __isoenv_did __isoenv_before __isoenv_new
    set -l __isoenv_kept __isoenv_old_$__isoenv_name
    if set -q $__isoenv_kept
        set __isoenv_before $$__isoenv_kept
        set -eg $__isoenv_kept
    else if test $__isoenv_was = s
        # Its value is in the shell that loaded, and that is not this one.
        set __isoenv_was u
    end
    if test $__isoenv_did = -
        set -q {$__isoenv_name}[1]
        and return
    else if not set -q $__isoenv_name
        or test "x$$__isoenv_name" != "x$__isoenv_new"
        return
    end
    set -eg $__isoenv_name
    # One that is universal shows again by itself: a copy would hide what becomes of it.
    if test $__isoenv_was = u
        or builtin contains -- $__isoenv_name $__isoenv_universal
        or begin
            set -q $__isoenv_name
            and test "x$$__isoenv_name" = "x$__isoenv_before"
        end
        return
    else if test $__isoenv_was = s
        set -gu $__isoenv_name $__isoenv_before
    else
        set -gx $__isoenv_name $__isoenv_before
    end
end

function __isoenv_read_record --description 'Take the record apart: empty lists where there is none'
    set -g __isoenv_names
    set -g __isoenv_was
    set -g __isoenv_did
    set -g __isoenv_old
    set -g __isoenv_new
    set -g __isoenv_loaded_root
    set -g __isoenv_loaded_entries
    test -n "$__ISOENV_UNDO"
    or return 0
    if not string match --quiet --regex -- '(?xs)\A
            \x1f r= \x1f \x1f (?<__isoenv_loaded_root>[^\x1f]*+) \x1f
            (?: (?: [A-Za-z_][A-Za-z0-9_]*+ \x1f [uxs][=-] \x1f [^\x1f]*+ | PATH \x1f p= \x1f )
                \x1f [^\x1f]*+ \x1f )*+ \z' "$__ISOENV_UNDO"
        __isoenv_say 'isoenv: the undo record is damaged: what was loaded before stays as it is'
        set -eg __ISOENV_UNDO
        return
    end
    # A name is followed by a kind, and nothing else is: no match begins inside of an entry.
    string match --quiet --all --regex -- '(?xs) (?<__isoenv_names>[A-Za-z_][A-Za-z0-9_]*+) \x1f
        (?<__isoenv_was>[uxs]) (?<__isoenv_did>[=-]) \x1f
        (?<__isoenv_old>[^\x1f]*+) \x1f (?<__isoenv_new>[^\x1f]*+) \x1f' $__ISOENV_UNDO
    # Of several entries for PATH, the last was put in front of the others.
    set -l entries
    string match --quiet --all --regex -- \
        '(?xs) \x1f PATH \x1f p= \x1f \x1f (?<entries>[^\x1f]*+)' $__ISOENV_UNDO
    set -g --path __isoenv_loaded_entries $entries[-1..1]
    if string match --quiet -- '*'\x1e'*' $__ISOENV_UNDO
        __isoenv_unescape __isoenv_loaded_root __isoenv_loaded_entries __isoenv_old __isoenv_new
    end
end

function __isoenv_escape --argument-names list --description 'RS is the escape in a cell'
    string match --quiet --regex -- '[\x1e\x1f]' $$list
    or return 0
    set -l cells
    set -l plain
    set -l special
    set -l after
    for rest in $$list
        set -l cell ''
        while string match --quiet --regex -- \
                '(?s)\A(?<plain>[^\x1e\x1f]*+)(?<special>.)(?<after>.*)\z' "$rest"
            test $special = \x1e
            and set cell $cell$plain\x1e'0'
            or set cell $cell$plain\x1e'1'
            set rest $after
        end
        set -a cells $cell$rest
    end
    set -g $list $cells
end

function __isoenv_unescape --description 'Take the escapes out of the lists of these names'
    set -l plain
    set -l code
    set -l after
    for list in $argv
        set -l cells
        for rest in $$list
            set -l cell ''
            while string match --quiet --regex -- \
                    '(?s)\A(?<plain>[^\x1e]*+)\x1e(?<code>.)(?<after>.*)\z' "$rest"
                test $code = 0
                and set cell $cell$plain\x1e
                or set cell $cell$plain\x1f
                set rest $after
            end
            set -a cells $cell$rest
        end
        set -g $list $cells
    end
end
