#!/usr/bin/env bash
# What sources and pages point to exists: the sections that are cited ("algorithm 1.4": docs/algorithm.md, "recipes 2.1":
# docs/recipes.md), the files and headings that pages link to, the lines of output that docs/questions.md quotes.  tests/citations.sh [SOURCE]
cd "${1:-$(dirname "$0")/..}" || exit 1
failed=0
say() { echo "$*"; failed=1; }

# The sections of a page: "## 1 Title", "### 1.4 Title".
sections() { sed -nE 's/^##+ ([0-9]+(\.[0-9]+)?) .*/\1/p' "docs/$1.md"; }
declare -A exists
for page in algorithm recipes; do
  for section in $(sections $page); do exists["$page $section"]=1; done
done
[[ -n ${exists["algorithm 1.4"]:-} && -n ${exists["recipes 2.1"]:-} ]] || say "docs/algorithm.md, docs/recipes.md: no sections found"

# A citation may go on in the next line of a comment, and name several sections: "algorithm 1.4 to 1.7".
cited=0
while IFS= read -r file; do
  while IFS= read -r citation; do
    page=${citation%% *}
    for section in $(grep -oE '[0-9]+(\.[0-9]+)?' <<< "$citation"); do
      cited=$((cited + 1))
      [[ -n ${exists["$page $section"]:-} ]] || say "$file cites $page $section, which docs/$page.md does not have"
    done
  done < <(sed -E 's,^ *(//+|#|\*) *,,' "$file" | tr '\n' ' ' | tr -s ' ' \
    | grep -oE '\b(algorithm|recipes) [0-9]+(\.[0-9]+)?(((,| and| to)) [0-9]+\.[0-9]+)*')
done < <(grep -rlIE '\b(algorithm|recipes)( [0-9]|$)' include src examples tests benchmarks web docs README.md CONTRIBUTING.md \
  --exclude=citations.sh)
(( cited > 50 )) || say "only $cited citations were found: is this script still right?"
if grep -rnIE '\bspec [0-9]+(\.[0-9]+)?\b' include src examples tests benchmarks docs README.md --exclude=citations.sh; then
  say "these cite a \"spec\" that is no page of this repository"
fi

# A heading as a link names it: small letters, no punctuation, dashes for blanks.
headings() {
  sed -nE 's/^#+ +(.*)$/\1/p' "$1" | tr '[:upper:]' '[:lower:]' | sed -E 's/[^[:alnum:] _-]//g; s/ /-/g'
}
linked=0
for page in README.md CHANGELOG.md CONTRIBUTING.md benchmarks/*.md tests/reference/README.md docs/*.md; do
  while IFS= read -r link; do
    linked=$((linked + 1))
    file=${link%%#*} anchor=
    [[ $link != *"#"* ]] || anchor=${link#*#}
    target=$page
    [[ -z $file ]] || target=$(dirname "$page")/$file
    if [[ ! -e $target ]]; then say "$page links to $link, which is not there"
    elif [[ -n $anchor && $target == *.md ]] && ! headings "$target" | grep -qxF -- "$anchor"; then
      say "$page links to $link: no such heading"
    fi
  done < <(awk '/^```/ { code = !code; next } !code' "$page" | grep -oE '\]\([^)]+\)' | sed -E 's/^\]\(//; s/\)$//' | grep -vE '^(https?|mailto):')
done
(( linked > 100 )) || say "only $linked links were found: is this script still right?"

# What docs/questions.md says that programs print, they print.
quoted=0
while IFS= read -r line; do
  quoted=$((quoted + 1))
  grep -qxF -- "$line" examples/expected/*.txt || say "docs/questions.md quotes \"$line\", which no example prints"
done < <(awk '/^```/ { printed = !code && $0 == "```"; code = !code; next } printed && !/^\$/' docs/questions.md)
(( quoted > 20 )) || say "only $quoted printed lines were found: is this script still right?"

if [[ $failed -eq 0 ]]; then
  echo "$cited citations, $linked links, $quoted printed lines"
  echo "1 passed, 0 failed"
else
  echo "0 passed, 1 failed"
fi
exit $failed
