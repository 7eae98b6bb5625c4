#!/usr/bin/env bash
# The sources are as .clang-format has them, and what it may not break (comments) is no longer than 100 columns, but for
# the font and JSON texts of tests.  tests/format.sh [SOURCE]
cd "${1:-$(dirname "$0")/..}" || exit 1
if ! command -v clang-format-14 > /dev/null; then
  echo "skipped: there is no clang-format-14 (apt-get install clang-format-14)"
  echo "0 passed, 0 failed, 1 skipped"
elif grep -rnE '.{101,}' include src examples web --include='*.?pp' --include='*.cuh' | grep -v vis/font.hpp; then
  echo "these lines are longer than 100 columns"
  echo "0 passed, 1 failed"
  exit 1
elif ./run format --check 2>&1 | head -40; [[ ${PIPESTATUS[0]} -eq 0 ]]; then
  echo "1 passed, 0 failed"
else
  echo "run ./run format"
  echo "0 passed, 1 failed"
  exit 1
fi
