// The library behind headers that define everyday words as macros (Apple's, Unreal's, Windows',
// X11's, Qt's, Arduino's, ncurses' ...): it compiles, works, and leaves every macro as it was. The
// system's headers come first, as in programs:
// they are not proof against most of these. So does what operators.cpp has in the global namespace.

#include <emmintrin.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "included/operators.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if __has_include(<nlohmann/json.hpp>)
#include <nlohmann/json.hpp>
#endif
#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#endif
#if __has_include(<Eigen/Core>)
#include <Eigen/Core>
#elif __has_include(<eigen3/Eigen/Core>)
#include <eigen3/Eigen/Core>
#endif

// Every name of core/names_begin.hpp, as the header that it is known from has it, or as something
// that fits nowhere.
#define check(x)
#define require(x)
#define verify(x)
#define ensure(x)
#define fail(x)
#define expect(x)
#define test(x)
#define assume(x)
#define near
#define far
#define small char
#define hyper __int64
#define interface struct
#define pascal __stdcall
#define cdecl
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define abs(x) ((x) > 0 ? (x) : -(x))
#define round(x) ((long)((x) + 0.5))
#define constrain(x, l, h)
#define radians(x)
#define degrees(x)
#define sq(x) ((x) * (x))
#define bit(b) (1UL << (b))
#define word !
#define swap(a, b)
#define sign(x)
#define clamp(x, l, h)
#define step(a, x)
#define mix(a, b)
#define lerp(a, b)
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define VOID void
#define ERROR !
#define DELETE !
#define STRICT !
#define IGNORE !
#define THIS !
#define PURE !
#define TRUE !
#define FALSE !
#define TEXT(x) L##x
#define PI !
#define LOG(x)
#define CHECK(x)
#define DEBUG(x)
#define INFO(x)
#define FATAL(x)
#define None 0L
#define Status int
#define Bool int
#define True 1
#define False 0
#define Success 0
#define Always 2
#define Complex !
#define Above !
#define Below !
#define Convex !
#define Yield()
#define Screen !
#define Display !
#define Font !
#define signals public
#define slots
#define emit
#define foreach(a, b) for (a : b)
#define forever for (;;)
#define error(x)
#define info(x)
#define warning(x)
#define debug(x)
#define trace(x)
#define loop(n)
#define repeat(n) for (;;)
#define var !
#define let !
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define str(x) #x
#define index(s, c) strchr(s, c)
#define box(w, v, h) wborder(w)
#define clear() wclear()
#define erase() werase()
#define move(y, x) wmove(y, x)
#define raw() noraw()
#define border(a)
#define scroll(w)
#define timeout(n)
#define refresh()
#define u8 !
#define u16 !
#define u32 !
#define u64 !
#define i8 !
#define i16 !
#define i32 !
#define i64 !
#define f32 !
#define f64 !
#define A !
#define B !
#define C !
#define D !
#define E !
#define F(s) (s)
#define G !
#define H !
#define I _Complex_I
#define J !
#define K !
#define L !
#define M !
#define N !
#define O !
#define P !
#define Q !
#define R !
#define S !
#define T !
#define U !
#define V !
#define W !
#define X !
#define Y !
#define Z !

#include <ppma/commands/ablate.hpp>
#include <ppma/commands/bench.hpp>
#include <ppma/commands/compare.hpp>
#include <ppma/commands/convert.hpp>
#include <ppma/commands/data_find.hpp>
#include <ppma/commands/dense_predict.hpp>
#include <ppma/commands/evaluate.hpp>
#include <ppma/commands/export.hpp>
#include <ppma/commands/info.hpp>
#include <ppma/commands/lr_find.hpp>
#include <ppma/commands/run_network.hpp>
#include <ppma/commands/score.hpp>
#include <ppma/commands/summarize.hpp>
#include <ppma/commands/sweep.hpp>
#include <ppma/commands/train.hpp>
#include <ppma/commands/visualize.hpp>
#include <ppma/data/voc_segmentation.hpp>
#include <ppma/dlpack.hpp>
#include <ppma/eigen.hpp>
#include <ppma/heads/mask_rcnn.hpp>
#include <ppma/heads/onnx.hpp>
#include <ppma/heads/onnx_detector.hpp>
#include <ppma/heads/segmentor.hpp>
#include <ppma/mdspan.hpp>
#include <ppma/mixers/all.hpp>
#include <ppma/networks/all.hpp>
#include <ppma/ops/best_boxes.hpp>
#include <ppma/ops/conv_resized.hpp>
#include <ppma/ops/resized_loss.hpp>
#include <ppma/ppma.hpp>
#include <ppma/train/tensorboard.hpp>
#include <ppma/vis/decay_history.hpp>
#include <ppma/vis/heat_map.hpp>
#include <ppma/vis/page.hpp>
#include <ppma/vis/receptive_field.hpp>
#include <ppma/vis/svg_file.hpp>

