// What the op table does with a line; see op_case.hpp.

#include "op_cases/op_case.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "distance.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/tensor/grad_check.hpp"

namespace op_cases {

namespace {

/// All cases that op_values.py wrote, by name.
const std::map<std::string, nlohmann::json>& references() {
  static const std::map<std::string, nlohmann::json> all = [] {
    const auto path = std::filesystem::path(__FILE__).parent_path().parent_path() / "reference" /
                      "op_values.json";
    std::ifstream file(path);
    REQUIRE(file.good());
    std::map<std::string, nlohmann::json> by_name;
    for (const auto& c : nlohmann::json::parse(file)) by_name[c.at("name").get<std::string>()] = c;
    return by_name;
  }();
  return all;
}

// Rounded as Python rounds it: a fused multiply-add would make other inputs on other machines.
double product(double a, double b) {
  volatile double p = a * b;
  return p;
}

/// Input k of a case: integers as listed, or numbers spread over [low, high) by the golden ratio,
/// as in op_values.py.
Tensor input(const nlohmann::json& spec, std::size_t k) {
  const Shape shape(spec.at("shape").get<std::vector<i64>>());
  if (spec.contains("int")) return Tensor::from(spec.at("int").get<std::vector<i64>>(), shape);
  const double low = spec.at("low").get<double>(), high = spec.at("high").get<double>();
  Tensor t = Tensor::empty(shape, DType::f64);
  for (i64 i = 0; i < t.numel(); ++i) {
    const double u = product(static_cast<double>(i + 1), 0.6180339887498949) +
                     product(static_cast<double>(k), 0.37);
    t.data<double>()[i] = low + (high - low) * (u - std::floor(u));
  }
  return t;
}

double largest(const std::vector<double>& v) {
  double m = 0;
  for (const double x : v) m = std::max(m, std::fabs(x));
  return m;
}

/// Elementwise within `epsilons` of the dtype's machine epsilon times the largest expected number:
/// sums of a few dozen terms, each rounded a few times.
void check_close(const std::string& what, const Tensor& got, const std::vector<double>& expected,
                 double epsilons) {
  REQUIRE(got.defined());
  const std::vector<double> values = got.to_vector<double>();
  REQUIRE(values.size() == expected.size());
  const double epsilon = got.dtype() == DType::f32 ? 0x1p-23 : 0x1p-52;
  const double tolerance = epsilons * epsilon * largest(expected);
  std::size_t worst = 0;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!(std::fabs(values[i] - expected[i]) <= std::fabs(values[worst] - expected[worst])))
      worst = i;
  if (values.empty()) return;
  INFO(what << ", worst at element " << worst << ": got " << values[worst] << ", expected "
            << expected[worst]);
  CHECK(std::fabs(values[worst] - expected[worst]) <= tolerance);
}

/// What op_values.py would have written of a plain function: gradients of sum_i cos(1.7 i + 0.3)
/// y_i by differences of fourth order.
nlohmann::json reference_of(const Plain& p) {
  nlohmann::json r{{"shape", p.shape}};
  Lists x;
  for (const PlainInput& in : p.inputs) {
    r["inputs"].push_back({{"shape", in.shape}, {"low", in.low}, {"high", in.high}});
    x.push_back(input(r["inputs"].back(), x.size()).to_vector<double>());
  }
  r["y"] = p.f(x);
  const auto weighed = [&] {
    double sum = 0;
    std::size_t i = 0;
    for (const double y : p.f(x)) sum += y * std::cos(1.7 * static_cast<double>(i++) + 0.3);
    return sum;
  };
  for (std::vector<double>& list : x) {
    std::vector<double> gradient;
    for (double& value : list) {
      const double before = value, h = 1e-3;
      const auto at = [&](double step) {
        value = before + step * h;
        return weighed();
      };
      const double slope = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h);
      value = before;
      gradient.push_back(slope);
    }
    r["gradients"].push_back(gradient);
  }
  return r;
}

/// The same elements, read-only and in memory that is aligned for no vector register.
Tensor elsewhere(const Tensor& t) {
  const auto memory =
      std::make_shared<std::vector<char>>(static_cast<std::size_t>(t.bytes()) + 128);
  const std::size_t step = static_cast<std::size_t>(size_of(t.dtype()));
  char* at = memory->data();
  while (reinterpret_cast<std::uintptr_t>(at) % 64 != step) ++at;
  if (t.numel() > 0) std::memcpy(at, t.raw(), static_cast<std::size_t>(t.bytes()));
  return Tensor::wrap_bytes(at, t.shape(), t.dtype(), Device::cpu, memory, false);
}

