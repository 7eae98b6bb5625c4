#!/usr/bin/env bash
# CIFAR-10 from scratch on the CPU: the same small network, budget and seed with the polyline mask, without a mask, and
# with RMT's fixed decay. Prints one row for each, with the accuracy after the last epoch (of the weights and of their
# average) and the time it took.
#
#   benchmarks/cifar10.sh FOLDER [MASK...]      FOLDER has CIFAR-10's binary files; masks: polyline none rmt
#
# A run that was interrupted goes on where it stopped. EPOCHS, SIZE, SEED, THREADS and OUT change the defaults.
set -euo pipefail
[[ $# -ge 1 ]] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
data=$(cd "$1" && pwd); shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
masks=("$@"); [[ ${#masks[@]} -gt 0 ]] || masks=(polyline none rmt)
tool=${PPMA:-build/release/ppma} out=${OUT:-runs/cifar10}
[[ -x $tool ]] || { echo "no $tool: build it first (./run build), or name it in PPMA" >&2; exit 1; }
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}

for mask in "${masks[@]}"; do
  if [[ -e $out/$mask/last.safetensors ]]; then
    "$tool" train --resume "$out/$mask" --threads "${THREADS:-0}"
  else
    "$tool" train --data cifar10 --data-dir "$data" --size "${SIZE:-48}" --model ppma_nano --mask "$mask" \
      --epochs "${EPOCHS:-60}" --batch 128 --lr 0.002 --warmup 3 --beta2 0.999 --clip 5 --label-smoothing 0.1 \
      --ema 0.998 --evaluate-every 5 --seed "${SEED:-0}" --threads "${THREADS:-0}" --out "$out/$mask" --overwrite
  fi
done

printf '\n| mask | epochs | top-1 | top-1, averaged weights | training loss | minutes |\n|---|---|---|---|---|---|\n'
for mask in "${masks[@]}"; do
  awk -v mask="$mask" '
    function value(key) { return match($0, "\"" key "\":[-+.0-9e]+") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : "" }
    { seconds += value("seconds"); epochs = value("epoch") + 1; loss = value("train_loss"); acc = value("test_acc1"); ema = value("test_ema_acc1") }
    END { printf "| %s | %d | %.2f %% | %.2f %% | %.3f | %.1f |\n", mask, epochs, acc, ema, loss, seconds / 60 }' "$out/$mask/log.jsonl"
done
