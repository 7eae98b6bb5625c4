#!/usr/bin/env bash
# Doxygen understands every comment, each public function has one, and no page shows a command instead of what it does:
# ./run docs. Nothing where there is no Doxygen.  tests/docs.sh [SOURCE]
cd "${1:-$(dirname "$0")/..}" || exit 1
if ! command -v doxygen > /dev/null; then
  echo "skipped: there is no doxygen (apt-get install doxygen)"
  echo "0 passed, 0 failed, 1 skipped"
elif ./run docs; then
  echo "1 passed, 0 failed"
else
  echo "0 passed, 1 failed"
  exit 1
fi
