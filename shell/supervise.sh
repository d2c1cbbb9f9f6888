#!/bin/sh
# The parent of a service: it waits, so that the exit status is known, and is small.
#
# Usage: supervise.sh EXIT-FILE COMMAND…
#
# Standard input is the lock of the service. It goes on to COMMAND alone, which writes the record
# before it lets go of the lock: nobody starts a second one while the first is on its way.

# Ignored, not handled: a handler would end the wait. COMMAND takes none of this over.
trap '' HUP INT QUIT TERM

file=$1
shift
exec 3<&0 </dev/null
"$@" <&3 3<&- &
# No "Terminated" of the shell's own at the end of the log.
exec 3<&- >/dev/null 2>&1
umask 077
# No file system is kept from being unmounted.
cd /
wait "$!"
status=$?
# ksh counts signals from 256.
[ "$status" -le 256 ] || status=$((status - 128))
# On the clock that processes have their start times from; nothing where the kernel has no such file.
uptime=
if [ -r /proc/uptime ]; then read -r uptime _ </proc/uptime; fi
# By builtins alone, so that it is written even where no process can be started any more.
printf '%s %s\n' "$status" "$uptime" >"$file"
