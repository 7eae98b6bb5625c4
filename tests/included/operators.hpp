#pragma once
// What a program has in the global namespace before it includes the library: names that the library
// has too, and operators for everything.

struct Vec3 {
  double x = 0, y = 0, z = 0;
};
template <class T>
struct Money {
  T amount;
};
template <class T>
Money<T> operator+(Money<T> a, Money<T> b) {
  return {a.amount + b.amount};
}
template <class T>
Money<T> operator*(double s, Money<T> a) {
  return {static_cast<T>(s * a.amount)};
}
inline Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec3 operator*(double s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
inline Vec3 operator-(Vec3 a) { return -1.0 * a; }
inline double max(Vec3 a) { return a.x > a.y ? a.x : a.y; }
inline int max(int a, int b) { return a > b ? a : b; }
inline double exp(Vec3 a) { return a.x; }
inline int text(int x) { return x; }
inline int load(const char*) { return 1; }
inline int store(int) { return 2; }
inline int check(int x) { return x; }
inline int row_map(int x) { return x; }
