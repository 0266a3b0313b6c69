#!/bin/sh
# Write deploy/.env: .env.example with a random value behind every empty NAME=. An existing file is left alone.
set -eu
cd "$(dirname "$0")"
if [ -e .env ]; then
  echo "deploy/.env exists: nothing was changed" >&2
  exit 1
fi
umask 077
# 32 random bytes as hexadecimal digits: usable in a URL without escaping.
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
while IFS= read -r line; do
  case $line in
    [A-Z]*=) printf '%s%s\n' "$line" "$(random)" ;;
    *) printf '%s\n' "$line" ;;
  esac
done < .env.example > .env.new
mv .env.new .env
echo "wrote deploy/.env"
