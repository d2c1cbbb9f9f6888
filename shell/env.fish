# Where there is no prompt: once, silently, and outside of any checkout nothing.

__isoenv_locate
if test -n "$__isoenv_here"
    __isoenv_enter 2>/dev/null
end
