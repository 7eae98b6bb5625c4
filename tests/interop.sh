#!/usr/bin/env bash
# Every piece of docs/interop.md compiles and does what it says; TensorBoard reads event files: interop.sh ROOT
#   PPMA_BUILT    a build folder: its library is linked (otherwise header-only)
#   PPMA_PYTHON   a Python with torch and tensorboard (otherwise python3 is tried)
set -u
root=$1 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
. "$root/tests/tries.sh"

# pieces KIND: the document's pieces ```KIND, in 1.KIND, 2.KIND ...
pieces() {
  awk -v kind="$1" -v name="${1// /_}" '$0 == "```" kind { out = ++n "." name; next } /^```/ { out = "" } out { print > out }' \
    "$root/docs/interop.md"
}
kinds=$(sed -n 's/^```\(..*\)/\1/p' "$root/docs/interop.md" | sort -u | paste -sd,)
[[ $kinds == "cpp,cpp mdspan,cpp shared,python" ]] || { echo "FAILED: pieces of a kind that nobody runs: $kinds"; exit 1; }
pieces cpp; pieces "cpp mdspan"; pieces "cpp shared"; pieces python

include="-std=c++20 -Wall -Wextra -I$root/include"
define="" library="" openmp=""
if [[ -n ${PPMA_BUILT:-} ]]; then
  define=-DPPMA_HEADER_ONLY=0 library=$PPMA_BUILT/src/libppma.a
  # as the library was compiled: position independent, with OpenMP where it was found
  nm -u "$library" | grep -q GOMP_ && openmp=-fopenmp
fi
if echo '#include <opencv2/core.hpp>' | g++ -I/usr/include/opencv4 -E -x c++ - > /dev/null 2>&1; then
  opencv="-I/usr/include/opencv4" opencv_library=-lopencv_core
else
  echo "no OpenCV here: its piece meets a stand-in for cv::Mat"
  opencv="-I$root/tests/interop/stub" opencv_library=""
fi

# One program: the includes, then each piece in a block of its own, followed by what must hold.
expect() {
  case $1 in
    1) echo 'must(values[0] == 10);' ;;
    2) echo 'must(image.numel() == 480 * 640 * 3 && image.data<unsigned char>() == frame);' ;;
    3) echo 'must(image.data<unsigned char>() == picture.data && image.dim(1) == 640);' ;;
    4) echo 'must(x.to_vector<float>()[5] == 5 && y.shape() == ppma::Shape{3, 2} && z.data<double>() == m.data());' ;;
    5) echo 'must(same.raw() == std::as_const(t).raw());' ;;
    *) echo '#error "interop.sh does not say what must hold after this piece"' ;;
  esac
}
program() {
  printf '#include <cstdio>\n#include <cstdlib>\n#include <memory>\n#include <span>\n#include <utility>\n#include <vector>\n'
  cat ./[0-9]*.cpp | grep '^#include' | sort -u
  echo 'void must(bool ok) { if (!ok) { std::puts("a piece does not do what the document says"); std::exit(1); } }'
  echo 'int main() {'
  for n in $(seq "$(ls ./[0-9]*.cpp | wc -l)"); do
    echo "{  // piece $n"; grep -v '^#include' "$n.cpp"; expect "$n"; echo '}'
  done
  echo '}'
}
program > pieces.cpp_
run_pieces() { g++ $include $opencv $define $openmp -O0 -x c++ pieces.cpp_ -x none $library $opencv_library -pthread -o pieces && ./pieces; }
try "the pieces of docs/interop.md" run_pieces

mdspan() {
  { grep '^#include' 1.cpp_mdspan; echo '#include <vector>'; echo 'int main() {'; grep -v '^#include' 1.cpp_mdspan
    echo 'return t.to_vector<float>()[5] == 5 && w.data<double>() == values.data() ? 0 : 1; }'; } > mdspan.cc
  g++ ${include/20/23} $define $openmp -O0 mdspan.cc $library -pthread -o mdspan && ./mdspan
}
if echo '#include <mdspan>' | g++ -std=c++23 -E -x c++ - > /dev/null 2>&1; then try "mdspan" mdspan
else skip "no <mdspan> here (g++ 15 has it)"; fi

torch() {
  g++ $include $define $openmp -O0 -fPIC -shared -x c++ 1.cpp_shared -x none $library -pthread -o libshared.so &&
    { cat 1.python; echo 'assert y[1, 2] == 50 and y.data_ptr() == x.data_ptr() and y.shape == (2, 3), y'; } > shared.py &&
    "$python" shared.py ./libshared.so
}
python=${PPMA_PYTHON:-python3}
if "$python" -c 'import torch' 2> /dev/null; then try "PyTorch sees ppma's elements and the other way round" torch
else skip "$python has no torch (PPMA_PYTHON names another)"; fi

events() {
  g++ $include $define $openmp -O0 "$root/tests/interop/events.cpp" $library -pthread -o events && mkdir board && ./events board &&
    "$python" "$root/tests/interop/read_events.py" board 2> board.log || { cat board.log; return 1; }
}
if "$python" -c 'import tensorboard' 2> /dev/null; then try "TensorBoard reads event files, and those of a run that went on" events
else skip "$python has no tensorboard (PPMA_PYTHON names another)"; fi

finish
