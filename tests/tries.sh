# shellcheck shell=bash
# What the scripts among the tests share; to be sourced.
#   try NAME COMMAND...   one test: what the command prints is shown where it fails
#   skip WHY              a test that cannot be tried here
#   finish                the closing line; false where something failed
good=0 bad=0 skipped=0

try() {
  if "${@:2}" > log 2>&1; then
    echo "ok: $1"
    good=$((good + 1))
  else
    echo "FAILED: $1"
    if [[ $(wc -l < log) -le 120 ]]; then cat log; else head -60 log; echo "..."; tail -60 log; fi
    bad=$((bad + 1))
  fi
}
skip() {
  echo "skipped: $1"
  skipped=$((skipped + 1))
}
finish() {
  echo "$good passed, $bad failed, $skipped skipped"
  [[ $bad -eq 0 ]]
}
