#!/usr/bin/env bash
# Makes one library from objects that were compiled from the same sources for several instruction sets
# (docs/instruction-sets.md says why). With NM, OBJCOPY and LD, the GNU binutils, in the environment:
#
#   join_sets.sh join SET OUT.o OBJECT...     one object of all that were compiled for SET, which shows nothing but their
#                                             functions, each with ".SET" behind its name; OUT.o.functions lists these
#   join_sets.sh stubs OUT.s SET=LIST...      assembly: each function's own name, a jump to the chosen set's
set -euo pipefail
export LC_ALL=C
what=$1 out=$2
shift 2

stop() { echo "join_sets.sh: $*" >&2; exit 1; }

join() {
  local set=$out; out=$1; shift
  # Inline functions and templates are in groups, of which the linker keeps one for all objects by name: that of this
  # set for everybody. So they are made ordinary parts of this object, which nobody else sees.
  "$LD" -r --force-group-allocation -o "$out.joined" "$@"

  # Run when the program is loaded, on every processor.
  if "$OBJDUMP" -h "$out.joined" | grep -E '\.(init_array|ctors)'; then
    stop "a variable at namespace scope has a constructor (see above), which would run code for $set on every" \
      "processor; make it a static variable of a function"
  fi

  "$NM" --format=sysv "$out.joined" | tr -d ' ' | awk -F'|' -v out="$out" -v set="$set" '
    BEGIN { printf "" > out ".functions"; printf "" > out ".hidden" }
    $3 == "T" { print $1 > out ".functions" }
    $3 == "W" { print $1 > out ".hidden" }
    # Type information stays one for all (exceptions are caught by it), and so do variables of inline functions, which
    # the rest of the library may use, too. Constants and virtual tables go with the code.
    $3 ~ /^[Vu]$/ && $1 !~ /^_ZT[IS]/ {
      if ($7 ~ /^\.(t?bss|tdata|data(\.rel\.local)?\.DW\.ref)/ || $7 ~ /^\.data(\._Z|$)/) next
      if ($7 ~ /^\.(rodata|data\.rel\.ro)/) print $1 > out ".hidden"
      else { print "  " $1 " in " $7; bad = 1 }
    }
    $3 ~ /^[ABCDGRSi]$/ { print "  " $1 " in " $7; bad = 1 }
    END { exit bad }' >&2 ||
    stop "the variables above would exist once for each instruction set, or hold pointers to functions of $set;" \
      "make them static variables of a function, or define them in a source that is compiled once"
  sort -o "$out.functions" "$out.functions"
  awk -v set="$set" '{ print $1, $1 "." set }' "$out.functions" > "$out.renamed"
  "$OBJCOPY" --localize-symbols="$out.hidden" --redefine-syms="$out.renamed" --remove-section=.llvm_addrsig \
    "$out.joined" "$out"
  rm "$out.joined" "$out.hidden" "$out.renamed"
}

stubs() {
  local first=${1#*=} set list
  for set in "$@"; do
    list=${set#*=}
    cmp -s "$first" "$list" || { diff "$first" "$list" >&2 || true; stop "${set%%=*} and ${1%%=*} define different functions"; }
  done
  {
    echo '# Made by src/join_sets.sh.'
    echo '.text'
    awk '{ printf ".globl %s\n.type %s, @function\n.p2align 4\n%s:\n.cfi_startproc\nendbr64\njmp *ppma_chosen+%d(%%rip)\n" \
                  ".cfi_endproc\n.size %s, .-%s\n", $1, $1, $1, 8 * (NR - 1), $1, $1 }' "$first"
    echo '.section .data.rel.ro,"aw"'
    echo '.p2align 3'
    for set in "$@"; do
      printf '.globl ppma_set_%s\n.hidden ppma_set_%s\nppma_set_%s:\n' "${set%%=*}" "${set%%=*}" "${set%%=*}"
      awk -v set="${set%%=*}" '{ print ".quad " $1 "." set }' "${set#*=}"
    done
    printf '.globl ppma_functions\n.hidden ppma_functions\nppma_functions: .quad %d\n' "$(wc -l < "$first")"
    # Before the constructors of static variables, which may call the library.
    echo '.section .init_array.00101,"aw",@init_array'
    echo '.p2align 3'
    echo '.quad ppma_choose'
    echo '.bss'
    printf '.globl ppma_chosen\n.hidden ppma_chosen\n.p2align 3\nppma_chosen: .zero %d\n' $((8 * $(wc -l < "$first")))
    echo '.section .note.GNU-stack,"",@progbits'
  } > "$out"
}

"$what" "$@"
