// What tests/platforms.sh compiles for each platform: tensors and threads, some operations and
// their gradients, attention, a small network, files and, where there are any, sockets. Prints a
// number for each; they are the same everywhere but for rounding.
#include <cstdio>
#include <string>
#include <thread>

#include "ppma/core/parallel.hpp"
#include "ppma/heads/rpn.hpp"
#include "ppma/io/file.hpp"
#include "ppma/io/pickle_value.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/train/folder_lock.hpp"
#if !defined(__EMSCRIPTEN__)
#include "ppma/parallel/socket.hpp"
#endif

using namespace ppma;

namespace {

void say(const char* name, double value) {
  std::printf("%s %.9g\n", name, value);
  std::fflush(stdout);
}
double weight(const Tensor& t) { return sum(square(cast(t.detach(), DType::f64))).item(); }

Tensor random(const Shape& shape, u64 seed, bool gradient = true) {
  Rng rng(seed);
  Tensor t = Tensor::randn(shape, rng);
  t.requires_grad(gradient);
  return t;
}

void core() {
  std::string message;
  try {
    add(Tensor::ones({2}), Tensor::ones({3}));
  } catch (const Error& e) {
    message = e.what();
  }
  say("error", static_cast<double>(message.find("(2)") != std::string::npos));
  std::vector<double> parts(64);
  parallel_for(64, 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) parts[static_cast<std::size_t>(i)] = static_cast<double>(i);
  });
  double total = 0;
  for (const double p : parts) total += p;
  say("parallel", total);
  say("aligned",
      static_cast<double>(reinterpret_cast<std::uintptr_t>(Tensor::ones({3}).data<float>()) % 64));
}

void operations() {
  Tensor a = random({33, 65}, 1), b = random({65, 17}, 2);
  const Tensor y = softmax(matmul(a, b), 1);
  sum(mul(y, exp(y))).backward();
  say("product", weight(y));
  say("product gradient", weight(a.grad()) + weight(b.grad()));
}

void attention() {
  Tensor q = random({1, 6, 7, 16}, 3), k = random({1, 6, 7, 16}, 4), v = random({1, 6, 7, 16}, 5);
  const Tensor decays = scale(square(random({2, 1, 2, 6, 7}, 6, false)), -1);
  const Tensor whole = whole_attention(q, k, v, 2, decays, Paths::both),
               lines = criss_cross_attention(q, k, v, 2, decays);
  say("whole attention", weight(whole));
  say("criss-cross attention", weight(lines));
  sum(square(add(whole, lines))).backward();
  say("attention gradient", weight(q.grad()) + weight(k.grad()) + weight(v.grad()));
}

void network() {
  Ppma model(ppma_nano());
  Context training{true, Rng(9)};
  const Tensor logits = model.forward(random({2, 3, 32, 32}, 8, false), training);
  say("network", weight(logits));
  const std::vector<i64> labels{1, 2};
  cross_entropy(logits, Tensor::from(labels, {2})).backward();
  double all = 0;
  for (const Field& f : named_parameters(model))
    if (f.tensor.grad().defined()) all += weight(f.tensor.grad());
  say("network gradient", all);
}

void files() {
  write_file("platform.txt", std::string_view("whole or not at all"));
  say("file", static_cast<double>(read_file("platform.txt").size()));
  std::remove("platform.txt");
  detail::FolderLock lock, second;
  const bool has_locks = lock.take(".");
  bool refused = false;
  try {
    second.take(".");
  } catch (const Error&) {
    refused = true;
  }
  say("lock", !has_locks || refused);
}

void sockets() {
#if !defined(__EMSCRIPTEN__)
  const Socket listening = listen_on("127.0.0.1", 29517);
  std::thread other([] {
    const Socket s = connect_to("127.0.0.1", 29517, 10);
    s.set_up();
    const double number = 42;
    s.send(&number, sizeof number);
    s.shut();
  });
  double number = 0;
  {
    const Socket s = listening.accepted();
    s.receive(&number, sizeof number);
  }
  other.join();
  say("socket", number);
#endif
}

}  // namespace

int main() {
  core();
  operations();
  attention();
  network();
  files();
  sockets();
}
