// What the op table does with a line; see op_case.hpp.

#include "op_cases/op_case.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "ppma/ops/layout.hpp"
#include "ppma/tensor/grad_check.hpp"

namespace op_cases {

namespace {

/// All cases that op_values.py wrote, by name.
const std::map<std::string, nlohmann::json>& references() {
  static const std::map<std::string, nlohmann::json> all = [] {
    const auto path = std::filesystem::path(__FILE__).parent_path().parent_path() / "reference" / "op_values.json";
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

/// Input k of a case: integers as listed, or numbers spread over [low, high) by the golden ratio, as in op_values.py.
Tensor input(const nlohmann::json& spec, std::size_t k) {
  const Shape shape(spec.at("shape").get<std::vector<i64>>());
  if (spec.contains("int")) return Tensor::from(spec.at("int").get<std::vector<i64>>(), shape);
  const double low = spec.at("low").get<double>(), high = spec.at("high").get<double>();
  Tensor t = Tensor::empty(shape, DType::f64);
  for (i64 i = 0; i < t.numel(); ++i) {
    const double u = product(static_cast<double>(i + 1), 0.6180339887498949) + product(static_cast<double>(k), 0.37);
    t.data<double>()[i] = low + (high - low) * (u - std::floor(u));
  }
  return t;
}

double largest(const std::vector<double>& v) {
  double m = 0;
  for (const double x : v) m = std::max(m, std::fabs(x));
  return m;
}

/// Elementwise within `epsilons` of the dtype's machine epsilon times the largest expected number: sums of a few dozen
/// terms, each rounded a few times.
void check_close(const std::string& what, const Tensor& got, const std::vector<double>& expected, double epsilons) {
  REQUIRE(got.defined());
  const std::vector<double> values = got.to_vector<double>();
  REQUIRE(values.size() == expected.size());
  const double epsilon = got.dtype() == DType::f32 ? 0x1p-23 : 0x1p-52;
  const double tolerance = epsilons * epsilon * largest(expected);
  std::size_t worst = 0;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!(std::fabs(values[i] - expected[i]) <= std::fabs(values[worst] - expected[worst]))) worst = i;
  if (values.empty()) return;
  INFO(what << ", worst at element " << worst << ": got " << values[worst] << ", expected " << expected[worst]);
  CHECK(std::fabs(values[worst] - expected[worst]) <= tolerance);
}

/// Values and gradients of one case in one dtype against PyTorch's float64.
void check_values(const OpCase& c, const nlohmann::json& reference, DType dtype) {
  INFO(to_string(dtype));
  std::vector<Tensor> in;
  for (const auto& spec : reference.at("inputs")) {
    const Tensor t = input(spec, in.size());
    in.push_back(is_floating(t.dtype()) ? cast(t, dtype).detach().requires_grad(true) : t);
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
  for (i64 i = 0; i < dy.numel(); ++i) dy.data<double>()[i] = std::cos(product(1.7, static_cast<double>(i)) + 0.3);
  y.backward(cast(dy, dtype));
  for (std::size_t k = 0; k < in.size(); ++k) {
    const auto& g = reference.at("gradients").at(k);
    if (!g.is_null())
      check_close("gradient of input " + std::to_string(k), in[k].grad(), g.get<std::vector<double>>(), 128);
  }
}

void check_op(const OpCase& c) {
  const auto found = references().find(c.name);
  INFO(c.name << " must stand in tests/reference/op_values.py");
  REQUIRE(found != references().end());
  const nlohmann::json& reference = found->second;
  check_values(c, reference, DType::f64);
  check_values(c, reference, DType::f32);
  if (reference.contains("gradients")) {
    std::vector<Tensor> in;
    for (const auto& spec : reference.at("inputs")) in.push_back(input(spec, in.size()));
    const GradCheck g = grad_check([&](In x) { return c.call(x); }, in);
    INFO(g.report);
    CHECK(g.ok);
  }
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
  // Public functions of a header start in the first column with their result: "inline Tensor gelu(const Tensor& x".
  int ops = 0;
  for (const auto& file : std::filesystem::directory_iterator(tests.parent_path().parent_path() / "include/ppma/ops")) {
    bool inside_detail = false;
    for (const std::string& line : lines_of(file.path())) {
      if (line.rfind("namespace detail", 0) == 0 || line.rfind("namespace kernels", 0) == 0) inside_detail = true;
      if (line.rfind("}  // namespace detail", 0) == 0 || line.rfind("}  // namespace kernels", 0) == 0)
        inside_detail = false;
      std::size_t begin = 0;
      for (const char* start : {"inline Tensor ", "inline Extreme "})
        if (line.rfind(start, 0) == 0) begin = std::string(start).size();
      const std::size_t end = line.find('(');
      if (begin == 0 || inside_detail || end == std::string::npos) continue;
      const std::string name = line.substr(begin, end - begin);
      // Not functions of a tensor; operators have one line together.
      if (name == "drop_path_factors" || name == "rotary_angle" || name.rfind("operator", 0) == 0) continue;
      INFO(name << " of " << file.path().filename().string() << " needs a line in tests/op_cases");
      const bool found =
          table.find("{\"" + name + "\",") != std::string::npos || table.find("{\"" + name + "/") != std::string::npos;
      CHECK(found);
      ++ops;
    }
  }
  CHECK(ops >= 50);
}
