#!/usr/bin/env bash
# Runs of all tasks whose processes are killed (kill -9) at random moments, again and again, and resumed until they are done:
# weights, log and files must be those of a run that nobody stopped, bit for bit. tests/tool/run_folder_test.cpp kills at chosen
# changes of files; here the moment is any.
#   tests/kill_often.sh KILLS [SEED]   runs until so many processes were killed; the seed gives the moments, default 1
#   PPMA_TOOL                          the tool (default: build/release/ppma)
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kills=${1:?how many processes are to be killed: tests/kill_often.sh KILLS [SEED]} RANDOM=${2:-1}
tool=$(realpath -e "${PPMA_TOOL:-$root/build/release/ppma}") || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
. "$root/tests/tries.sh"

options() {  # of a task: 12 steps in 3 epochs, saved after each of them
  local all="--task $1 --threads 1 --images 8 --test-images 2 --batch 2 --epochs 3 --save-every-minutes 1e-9"
  case $1 in
    classify) echo "$all --size 32 --warmup 1" ;;
    segment) echo "$all --size 32 --warmup-iterations 1 --evaluate-every 1" ;;
    detect) echo "$all --size 64 --warmup-iterations 1 --evaluate-every 1 --boxes-only" ;;
  esac
}
# What a run leaves: its files' names, and the contents of those that another run repeats; of the logs all but the seconds.
state() {
  (cd "$1" && find . | sort && sha1sum best.safetensors last.safetensors train.json config.json &&
    sed -E 's/"(data_)?seconds":[^,}]*//g' log.jsonl &&
    awk -F, '{ for (i = 1; i <= NF; ++i) { if (NR == 1) time[i] = $i ~ /seconds/; if (!time[i]) printf "%s,", $i } print "" }' log.csv)
}
microseconds() { echo "${EPOCHREALTIME/[.,]/}"; }

# Trains, and is killed after a random part of the time that a whole run takes; 137, or how it ended before.
train_and_kill() {
  "$tool" train "$@" > said 2>&1 &
  local process=$! after=$(((RANDOM * 32768 + RANDOM) % longest))
  sleep "$((after / 1000000)).$(printf '%06d' $((after % 1000000)))"
  kill -KILL $process
  wait $process
}
# One run to its end; two in three of its processes are killed.
killed_run() {  # task
  local status began_anew first=1
  rm -rf run
  while true; do
    began_anew=1
    if [[ -e run/last.safetensors ]]; then
      began_anew=0
      "$tool" info run/last.safetensors > /dev/null || return 1  # whole, whenever it is read
      set -- "$1" --threads 1 --resume run
    else
      # shellcheck disable=SC2046  # several words
      set -- "$1" $(options "$1") --out run
    fi
    if ((first || RANDOM % 3 < 2)); then train_and_kill "${@:2}"; else "$tool" train "${@:2}" > said 2>&1; fi
    status=$? first=0
    if [[ $status == 0 ]]; then break; fi
    if [[ $status != 137 ]]; then cat said; return 1; fi
    killed=$((killed + 1)) resumed=$((resumed + !began_anew))
  done
  state run > now && diff "whole_$1" now
}

killed=0 resumed=0
declare -A time_of
for task in classify segment detect; do
  began=$(microseconds)
  # shellcheck disable=SC2046
  { "$tool" train $(options $task) --out whole > said 2>&1 && state whole > whole_$task; } || { cat said; exit 1; }
  time_of[$task]=$(($(microseconds) - began))
  rm -rf whole
done
while ((killed < kills && bad == 0)); do
  for task in classify segment detect; do
    longest=${time_of[$task]}
    try "$task" killed_run $task > line
    ((bad == 0)) || cat line
  done
done
echo "$killed processes killed, $resumed of which had resumed a run that was killed before"
finish
