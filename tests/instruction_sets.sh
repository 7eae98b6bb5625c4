#!/usr/bin/env bash
# The compiled library's instruction sets keep to themselves: instruction_sets.sh ROOT libppma.a
# What is not of one set has no instruction of AVX, and no set shows a function or virtual table that the linker could
# take for everybody.
set -u
export LC_ALL=C
root=$(realpath "$1") library=$(realpath "$2") good=0 bad=0 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
check() { if "${@:2}"; then echo "ok: $1"; good=$((good + 1)); else echo "FAILED: $1"; bad=$((bad + 1)); fi; }

ar x "$library"
sets=() others=()
for object in *.o; do
  if [[ $object =~ ^(avx2|avx512|sse2)\.o$ ]]; then sets+=("$object"); else others+=("$object"); fi
done
if [[ ${#sets[@]} -eq 0 ]]; then echo "skipped: one instruction set only"; exit 0; fi

# An object's code in one section each: of its thousands, one a function, objdump reads the object's symbols for each.
mkdir code
echo 'SECTIONS { .text : { *(.text .text.*) } }' > code/script
for object in *.o; do
  ld -r --force-group-allocation -T code/script "$object" -o "code/$object" || { echo "FAILED: ld of $object"; exit 1; }
done

# Instructions with a register of AVX: %ymm, %zmm, or %xmm behind a mnemonic that begins with v.
disassembled() { (cd code && objdump -d --no-show-raw-insn "$@"); }
avx() { disassembled "$@" | grep -E '%[yz]mm|^ *[0-9a-f]+:[[:space:]]+v[a-z0-9]+ .*%xmm|\{%k[0-7]\}'; }
has_avx() { avx "$@" 2> /dev/null | head -1 | grep -q .; }
no_avx() { if avx "$@" | head -5 | grep .; then return 1; fi; }

check "no AVX outside of the sets" no_avx "${others[@]}"
for object in "${sets[@]}"; do
  set=${object%.o}
  # Global functions end in the set's name; weak ones and virtual tables are hidden; no code runs at load.
  only_own() { if nm --defined-only "$object" | awk -v end="[.]$set\$" '($2 == "T" && $3 !~ end) || $2 ~ /^[Wi]$/ || ($2 ~ /^[VuDBRC]$/ && $3 ~ /^_ZTV/)' | head -5 | grep .; then return 1; fi; }
  own() { nm "$object" | grep -q " T .*\.$set\$"; }
  quiet() { if objdump -h "$object" | grep -E ' \.(init_array|ctors)'; then return 1; fi; }
  check "$set: shows its own functions alone" only_own
  check "$set: has functions" own
  check "$set: runs nothing when it is loaded" quiet
  if [[ $set == sse2 ]]; then check "$set: no AVX" no_avx "$object"; else check "$set: AVX" has_avx "$object"; fi
done
if [[ " ${sets[*]} " == *" avx2.o "* ]]; then
  no_zmm() { if disassembled avx2.o | grep -m 5 -E '%zmm|\{%k'; then return 1; fi; }
  check "avx2: no AVX-512" no_zmm
fi

# A program's own operation, compiled for wider registers than the library may have: no kernel of it is called the same.
cat > own.cpp << 'CPP'
#include <ppma/ops/elementwise.hpp>
struct Square {
  static constexpr ppma::Keep keep = ppma::Keep::input;
  template <class V> V f(V x) const { return x * x; }
  template <class V> V df(V x) const { return x + x; }
};
ppma::Tensor square(const ppma::Tensor& x) { return ppma::elementwise("square", x, Square{}); }
CPP
own_names() {  # flags, width
  g++ -std=c++20 -O0 $1 -DPPMA_HEADER_ONLY=0 -I"$root/include" -c own.cpp -o own.o &&
    nm -C own.o | grep -q "ppma::compiled::kernels::$2::map<float" &&
    if nm -C own.o | grep -E '^[0-9a-f]+ [WVu] .*(kernels::|lanes<)' | grep -v "::$2::" | head -5 | grep .; then return 1; fi
}
check "a kernel compiled for AVX2 has it in its name" own_names "-mavx2 -mfma" v32
check "a kernel compiled for SSE2 has it in its name" own_names -msse2 v16

# What join_sets.sh refuses (docs/instruction-sets.md): each would run a set's code for everybody, or split a variable.
refused() {  # what it says, source
  printf '%s\n' "$2" > refused.cpp && g++ -O1 -fPIC -fno-gnu-unique -c refused.cpp -o refused.o &&
    ! LD=ld NM=nm OBJCOPY=objcopy OBJDUMP=objdump "$root/src/join_sets.sh" join avx2 joined.o refused.o > log 2>&1 && grep -q "$1" log
}
check "a constructor at load is refused" refused "has a constructor" '#include <vector>
std::vector<int> numbers(3, 1);'
check "a variable in each set is refused" refused "counter in .data" 'int counter = 3; int count() { return ++counter; }'
check "a shared pointer to a function is refused" refused "would exist once" 'inline int one() { return 1; }
template <class T> struct Pointer { static int (*value)(); };
template <class T> int (*Pointer<T>::value)() = &one;
int call() { return Pointer<int>::value(); }'

echo "$good passed, $bad failed"
[[ $bad -eq 0 ]]
