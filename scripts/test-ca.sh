#!/usr/bin/env bash
# Makes a small CA for tests and for trying things out. Its keys lie in clear in DIR, so it is not for production.
#
#   scripts/test-ca.sh [--days=N | --until=SECONDS | --expired | --not-yet] [--no-san] DIR [NAME[=SAN,SAN...] ...]
#
# Makes DIR/ca.pem (once) and for each NAME a DIR/NAME.pem with its DIR/NAME-key.pem, signed by that CA. A certificate
# is for NAME and for every SAN, names and IP addresses alike:
#
#   scripts/test-ca.sh /etc/ferry/tls alpha=192.0.2.1,localhost,127.0.0.1 beta=192.0.2.2 operator
#
# --days=N     valid for N days (default: 30)
# --until=SECONDS  valid until that time, in seconds since 1970
# --expired    valid until yesterday
# --not-yet    valid from tomorrow on
# --no-san     only a common name, as old certificates have it
set -euo pipefail
umask 077

usage() {
  sed -nE '2,16s/^# ?//p' "$0" >&2
  exit 2
}

days=30
from="-1 hour"
until=""
san=yes
while [[ "${1:-}" == --* ]]; do
  case $1 in
    --days=*)
      days=${1#*=}
      [[ $days =~ ^[0-9]+$ ]] || usage
      ;;
    --until=*)
      until="@${1#*=}"
      [[ $until =~ ^@[0-9]+$ ]] || usage
      ;;
    --expired) from="-2 days" until="-1 day" ;;
    --not-yet) from="+1 day" until="+2 days" ;;
    --no-san) san=no ;;
    *) usage ;;
  esac
  shift
done
[ $# -ge 1 ] || usage
command -v openssl >/dev/null || {
  echo "test-ca: openssl is missing; apt-get install openssl" >&2
  exit 1
}
directory=$1
shift
mkdir -p "$directory"
cd "$directory"

work=$(mktemp -d ./.work.XXXXXX)
trap 'rm -rf "$work"' EXIT

# shellcheck disable=SC2015 # the message is for either failure
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }

key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

if [ ! -f ca.pem ]; then
  key ca-key.pem
  quietly openssl req -x509 -new -key ca-key.pem -days 3650 -subj "/CN=ferry test CA $$-$RANDOM" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$work/ca.pem"
  mv "$work/ca.pem" ca.pem
fi

asn1_time() { date -u -d "$1" +%Y%m%d%H%M%SZ; }

alternative_names() { # NAME SAN …
  local one list=""
  for one in "$@"; do
    if [[ $one =~ ^[0-9.]+$ || $one == *:* ]]; then list+=",IP:$one"; else list+=",DNS:$one"; fi
  done
  echo "${list#,}"
}

certificate() { # NAME[=SAN,…]
  local name=${1%%=*} sans=()
  [[ $1 != *=* ]] || IFS=, read -ra sans <<<"${1#*=}"
  {
    echo "[ca]"
    echo "default_ca = own"
    echo "[own]"
    echo "database = $work/index"
    echo "new_certs_dir = $work"
    echo "default_md = sha256"
    echo "rand_serial = yes"
    echo "unique_subject = no"
    echo "policy = any"
    echo "x509_extensions = leaf"
    echo "[any]"
    echo "commonName = supplied"
    echo "[leaf]"
    echo "basicConstraints = critical,CA:FALSE"
    echo "keyUsage = critical,digitalSignature"
    echo "extendedKeyUsage = serverAuth,clientAuth"
    [ "$san" = no ] || echo "subjectAltName = $(alternative_names "$name" "${sans[@]}")"
  } >"$work/config"
  : >"$work/index"
  key "$work/key.pem"
  quietly openssl req -new -key "$work/key.pem" -subj "/CN=$name" -out "$work/request.pem"
  quietly openssl ca -batch -notext -config "$work/config" -cert ca.pem -keyfile ca-key.pem -in "$work/request.pem" \
    -startdate "$(asn1_time "$from")" -enddate "$(asn1_time "${until:-+$days days}")" -out "$work/certificate.pem"
  # an agent that reads the files between these two commands finds a key that does not fit, says so, and reads again
  mv "$work/key.pem" "$name-key.pem"
  mv "$work/certificate.pem" "$name.pem"
}

for one in "$@"; do certificate "$one"; done
