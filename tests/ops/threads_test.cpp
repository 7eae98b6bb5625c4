// Results and gradients are the same bits for 1, 2 and 3 threads, at sizes that are cut into
// several ranges whose ends fall inside of vectors.

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/io/zip.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/decayed_sums.hpp"
#include "ppma/ops/dropout.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/pool.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/ops/softmax.hpp"
#include "sanitized.hpp"
#include "thread_counts.hpp"

using namespace ppma;

namespace {

using In = const std::vector<Tensor>&;

struct Line {
  const char* name;
  std::vector<Shape> shapes;
  std::function<Tensor(In)> f;
};

// The bytes of the result and of all gradients.
std::vector<std::vector<char>> bytes(const Line& line, DType dtype) {
  Rng rng(11);
  std::vector<Tensor> in;
  for (const Shape& s : line.shapes)
    in.push_back(Tensor::randn(s, rng, 1, dtype).requires_grad(true));
  const Tensor y = line.f(in);
  if (y.requires_grad()) y.backward(Tensor::randn(y.shape(), rng, 1, dtype));
  std::vector<std::vector<char>> all;
  const auto add = [&all](const Tensor& t) {
    const char* p = static_cast<const char*>(t.raw());
    all.emplace_back(p, p + t.bytes());
  };
  add(y);
  for (const Tensor& t : in)
    if (t.grad().defined()) add(t.grad());
  return all;
}

}  // namespace

TEST_CASE("results do not depend on the number of threads") {
  if (brief()) return;  // one thread there, and the table of operations has these in small
  const Shape big{3, 37, 41, 19};  // 86 thousand elements
  Tensor labels = Tensor::empty({4001}, DType::int64);
  for (i64 i = 0; i < 4001; ++i) labels.data<i64>()[i] = i % 7 == 0 ? -100 : i % 23;
  const std::vector<Line> lines = {
      {"gelu", {big}, [](In x) { return gelu(x[0]); }},
      {"add", {big, big}, [](In x) { return add(x[0], x[1]); }},
      {"mul by row", {big, {19}}, [](In x) { return mul(x[0], x[1]); }},
      {"mul by sample", {big, {3, 1, 1, 1}}, [](In x) { return mul(x[0], x[1]); }},
      {"mul by column", {big, {3, 37, 41, 1}}, [](In x) { return mul(x[0], x[1]); }},
      {"mul by number", {big, {}}, [](In x) { return mul(x[0], x[1]); }},
      {"decayed sums",
       {{2, 99, 5, 19}, {2, 99, 5, 19}, {2, 99, 5, 21}, {2, 99, 5}},
       [](In x) { return decayed_sums(x[0], x[1], x[2], neg(square(x[3]))); }},
      {"decayed sums, keys of all heads",
       {{2, 399, 1, 19}, {2, 399, 1, 19}, {2, 399, 9, 21}, {2, 399, 9}},
       [](In x) { return decayed_sums(x[0], x[1], x[2], neg(square(x[3]))); }},
      {"sum", {{300001}}, [](In x) { return sum(x[0]); }},
      {"sum of rows", {{30001, 7}}, [](In x) { return sum(x[0], {0}); }},
      {"sum of columns", {{7, 30001}}, [](In x) { return sum(x[0], {1}); }},
      {"sum of outer axes",
       {big},
       [](In x) {
         return sum(x[0], {0, 2});
       }},
      {"sum of inner axes",
       {big},
       [](In x) {
         return sum(x[0], {1, 3});
       }},
      {"max", {big}, [](In x) { return max(x[0], 1).values; }},
      {"permute",
       {big},
       [](In x) {
         return permute(x[0], {3, 1, 0, 2});
       }},
      {"concat",
       {big, big},
       [](In x) {
         return concat({x[0], x[1]}, 2);
       }},
      {"softmax", {{3001, 67}}, [](In x) { return softmax(x[0]); }},
      {"log_softmax", {{3001, 67}}, [](In x) { return log_softmax(x[0]); }},
      {"cumsum", {big}, [](In x) { return cumsum(x[0], 2); }},
      {"decay_scan",
       {{40, 67, 33}, {40, 67, 33}},
       [](In x) { return decay_scan(x[0], neg(square(x[1])), 1); }},
      {"decay_scan of vectors",
       {{40, 67, 33}, {40, 67, 1}},
       [](In x) { return decay_scan(x[0], neg(square(x[1])), 1); }},
      {"cross_entropy",
       {{4001, 23}},
       [labels](In x) { return cross_entropy(x[0], labels, {0.1}); }},
      {"avg_pool2d",
       {big},
       [](In x) {
         return avg_pool2d(x[0], {3, 2, 1});
       }},
      {"max_pool2d",
       {{3, 37, 41, 131}},
       [](In x) {
         return max_pool2d(x[0], {3, 2, 1});
       }},
      {"adaptive_avg_pool2d", {big}, [](In x) { return adaptive_avg_pool2d(x[0], 6, 7); }},
      {"dropout",
       {big},
       [](In x) {
         Rng r(3);
         return dropout(x[0], 0.3, r);
       }},
  };
  const int before = threads();
  const std::vector<int> counts = thread_counts({2, 3});
  for (const Line& line : lines) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      INFO(line.name << " in " << to_string(dtype));
      set_threads(1);
      const auto one = bytes(line, dtype);
      CHECK(one.size() == line.shapes.size() + 1);
      for (const int t : counts) {
        set_threads(t);
        CHECK(bytes(line, dtype) == one);
      }
      set_threads(before);
    }
  }
}
