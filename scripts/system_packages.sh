#!/usr/bin/env bash
# Installs from the system's package manager what only the tests need, where that is possible.
#   system_packages.sh test-tools        Mosquitto, its clients, Chromium, curl, RabbitMQ: what is missing of them
#   system_packages.sh install NAME...   named Debian packages
# Never fails `test-tools`: what cannot be had is named, and its tests are reported as skipped by name.
# GAPLESS_NO_SYSTEM_PACKAGES=1 installs nothing.
set -euo pipefail

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

# On Debian, mosquitto is in /usr/sbin, which is not on every user's PATH; so on Homebrew.
export PATH="$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/opt/homebrew/bin"

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() {
  [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null
}

# Debian starts a daemon as it installs it. Mosquitto's would take port 1883, which is our own edge's,
# and nobody asked for it to run: policy-rc.d forbids starts while we install, and is put back after.
POLICY=/usr/sbin/policy-rc.d
OURS='# made by gapless while it installs packages'
restore_policy() {
  as_root rm -f "$POLICY"
  if as_root test -e "$POLICY.before-gapless"; then as_root mv "$POLICY.before-gapless" "$POLICY"; fi
}

apt_install() {
  local log status=0
  log=$(mktemp)
  # One of ours is left over from a run that was killed: it is not what to put back.
  if as_root test -e "$POLICY" && ! as_root grep -qF "$OURS" "$POLICY"; then
    as_root mv "$POLICY" "$POLICY.before-gapless"
  fi
  trap restore_policy EXIT
  trap 'exit 130' INT TERM
  printf '#!/bin/sh\n%s\nexit 101\n' "$OURS" | as_root tee "$POLICY" >/dev/null
  as_root chmod 755 "$POLICY"
  {
    as_root apt-get update &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
  } >"$log" 2>&1 </dev/null || status=$?
  restore_policy
  trap - EXIT INT TERM
  if [ "$status" != 0 ]; then
    echo "apt-get could not install $*:" >&2
    tail -n 5 "$log" >&2
  fi
  rm -f "$log"
  return "$status"
}

have_browser() {
  command -v chromium || command -v chromium-browser || command -v google-chrome ||
    [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ] ||
    [ -x "/Applications/Chromium.app/Contents/MacOS/Chromium" ]
}

have_rabbitmq() {
  [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || [ -x /opt/homebrew/sbin/rabbitmq-server ] ||
    [ -x /usr/local/sbin/rabbitmq-server ]
}

missing_tools() { # one Debian package name a line
  command -v mosquitto >/dev/null || echo mosquitto
  command -v mosquitto_pub >/dev/null || echo mosquitto-clients
  have_browser >/dev/null || echo chromium
  command -v curl >/dev/null || echo curl
  have_rabbitmq || echo rabbitmq-server
}

install_tool() {
  if command -v apt-get >/dev/null 2>&1; then
    apt_install "$1"
  elif command -v brew >/dev/null 2>&1; then
    case "$1" in
      mosquitto-clients) brew install --quiet mosquitto ;; # one formula has both; it starts no service
      chromium) brew install --quiet --cask chromium ;;
      rabbitmq-server) brew install --quiet rabbitmq ;;
      *) brew install --quiet "$1" ;;
    esac
  else
    return 1
  fi
}

may_install() {
  [ -z "${GAPLESS_NO_SYSTEM_PACKAGES:-}" ] || return 1
  if command -v apt-get >/dev/null 2>&1; then can_be_root; else command -v brew >/dev/null 2>&1; fi
}

test_tools() {
  local tool marker
  if may_install; then
    for tool in $(missing_tools); do
      say "installing $tool for the tests (a minute or two; it is not started)"
      install_tool "$tool" || true
    done
  fi
  for tool in $(missing_tools); do
    case "$tool" in
      mosquitto) marker=needs_mosquitto ;;
      mosquitto-clients) marker=needs_mosquitto_clients ;;
      chromium) marker=needs_chromium ;;
      rabbitmq-server) marker=needs_rabbitmq ;;
      *) marker=needs_curl ;;
    esac
    say "$tool is missing and cannot be installed from here: tests marked $marker will be skipped"
  done
}

case "${1:-}" in
  test-tools) test_tools ;;
  install)
    shift
    can_be_root && apt_install "$@"
    ;;
  *)
    echo "usage: scripts/system_packages.sh test-tools | install NAME..." >&2
    exit 2
    ;;
esac