/// Values and gradients of one case in one dtype against those in float64 from somewhere else.
void check_values(const OpCase& c, const nlohmann::json& reference, DType dtype) {
  INFO(to_string(dtype));
  std::vector<Tensor> in;
  for (const auto& spec : reference.at("inputs")) {
    const Tensor t = input(spec, in.size());
    in.push_back(elsewhere(is_floating(t.dtype()) ? cast(t, dtype) : t));
    if (is_floating(t.dtype())) in.back().requires_grad(true);
  }
  const Tensor y = c.call(in);
  CHECK(y.shape() == Shape(reference.at("shape").get<std::vector<i64>>()));
  check_close("value", y, reference.at("y").get<std::vector<double>>(), 64);
  if (!reference.contains("gradients")) {
    CHECK_FALSE(y.requires_grad());
    return;
  }
  REQUIRE(y.dtype() == dtype);
  Tensor dy = Tensor::empty(y.shape(), DType::f64);
  for (i64 i = 0; i < dy.numel(); ++i)
    dy.data<double>()[i] = std::cos(product(1.7, static_cast<double>(i)) + 0.3);
  y.backward(cast(dy, dtype));
  // Differences are good to 1e-11 or so.
  const double epsilons = dtype == DType::f64 && c.plain ? 1e-9 * 0x1p52 : 128;
  for (std::size_t k = 0; k < in.size(); ++k) {
    const auto& g = reference.at("gradients").at(k);
    if (!g.is_null())
      check_close("gradient of input " + std::to_string(k), in[k].grad(),
                  g.get<std::vector<double>>(), epsilons);
  }
}

#if PPMA_TEST_GPU
/// One run of a case: its value, and the gradients of the inputs that have one.
std::vector<Tensor> outcome(const OpCase& c, std::vector<Tensor>& in, DType upstream,
                            Device device) {
  for (Tensor& t : in)
    if (is_floating(t.dtype())) t = t.detach(), t.requires_grad(true);
  const Tensor y = c.call(in);
  CHECK(y.device() == device);
  std::vector<Tensor> all{y.detach()};
  if (!y.requires_grad()) return all;
  std::vector<double> cotangent(static_cast<std::size_t>(y.numel()));
  for (std::size_t i = 0; i < cotangent.size(); ++i)
    cotangent[i] = std::cos(product(1.7, static_cast<double>(i)) + 0.3);
  // Rounded as the device's, so that both sides begin with the same numbers.
  Tensor rounded = Tensor::empty(y.shape(), upstream),
         dy = Tensor::empty(y.shape(), y.dtype(), device);
  rounded.copy_from(Tensor::from(cotangent, y.shape()));
  dy.copy_from(rounded);
  y.backward(dy);
  for (const Tensor& t : in) all.push_back(t.requires_grad() ? t.grad() : Tensor());
  return all;
}

/// The GPU in one dtype against the CPU in float64 on the same, rounded inputs; twice, for the same
/// bits.
void check_cuda(const OpCase& c, const nlohmann::json& reference, DType dtype) {
  INFO("on the GPU, " << to_string(dtype));
  std::vector<Tensor> here, there, again;
  for (const auto& spec : reference.at("inputs")) {
    const std::size_t k = here.size();
    Tensor t = input(spec, k);
    if (is_floating(t.dtype())) {
      const bool parameter =
          std::find(c.parameters.begin(), c.parameters.end(), k) != c.parameters.end();
      Tensor rounded = Tensor::empty(t.shape(), parameter ? accumulator_dtype(dtype) : dtype);
      rounded.copy_from(t);
      t.copy_from(rounded);
      there.push_back(rounded.to(Device::cuda));
    } else {
      there.push_back(t.to(Device::cuda));
    }
    again.push_back(there.back());
    here.push_back(t);
  }
  const std::vector<Tensor> expected = outcome(c, here, dtype, Device::cpu);
  const std::vector<Tensor> got = outcome(c, there, dtype, Device::cuda);
  const std::vector<Tensor> repeated = outcome(c, again, dtype, Device::cuda);
  // A few dozen roundings: 64 of the dtype's half units; what is stored in bf16 is rounded once or
  // twice.
  const double tolerance = dtype == DType::f64 ? 0x1p-46 : dtype == DType::f32 ? 0x1p-18 : 0x1p-7;
  REQUIRE(got.size() == expected.size());
  for (std::size_t k = 0; k < got.size(); ++k) {
    INFO((k == 0 ? std::string("value") : "gradient of input " + std::to_string(k - 1)));
    REQUIRE(got[k].defined() == expected[k].defined());
    if (!got[k].defined()) continue;
    CHECK(got[k].shape() == expected[k].shape());
    CHECK(distance(got[k], expected[k]) <= tolerance);
    CHECK(got[k].to_vector<double>() == repeated[k].to_vector<double>());
  }
}
#endif

