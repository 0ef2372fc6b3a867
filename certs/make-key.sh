#!/bin/sh
# Makes a host's key by hand, with openssl, in the form that qpipe reads, and prints its fingerprint.
# Usage: certs/make-key.sh DIRECTORY     (the `key` directory of a home; made if it is missing)
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
dir=$1

# qpipe refuses a key that anybody else may read: nothing made here is open to others, ever.
umask 077
mkdir -p "$dir"
if [ -e "$dir/key.pem" ]; then
    echo "$dir/key.pem is there already: a host that changes its key is another host" >&2
    exit 1
fi

# A new name first: an interrupted run leaves no half-written key behind.
draft=$dir/.key.pem.$$
trap 'rm -f "$draft"' EXIT
openssl genpkey -algorithm ed25519 -out "$draft"
ln "$draft" "$dir/key.pem"

hash=$(openssl pkey -in "$dir/key.pem" -pubout -outform DER | openssl dgst -sha256 -binary | base64)
echo "SHA256:${hash%%=*}"
