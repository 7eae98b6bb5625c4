#!/usr/bin/env bash
# What the course promises: a lesson has at most 120 lines, recorded output, a line in docs/course.md and README.md, two
# exercises, and a checked solution of each; ./run lesson lists it, and refuses another.  tests/course.sh [SOURCE]
cd "${1:-$(dirname "$0")/..}" || exit 1
failed=0
say() { echo "$*"; failed=1; }

listed=$(./run lesson)
lessons=0
for lesson in examples/[0-9][0-9]_*.cpp; do
  lessons=$((lessons + 1))
  name=$(basename "$lesson" .cpp)
  number=${name%%_*}
  (( $(wc -l < "$lesson") <= 120 )) || say "$lesson has more than 120 lines"
  [[ -s examples/expected/$name.txt ]] || say "examples/expected/$name.txt is missing"
  grep -qF "$name.cpp)" docs/course.md || say "docs/course.md does not list $name"
  grep -qF "$name.cpp)" README.md || say "README.md does not list $name"
  grep -qE "^$number  [[:alnum:]]" <<< "$listed" || say "./run lesson does not list $number with a title"
  solution=$(sed -nE 's,^// Exercises \((solutions/[0-9_]+\.cpp)\):$,examples/\1,p' "$lesson")
  [[ -s $solution ]] || { say "$lesson: no exercises, or no file of their solutions: \"$solution\""; continue; }
  for exercise in 1 2; do
    grep -qE "^//   $exercise\. " "$lesson" || say "$lesson has no exercise $exercise"
    grep -q "^ok: $number\.$exercise: " "examples/expected/solutions_$(basename "$solution" .cpp).txt" \
      || say "$solution does not solve exercise $exercise of $lesson"
  done
  ! grep -q '\[PICTURE.png\]' "$lesson" || grep -qF "(pictures/lesson_$number.png)" docs/course.md \
    || say "docs/course.md does not show what $name draws"
done
(( lessons == $(wc -l <<< "$listed") )) || say "./run lesson lists other lessons than the $lessons in examples"
message=$(./run lesson 99 2>&1) && say "./run lesson 99 succeeds"
[[ $message == *'"99"'*"01 to $lessons"* ]] || say "./run lesson 99 says: $message"

if [[ $failed -eq 0 ]]; then
  echo "$lessons lessons"
  echo "1 passed, 0 failed"
else
  echo "0 passed, 1 failed"
fi
exit $failed
