#!/usr/bin/env bash
# run-unit.sh UNIT PIPE: starts a unit whose output goes to PIPE and prints that output. It ends when the unit ends,
# with the unit's exit status. units.ts runs it on a host whose process 1 is systemd.
set -uo pipefail
unit=$1 pipe=$2
mkdir -p "${pipe%/*}"
rm -f "$pipe"
mkfifo "$pipe"
# this shell holds the pipe open for writing, since the reader would end whenever the unit has no process
# shellcheck disable=SC2094 # both ends of one pipe are wanted
exec 3<>"$pipe" 4<"$pipe"
cat <&4 3>&- &
exec 4<&-
systemctl start --wait "$unit" 3>&- || :
exec 3>&-
wait
# with the codes 2 and 3 a signal has ended the unit, and the status is the number of the signal
case $(systemctl show --property=ExecMainCode --value "$unit") in
2 | 3) signal=128 ;;
*) signal=0 ;;
esac
exit $((signal + $(systemctl show --property=ExecMainStatus --value "$unit")))
