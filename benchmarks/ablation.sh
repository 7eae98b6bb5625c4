#!/usr/bin/env bash
# The masks of the ablation on one GPU: the same small network, budget and data with each mask, three seeds. Two runs at a
# time share the GPU (more only wait for each other); the throughput comes from `ppma bench --train` of the same network, one mask after the other, alone.
#
#   benchmarks/ablation.sh FOLDER          FOLDER has CIFAR-10's binary files
#
# PPMA (the tool, built with CUDA), MASKS, SEEDS, EPOCHS, JOBS (runs at a time), DTYPE and OUT change the defaults.
set -euo pipefail
[[ $# -eq 1 ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
data=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tool=${PPMA:-build/cuda/ppma} out=${OUT:-runs/ablation} dtype=${DTYPE:-bf16}
read -ra masks <<< "${MASKS:-none rmt cross_scan hilbert v2h polyline}"
read -ra seeds <<< "${SEEDS:-0 1 2}"
[[ -x $tool ]] || { echo "no $tool: build it first (cmake --preset cuda), or name it in PPMA" >&2; exit 1; }
mkdir -p "$out"

declare -A speed
for mask in "${masks[@]}"; do
  speed[$mask]=$("$tool" bench --config benchmarks/cifar10_network.json --mask "$mask" --size 32 --batch 64 --train --device cuda --dtype "$dtype" --json |
    sed 's/.*"images_per_s": *\([0-9.]*\).*/\1/')
done

one() {
  "$tool" train --data cifar10 --data-dir "$data" --config benchmarks/cifar10_network.json --mask "$1" --epochs "${EPOCHS:-24}" --batch 64 --lr 0.002 \
    --warmup 2 --ema 0.998 --evaluate-every 4 --workers 1 --threads 2 --seed "$2" --device cuda --dtype "$dtype" --out "$out/$1-$2" --overwrite \
    > "$out/$1-$2.txt" 2>&1 || echo "failed: $1, seed $2: $(tail -1 "$out/$1-$2.txt")" >&2
}
for seed in "${seeds[@]}"; do
  for mask in "${masks[@]}"; do
    while (($(jobs -rp | wc -l) >= ${JOBS:-2})); do wait -n; done
    one "$mask" "$seed" &
  done
done
wait

printf '| mask | top-1 of the averaged weights, mean | lowest - highest | top-1, last weights, mean | training loss | training, images/s |\n| --- | --- | --- | --- | --- | --- |\n'
for mask in "${masks[@]}"; do
  for seed in "${seeds[@]}"; do tail -qn 1 "$out/$mask-$seed/log.jsonl" 2> /dev/null || true; done | awk -v mask="$mask" -v speed="${speed[$mask]}" '
    function value(key) { return match($0, "\"" key "\":[-+.0-9e]+") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0 : 0 }
    { e = value("test_ema_acc1"); ema += e; acc += value("test_acc1"); loss += value("train_loss"); n++
      if (n == 1 || e < low) low = e; if (n == 1 || e > high) high = e }
    END { if (n) printf "| %s | %.2f %% | %.2f - %.2f | %.2f %% | %.3f | %.0f |\n", mask, ema / n, low, high, acc / n, loss / n, speed; else printf "| %s | no run ended | | | | |\n", mask }'
done
