#!/usr/bin/env bash
# Two GPUs of this machine, through NCCL: the loss of one process, what they gain in speed, and that a process whose partner dies ends
# with an error. Needs a tool that was built with PPMA_CUDA and PPMA_NCCL.
#   benchmarks/two_gpus.sh build/cuda/ppma
set -uo pipefail
tool=${1:?the tool}; out=$(mktemp -d); port=29600; failed=0
trap 'rm -rf "$out"' EXIT

start() {  # arguments of the tool: two processes, whose numbers are in `process`
  port=$((port + 7))
  for rank in 0 1; do
    RANK=$rank LOCAL_RANK=$rank WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port "$tool" "$@" > "$out/$rank.txt" 2>&1 & process[rank]=$!
  done
}
two() {
  start "$@"
  if ! wait "${process[0]}" || ! wait "${process[1]}"; then echo "FAILED: $*"; cat "$out"/[01].txt; failed=1; fi
}
field() { grep -o "\"$1\": *[0-9.e+-]*" "$2" | tail -1 | sed 's/.*: *//'; }
ratio() { awk "BEGIN {printf \"%.3f\", ${1:-0} / ${2:-1}}"; }  # 0: a run failed, which said so
check() { if awk "BEGIN {exit !($2)}"; then echo "ok      $1"; else echo "FAILED  $1"; failed=1; fi; }

learn=(train --data shapes --images 512 --size 32 --epochs 2 --batch 64 --dtype f32 --device cuda --overwrite)
"$tool" "${learn[@]}" --out "$out/one" > /dev/null || failed=1; two "${learn[@]}" --out "$out/two"
loss=$(field train_loss "$out/one/log.jsonl"); losses=$(field train_loss "$out/two/log.jsonl")
check "loss after two epochs: $loss in one process, $losses in two" "(d = $loss - $losses) < 1e-5 && d > -1e-5"

for task in "classify --batch 128" "segment --batch 16 --size 512"; do
  time=(bench --train --model ppma_tiny --task $task --device cuda --dtype bf16 --repeat 40 --json)
  "$tool" "${time[@]}" > "$out/alone.json" || failed=1; two "${time[@]}"
  alone=$(field images_per_s "$out/alone.json"); together=$(field images_per_s "$out/0.txt")
  echo "        $task: images/s: $alone on one, $together on two: $(ratio "$together" "$alone") times"
done
# A detector makes pictures of its test images and waits for its first batch in every epoch, whatever its length: what 512 images more cost
# is its training.
for images in 256 768; do
  learn=(train --task detect --data shapes --images "$images" --test-images 8 --size 320 --model ppma_tiny --epochs 3 --device cuda
         --dtype bf16 --overwrite)
  "$tool" "${learn[@]}" --batch 8 --out "$out/one" > /dev/null || failed=1; two "${learn[@]}" --batch 16 --out "$out/two"
  one[images]=$(field seconds "$out/one/log.jsonl"); both[images]=$(field seconds "$out/two/log.jsonl")
  echo "        detect, batches of 8 each: an epoch of $images images in s: ${one[images]} on one, ${both[images]} on two:" \
       "$(ratio "${one[images]}" "${both[images]}") times; waited for images: $(field data_seconds "$out/one/log.jsonl")," \
       "$(field data_seconds "$out/two/log.jsonl")"
done
echo "        detect, 512 images more:" \
     "$(awk "BEGIN {printf \"%.3f times\", (${one[768]:-0} - ${one[256]:-0}) / (${both[768]:-2} - ${both[256]:-1})}")"

for dies in 0 1; do
  start train --data shapes --images 4096 --size 64 --epochs 200 --batch 64 --dtype bf16 --device cuda --overwrite --out "$out/long"
  sleep 12; kill -9 "${process[dies]}"; begin=$SECONDS
  timeout 60 tail --pid="${process[1 - dies]}" -f /dev/null || { kill -9 "${process[1 - dies]}"; }
  wait "${process[1 - dies]}"; code=$?; said=$(tail -1 "$out/$((1 - dies)).txt")
  [[ $said == *connection* ]] || code=-1  # it had ended before, of something else
  check "rank $dies died: the other ended after $((SECONDS - begin)) s with code $code: $said" "$code == 1"
done 2> /dev/null
exit $failed