#ifndef check
#error "check is lost"
#endif
#ifndef require
#error "require is lost"
#endif
#ifndef verify
#error "verify is lost"
#endif
#ifndef ensure
#error "ensure is lost"
#endif
#ifndef fail
#error "fail is lost"
#endif
#ifndef expect
#error "expect is lost"
#endif
#ifndef test
#error "test is lost"
#endif
#ifndef assume
#error "assume is lost"
#endif
#ifndef near
#error "near is lost"
#endif
#ifndef far
#error "far is lost"
#endif
#ifndef small
#error "small is lost"
#endif
#ifndef hyper
#error "hyper is lost"
#endif
#ifndef interface
#error "interface is lost"
#endif
#ifndef pascal
#error "pascal is lost"
#endif
#ifndef cdecl
#error "cdecl is lost"
#endif
#ifndef min
#error "min is lost"
#endif
#ifndef max
#error "max is lost"
#endif
#ifndef abs
#error "abs is lost"
#endif
#ifndef round
#error "round is lost"
#endif
#ifndef constrain
#error "constrain is lost"
#endif
#ifndef radians
#error "radians is lost"
#endif
#ifndef degrees
#error "degrees is lost"
#endif
#ifndef sq
#error "sq is lost"
#endif
#ifndef bit
#error "bit is lost"
#endif
#ifndef word
#error "word is lost"
#endif
#ifndef swap
#error "swap is lost"
#endif
#ifndef sign
#error "sign is lost"
#endif
#ifndef clamp
#error "clamp is lost"
#endif
#ifndef step
#error "step is lost"
#endif
#ifndef mix
#error "mix is lost"
#endif
#ifndef lerp
#error "lerp is lost"
#endif
#ifndef IN
#error "IN is lost"
#endif
#ifndef OUT
#error "OUT is lost"
#endif
#ifndef OPTIONAL
#error "OPTIONAL is lost"
#endif
#ifndef CONST
#error "CONST is lost"
#endif
#ifndef VOID
#error "VOID is lost"
#endif
#ifndef ERROR
#error "ERROR is lost"
#endif
#ifndef DELETE
#error "DELETE is lost"
#endif
#ifndef STRICT
#error "STRICT is lost"
#endif
#ifndef IGNORE
#error "IGNORE is lost"
#endif
#ifndef THIS
#error "THIS is lost"
#endif
#ifndef PURE
#error "PURE is lost"
#endif
#ifndef TRUE
#error "TRUE is lost"
#endif
#ifndef FALSE
#error "FALSE is lost"
#endif
#ifndef TEXT
#error "TEXT is lost"
#endif
#ifndef PI
#error "PI is lost"
#endif
#ifndef LOG
#error "LOG is lost"
#endif
#ifndef CHECK
#error "CHECK is lost"
#endif
#ifndef DEBUG
#error "DEBUG is lost"
#endif
#ifndef INFO
#error "INFO is lost"
#endif
#ifndef FATAL
#error "FATAL is lost"
#endif
#ifndef None
#error "None is lost"
#endif
#ifndef Status
#error "Status is lost"
#endif
#ifndef Bool
#error "Bool is lost"
#endif
#ifndef True
#error "True is lost"
#endif
#ifndef False
#error "False is lost"
#endif
#ifndef Success
#error "Success is lost"
#endif
#ifndef Always
#error "Always is lost"
#endif
#ifndef Complex
#error "Complex is lost"
#endif
#ifndef Above
#error "Above is lost"
#endif
#ifndef Below
#error "Below is lost"
#endif
#ifndef Convex
#error "Convex is lost"
#endif
#ifndef Yield
#error "Yield is lost"
#endif
#ifndef Screen
#error "Screen is lost"
#endif
#ifndef Display
#error "Display is lost"
#endif
#ifndef Font
#error "Font is lost"
#endif
#ifndef signals
#error "signals is lost"
#endif
#ifndef slots
#error "slots is lost"
#endif
#ifndef emit
#error "emit is lost"
#endif
#ifndef foreach
#error "foreach is lost"
#endif
#ifndef forever
#error "forever is lost"
#endif
#ifndef error
#error "error is lost"
#endif
#ifndef info
#error "info is lost"
#endif
#ifndef warning
#error "warning is lost"
#endif
#ifndef debug
#error "debug is lost"
#endif
#ifndef trace
#error "trace is lost"
#endif
#ifndef loop
#error "loop is lost"
#endif
#ifndef repeat
#error "repeat is lost"
#endif
#ifndef var
#error "var is lost"
#endif
#ifndef let
#error "let is lost"
#endif
#ifndef likely
#error "likely is lost"
#endif
#ifndef unlikely
#error "unlikely is lost"
#endif
#ifndef str
#error "str is lost"
#endif
#ifndef index
#error "index is lost"
#endif
#ifndef box
#error "box is lost"
#endif
#ifndef clear
#error "clear is lost"
#endif
#ifndef erase
#error "erase is lost"
#endif
#ifndef move
#error "move is lost"
#endif
#ifndef raw
#error "raw is lost"
#endif
#ifndef border
#error "border is lost"
#endif
#ifndef scroll
#error "scroll is lost"
#endif
#ifndef timeout
#error "timeout is lost"
#endif
#ifndef refresh
#error "refresh is lost"
#endif
#ifndef u8
#error "u8 is lost"
#endif
#ifndef u16
#error "u16 is lost"
#endif
#ifndef u32
#error "u32 is lost"
#endif
#ifndef u64
#error "u64 is lost"
#endif
#ifndef i8
#error "i8 is lost"
#endif
#ifndef i16
#error "i16 is lost"
#endif
#ifndef i32
#error "i32 is lost"
#endif
#ifndef i64
#error "i64 is lost"
#endif
#ifndef f32
#error "f32 is lost"
#endif
#ifndef f64
#error "f64 is lost"
#endif
#ifndef A
#error "A is lost"
#endif
#ifndef B
#error "B is lost"
#endif
#ifndef C
#error "C is lost"
#endif
#ifndef D
#error "D is lost"
#endif
#ifndef E
#error "E is lost"
#endif
#ifndef F
#error "F is lost"
#endif
#ifndef G
#error "G is lost"
#endif
#ifndef H
#error "H is lost"
#endif
#ifndef I
#error "I is lost"
#endif
#ifndef J
#error "J is lost"
#endif
#ifndef K
#error "K is lost"
#endif
#ifndef L
#error "L is lost"
#endif
#ifndef M
#error "M is lost"
#endif
#ifndef N
#error "N is lost"
#endif
#ifndef O
#error "O is lost"
#endif
#ifndef P
#error "P is lost"
#endif
#ifndef Q
#error "Q is lost"
#endif
#ifndef R
#error "R is lost"
#endif
#ifndef S
#error "S is lost"
#endif
#ifndef T
#error "T is lost"
#endif
#ifndef U
#error "U is lost"
#endif
#ifndef V
#error "V is lost"
#endif
#ifndef W
#error "W is lost"
#endif
#ifndef X
#error "X is lost"
#endif
#ifndef Y
#error "Y is lost"
#endif
#ifndef Z
#error "Z is lost"
#endif

static_assert(max(2, 3) == 3 && sq(3) == 9 && None == 0 && True, "the macros mean what they meant");

int main() {
  const ppma::Tensor x = ppma::Tensor::ones({2, 3});
  const double total = ppma::sum(ppma::softmax(x) * 2.0 + x).item();
  return total > 9.999 && total < 10.001 ? 0 : 1;
}
