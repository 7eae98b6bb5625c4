#!/usr/bin/env bash
# The pages about a run of each task in a browser: at 1280 and 400 pixels, light and dark. Needs node and chromium.
# tests/report.sh SOURCE TESTS     TESTS: the program of all tests, one of which writes the page
set -u
root=$(cd "$1" && pwd) tests=$(realpath "$2")
. "$root/tests/tries.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [[ -z $browser ]]; then skip "a report in a browser: no chromium here (Debian: chromium)"
elif ! command -v node > /dev/null; then skip "a report in a browser: no node here (Debian: nodejs)"
else
  written() { PPMA_REPORT_TO="$work" "$tests" "a report is well-formed and whole and asks nothing of the network" && [[ -s detect.html ]]; }
  try "reports are written" written
  try "they read at 1280 and 400 pixels, light and dark, without errors or requests" node "$root/tests/web/report.mjs" "$browser" classify.html segment.html detect.html
fi
finish