void check_op(const OpCase& c) {
  const auto found = references().find(c.name);
  INFO(c.name << " must stand in tests/reference/op_values.py, or have a plain function");
  REQUIRE((found != references().end()) != c.plain.has_value());
  const nlohmann::json reference = c.plain ? reference_of(*c.plain) : found->second;
  check_values(c, reference, DType::f64);
  check_values(c, reference, DType::f32);
  if (reference.contains("gradients")) {
    std::vector<Tensor> in;
    for (const auto& spec : reference.at("inputs")) in.push_back(input(spec, in.size()));
    const GradCheck g = grad_check([&](In x) { return c.call(x); }, in);
    INFO(g.report);
    CHECK(g.ok);
  }
#if PPMA_TEST_GPU
  if (!cuda::available()) return;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) try {
      check_cuda(c, reference, dtype);
    } catch (const Error& e) {
      if (std::string(e.what()).find("has no GPU kernel yet") == std::string::npos)
        FAIL_CHECK(e.what());
      std::printf("skipped: %s on the GPU: %s\n", c.name.c_str(), e.what());
      break;
    }
#endif
}

void check_misuse(const OpCase& c) {
  std::string message = "nothing was thrown";
  try {
    c.misuse();
  } catch (const Error& e) {
    message = e.what();
  }
  INFO("expected: " << c.message << "\n     got: " << message);
  CHECK(message.find(c.message) != std::string::npos);
}

}  // namespace

void check_table(const std::vector<OpCase>& table) {
  std::map<std::string, bool> has_misuse;
  for (const OpCase& c : table) {
    DYNAMIC_SECTION(c.name) {
      check_op(c);
      if (c.misuse) check_misuse(c);
    }
    bool& has = has_misuse[c.name.substr(0, c.name.find('/'))];
    has = has || (c.misuse && !c.message.empty());
  }
  for (const auto& op : has_misuse) {
    INFO(op.first << " has no misuse in the table");
    CHECK(op.second);
  }
}

}  // namespace op_cases

namespace {

std::vector<std::string> lines_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace

TEST_CASE("op table: every op of ops/ has a line, and every reference is used") {
  const auto tests = std::filesystem::path(__FILE__).parent_path();
  std::string table;
  for (const auto& file : std::filesystem::directory_iterator(tests))
    for (const std::string& line : lines_of(file.path())) table += line + '\n';
  for (const auto& reference : op_cases::references()) {
    INFO(reference.first << " is in op_values.json, but in no table");
    CHECK(table.find("{\"" + reference.first + "\",") != std::string::npos);
  }
  // Public functions of a header start in the first column with their result: "inline Tensor
  // gelu(const Tensor& x".
  int ops = 0;
  for (const auto& file : std::filesystem::directory_iterator(tests.parent_path().parent_path() /
                                                              "include/ppma/ops")) {
    bool inside_detail = false;
    for (const std::string& line : lines_of(file.path())) {
      if (line.rfind("namespace detail", 0) == 0 || line.rfind("namespace kernels", 0) == 0 ||
          line.rfind("namespace ppma::inline PPMA_ABI::detail", 0) == 0)
        inside_detail = true;
      if (line.rfind("}  // namespace", 0) == 0) inside_detail = false;
      std::size_t begin = 0;
      for (const char* start : {"PPMA_API Tensor ", "PPMA_API Extreme "})
        if (line.rfind(start, 0) == 0) begin = std::string(start).size();
      const std::size_t end = line.find('(');
      if (begin == 0 || inside_detail || end == std::string::npos) continue;
      const std::string name = line.substr(begin, end - begin);
      // Not functions of a tensor; operators have one line together.
      if (name == "drop_path_factors" || name == "rotary_angle" || name.rfind("operator", 0) == 0)
        continue;
      INFO(name << " of " << file.path().filename().string() << " needs a line in tests/op_cases");
      const bool found = table.find("{\"" + name + "\",") != std::string::npos ||
                         table.find("{\"" + name + "/") != std::string::npos;
      CHECK(found);
      ++ops;
    }
  }
  CHECK(ops >= 50);
}
