#!/usr/bin/env bash
# The same small network on CIFAR-10 with three masks, same budget and seed: cifar10.sh DATA [OUT]
set -euo pipefail
data=$1 out=${2:-runs/cifar10}
tool="$(dirname "${BASH_SOURCE[0]}")/../build/release/ppma"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"
mkdir -p "$out"
cat > "$out/network.json" << 'JSON'
{"embed_dims": [32, 64, 128, 192], "depths": [2, 2, 4, 1], "num_heads": [2, 4, 4, 6], "mlp_ratios": [3, 3, 3, 3],
 "chunkwise_recurrents": [false, false, false, false], "layerscales": [false, false, false, false],
 "projection": 256, "num_classes": 10, "drop_path_rate": 0.1}
JSON
for mask in polyline none rmt; do
  "$tool" train --data cifar10 --data-dir "$data" --config "$out/network.json" --mask "$mask" --epochs 24 --batch 64 \
    --lr 0.002 --warmup 2 --ema 0.998 --evaluate-every 4 --workers 1 --threads 2 --seed 1 --out "$out/$mask" --overwrite
done
for mask in polyline none rmt; do echo "$mask: $(tail -n 1 "$out/$mask/log.jsonl")"; done
