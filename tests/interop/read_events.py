"""What TensorBoard makes of the event files of events.cpp: read_events.py FOLDER"""
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"images": 0, "scalars": 0})
events.Reload()
tags = events.Tags()
assert sorted(tags["scalars"]) == ["test/acc1", "train/loss"], tags
assert tags["images"] == ["decays"], tags
loss = events.Scalars("train/loss")
assert [e.step for e in loss] == list(range(1, 13)), loss  # no step twice
expected = [1 / s for s in range(1, 8)] + [float(s) for s in range(8, 13)]
assert all(abs(e.value - v) < 1e-6 for e, v in zip(loss, expected)), loss
assert [(e.step, e.value) for e in events.Scalars("test/acc1")] == [(12, 93.5)]
image, = events.Images("decays")
assert (image.step, image.width, image.height) == (5, 1, 1) and image.encoded_image_string[:4] == b"\x89PNG"
print("ok")
