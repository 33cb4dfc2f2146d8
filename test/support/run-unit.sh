#!/usr/bin/env bash
# run-unit.sh UNIT PIPE: starts a unit whose output goes to PIPE, prints that output, and ends when and as the unit
# ends. For units.ts, on a host whose process 1 is systemd.
set -uo pipefail
unit=$1 pipe=$2
mkdir -p "${pipe%/*}"
rm -f "$pipe"
mkfifo "$pipe"
# a writer for as long as the unit may be without a process, or the reader would be at the end
exec 3<>"$pipe" 4<"$pipe"
cat <&4 3>&- &
exec 4<&-
systemctl start --wait "$unit" 3>&- || :
exec 3>&-
wait
# 2 and 3: by a signal, of which the status is the number
case $(systemctl show --property=ExecMainCode --value "$unit") in
2 | 3) signal=128 ;;
*) signal=0 ;;
esac
exit $((signal + $(systemctl show --property=ExecMainStatus --value "$unit")))
