#pragma once
// What fast_math.cpp compares with: plain loops in double, compiled without its flags.

#include <vector>

namespace fast_math {

using List = std::vector<double>;

List arguments();  // of the functions below: both tails, the middle, tiny numbers
List exp(const List& x);
List sigmoid(const List& x);
List tanh(const List& x);
List softplus(const List& x);
List relu(const List& x);

/// softmax(q k^T) v of one head: q, k, v (tokens, width).
List attention(const List& q, const List& k, const List& v, long tokens, long width);
/// The mean of rows after columns and columns after rows: q, k, v (side, side, width).
List criss_cross(const List& q, const List& k, const List& v, long side, long width);

}  // namespace fast_math
